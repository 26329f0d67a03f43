//! What is wrong with a ServiceProfile or an HTTPRoute: kept with the route by `routes`, and read by whoever tells its
//! author. It knows no client.

use std::collections::BTreeSet;
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

    /// What was found in an object, and this besides.
    pub(super) fn with(
        found: Option<&Arc<Self>>,
        ((kind, key), uid): ((RouteKind, ObjectKey), &Arc<str>),
        more: BTreeSet<String>,
    ) -> Option<Arc<Self>> {
        if more.is_empty() {
            return found.cloned();
        }
        let problems = found.into_iter().flat_map(|found| found.problems.iter());
        Some(Arc::new(Self {
            kind,
            key,
            uid: uid.clone(),
            problems: problems.cloned().chain(more).collect(),
        }))
    }
}
