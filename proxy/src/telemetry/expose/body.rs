//! Lines of either format, gathered in a buffer that is sent when it is full. Knows the selection and the rules: a family
//! that is left out is never begun, one without lines prints no head. It reads no cell and holds no lock.

use std::fmt::Display;
use std::io::{self, Write};

use super::metadata::Metadata;
use crate::telemetry::bounds::Bounds;
use crate::telemetry::cells::Reading;
use crate::telemetry::rules::Rules;
use crate::telemetry::{Format, Selection};

/// The buffer is sent when it holds so many bytes.
const FULL: usize = 16 * 1024;

/// A body being written.
pub(super) struct Body<'a> {
    selection: &'a Selection,
    rules: &'a Rules,
    out: &'a mut dyn Write,
    buffer: Vec<u8>,
    family: Metadata,
    /// Whether the family's metadata is written, which comes before its first line.
    told: bool,
}

impl<'a> Body<'a> {
    pub(super) fn new(selection: &'a Selection, rules: &'a Rules, out: &'a mut dyn Write) -> Self {
        Self {
            selection,
            rules,
            out,
            buffer: Vec::with_capacity(FULL * 2),
            family: Metadata {
                name: "",
                word: "",
                help: "",
            },
            told: false,
        }
    }

    /// Begins a family; false if it is not selected, or a policy leaves it out.
    pub(super) fn begin(
        &mut self,
        name: &'static str,
        word: &'static str,
        help: &'static str,
    ) -> bool {
        self.family = Metadata { name, word, help };
        self.told = false;
        let mut filters = self.selection.filters.iter();
        !self.rules.leaves_out(name) && filters.all(|filter| filter.is_match(name))
    }

    /// The lines of one series, unless it never changed and those are left out. `labels` are the two parts of its
    /// labels, of which the second may be empty.
    pub(super) fn series(&mut self, labels: [&str; 2], reading: &Reading, bounds: &Bounds) {
        if self.selection.used_only && !reading.changed() {
            return;
        }
        self.head();
        match reading {
            Reading::Counter(n) => self.integer("", labels, *n),
            Reading::Gauge { ups, downs } => self.integer("", labels, ups.saturating_sub(*downs)),
            Reading::Histogram { buckets, sum } => {
                self.histogram(labels, bounds.les(self.selection.format), (buckets, *sum));
            }
        }
    }

    /// One line of a family of the proxy's own, without labels if they are empty.
    pub(super) fn sample(&mut self, labels: &str, value: impl Display) {
        self.head();
        self.push(self.family.name);
        if !labels.is_empty() {
            self.push("{");
            self.push(labels);
            self.push("}");
        }
        writeln!(self.buffer, " {value}").expect("a Vec takes any bytes");
    }

    /// As [`sample`](Self::sample), for a count that starts at 0.
    pub(super) fn known_sample(&mut self, labels: &str, value: u64) {
        if value > 0 || !self.selection.used_only {
            self.sample(labels, value);
        }
    }

    /// Sends the buffer if it is full.
    pub(super) fn flush_full(&mut self) -> io::Result<()> {
        if self.buffer.len() >= FULL {
            self.out.write_all(&self.buffer)?;
            self.buffer.clear();
        }
        Ok(())
    }

    /// Sends the rest, and the end where the format has one.
    pub(super) fn finish(mut self) -> io::Result<()> {
        if self.selection.format == Format::OpenMetrics {
            self.push("# EOF\n");
        }
        self.out.write_all(&self.buffer)?;
        self.out.flush()
    }

    fn head(&mut self) {
        if !self.told {
            self.told = true;
            self.family.write(self.selection.format, &mut self.buffer);
        }
    }

    fn push(&mut self, text: &str) {
        self.buffer.extend_from_slice(text.as_bytes());
    }

    fn number(&mut self, n: u64) {
        let mut digits = itoa::Buffer::new();
        self.push(digits.format(n));
    }

    /// Name and labels up to the closing brace; true if there were labels.
    fn open(&mut self, name_suffix: &str, [labels, suffix]: [&str; 2]) -> bool {
        self.push(self.family.name);
        self.push(name_suffix);
        self.push("{");
        self.push(labels);
        if !labels.is_empty() && !suffix.is_empty() {
            self.push(",");
        }
        self.push(suffix);
        !(labels.is_empty() && suffix.is_empty())
    }

    fn integer(&mut self, name_suffix: &str, labels: [&str; 2], n: u64) {
        self.open(name_suffix, labels);
        self.push("} ");
        self.number(n);
        self.push("\n");
    }

    /// The buckets, cumulative; `_count` is the last of them, so that both agree in every exposition.
    fn histogram(&mut self, labels: [&str; 2], les: &[Box<str>], (buckets, sum): (&[u64], u64)) {
        let start = self.buffer.len();
        if self.open("_bucket", labels) {
            self.push(",");
        }
        let common = start..self.buffer.len();
        let mut total = 0;
        for (at, (le, n)) in les.iter().zip(buckets).enumerate() {
            if at > 0 {
                self.buffer.extend_from_within(common.clone());
            }
            total += n;
            self.push(le);
            self.number(total);
            self.push("\n");
        }
        self.open("_sum", labels);
        self.push("} ");
        self.milliseconds(sum);
        self.integer("_count", labels, total);
    }

    /// Microseconds as milliseconds, with as many decimals as it takes.
    fn milliseconds(&mut self, micros: u64) {
        self.number(micros / 1_000);
        let rest = micros % 1_000;
        if rest > 0 {
            let decimals = format!(".{rest:03}");
            self.push(decimals.trim_end_matches('0'));
        }
        self.push("\n");
    }
}

#[cfg(test)]
mod tests {
    use weir_crds::metrics_policy::MetricsPolicy;

    use super::*;
    use crate::telemetry::known::Authorities;

    #[test]
    fn sums_keep_their_microseconds() {
        for (micros, text) in [(0, "0"), (7, "0.007"), (1_000, "1"), (12_340, "12.34")] {
            let selection = Selection::default();
            let mut out = Vec::new();
            let policy = MetricsPolicy::default();
            let rules = Rules::new(0, &policy, Authorities::default(), u64::MAX);
            let mut body = Body::new(&selection, &rules, &mut out);
            body.milliseconds(micros);
            body.finish().unwrap();
            assert_eq!(out, format!("{text}\n").as_bytes());
        }
    }
}
