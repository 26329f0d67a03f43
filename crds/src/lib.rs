//! The vocabulary of Weir: resources in Kubernetes and Universal form, annotations, ports, names, environment
//! variables and the settings document, with validation, defaulting and merging as pure functions.
//! Called by the webhook, the operator, the proxy and the tests. It does no I/O and knows no client, no clock and no
//! environment. Feature `kube` adds the Kubernetes objects and their CustomResourceDefinitions, feature `grpc` the
//! streams between operator and proxy.

pub mod address;
pub mod annotations;
pub mod authority;
pub mod conf;
pub mod container_patch;
pub mod dataplane;
pub mod default;
pub mod duration;
pub mod env;
pub mod filter;
#[cfg(feature = "grpc")]
pub mod grpc;
pub mod identity;
#[cfg(feature = "kube")]
pub mod kubernetes;
pub mod merge;
pub mod mesh;
pub mod metrics_policy;
pub mod names;
mod node;
pub mod permission;
pub mod ports;
pub mod probe;
pub mod routes;
pub mod settings;
pub mod traffic_permission;
pub mod universal;
pub mod validate;
pub mod violation;

#[cfg(feature = "kube")]
pub use kubernetes::{ContainerPatch, Dataplane, Mesh, TrafficPermission};
pub use settings::Settings;
pub use violation::Violation;
