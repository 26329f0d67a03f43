//! What the index keeps of a Dataplane: whose it is, and fingerprints of what it says. Compared by `reconcile` with
//! what it should say; the text itself is in the API server.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::ResourceExt;
use serde_json::{Value, json};
use weir_crds::annotations;
use weir_crds::kubernetes::Status;

use super::pod::ObjectKey;

/// Label on what the operator generated, and its value.
pub use weir_crds::names::{MANAGED_BY, OPERATOR as MANAGER};
/// The condition of a Dataplane and of a Mesh.
pub const READY: &str = "Ready";

/// What is known of a Dataplane.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dataplane {
    /// Namespace and name.
    pub key: ObjectKey,
    /// The uid of the pod it was generated for; `None` where a user wrote it.
    pub owner: Option<Arc<str>>,
    /// [`fingerprint`] of its Mesh, its spec and whether its ports are closed.
    pub content: u64,
    /// [`fingerprint`] of its status, without times.
    pub status: u64,
    /// Whether it was ready, and since when, in seconds since the epoch.
    pub ready: Option<(bool, i64)>,
    /// `resourceVersion`; 0 where it is no number.
    pub version: u64,
}

impl Dataplane {
    /// Keeps of an object what is used.
    #[must_use]
    pub fn keep(object: &weir_crds::Dataplane) -> Self {
        let mut conditions = object.status.iter().flat_map(|status| &status.conditions);
        let ready = conditions.find(|one| one.type_ == READY);
        Self {
            owner: pod_of(object).map(|pod| pod.uid.as_str().into()),
            content: content(object.mesh.as_deref(), &object.spec.0, is_closed(object)),
            status: object.status.as_ref().map_or(0, status),
            ready: ready.map(|ready| {
                let since = ready.last_transition_time.0.as_second();
                (ready.status == "True", since)
            }),
            version: object
                .resource_version()
                .and_then(|text| text.parse().ok())
                .unwrap_or_default(),
            key: ObjectKey {
                namespace: object.namespace().unwrap_or_default().into(),
                name: object.name_any().into(),
            },
        }
    }
}

/// The pod that a Dataplane was generated for: it owns it, and both have one name. `None` for one that a user wrote,
/// whatever owner it names.
#[must_use]
pub fn pod_of(object: &weir_crds::Dataplane) -> Option<&OwnerReference> {
    let manager = object.labels().get(MANAGED_BY)?;
    let name = object.metadata.name.as_ref()?;
    let mut owners = object.owner_references().iter();
    let pod = owners.find(|owner| owner.kind == "Pod" && owner.name == *name)?;
    (manager == MANAGER).then_some(pod)
}

/// Whether a Dataplane says that requests without a route are refused.
#[must_use]
pub fn is_closed(object: &weir_crds::Dataplane) -> bool {
    annotations::closed_routes(object.annotations()).is_ok_and(|closed| closed)
}

/// The fingerprint of a Mesh's name, a spec, and whether requests without a route are refused.
#[must_use]
pub fn content(mesh: Option<&str>, spec: &Value, is_closed: bool) -> u64 {
    fingerprint(&json!([mesh, spec, is_closed]))
}

/// The fingerprint of a status.
#[must_use]
pub fn status(status: &Status) -> u64 {
    let conditions = status.conditions.iter();
    let conditions = conditions.filter(|one| one.type_ == READY);
    let conditions = conditions.map(|one| json!([one.status, one.reason, one.message]));
    fingerprint(&json!([conditions.collect::<Vec<_>>(), status.metrics]))
}

/// The same for equal values, whatever the order of their fields.
fn fingerprint(value: &Value) -> u64 {
    let mut hasher = DefaultHasher::new();
    hash(value, &mut hasher);
    hasher.finish()
}

fn hash(value: &Value, hasher: &mut DefaultHasher) {
    std::mem::discriminant(value).hash(hasher);
    match value {
        Value::Null => {}
        Value::Bool(flag) => flag.hash(hasher),
        Value::Number(number) => number.hash(hasher),
        Value::String(text) => text.hash(hasher),
        Value::Array(items) => {
            items.len().hash(hasher);
            items.iter().for_each(|item| hash(item, hasher));
        }
        Value::Object(fields) => {
            fields.len().hash(hasher);
            for (key, value) in fields.iter().collect::<BTreeMap<_, _>>() {
                key.hash(hasher);
                hash(value, hasher);
            }
        }
    }
}
