//! What is wrong with a field of a resource, in the form that reaches the user.
//! Made by `validate`, `conf`, `annotations` and `merge`; shown by the webhook, the operator and the proxy.
//! Knows nothing of where the resource came from: the webhook adds its `spec.` with [`prefixed`].

use std::fmt;

/// One violated rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// Path of the field the rule is about, such as `metrics.backends[0].conf`.
    pub field: String,
    /// What is wrong and, where it is not obvious, what would be right.
    pub message: String,
    /// Path of the value to blame, where it lies deeper than `field`.
    culprit: Option<String>,
}

impl Violation {
    /// A violation whose field is also the value to blame.
    pub fn new(field: impl Into<String>, message: impl Into<String>) -> Self {
        Self {
            field: field.into(),
            message: message.into(),
            culprit: None,
        }
    }

    /// The same violation reported at `field`, still blaming the value that it blamed.
    pub(crate) fn reported_at(self, field: impl Into<String>, message: impl Into<String>) -> Self {
        Self {
            culprit: Some(self.culprit.unwrap_or(self.field)),
            field: field.into(),
            message: message.into(),
        }
    }

    /// Path of the value to blame; a position in a file is looked up by it.
    pub fn culprit(&self) -> &str {
        self.culprit.as_deref().unwrap_or(&self.field)
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.field, self.message)
    }
}

/// The violations with `prefix` before every path, as the webhook reports them (`spec.`).
pub fn prefixed(prefix: &str, violations: Vec<Violation>) -> Vec<Violation> {
    let prepend = |path: String| format!("{prefix}{path}");
    violations
        .into_iter()
        .map(|violation| Violation {
            field: prepend(violation.field),
            message: violation.message,
            culprit: violation.culprit.map(prepend),
        })
        .collect()
}

/// All violations in one line, `field: message; field: message`.
pub fn joined(violations: &[Violation]) -> String {
    let texts: Vec<String> = violations.iter().map(Violation::to_string).collect();
    texts.join("; ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_reaches_the_field_and_the_culprit() {
        let violation = Violation::new("a.b.c", "deep").reported_at("a.b", "shallow");
        let violations = prefixed("spec.", vec![violation, Violation::new("d", "other")]);
        assert_eq!(joined(&violations), "spec.a.b: shallow; spec.d: other");
        assert_eq!(violations[0].culprit(), "spec.a.b.c");
        assert_eq!(violations[1].culprit(), "spec.d");
    }
}
