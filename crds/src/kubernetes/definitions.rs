//! The CustomResourceDefinitions, and the manifests that hold them.
//! Called by the `crdgen` binary, which writes what [`manifests`] returns, and by the test that compares the two.
//! What the fields are is in `contents`; this file says how Kubernetes names, stores and lists the kinds.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
    CustomResourceColumnDefinition, CustomResourceDefinition, CustomResourceDefinitionNames,
    CustomResourceDefinitionSpec, CustomResourceDefinitionVersion, CustomResourceSubresourceStatus,
    CustomResourceSubresources, CustomResourceValidation, JSONSchemaProps,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::core::Resource;
use serde_json::json;

use super::{ContainerPatch, Dataplane, Mesh, TrafficPermission, contents, schema};
use crate::names::{GROUP, VERSION};

/// The category under which `kubectl get kuma` lists all kinds.
const CATEGORY: &str = "kuma";

/// The command that writes the manifests.
pub const COMMAND: &str = "cargo run -p weir-crds --features kube --bin crdgen";

/// One generated file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Manifest {
    /// Name below `manifests/crds`.
    pub file: String,
    /// YAML.
    pub text: String,
}

/// Every file below `manifests/crds`.
pub fn manifests() -> Vec<Manifest> {
    let mut manifests: Vec<Manifest> = definitions().iter().map(manifest).collect();
    let files: Vec<&str> = manifests
        .iter()
        .map(|manifest| manifest.file.as_str())
        .collect();
    let kustomization = json!({
        "apiVersion": "kustomize.config.k8s.io/v1beta1",
        "kind": "Kustomization",
        "resources": files,
    });
    let kustomization = Manifest {
        file: "kustomization.yaml".to_owned(),
        text: yaml(&kustomization),
    };
    manifests.push(kustomization);
    manifests
}

/// The definitions of all kinds.
pub fn definitions() -> Vec<CustomResourceDefinition> {
    vec![mesh(), dataplane(), traffic_permission(), container_patch()]
}

fn manifest(definition: &CustomResourceDefinition) -> Manifest {
    Manifest {
        file: format!("{GROUP}_{}.yaml", definition.spec.names.plural),
        text: yaml(definition),
    }
}

fn yaml(value: &impl serde::Serialize) -> String {
    let body = serde_yaml::to_string(value).expect("definitions hold only what YAML can express");
    format!("# Written by `{COMMAND}`; change the Rust source instead.\n{body}")
}

/// What differs between the kinds.
struct Kind<'a> {
    scope: &'a str,
    short_names: &'a [&'a str],
    description: &'a str,
    spec: JSONSchemaProps,
    /// Fields of `status` beside the conditions.
    status: Vec<(&'static str, JSONSchemaProps)>,
    columns: Vec<CustomResourceColumnDefinition>,
}

fn mesh() -> CustomResourceDefinition {
    definition::<Mesh>(Kind {
        scope: "Cluster",
        short_names: &["m"],
        description: "The settings shared by the proxies of a mesh.",
        spec: contents::mesh(),
        status: Vec::new(),
        columns: vec![
            column(
                "MTLS",
                ".spec.mtls.enabledBackend",
                "The enabled certificate authority.",
            ),
            column(
                "Metrics",
                ".spec.metrics.enabledBackend",
                "The enabled metrics backend.",
            ),
            column(
                "Port",
                ".spec.metrics.backends[0].conf.port",
                "Metrics port of the first backend.",
            ),
            ready(),
            age(),
        ],
    })
}

fn dataplane() -> CustomResourceDefinition {
    definition::<Dataplane>(Kind {
        scope: "Namespaced",
        short_names: &["dp"],
        description: "A proxy, and what it changes of its Mesh.",
        spec: contents::dataplane(),
        status: vec![("metrics", contents::metrics_endpoint())],
        columns: vec![
            column("Mesh", ".mesh", "The Mesh of the proxy."),
            column(
                "Service",
                r".spec.networking.inbound[0].tags['kuma\.io/service']",
                "The service of the first inbound listener.",
            ),
            column(
                "Address",
                ".spec.networking.address",
                "The address of the proxy.",
            ),
            column(
                "Metrics",
                ".status.metrics.address",
                "The metrics endpoint in force.",
            ),
            ready(),
            age(),
        ],
    })
}

