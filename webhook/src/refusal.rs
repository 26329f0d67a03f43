//! The reasons for which a pod is refused, each with the field at fault and the remedy.
//! Raised by `decide` and `inject`, told to the user by `review`, counted by `metrics`. A refusal is only for what its
//! author must mend; whatever merely cannot be injected is skipped instead.

use thiserror::Error;
use weir_crds::{Violation, names};

/// Why a pod is refused.
#[derive(Debug, Clone, Error, PartialEq, Eq)]
pub enum Refusal {
    /// A label or annotation that asks for injection has a value that means nothing.
    #[error("{field}: unknown value {value:?}{owner}: use enabled or disabled")]
    UnknownValue {
        /// The label or annotation, as in `kuma.io/sidecar-injection`.
        field: &'static str,
        /// The value found.
        value: String,
        /// Whose it is, as in ` on the namespace "shop"`.
        owner: String,
    },
    /// Application containers would run as the proxy's user, whose traffic is never redirected.
    #[error(
        "spec.containers: {} would run as uid {}, which is the proxy's and whose traffic is not measured: choose another runAsUser",
        quoted(.0), names::PROXY_UID
    )]
    ProxyUid(Vec<String>),
    /// Annotations on the pod, or copied from its namespace, that cannot be understood.
    #[error("{}", joined(.0))]
    Annotations(Vec<Violation>),
    /// The Mesh that the pod names does not exist.
    #[error("{field}: Mesh {name:?} does not exist: create it, or name an existing one in {key}", key = names::MESH)]
    UnknownMesh {
        /// Where the name comes from, as in `metadata.annotations["kuma.io/mesh"]`.
        field: String,
        /// The name that no Mesh has.
        name: String,
    },
    /// The Mesh exists and cannot be read as one.
    #[error("Mesh {name:?} cannot be used: {problem}")]
    UnusableMesh {
        /// The Mesh.
        name: String,
        /// What is wrong with it.
        problem: String,
    },
    /// The document is not a pod.
    #[error("{0}")]
    NotAPod(String),
}

impl Refusal {
    /// A word for the metric label; one of a fixed few.
    pub fn class(&self) -> &'static str {
        match self {
            Self::UnknownValue { .. } => "unknown_value",
            Self::ProxyUid(_) => "proxy_uid",
            Self::Annotations(_) => "malformed_annotation",
            Self::UnknownMesh { .. } => "unknown_mesh",
            Self::UnusableMesh { .. } => "unusable_mesh",
            Self::NotAPod(_) => "not_a_pod",
        }
    }

    /// The same as violations, one for each field at fault, for the causes of the answer.
    pub fn violations(&self) -> Vec<Violation> {
        let one = |field: &str| {
            let text = self.to_string();
            let message = text.strip_prefix(&format!("{field}: ")).unwrap_or(&text);
            vec![Violation::new(field, message)]
        };
        match self {
            Self::Annotations(violations) => violations.clone(),
            Self::UnknownValue { field, .. } => one(field),
            Self::UnknownMesh { field, .. } => one(field),
            Self::ProxyUid(_) => one("spec.containers"),
            Self::UnusableMesh { .. } => one(names::MESH),
            Self::NotAPod(_) => one("pod"),
        }
    }
}

fn quoted(names: &[String]) -> String {
    let quoted: Vec<String> = names.iter().map(|name| format!("{name:?}")).collect();
    match quoted.len() {
        1 => format!("container {}", quoted[0]),
        _ => format!("containers {}", quoted.join(", ")),
    }
}

fn joined(violations: &[Violation]) -> String {
    let texts: Vec<String> = violations.iter().map(Violation::to_string).collect();
    texts.join("; ")
}
