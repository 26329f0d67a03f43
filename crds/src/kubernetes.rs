//! The resources as Kubernetes objects (`kuma.io/v1alpha1`), for clients and watches.
//! Used by the webhook, the operator and the cluster tests. Decoding forgives everything the schemas admit: a `spec`
//! stays free-form until it is used, so that one odd object never ends a watch. Knows no client.

mod contents;
pub mod definitions;
mod schema;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, ObjectMeta};
use kube::core::{ClusterResourceScope, NamespaceResourceScope, Resource};
use serde::ser::SerializeStruct;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::Value;
use std::borrow::Cow;

use crate::container_patch::ContainerPatchSpec;
use crate::dataplane::DataplaneSpec;
use crate::mesh::MeshSpec;
use crate::names::{DEFAULT_MESH, GROUP, VERSION};
use crate::traffic_permission::TrafficPermissionSpec;

/// `status`, the same for every kind; written by the operator only.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Status {
    /// The latest observations, one a type, each with the generation it was made of.
    #[serde(default, deserialize_with = "readable_conditions")]
    pub conditions: Vec<Condition>,
    /// Of a Dataplane: the metrics endpoint in force.
    #[serde(
        default,
        deserialize_with = "readable_metrics",
        skip_serializing_if = "Option::is_none"
    )]
    pub metrics: Option<MetricsEndpoint>,
}

/// Where a proxy exposes its metrics.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct MetricsEndpoint {
    /// `ip:port`.
    pub address: String,
    /// Path, starting with `/`.
    pub path: String,
}

/// What cannot be read is as if it were absent.
fn readable_metrics<'de, D: Deserializer<'de>>(
    from: D,
) -> Result<Option<MetricsEndpoint>, D::Error> {
    let metrics = Option::<Value>::deserialize(from)?.unwrap_or_default();
    Ok(serde_json::from_value(metrics).ok())
}

/// Keeps the conditions that can be read: another writer's slip must not hide the object.
fn readable_conditions<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<Condition>, D::Error> {
    let conditions = Option::<Vec<Value>>::deserialize(from)?.unwrap_or_default();
    Ok(conditions
        .into_iter()
        .filter_map(|condition| serde_json::from_value(condition).ok())
        .collect())
}

/// Defines the object of one kind and how Kubernetes names it.
macro_rules! object {
    ($(#[$doc:meta])* $kind:ident, $plural:literal, $scope:ty, $spec:ty) => {
        $(#[$doc])*
        #[derive(Clone, Debug, Default, PartialEq, Deserialize)]
        pub struct $kind {
            /// Name, namespace, labels and the rest.
            pub metadata: ObjectMeta,
            /// The Mesh it belongs to, beside `spec`; means nothing on a Mesh.
            #[serde(default)]
            pub mesh: Option<String>,
            /// The content, kept as it was written.
            #[serde(default)]
            pub spec: $spec,
            /// What the operator found.
            #[serde(default)]
            pub status: Option<Status>,
        }

        impl $kind {
            /// An object with a name and a content.
            pub fn new(name: &str, spec: $spec) -> Self {
                let metadata = ObjectMeta { name: Some(name.to_owned()), ..ObjectMeta::default() };
                Self { metadata, spec, ..Self::default() }
            }

            /// The Mesh it belongs to, the default one where it names none.
            pub fn mesh_name(&self) -> &str {
                self.mesh.as_deref().filter(|mesh| !mesh.is_empty()).unwrap_or(DEFAULT_MESH)
            }
        }

        impl Resource for $kind {
            type DynamicType = ();
            type Scope = $scope;

            fn kind(_: &()) -> Cow<'_, str> {
                stringify!($kind).into()
            }

            fn group(_: &()) -> Cow<'_, str> {
                GROUP.into()
            }

            fn version(_: &()) -> Cow<'_, str> {
                VERSION.into()
            }

            fn plural(_: &()) -> Cow<'_, str> {
                $plural.into()
            }

            fn meta(&self) -> &ObjectMeta {
                &self.metadata
            }

            fn meta_mut(&mut self) -> &mut ObjectMeta {
                &mut self.metadata
            }
        }

        impl Serialize for $kind {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                let mut object = serializer.serialize_struct(stringify!($kind), 6)?;
                object.serialize_field("apiVersion", &Self::api_version(&()))?;
                object.serialize_field("kind", stringify!($kind))?;
                object.serialize_field("metadata", &self.metadata)?;
                match &self.mesh {
                    Some(mesh) => object.serialize_field("mesh", mesh)?,
                    None => object.skip_field("mesh")?,
                }
                object.serialize_field("spec", &self.spec)?;
                match &self.status {
                    Some(status) => object.serialize_field("status", status)?,
                    None => object.skip_field("status")?,
                }
                object.end()
            }
        }
    };
}

