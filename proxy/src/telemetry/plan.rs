//! What a policy would save: applied to the text of an exposition, family by family. Called by `weir-proxy plan`. A
//! pure function: it asks no proxy and changes nothing.

use std::collections::{BTreeMap, HashMap, HashSet};

use weir_crds::metrics_policy::MetricsPolicy;

use super::Format;
use super::family::{Family, Value};
use super::known::Authorities;
use super::render;
use super::rules::{Grouping, Rules};

/// What is not a family of traffic: a policy leaves it out or does not.
const OTHERS: &str = "(the proxy's own)";

/// What a policy would save.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// Each family that the exposition has, in the order of printing; the proxy's own as one, at the end.
    pub families: Vec<(&'static str, Saving)>,
}

/// Of one family, or of all.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Saving {
    /// As it is.
    pub before: Size,
    /// As it would be.
    pub after: Size,
}

/// How much there is to scrape and to keep.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Size {
    /// Time series, as a Prometheus counts them: one for each line.
    pub series: usize,
    /// Bytes of the exposition, uncompressed, without the comments.
    pub bytes: usize,
}

/// Why a text is no exposition.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "line {line}: expected `name{{labels}} value`, found {text:?}; give what /metrics answers, as text"
)]
pub struct PlanError {
    /// Counted from 1.
    pub line: usize,
    /// Its beginning.
    pub text: String,
}

impl Size {
    fn add(&mut self, bytes: usize) {
        self.series += 1;
        self.bytes += bytes;
    }
}

impl Plan {
    /// All families together.
    pub fn total(&self) -> Saving {
        let mut total = Saving::default();
        for (_, saving) in &self.families {
            for (to, from) in [
                (&mut total.before, saving.before),
                (&mut total.after, saving.after),
            ] {
                to.series += from.series;
                to.bytes += from.bytes;
            }
        }
        total
    }
}

/// Applies a policy to an exposition, in the text format or in OpenMetrics. What it was recorded under is taken for
/// everything there is: what another policy leaves out already does not come back here. What `maxSeries` would refuse is not
/// in it: that depends on which series come first.
///
/// # Errors
/// A line that is no sample.
pub fn plan(policy: &MetricsPolicy, exposition: &str) -> Result<Plan, PlanError> {
    let rules = Rules::new(0, policy, Authorities::default(), u64::MAX);
    let mut traffic: BTreeMap<usize, Planned> = BTreeMap::new();
    let mut others = Saving::default();
    for (at, line) in exposition.lines().enumerate() {
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let sample = Sample::parse(line).ok_or_else(|| PlanError {
            line: at + 1,
            text: line.chars().take(60).collect(),
        })?;
        match sample.family() {
            Some((family, suffix)) => {
                let planned = traffic.entry(family as usize).or_default();
                planned.add(&sample, (family, suffix), &rules);
            }
            None => {
                others.before.add(line.len() + 1);
                if !rules.leaves_out(sample.name) {
                    others.after.add(line.len() + 1);
                }
            }
        }
    }
    let traffic = traffic.into_iter().map(|(at, planned)| {
        let family = Family::ALL[at];
        (family.name(), planned.finish(family, &rules))
    });
    let mut families: Vec<_> = traffic.collect();
    if others.before.series > 0 {
        families.push((OTHERS, others));
    }
    Ok(Plan { families })
}

/// A line taken apart.
struct Sample<'a> {
    name: &'a str,
    labels: &'a str,
    value: &'a str,
}

impl<'a> Sample<'a> {
    fn parse(line: &'a str) -> Option<Self> {
        let (series, value) = match line.rfind("} ") {
            Some(end) => (&line[..end], &line[end + 2..]),
            None => line.split_once(' ')?,
        };
        let (name, labels) = series.split_once('{').unwrap_or((series, ""));
        let named = name.starts_with(|c: char| c.is_ascii_alphabetic() || "_:".contains(c));
        let number = value.split(' ').next()?.parse::<f64>().is_ok();
        (named && number).then_some(Self {
            name,
            labels,
            value,
        })
    }

    /// The family of traffic it is of, and what its name adds to that of the family.
    fn family(&self) -> Option<(Family, &'a str)> {
        Family::ALL.iter().find_map(|family| {
            let suffix = self.name.strip_prefix(family.name())?;
            let fits = match family.value() {
                Value::Histogram => ["_bucket", "_sum", "_count"].contains(&suffix),
                Value::Counter | Value::Gauge => suffix.is_empty(),
            };
            fits.then_some((*family, suffix))
        })
    }
}

/// A family as it is, and the series that it would have.
#[derive(Default)]
struct Planned {
    before: Size,
    /// Series without value, to the length of the longest value.
    after: HashMap<String, usize>,
    /// The label sets of a histogram, to the length of the longest value.
    histograms: HashMap<String, usize>,
    /// Bounds as they are.
    bounds: HashSet<String>,
}

