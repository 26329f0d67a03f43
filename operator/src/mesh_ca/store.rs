//! Writes what the authorities are made of: two Secrets a builtin root, and the ConfigMap with who is
//! trusted. Called by `keeper` on the leader. Every write carries the version that was read, so a
//! second writer is a conflict and never an overwrite. It decides nothing.

use std::collections::BTreeMap;

use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::api::{ObjectMeta, PostParams};
use kube::{Api, Client, Resource, ResourceExt};
use weir_crds::Mesh;

use super::names::{SECRET_TYPE, TRUST, VALUE};
use super::root::RootError;
use crate::FIELD_MANAGER;
use crate::call::{CallError, within};

/// Why a pass over the authorities failed.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// A request about the named object failed.
    #[error("{what}: {error}")]
    Call {
        /// Kind and name of the object.
        what: String,
        /// What the API server said.
        error: CallError,
    },
    /// A root could not be made.
    #[error(transparent)]
    Root(#[from] RootError),
}

impl StoreError {
    /// A word for metrics.
    #[must_use]
    pub fn class(&self) -> &'static str {
        match self {
            Self::Call { error, .. } => error.class(),
            Self::Root(_) => "certificate",
        }
    }
}

/// Where the authorities of one cluster are kept.
#[derive(Clone)]
pub(super) struct Store {
    secrets: Api<Secret>,
    maps: Api<ConfigMap>,
}

impl Store {
    pub(super) fn new(client: Client, namespace: &str) -> Self {
        Self {
            secrets: Api::namespaced(client.clone(), namespace),
            maps: Api::namespaced(client, namespace),
        }
    }

    /// Writes a Secret of `mesh`, over the version that was read where there was one.
    pub(super) async fn write_secret(
        &self,
        mesh: &Mesh,
        name: &str,
        value: String,
        version: Option<String>,
    ) -> Result<(), StoreError> {
        let is_new = version.is_none();
        let mut metadata = metadata(name, version);
        let mesh_label = ("kuma.io/mesh".to_owned(), mesh.name_any());
        metadata.labels.get_or_insert_default().extend([mesh_label]);
        metadata.owner_references = owner(mesh).map(|owner| vec![owner]);
        let secret = Secret {
            metadata,
            type_: Some(SECRET_TYPE.to_owned()),
            data: Some(BTreeMap::from([(
                VALUE.to_owned(),
                ByteString(value.into_bytes()),
            )])),
            ..Secret::default()
        };
        let written = if is_new {
            within(self.secrets.create(&written_by_us(), &secret)).await
        } else {
            within(self.secrets.replace(name, &written_by_us(), &secret)).await
        };
        written
            .map(|_| ())
            .map_err(|error| failed("Secret", name, error))
    }

    pub(super) async fn read_trust(&self) -> Result<Option<ConfigMap>, StoreError> {
        within(self.maps.get_opt(TRUST))
            .await
            .map_err(|error| failed("ConfigMap", TRUST, error))
    }

    /// Writes who is trusted, over what was read; returns it as it is now.
    pub(super) async fn write_trust(
        &self,
        read: Option<&ConfigMap>,
        data: BTreeMap<String, String>,
    ) -> Result<ConfigMap, StoreError> {
        let map = ConfigMap {
            metadata: metadata(TRUST, read.and_then(ResourceExt::resource_version)),
            data: Some(data),
            ..ConfigMap::default()
        };
        let written = if read.is_some() {
            within(self.maps.replace(TRUST, &written_by_us(), &map)).await
        } else {
            within(self.maps.create(&written_by_us(), &map)).await
        };
        written.map_err(|error| failed("ConfigMap", TRUST, error))
    }
}

/// The Mesh owns its roots, as in Kuma: they go when it goes.
fn owner(mesh: &Mesh) -> Option<OwnerReference> {
    Some(OwnerReference {
        api_version: Mesh::api_version(&()).into_owned(),
        kind: Mesh::kind(&()).into_owned(),
        name: mesh.name_any(),
        uid: mesh.uid()?,
        ..OwnerReference::default()
    })
}

fn metadata(name: &str, version: Option<String>) -> ObjectMeta {
    let labels = [
        ("app.kubernetes.io/part-of", "weir"),
        ("app.kubernetes.io/managed-by", FIELD_MANAGER),
    ];
    ObjectMeta {
        name: Some(name.to_owned()),
        resource_version: version,
        labels: Some(
            labels
                .map(|(key, value)| (key.to_owned(), value.to_owned()))
                .into(),
        ),
        ..ObjectMeta::default()
    }
}

fn written_by_us() -> PostParams {
    PostParams {
        field_manager: Some(FIELD_MANAGER.to_owned()),
        ..PostParams::default()
    }
}

fn failed(kind: &str, name: &str, error: CallError) -> StoreError {
    StoreError::Call {
        what: format!("{kind} {name}"),
        error,
    }
}
