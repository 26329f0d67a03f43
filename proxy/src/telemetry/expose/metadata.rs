//! What is said about a family before its samples: name, type, unit and help, in either format. Written by `body`
//! before a family's first line. It knows the rules of the formats and no family in particular.

use crate::telemetry::Format;

/// A family as the table names it.
#[derive(Clone, Copy)]
pub(super) struct Metadata {
    /// The name in the text format, which is also what a filter sees and what samples begin with.
    pub(super) name: &'static str,
    /// The type in the text format.
    pub(super) word: &'static str,
    pub(super) help: &'static str,
}

/// Units that are told where a name ends in them.
const UNITS: [&str; 3] = ["seconds", "bytes", "ms"];

impl Metadata {
    /// Appends the lines, of which none is empty.
    pub(super) fn write(self, format: Format, out: &mut Vec<u8>) {
        match format {
            Format::Text => {
                line(out, ["HELP ", self.name], self.help, &['\\', '\n']);
                line(out, ["TYPE ", self.name], self.word, &[]);
            }
            Format::OpenMetrics => {
                let (name, word) = self.in_open_metrics();
                line(out, ["TYPE ", name], word, &[]);
                if let Some(unit) = unit(name) {
                    line(out, ["UNIT ", name], unit, &[]);
                }
                line(out, ["HELP ", name], self.help, &['\\', '\n', '"']);
            }
        }
    }

    /// Name and type in OpenMetrics (1.0, "Counter", "Info" and "Unknown"): the samples of a counter are its family's
    /// name and `_total`, those of an info its name and `_info`. What is a counter under another name is of unknown
    /// type: its samples keep their name.
    fn in_open_metrics(self) -> (&'static str, &'static str) {
        match (self.word, self.name) {
            ("counter", name) => name
                .strip_suffix("_total")
                .map_or((name, "unknown"), |family| (family, "counter")),
            ("gauge", name) => name
                .strip_suffix("_info")
                .map_or((name, "gauge"), |family| (family, "info")),
            (word, name) => (name, word),
        }
    }
}

/// The unit, which has to be the end of the family's name.
fn unit(family: &str) -> Option<&'static str> {
    let (_, end) = family.rsplit_once('_')?;
    UNITS.into_iter().find(|unit| *unit == end)
}

/// `# `, the two words, a space and the text, in which the characters of `escaped` follow a backslash.
fn line(out: &mut Vec<u8>, [word, name]: [&str; 2], text: &str, escaped: &[char]) {
    for part in ["# ", word, name, " "] {
        out.extend_from_slice(part.as_bytes());
    }
    for c in text.chars() {
        if escaped.contains(&c) {
            out.push(b'\\');
        }
        let c = if c == '\n' { 'n' } else { c };
        out.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
    }
    out.push(b'\n');
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::telemetry::family::Family;

    fn written(name: &'static str, word: &'static str, format: Format) -> String {
        let help = "A \"quoted\" text,\nwith C:\\.";
        let mut out = Vec::new();
        Metadata { name, word, help }.write(format, &mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn the_text_format_tells_the_name_as_it_is() {
        assert_eq!(
            written("request_total", "counter", Format::Text),
            "# HELP request_total A \"quoted\" text,\\nwith C:\\\\.\n# TYPE request_total counter\n"
        );
    }

    #[test]
    fn open_metrics_names_the_family_by_its_type() {
        let help = "A \\\"quoted\\\" text,\\nwith C:\\\\.";
        for (name, word, expected) in [
            (
                "request_total",
                "counter",
                "# TYPE request counter\n# HELP request ",
            ),
            (
                "tcp_read_bytes_total",
                "counter",
                "# TYPE tcp_read_bytes counter\n# UNIT tcp_read_bytes bytes\n# HELP tcp_read_bytes ",
            ),
            (
                "identity_cert_refresh_count",
                "counter",
                "# TYPE identity_cert_refresh_count unknown\n# HELP identity_cert_refresh_count ",
            ),
            (
                "response_latency_ms",
                "histogram",
                "# TYPE response_latency_ms histogram\n# UNIT response_latency_ms ms\n# HELP response_latency_ms ",
            ),
            (
                "proxy_build_info",
                "gauge",
                "# TYPE proxy_build info\n# HELP proxy_build ",
            ),
            (
                "process_threads",
                "gauge",
                "# TYPE process_threads gauge\n# HELP process_threads ",
            ),
        ] {
            let expected = format!("{expected}{help}\n");
            assert_eq!(written(name, word, Format::OpenMetrics), expected);
        }
    }

    /// OpenMetrics 1.0: no family may have a name that a sample of another could have.
    #[test]
    fn no_family_of_the_table_clashes_with_another() {
        let mut taken = BTreeSet::new();
        for family in Family::ALL {
            let metadata = Metadata {
                name: family.name(),
                word: family.value().word(),
                help: family.help(),
            };
            let (name, word) = metadata.in_open_metrics();
            let suffixes: &[&str] = match word {
                "counter" => &["", "_total", "_created"],
                "histogram" => &["", "_bucket", "_count", "_sum", "_created"],
                _ => &[""],
            };
            for suffix in suffixes {
                assert!(taken.insert(format!("{name}{suffix}")), "{name}{suffix}");
            }
        }
    }
}
