//! What is kept of an injected pod for those who scrape its proxy, beside what others need of it. Made by `pod`, read
//! through `Discovery::proxies`. It knows no format in which they are told.

use std::net::IpAddr;
use std::sync::Arc;

use k8s_openapi::api::core::v1;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use weir_crds::ports;

use super::container;
use super::interner::Interner;
use super::pod::{Injected, Pod};

/// The condition of a pod that is as ready as its containers and gates.
const READY: &str = "Ready";

/// How far a pod is, for its proxy: before and after there is none that answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// `Pending`: its init containers and native sidecars may run.
    Pending,
    /// `Running`.
    Running,
}

impl Phase {
    fn of(status: &v1::PodStatus) -> Option<Self> {
        match status.phase.as_deref() {
            Some("Pending") => Some(Self::Pending),
            Some("Running") => Some(Self::Running),
            _ => None,
        }
    }

    /// As Kubernetes spells it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "Pending",
            Self::Running => "Running",
        }
    }
}

/// The admin port of a proxy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AdminPort {
    /// Its number.
    pub number: u16,
    /// The proxy is an init container: a native sidecar.
    pub is_init: bool,
}

/// The state of an injected pod that only scrapers are told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Scrape {
    phase: Option<Phase>,
    ready: Option<bool>,
    controller: Option<(Arc<str>, Arc<str>)>,
    admin: Option<AdminPort>,
}

impl Scrape {
    /// Keeps of an object what is used.
    pub(super) fn keep(
        meta: &ObjectMeta,
        (spec, status): (&v1::PodSpec, &v1::PodStatus),
        names: &mut Interner,
    ) -> Self {
        let mut conditions = status.conditions.iter().flatten();
        let ready = conditions.find(|condition| condition.type_ == READY);
        let mut owners = meta.owner_references.iter().flatten();
        let controller = owners.find(|owner| owner.controller == Some(true));
        Self {
            phase: Phase::of(status),
            ready: ready.and_then(|condition| match condition.status.as_str() {
                "True" => Some(true),
                "False" => Some(false),
                _ => None,
            }),
            controller: controller.map(|owner| (names.name(&owner.kind), names.name(&owner.name))),
            admin: admin_port(spec),
        }
    }
}

fn admin_port(spec: &v1::PodSpec) -> Option<AdminPort> {
    let (proxy, is_init) = container::proxy(spec)?;
    let mut declared = proxy.ports.iter().flatten();
    let port = declared.find(|port| port.name.as_deref() == Some(ports::LINKERD_ADMIN))?;
    Some(AdminPort {
        number: u16::try_from(port.container_port).ok()?,
        is_init,
    })
}

/// A proxy that may answer a scraper.
#[derive(Clone, Copy, Debug)]
pub struct Proxy<'a> {
    /// Its pod.
    pub pod: &'a Pod,
    /// What injection has made of the pod.
    pub injected: &'a Injected,
    /// The first address of the pod.
    pub address: IpAddr,
    /// How far the pod is.
    pub phase: Phase,
    /// The pod's condition `Ready`; `None` where the kubelet has not said.
    pub ready: Option<bool>,
    /// Kind and name of the pod's controller, as they are written in the pod.
    pub controller: Option<(&'a str, &'a str)>,
    /// Where it answers.
    pub admin: AdminPort,
}

impl Pod {
    /// The pod's proxy; none where it has none, no address, or has ended.
    #[must_use]
    pub fn proxy(&self) -> Option<Proxy<'_>> {
        let injected = self.injected.as_deref()?;
        let scrape = &injected.scrape;
        Some(Proxy {
            pod: self,
            injected,
            address: *self.addresses.first()?,
            phase: scrape.phase?,
            ready: scrape.ready,
            controller: scrape
                .controller
                .as_ref()
                .map(|(kind, name)| (&**kind, &**name)),
            admin: scrape.admin?,
        })
    }
}