object!(
    /// A Mesh: the settings shared by its proxies.
    Mesh, "meshes", ClusterResourceScope, MeshSpec
);
object!(
    /// A proxy, and what it changes of its Mesh.
    Dataplane, "dataplanes", NamespaceResourceScope, DataplaneSpec
);
object!(
    /// Which services may connect to which.
    TrafficPermission, "trafficpermissions", ClusterResourceScope, TrafficPermissionSpec
);
object!(
    /// Changes to the injected containers.
    ContainerPatch, "containerpatches", NamespaceResourceScope, ContainerPatchSpec
);

impl Mesh {
    /// The Mesh that the operator creates where none exists: `default`, with metrics on.
    pub fn initial() -> Self {
        Self::new(DEFAULT_MESH, MeshSpec::initial())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn an_object_is_written_with_its_type() {
        let written = serde_json::to_value(Mesh::initial()).unwrap();
        assert_eq!(
            written,
            json!({
                "apiVersion": "kuma.io/v1alpha1",
                "kind": "Mesh",
                "metadata": {"name": "default"},
                "spec": {"metrics": {
                    "enabledBackend": "prometheus-1",
                    "backends": [{"name": "prometheus-1", "type": "prometheus"}]
                }}
            })
        );
        assert_eq!(
            serde_json::from_value::<Mesh>(written).unwrap(),
            Mesh::initial()
        );
    }

    #[test]
    fn the_mesh_stands_beside_the_spec() {
        let text = json!({"apiVersion": "kuma.io/v1alpha1", "kind": "TrafficPermission", "mesh": "m",
            "metadata": {"name": "a"}, "spec": {"sources": []}});
        let permission: TrafficPermission = serde_json::from_value(text.clone()).unwrap();
        assert_eq!(permission.mesh_name(), "m");
        assert_eq!(serde_json::to_value(&permission).unwrap(), text);
        assert_eq!(TrafficPermission::default().mesh_name(), "default");
    }

    #[test]
    fn nothing_the_schema_admits_ends_a_watch() {
        for object in [
            json!({"metadata": {}}),
            json!({"metadata": {}, "spec": null, "status": null}),
            json!({"metadata": {}, "spec": {"metrics": null, "x": [1, {"y": null}]}, "status": {}}),
            json!({"metadata": {}, "status": {"conditions": [{"type": "Ready"}, {
                "type": "Ready", "status": "True", "reason": "R", "message": "",
                "lastTransitionTime": "2026-01-01T00:00:00Z"}], "other": 1}}),
            json!({"metadata": {}, "status": {"metrics": 5670}}),
            json!({"metadata": {}, "status": {"metrics": null}}),
        ] {
            let mesh: Mesh = serde_json::from_value(object.clone()).unwrap();
            assert!(
                mesh.status
                    .is_none_or(|status| status.conditions.len() <= 1),
                "{object}"
            );
            serde_json::from_value::<Dataplane>(object.clone()).unwrap();
            serde_json::from_value::<TrafficPermission>(object.clone()).unwrap();
            serde_json::from_value::<ContainerPatch>(object).unwrap();
        }
    }
}
