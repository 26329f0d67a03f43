//! Writes what the authorities are made of: two Secrets a builtin root, and the ConfigMap with who is
//! trusted. Called by `keeper` on the leader. It decides nothing.

use std::collections::BTreeMap;

use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use kube::{Api, Client, Resource, ResourceExt};
use weir_crds::Mesh;

use super::names::{SECRET_TYPE, TRUST, VALUE};
use super::root::RootError;
use crate::object::{self, ObjectError};

/// Why a pass over the authorities failed.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// A request failed.
    #[error(transparent)]
    Object(#[from] ObjectError),
    /// A root could not be made.
    #[error(transparent)]
    Root(#[from] RootError),
}

impl StoreError {
    /// A word for metrics.
    #[must_use]
    pub fn class(&self) -> &'static str {
        match self {
            Self::Object(error) => error.class(),
            Self::Root(_) => "certificate",
        }
    }
}

/// Where the authorities of one cluster are kept.
#[derive(Clone)]
pub(super) struct Store {
    secrets: Api<Secret>,
    maps: Api<ConfigMap>,
    namespace: String,
}

impl Store {
    pub(super) fn new(client: Client, namespace: &str) -> Self {
        Self {
            secrets: Api::namespaced(client.clone(), namespace),
            maps: Api::namespaced(client, namespace),
            namespace: namespace.to_owned(),
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
        let mut metadata = object::metadata(&self.namespace, name, version);
        let mesh_label = ("kuma.io/mesh".to_owned(), mesh.name_any());
        metadata.labels.get_or_insert_default().extend([mesh_label]);
        // The Mesh owns its roots, as in Kuma: they go when it goes.
        metadata.owner_references = mesh.owner_ref(&()).map(|owner| vec![owner]);
        let secret = Secret {
            metadata,
            type_: Some(SECRET_TYPE.to_owned()),
            data: Some(BTreeMap::from([(
                VALUE.to_owned(),
                ByteString(value.into_bytes()),
            )])),
            ..Secret::default()
        };
        object::write(&self.secrets, &secret).await?;
        Ok(())
    }

    pub(super) async fn read_trust(&self) -> Result<Option<ConfigMap>, StoreError> {
        Ok(object::read(&self.maps, TRUST).await?)
    }

    /// Writes who is trusted, over what was read; returns it as it is now.
    pub(super) async fn write_trust(
        &self,
        read: Option<&ConfigMap>,
        data: BTreeMap<String, String>,
    ) -> Result<ConfigMap, StoreError> {
        let version = read.and_then(ResourceExt::resource_version);
        let map = ConfigMap {
            metadata: object::metadata(&self.namespace, TRUST, version),
            data: Some(data),
            ..ConfigMap::default()
        };
        Ok(object::write(&self.maps, &map).await?)
    }
}
