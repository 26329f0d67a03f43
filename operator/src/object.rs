//! Single objects of ours: read, and written over the version that was read, so that a second writer is a conflict and
//! never an overwrite. Called by whoever keeps Secrets and ConfigMaps. It knows no kind.

use std::fmt::Debug;

use kube::api::{ObjectMeta, PostParams};
use kube::{Api, Resource, ResourceExt};
use serde::Serialize;
use serde::de::DeserializeOwned;
use weir_crds::names;

use crate::FIELD_MANAGER;
use crate::call::{CallError, within};

/// A request about one object failed.
#[derive(Debug, thiserror::Error)]
#[error("{what}: {error}")]
pub struct ObjectError {
    /// Kind and name of the object.
    what: String,
    /// What the API server said.
    error: CallError,
}

impl ObjectError {
    /// A word for metrics.
    #[must_use]
    pub fn class(&self) -> &'static str {
        self.error.class()
    }

    /// Another try would be refused, too, whatever else there is: neither another writer nor a namespace that is missing is
    /// the reason.
    #[must_use]
    pub fn is_final(&self) -> bool {
        let error = &self.error;
        error.is_final() && !error.is_conflict() && !error.is_not_found()
    }
}

/// Waits for the answer to a request about the object of this name.
pub(crate) async fn about<K, T>(
    name: &str,
    request: impl Future<Output = kube::Result<T>>,
) -> Result<T, ObjectError>
where
    K: Resource<DynamicType = ()>,
{
    within(request).await.map_err(|error| ObjectError {
        what: format!("{} {name}", K::kind(&())),
        error,
    })
}

/// The object of this name, if there is one.
pub(crate) async fn read<K>(api: &Api<K>, name: &str) -> Result<Option<K>, ObjectError>
where
    K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned,
{
    about::<K, _>(name, api.get_opt(name)).await
}

/// Writes an object: over the version in its metadata, or a new one where there is none. Returns it as it is now.
pub(crate) async fn write<K>(api: &Api<K>, object: &K) -> Result<K, ObjectError>
where
    K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned + Serialize,
{
    let (name, params) = (object.name_any(), written_by_us());
    match object.resource_version() {
        Some(_) => about::<K, _>(&name, api.replace(&name, &params, object)).await,
        None => about::<K, _>(&name, api.create(&params, object)).await,
    }
}

/// The metadata of an object of ours, to be written over that version.
pub(crate) fn metadata(namespace: &str, name: &str, version: Option<String>) -> ObjectMeta {
    let labels = [
        ("app.kubernetes.io/part-of", "weir"),
        (names::MANAGED_BY, FIELD_MANAGER),
    ];
    let labels = labels.map(|(key, value)| (key.to_owned(), value.to_owned()));
    ObjectMeta {
        name: Some(name.to_owned()),
        namespace: Some(namespace.to_owned()),
        resource_version: version,
        labels: Some(labels.into()),
        ..ObjectMeta::default()
    }
}

/// Says whose writes they are.
pub(crate) fn written_by_us() -> PostParams {
    PostParams {
        field_manager: Some(FIELD_MANAGER.to_owned()),
        ..PostParams::default()
    }
}