fn traffic_permission() -> CustomResourceDefinition {
    definition::<TrafficPermission>(Kind {
        scope: "Cluster",
        short_names: &["tp"],
        description: "Which services may connect to which.",
        spec: contents::traffic_permission(),
        status: Vec::new(),
        columns: vec![
            column("Mesh", ".mesh", "The Mesh in which it holds."),
            column(
                "Source",
                r".spec.sources[0].match['kuma\.io/service']",
                "The service of the first source.",
            ),
            column(
                "Destination",
                r".spec.destinations[0].match['kuma\.io/service']",
                "The service of the first destination.",
            ),
            age(),
        ],
    })
}

fn container_patch() -> CustomResourceDefinition {
    definition::<ContainerPatch>(Kind {
        scope: "Namespaced",
        short_names: &[],
        description: "Changes to the injected containers, for the pods that name it.",
        spec: contents::container_patch(),
        status: Vec::new(),
        columns: vec![age()],
    })
}

fn definition<K: Resource<DynamicType = ()>>(kind: Kind<'_>) -> CustomResourceDefinition {
    let name = K::kind(&()).into_owned();
    let plural = K::plural(&()).into_owned();
    let short_names: Vec<String> = kind
        .short_names
        .iter()
        .map(|name| (*name).to_owned())
        .collect();
    CustomResourceDefinition {
        metadata: ObjectMeta {
            name: Some(format!("{plural}.{GROUP}")),
            ..ObjectMeta::default()
        },
        spec: CustomResourceDefinitionSpec {
            group: GROUP.to_owned(),
            names: CustomResourceDefinitionNames {
                categories: Some(vec![CATEGORY.to_owned()]),
                list_kind: Some(format!("{name}List")),
                singular: Some(name.to_lowercase()),
                short_names: Some(short_names).filter(|names| !names.is_empty()),
                kind: name,
                plural,
            },
            scope: kind.scope.to_owned(),
            versions: vec![version(kind)],
            ..CustomResourceDefinitionSpec::default()
        },
        status: None,
    }
}

fn version(kind: Kind<'_>) -> CustomResourceDefinitionVersion {
    let fields = [
        ("mesh", schema::mesh()),
        ("spec", kind.spec),
        ("status", schema::status(&kind.status)),
    ];
    CustomResourceDefinitionVersion {
        name: VERSION.to_owned(),
        served: true,
        storage: true,
        additional_printer_columns: Some(kind.columns),
        schema: Some(CustomResourceValidation {
            open_api_v3_schema: Some(schema::root(kind.description, &fields)),
        }),
        subresources: Some(CustomResourceSubresources {
            status: Some(CustomResourceSubresourceStatus(json!({}))),
            scale: None,
        }),
        ..CustomResourceDefinitionVersion::default()
    }
}

/// A column of text, which also prints numbers.
fn column(name: &str, path: &str, description: &str) -> CustomResourceColumnDefinition {
    CustomResourceColumnDefinition {
        name: name.to_owned(),
        type_: "string".to_owned(),
        json_path: path.to_owned(),
        description: Some(description.to_owned()),
        ..CustomResourceColumnDefinition::default()
    }
}

fn ready() -> CustomResourceColumnDefinition {
    let path = r#".status.conditions[?(@.type=="Ready")].status"#;
    column("Ready", path, "Whether the operator could use it.")
}

fn age() -> CustomResourceColumnDefinition {
    CustomResourceColumnDefinition {
        type_: "date".to_owned(),
        ..column(
            "Age",
            ".metadata.creationTimestamp",
            "How long ago it was created.",
        )
    }
}

#[cfg(test)]
mod tests;
