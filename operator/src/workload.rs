//! What the operator knows of a caller's workload: its Mesh, its tags, its ports and what it overrides.
//! Read by `serve` through [`Workloads`]; `dataplanes` fills it from the Dataplane resources, and
//! `permissions` keeps the TrafficPermissions beside. It knows no client and no protobuf.

mod dataplanes;
mod permissions;

use std::sync::Arc;

use tokio::sync::watch;
use weir_crds::identity::Tags;
use weir_crds::merge::MetricsOverride;
use weir_crds::names::{NAMESPACE_TAG, SERVICE_NAME_TAG, SERVICE_PORT_TAG};
use weir_crds::traffic_permission::Selector;

use crate::index::ObjectKey;
use crate::token::Caller;

pub use dataplanes::Dataplanes;
pub use permissions::{PermissionSet, PermissionView, Permissions};

/// One workload.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Workload {
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

/// What is known of a workload: `None` where it is not (yet, or any more).
pub type WorkloadView = Option<Arc<Workload>>;

/// Knows the workloads.
pub trait Workloads: Send + Sync + 'static {
    /// The workload of a caller, now and at every change.
    fn follow(&self, caller: &Caller) -> watch::Receiver<WorkloadView>;
}
