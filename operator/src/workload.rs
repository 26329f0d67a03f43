//! What the operator knows of a caller's workload: its Mesh, its tags, its ports and what it overrides.
//! Read by `serve` through [`Workloads`]; `dataplanes` fills it from the Dataplane resources, `stated` from Universal
//! documents, and `permissions` keeps the TrafficPermissions beside. It knows no client and no protobuf.

mod dataplanes;
mod permissions;
mod stated;

use std::sync::Arc;

use tokio::sync::watch;
use weir_crds::dataplane::Networking;
use weir_crds::identity::Tags;
use weir_crds::merge::MetricsOverride;
use weir_crds::names::{NAMESPACE_TAG, SERVICE_NAME_TAG, SERVICE_PORT_TAG};
use weir_crds::traffic_permission::Selector;

use crate::index::ObjectKey;
use crate::token::Caller;

pub use dataplanes::Dataplanes;
pub use permissions::{PermissionSet, PermissionView, Permissions};
pub use stated::{Stated, StatedKey};

/// One workload.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Workload {
    /// The DNS name of its certificate, where its Dataplane says it (outside Kubernetes); else its service account does.
    pub name: Option<String>,
    /// Its Mesh.
    pub mesh: String,
    /// Everything that its inbounds are tagged with.
    pub tags: Tags,
    /// Its inbounds, in order.
    pub inbounds: Vec<Inbound>,
    /// What it changes of its Mesh's metrics.
    pub metrics: Option<MetricsOverride>,
    /// Requests without a route are refused.
    pub closed_routes: bool,
}

/// One port of a workload.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Inbound {
    /// The port that clients connect to.
    pub port: u16,
    /// Its tags, `kuma.io/service` among them.
    pub tags: Selector,
}

impl Inbound {
    /// The Service that it was generated for, and the port of that.
    #[must_use]
    pub fn service(&self) -> Option<(ObjectKey, u16)> {
        let tag = |name: &str| self.tags.get(name).map(String::as_str);
        let service = ObjectKey {
            namespace: tag(NAMESPACE_TAG)?.into(),
            name: tag(SERVICE_NAME_TAG)?.into(),
        };
        Some((service, tag(SERVICE_PORT_TAG)?.parse().ok()?))
    }
}

impl Workload {
    /// A workload with these listeners.
    #[must_use]
    pub fn new(mesh: &str, networking: Networking, metrics: Option<MetricsOverride>) -> Self {
        let mut tags = Tags::new();
        let pairs = networking.tags().flatten();
        for (tag, value) in pairs.filter(|(tag, value)| !tag.is_empty() && !value.is_empty()) {
            tags.entry(tag.clone()).or_default().insert(value.clone());
        }
        let inbounds = networking.inbound.into_iter();
        let inbounds = inbounds.map(|inbound| Inbound {
            port: inbound.port,
            tags: inbound.tags,
        });
        Self {
            name: None,
            mesh: mesh.to_owned(),
            tags,
            inbounds: inbounds.collect(),
            metrics,
            closed_routes: false,
        }
    }
}

/// Nothing is known of a caller's workload.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unknown {
    /// The pod has no Dataplane.
    #[error(
        "the pod {0} has no Dataplane yet: ask again; if it stays so, look at the pod's events and whether it is injected"
    )]
    Pod(String),
    /// The Dataplane is in no document.
    #[error(
        "the operator has no document of Dataplane {name:?} in Mesh {mesh:?} yet: add it to --documents, or make a token for one that is there (weir-operator token --name --mesh)"
    )]
    Dataplane {
        /// The name in the token.
        name: String,
        /// The Mesh in the token.
        mesh: String,
    },
    /// The pod is in a Mesh that there is not.
    #[error(
        "there is no Mesh {0:?}, which the Dataplane is in: create it, or name one that is there in kuma.io/mesh of the pod or its namespace"
    )]
    Mesh(String),
    /// The Dataplane is in a Mesh that is in no document.
    #[error(
        "the operator has no document of Mesh {0:?}, which the Dataplane is in: add it to --documents, or name a Mesh that is there in the Dataplane and in its token"
    )]
    MeshDocument(String),
}

impl Unknown {
    /// Of this caller. One whose token is bound to no pod is called by its service account.
    #[must_use]
    pub fn of(caller: &Caller) -> Self {
        match caller {
            Caller::Account(account) => {
                let pod = account.pod.as_ref().map(|pod| &pod.name);
                Self::Pod(pod.unwrap_or(&account.service_account).clone())
            }
            Caller::Dataplane(grant) => Self::Dataplane {
                name: grant.name.clone(),
                mesh: grant.mesh.clone(),
            },
        }
    }

    /// Of the Mesh of this caller's workload.
    #[must_use]
    pub fn mesh_of(caller: &Caller, mesh: &str) -> Self {
        match caller {
            Caller::Account(_) => Self::Mesh(mesh.to_owned()),
            Caller::Dataplane(_) => Self::MeshDocument(mesh.to_owned()),
        }
    }
}

/// What is known of a workload: `None` where it is not (yet, or any more).
pub type WorkloadView = Option<Arc<Workload>>;

/// Knows the workloads.
pub trait Workloads: Send + Sync + 'static {
    /// The workload of a caller, now and at every change.
    fn follow(&self, caller: &Caller) -> watch::Receiver<WorkloadView>;
}
