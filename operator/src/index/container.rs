//! The containers of a pod: which one has our proxy, which are the application's, and what is kept of these. Used by `pod`
//! and `scrape`, on the whole object. It knows no Mesh and no Service.

use std::sync::Arc;

use k8s_openapi::api::core::v1;
use weir_crds::{env, names};

use super::interner::Interner;

/// One of a pod's containers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Container {
    /// Its name.
    pub name: Arc<str>,
    /// Its readiness; `None` where the kubelet has not said.
    pub ready: Option<bool>,
    /// Its TCP ports with their names, empty where they have none.
    pub ports: Box<[(Arc<str>, u16)]>,
}

impl Container {
    /// Keeps of an object what is used.
    pub(super) fn keep(
        container: &v1::Container,
        ready: Option<bool>,
        names: &mut Interner,
    ) -> Self {
        let ports = container.ports.iter().flatten();
        let tcp = ports.filter(|port| port.protocol.as_deref().is_none_or(|kind| kind == "TCP"));
        Self {
            name: names.name(&container.name),
            ready,
            ports: tcp
                .filter_map(|port| {
                    let number = u16::try_from(port.container_port).ok()?;
                    Some((names.name(port.name.as_deref().unwrap_or_default()), number))
                })
                .collect(),
        }
    }
}

/// The container with our proxy, and whether it is an init container: a native sidecar. Kuma's own proxy has a container
/// of the same name.
pub(super) fn proxy(spec: &v1::PodSpec) -> Option<(&v1::Container, bool)> {
    let plain = spec.containers.iter().map(|one| (one, false));
    let init = spec.init_containers.iter().flatten();
    let mut all = plain.chain(init.map(|one| (one, true)));
    all.find(|(one, _)| {
        let mut variables = one.env.iter().flatten();
        one.name == names::SIDECAR && variables.any(|variable| variable.name == env::SETTINGS)
    })
}

/// The containers that live as long as the pod, without the proxy, in the order in which Kubernetes looks for the name of
/// a port: native sidecars come last.
pub(super) fn application(spec: &v1::PodSpec) -> impl Iterator<Item = &v1::Container> {
    let init = spec.init_containers.iter().flatten();
    let sidecars = init.filter(|one| one.restart_policy.as_deref() == Some("Always"));
    let all = spec.containers.iter().chain(sidecars);
    all.filter(|one| one.name != names::SIDECAR)
}