impl Planned {
    fn add(&mut self, sample: &Sample<'_>, (family, suffix): (Family, &str), rules: &Rules) {
        let line = sample.name.len() + sample.labels.len() + sample.value.len();
        let braces = if sample.labels.is_empty() { 0 } else { 2 };
        self.before.add(line + braces + " \n".len());
        let Some(at) = rules.grouping(family) else {
            return;
        };
        let grouping = &rules.groupings(family.kind())[at];
        if suffix == "_bucket" {
            self.add_bucket(sample, grouping);
        } else {
            let labels = render::without(sample.labels, |label| grouping.drops(label));
            keep_longest(
                &mut self.after,
                format!("{}{{{labels}}}", sample.name),
                sample,
            );
        }
    }

    fn add_bucket(&mut self, sample: &Sample<'_>, grouping: &Grouping) {
        let le = render::pairs(sample.labels).find(|(key, _)| *key == "le");
        self.bounds.extend(le.map(|(_, pair)| pair.to_owned()));
        let labels = render::without(sample.labels, |l| l == "le" || grouping.drops(l));
        keep_longest(&mut self.histograms, labels, sample);
    }

    fn finish(self, family: Family, rules: &Rules) -> Saving {
        let mut after = Size::default();
        for (series, value) in &self.after {
            after.add(series.len() + value + " \n".len());
        }
        let bounds: Vec<usize> = if rules.changes_bounds(family) {
            let bounds = rules.bounds(family).les(Format::Text).iter();
            bounds.map(|le| le.trim_end_matches("} ").len()).collect()
        } else {
            self.bounds.iter().map(String::len).collect()
        };
        for (labels, value) in &self.histograms {
            let comma = usize::from(!labels.is_empty());
            let name = family.name().len() + "_bucket{} \n".len();
            for le in &bounds {
                after.add(name + labels.len() + comma + le + value);
            }
        }
        Saving {
            before: self.before,
            after,
        }
    }
}

fn keep_longest(series: &mut HashMap<String, usize>, key: String, sample: &Sample<'_>) {
    let longest = series.entry(key).or_default();
    *longest = (*longest).max(sample.value.len());
}

#[cfg(test)]
mod tests {
    use super::super::policy;
    use super::*;

    const EXPOSITION: &str = "\
# HELP request_total Requests.
# TYPE request_total counter
request_total{direction=\"inbound\",authority=\"a\"} 1
request_total{direction=\"inbound\",authority=\"b} 9\"} 20
request_total{direction=\"outbound\",authority=\"a\"} 3
response_latency_ms_bucket{authority=\"a\",le=\"1\"} 0
response_latency_ms_bucket{authority=\"a\",le=\"2\"} 1
response_latency_ms_bucket{authority=\"a\",le=\"+Inf\"} 1
response_latency_ms_sum{authority=\"a\"} 1.5
response_latency_ms_count{authority=\"a\"} 1
process_threads 3
";

    fn saved(text: &str) -> Plan {
        plan(&policy(text).unwrap(), EXPOSITION).unwrap()
    }

    #[test]
    fn a_policy_that_changes_nothing_saves_nothing() {
        let plan = saved("");
        let samples = EXPOSITION.lines().filter(|line| !line.starts_with('#'));
        let bytes = samples.clone().map(|line| line.len() + 1).sum::<usize>();
        let whole = Size {
            series: samples.count(),
            bytes,
        };
        assert_eq!(plan.total().before, whole);
        assert_eq!(plan.total().after, whole);
        let names: Vec<_> = plan.families.iter().map(|(name, _)| *name).collect();
        assert_eq!(names, ["request_total", "response_latency_ms", OTHERS]);
    }

    #[test]
    fn series_that_lose_what_told_them_apart_become_one() {
        let (name, requests) = saved("dropLabels: [authority]").families[0];
        assert_eq!(
            (name, requests.before.series, requests.after.series),
            ("request_total", 3, 2)
        );
        let expected =
            "request_total{direction=\"inbound\"} 20\nrequest_total{direction=\"outbound\"} 3\n";
        assert_eq!(requests.after.bytes, expected.len());
    }

    #[test]
    fn families_and_buckets_that_are_left_out_are_gone() {
        let plan =
            saved("families: {request_total: {drop: true}, response_latency_ms: {buckets: [100]}}");
        assert_eq!(plan.families[0].1.after, Size::default());
        assert_eq!(plan.families[1].1.after.series, 2 + 2);
        assert_eq!(plan.families[2].1.after, plan.families[2].1.before);
        let own = saved("families: {process_threads: {drop: true}}").families[2].1;
        assert_eq!((own.before.series, own.after), (1, Size::default()));
    }

    #[test]
    fn what_is_no_exposition_is_told_with_its_line() {
        let error = plan(&MetricsPolicy::default(), "a 1\n<html>\n").unwrap_err();
        assert!(error.to_string().starts_with("line 2: "), "{error}");
    }
}
