//! The authorities of a cluster: Secrets, and the ConfigMap with who is trusted. Used by `store`.

use std::collections::BTreeMap;

use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use kube::{Api, Client, Resource, ResourceExt};
use weir_crds::Mesh;

use super::{Kept, StoreError};
use crate::mesh_ca::names::{SECRET_TYPE, TRUST, VALUE};
use crate::object;

/// Where the authorities of one cluster are kept.
#[derive(Clone)]
pub(in crate::mesh_ca) struct Cluster {
    secrets: Api<Secret>,
    maps: Api<ConfigMap>,
    namespace: String,
}

impl Cluster {
    pub(in crate::mesh_ca) fn new(client: Client, namespace: &str) -> Self {
        Self {
            secrets: Api::namespaced(client.clone(), namespace),
            maps: Api::namespaced(client, namespace),
            namespace: namespace.to_owned(),
        }
    }

    pub(super) async fn write_secret(
        &self,
        mesh: &Mesh,
        (name, value): (&str, String),
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

    pub(super) async fn read_trust(&self) -> Result<Kept, StoreError> {
        let map: Option<ConfigMap> = object::read(&self.maps, TRUST).await?;
        Ok(map.map_or_else(Kept::default, |map| Kept {
            version: map.resource_version(),
            trusts: map.data.unwrap_or_default(),
        }))
    }

    pub(super) async fn write_trust(&self, kept: Kept) -> Result<(), StoreError> {
        let map = ConfigMap {
            metadata: object::metadata(&self.namespace, TRUST, kept.version),
            data: Some(kept.trusts),
            ..ConfigMap::default()
        };
        object::write(&self.maps, &map).await?;
        Ok(())
    }
}
