//! Whose an annotation is that injection obeys, for what is said about it: the pod's or its namespace's, where it has to be
//! mended. Asked by `inject`, also after the pod has taken annotations over. It must not know what they mean.

use weir_crds::{Violation, names};

use crate::{namespace::Namespace, pod::Pod};

/// A pod and its namespace.
#[derive(Debug, Clone, Copy)]
pub(super) struct Origin<'a> {
    pub(super) pod: &'a Pod,
    pub(super) namespace: &'a Namespace,
}

impl Origin<'_> {
    /// The annotation as the field of a message.
    pub(super) fn field(self, key: &str) -> String {
        match self.is_inherited(key) {
            true => format!("annotation {}", self.named(key)),
            false => key.to_owned(),
        }
    }

    /// The annotation within a sentence.
    pub(super) fn named(self, key: &str) -> String {
        match self.is_inherited(key) {
            true => format!("{key} of the namespace {:?}", self.namespace.name),
            false => key.to_owned(),
        }
    }

    /// What is wrong with annotations, with their places.
    pub(super) fn place(self, violations: Vec<Violation>) -> Vec<Violation> {
        let placed = violations.into_iter().map(|mut violation| {
            violation.field = self.field(&violation.field);
            violation
        });
        placed.collect()
    }

    /// Whether the namespace says it. A pod that says the same may have it from there, or would have it again.
    fn is_inherited(self, key: &str) -> bool {
        match (self.pod.annotation(key), self.namespace.annotation(key)) {
            (Some(own), Some(inherited)) => own == inherited,
            (None, Some(_)) => true,
            (Some(_), None) => false,
            (None, None) => self.is_of_inherited(key),
        }
    }

    /// What is missing of an application is the namespace's to say where all else of it is.
    fn is_of_inherited(self, key: &str) -> bool {
        let application = key.rsplit_once('-').map(|(application, _)| application);
        let Some(application) = application.filter(|_| is_aggregate(key)) else {
            return false;
        };
        let of_it = |other: &str| {
            let same = other.rsplit_once('-');
            is_aggregate(other) && same.is_some_and(|(same, _)| same == application)
        };
        let own = self.pod.annotations();
        let said = own.keys().chain(self.namespace.annotations.keys());
        let mut said = said.filter(|other| of_it(other)).peekable();
        said.peek().is_some() && said.all(|other| self.is_inherited(other))
    }
}

fn is_aggregate(key: &str) -> bool {
    key.starts_with(names::METRICS_AGGREGATE_PREFIX)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_the_namespace_says_is_named_as_its_own() {
        let prefix = names::METRICS_AGGREGATE_PREFIX;
        let key = |rest: &str| format!("{prefix}{rest}");
        let pod = json!({"metadata": {"annotations": {
            "a": "own", "b": "same", "d": "own",
            key("web-path"): "/own", key("api-path"): "/same",
        }}, "spec": {"containers": []}});
        let namespace = Namespace {
            name: "shop".to_owned(),
            annotations: [
                ("a", "other"),
                ("b", "same"),
                ("c", "inherited"),
                (&key("web-path"), "/other"),
                (&key("api-path"), "/same"),
            ]
            .map(|(key, value)| (key.to_owned(), value.to_owned()))
            .into(),
            ..Namespace::default()
        };
        let origin = Origin {
            pod: &Pod::parse(pod).unwrap(),
            namespace: &namespace,
        };
        for (key, is_inherited) in [
            ("a", false),
            ("b", true),
            ("c", true),
            ("d", false),
            ("e", false),
            (&key("web-port"), false),
            (&key("api-port"), true),
            (&key("db-port"), false),
        ] {
            let expected = match is_inherited {
                true => format!("annotation {key} of the namespace \"shop\""),
                false => key.to_owned(),
            };
            assert_eq!(origin.field(key), expected);
        }
    }
}
