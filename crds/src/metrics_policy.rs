//! What a proxy records of its traffic: a YAML document that leaves out labels and families and changes buckets.
//! Read by the proxy from its policy file. Every problem comes with its line and column. It reads text, not files, and
//! the names that a policy may use are told to it.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use crate::node::Node;
use crate::universal::{UniversalError, read_one};
use crate::violation::Violation;

/// Most buckets of a histogram, the one without bound not counted.
pub const MOST_BUCKETS: usize = 50;

/// A policy. The default records everything as documented.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MetricsPolicy {
    /// Labels that no family has; one that ends in `*` stands for all that begin so.
    pub drop_labels: BTreeSet<String>,
    /// What is different in single families, by name.
    pub families: BTreeMap<String, FamilyPolicy>,
}

/// What is different in one family.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FamilyPolicy {
    /// Whether it is left out.
    pub drop: bool,
    /// Labels that it does not have.
    pub drop_labels: BTreeSet<String>,
    /// Upper bounds of its buckets in milliseconds, ascending; `None` leaves them as they are.
    pub buckets: Option<Vec<u32>>,
    /// The most series of it; `None` is the proxy's own limit.
    pub max_series: Option<u32>,
}

/// The names that a policy may use.
#[derive(Clone, Copy, Debug)]
pub struct Vocabulary<'a> {
    /// Each family, and whether it is a histogram.
    pub families: &'a [(&'a str, bool)],
    /// Families that can be left out whole, or not.
    pub whole: &'a [&'a str],
    /// Every label; one that ends in `*` stands for all that begin so.
    pub labels: &'a [&'a str],
}

/// Reads a policy; an empty text is the default.
///
/// # Errors
/// Everything that is wrong with it.
pub fn parse(text: &str, vocabulary: Vocabulary<'_>) -> Result<MetricsPolicy, Vec<UniversalError>> {
    read_one(text, |value| {
        let mut reader = Reader {
            vocabulary,
            violations: Vec::new(),
        };
        let policy = reader.policy(&Node::root(value));
        if reader.violations.is_empty() {
            Ok(policy)
        } else {
            Err(reader.violations)
        }
    })
}

/// Reads field by field and keeps what is wrong.
struct Reader<'v> {
    vocabulary: Vocabulary<'v>,
    violations: Vec<Violation>,
}

