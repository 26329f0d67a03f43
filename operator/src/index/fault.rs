//! What is wrong with a ServiceProfile or an HTTPRoute: kept with the route by `routes`, logged once a change, and read by
//! whoever tells its author. It knows no client.

use std::sync::Arc;

use kube::api::DynamicObject;
use weir_crds::violation::Violation;

use super::pod::ObjectKey;
use super::view::RouteKind;

/// What cannot be read in a route, or is not obeyed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RouteFault {
    /// What it was written as.
    pub kind: RouteKind,
    /// Namespace and name.
    pub key: ObjectKey,
    /// The object's own.
    pub uid: Arc<str>,
    /// Each with its field and the remedy; at least one.
    pub problems: Box<[String]>,
}

impl RouteFault {
    /// Of what was found in an object.
    pub(super) fn of(
        kind: RouteKind,
        (object, key): (&DynamicObject, &ObjectKey),
        problems: &[Violation],
    ) -> Option<Arc<Self>> {
        let fault = || Self {
            kind,
            key: key.clone(),
            uid: object.metadata.uid.as_deref().unwrap_or_default().into(),
            problems: problems.iter().map(ToString::to_string).collect(),
        };
        (!problems.is_empty()).then(fault).map(Arc::new)
    }
}

/// Logs what has changed. Whether anything has.
pub(super) fn tell(before: Option<&RouteFault>, now: Option<&RouteFault>) -> bool {
    if before == now {
        return false;
    }
    let problems = |fault: Option<&RouteFault>| {
        let problems = fault.map(|fault| fault.problems.clone());
        problems.unwrap_or_default()
    };
    let known = problems(before);
    if let Some(RouteFault { kind, key, .. }) = now.or(before) {
        let ObjectKey { namespace, name } = key;
        let new = problems(now).into_iter().filter(|one| !known.contains(one));
        for problem in new {
            tracing::warn!(%namespace, %name, problem, "a {kind} is not obeyed in all it says");
        }
        if now.is_none() {
            tracing::info!(%namespace, %name, "nothing is wrong with this {kind} any more");
        }
    }
    true
}