impl Reader<'_> {
    fn policy(&mut self, root: &Node<'_>) -> MetricsPolicy {
        self.keys(root, &["dropLabels", "families"]);
        let drop_labels = self.labels(&root.get("dropLabels"));
        let families = root.get("families");
        let mut policy = MetricsPolicy {
            drop_labels,
            ..MetricsPolicy::default()
        };
        for (name, value) in self.entries(&families) {
            let node = Node::at(value, families.path_of(name));
            if let Some(family) = self.named(name, &node) {
                policy.families.insert(name.clone(), family);
            }
        }
        policy
    }

    /// The policy of a family, which has to be one.
    fn named(&mut self, name: &str, node: &Node<'_>) -> Option<FamilyPolicy> {
        let Vocabulary {
            families, whole, ..
        } = self.vocabulary;
        if let Some((_, is_histogram)) = families.iter().find(|(f, _)| *f == name) {
            return Some(self.family(node, *is_histogram));
        }
        if whole.contains(&name) {
            self.keys(node, &["drop"]);
            return Some(FamilyPolicy {
                drop: self.is_dropped(node),
                ..FamilyPolicy::default()
            });
        }
        let known = families.iter().map(|(name, _)| *name);
        let known = listed(known.chain(whole.iter().copied()));
        let message = format!("is no family of the proxy; those are {known}");
        self.violations.push(node.violation(message));
        None
    }

    fn is_dropped(&mut self, node: &Node<'_>) -> bool {
        let drop = node.get("drop").flag();
        self.right(drop).flatten().unwrap_or(false)
    }

    fn family(&mut self, node: &Node<'_>, is_histogram: bool) -> FamilyPolicy {
        self.keys(node, &["drop", "dropLabels", "buckets", "maxSeries"]);
        let buckets = node.get("buckets");
        if !is_histogram && !buckets.is_absent() {
            self.violations
                .push(buckets.violation("only a histogram has buckets; this family is none"));
        }
        let max_series = node.get("maxSeries").number();
        FamilyPolicy {
            drop: self.is_dropped(node),
            drop_labels: self.labels(&node.get("dropLabels")),
            buckets: (!buckets.is_absent()).then(|| self.buckets(&buckets)),
            max_series: self.right(max_series).flatten(),
        }
    }

    /// Refuses keys that are none of `known`.
    fn keys(&mut self, node: &Node<'_>, known: &[&str]) {
        for (key, value) in self.entries(node) {
            if !known.contains(&key.as_str()) {
                let message = format!(
                    "is unknown here; there are {}",
                    listed(known.iter().copied())
                );
                self.violations
                    .push(Node::at(value, node.path_of(key)).violation(message));
            }
        }
    }

    fn labels(&mut self, node: &Node<'_>) -> BTreeSet<String> {
        let mut labels = BTreeSet::new();
        for item in self.items(node) {
            let text = item.text_or_empty();
            let Some(label) = self.right(text) else {
                continue;
            };
            let begins = label.strip_suffix('*').unwrap_or(label);
            let knows = |known: &&&str| match known.strip_suffix('*') {
                Some(prefix) => label.starts_with(prefix) && !begins.contains('*'),
                None => label == **known,
            };
            if self.vocabulary.labels.iter().any(|known| knows(&known)) {
                labels.insert(label.to_owned());
            } else {
                let known = listed(self.vocabulary.labels.iter().copied());
                let message =
                    format!("{label:?} is no label that can be left out; those are {known}");
                self.violations.push(item.violation(message));
            }
        }
        labels
    }

    fn buckets(&mut self, node: &Node<'_>) -> Vec<u32> {
        let items = self.items(node);
        if items.is_empty() || items.len() > MOST_BUCKETS {
            let message = format!("has to be a list of 1 to {MOST_BUCKETS} bounds in milliseconds");
            self.violations.push(node.violation(message));
        }
        let mut bounds: Vec<u32> = Vec::new();
        for item in items {
            let number = item.number();
            let Some(bound) = self.right(number) else {
                continue;
            };
            match (bound.unwrap_or(0), bounds.last()) {
                (0, _) => self
                    .violations
                    .push(item.violation("has to be a whole number of milliseconds above 0")),
                (bound, Some(last)) if bound <= *last => {
                    let message = format!("has to be above the bound before it, {last}");
                    self.violations.push(item.violation(message));
                }
                (bound, _) => bounds.push(bound),
            }
        }
        bounds
    }

    fn entries<'a>(&mut self, node: &Node<'a>) -> Vec<(&'a String, &'a Value)> {
        let object = node.object().map(|_| node.value());
        match self.right(object) {
            Some(Value::Object(entries)) => entries.iter().collect(),
            _ => Vec::new(),
        }
    }

    fn items<'a>(&mut self, node: &Node<'a>) -> Vec<Node<'a>> {
        let items = node.items();
        self.right(items).unwrap_or_default()
    }

    fn right<T>(&mut self, read: Result<T, Violation>) -> Option<T> {
        read.map_err(|violation| {
            if !self.violations.contains(&violation) {
                self.violations.push(violation);
            }
        })
        .ok()
    }
}

fn listed<'a>(names: impl Iterator<Item = &'a str>) -> String {
    names.collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    const VOCABULARY: Vocabulary<'_> = Vocabulary {
        families: &[("request_total", false), ("response_latency_ms", true)],
        whole: &["process_threads"],
        labels: &["authority", "dst_*"],
    };

    fn problems(text: &str) -> Vec<String> {
        let errors = parse(text, VOCABULARY).unwrap_err();
        errors.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn everything_there_is_to_say() {
        let text = "
dropLabels: [dst_pod, 'dst_*']
families:
  request_total: {drop: true}
  response_latency_ms:
    dropLabels: [authority]
    buckets: [10, 100, 1000]
    maxSeries: 500
  process_threads: {drop: true}
";
        let policy = parse(text, VOCABULARY).unwrap();
        let dropped = ["dst_pod", "dst_*"].map(str::to_owned);
        assert_eq!(policy.drop_labels, dropped.into());
        for family in ["request_total", "process_threads"] {
            assert!(policy.families[family].drop, "{family}");
        }
        let expected = FamilyPolicy {
            drop: false,
            drop_labels: ["authority".to_owned()].into(),
            buckets: Some(vec![10, 100, 1000]),
            max_series: Some(500),
        };
        assert_eq!(policy.families["response_latency_ms"], expected);
    }

    #[test]
    fn nothing_is_the_default() {
        for text in ["", "\n# nothing\n", "{}", "families: {request_total: {}}\n"] {
            let policy = parse(text, VOCABULARY).unwrap();
            assert!(policy.drop_labels.is_empty());
            let families = policy.families.values();
            assert!(families.into_iter().all(|f| *f == FamilyPolicy::default()));
        }
    }

    #[test]
    fn families_are_known_by_their_names_and_what_of_them_can_change() {
        let unknown = problems("families:\n  requests: {}");
        assert_eq!(
            unknown,
            [
                "line 2 column 13: families.requests: is no family of the proxy; those are request_total, \
                 response_latency_ms, process_threads"
            ]
        );
        let fixed = problems("families: {process_threads: {dropLabels: [authority]}}");
        let expected = "families.process_threads.dropLabels: is unknown here; there are drop";
        assert!(fixed[0].contains(expected), "{fixed:?}");
    }

    #[test]
    fn problems_name_the_field_and_its_place_and_what_would_be_right() {
        for (text, expected) in [
            (
                "dropLabel: [a]",
                "line 1 column 12: dropLabel: is unknown here; there are dropLabels, families",
            ),
            (
                "dropLabels: [le]",
                "dropLabels[0]: \"le\" is no label that can be left out; those are authority, dst_*",
            ),
            (
                "dropLabels: ['dst_*_hash']",
                "dropLabels[0]: \"dst_*_hash\" is no label that can be left out",
            ),
            (
                "dropLabels: ['auth*']",
                "dropLabels[0]: \"auth*\" is no label",
            ),
            ("dropLabels: authority", "dropLabels: expected a list"),
            (
                "families: {request_total: {drop: 1}}",
                "families.request_total.drop: expected true or false",
            ),
            (
                "families: {request_total: {buckets: [1]}}",
                "families.request_total.buckets: only a histogram",
            ),
            (
                "families: {response_latency_ms: {buckets: []}}",
                "buckets: has to be a list of 1 to 50",
            ),
            (
                "families: {response_latency_ms: {buckets: [1, 1]}}",
                "buckets[1]: has to be above the bound before it, 1",
            ),
            (
                "families: {response_latency_ms: {buckets: [0]}}",
                "buckets[0]: has to be a whole number",
            ),
            (
                "families: {response_latency_ms: {buckets: [0.5]}}",
                "buckets[0]: expected a whole number",
            ),
            (
                "families: {response_latency_ms: {maxSeries: -1}}",
                "maxSeries: expected a whole number",
            ),
            ("families: [", "not valid YAML"),
            ("a: 1\n---\nb: 2", "one document is expected"),
        ] {
            let problems = problems(text);
            assert!(problems[0].contains(expected), "{text}: {problems:?}");
        }
        let both = problems("dropLabels: [x]\nfamilies: {request_total: {drop: maybe, x: 1}}");
        assert_eq!(both.len(), 3, "{both:?}");
    }
}
