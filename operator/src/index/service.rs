//! What the index keeps of Services, EndpointSlices, Nodes and Meshes. Made by `cluster`, read by `view` and, for
//! Dataplanes, by `reconcile`. It knows no client.

use std::net::IpAddr;
use std::sync::Arc;

use k8s_openapi::api::core::v1;
use k8s_openapi::api::discovery::v1 as discovery;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use weir_crds::settings::MtlsMode;
use weir_crds::{Mesh, names};

use super::interner::Interner;
use super::pod::{ObjectKey, Pairs, Pod, pairs, value_of};
use super::ports::Ports;

/// Label that names a slice's Service.
const SERVICE_NAME: &str = "kubernetes.io/service-name";
/// Suffix of the annotations that name a port's protocol (`<port>.service.kuma.io/protocol`).
const PROTOCOL_ANNOTATION: &str = ".service.kuma.io/protocol";
/// Annotation: the Service makes no inbounds (Kuma).
const IGNORE: &str = "kuma.io/ignore";

/// Where a Service's port leads on a pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TargetPort {
    /// This port.
    Number(u16),
    /// The container port of this name.
    Name(Arc<str>),
}

/// One TCP port of a Service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServicePort {
    /// Its name; empty where it has none.
    pub name: Arc<str>,
    /// Its number.
    pub port: u16,
    /// Where it leads.
    pub target: TargetPort,
    /// `appProtocol`.
    pub app_protocol: Option<Arc<str>>,
    /// What the annotation `<port>.service.kuma.io/protocol` says.
    pub annotated: Option<Arc<str>>,
}

/// One Service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Service {
    /// Namespace and name.
    pub key: ObjectKey,
    /// Its addresses; none where it is headless or an external name.
    pub addresses: Box<[IpAddr]>,
    /// It has no address of its own, its pods are dialed.
    pub headless: bool,
    /// It is an alias of this name.
    pub external_name: Option<Arc<str>>,
    /// Its endpoints' first family is IPv6.
    pub prefers_v6: bool,
    /// TCP ports.
    pub ports: Box<[ServicePort]>,
    /// `selector`; empty where its endpoints are made by hand.
    pub selector: Pairs,
    /// Ports that its annotation says are opaque; `None` where it says nothing.
    pub opaque: Option<Ports>,
    /// `internalTrafficPolicy: Local`.
    pub local: bool,
    /// `sessionAffinity: ClientIP`.
    pub sticky: bool,
    /// Kuma is told to pass it over.
    pub ignored: bool,
}

impl Service {
    /// Keeps of an object what is used.
    pub(super) fn keep(service: v1::Service, names: &mut Interner) -> Self {
        let meta = service.metadata;
        let spec = service.spec.unwrap_or_default();
        let annotations = meta.annotations.unwrap_or_default();
        let all = spec.cluster_ips.iter().flatten().chain(&spec.cluster_ip);
        let mut addresses: Vec<IpAddr> = all.filter_map(|ip| ip.parse().ok()).collect();
        addresses.dedup();
        let is_external = spec.type_.as_deref() == Some("ExternalName");
        let ports = spec.ports.as_deref().unwrap_or_default();
        let named = |name: &str| {
            let port = ports
                .iter()
                .find(|port| port.name.as_deref() == Some(name))?;
            u16::try_from(port.port).ok()
        };
        let opaque = annotations
            .get(names::OPAQUE_PORTS)
            .map(|list| Ports::parse(list, named));
        let protocol = |port: i32| annotations.get(&format!("{port}{PROTOCOL_ANNOTATION}"));
        let ports = ports.iter().filter(|port| is_tcp(port.protocol.as_deref()));
        let ports = ports.filter_map(|port| {
            let annotated = protocol(port.port).map(|text| names.name(text));
            ServicePort::keep(port, annotated, names)
        });
        let ports = ports.collect();
        Self {
            headless: !is_external && spec.cluster_ip.as_deref() == Some("None"),
            external_name: spec
                .external_name
                .filter(|_| is_external)
                .map(|name| names.name(&name)),
            prefers_v6: spec
                .ip_families
                .iter()
                .flatten()
                .next()
                .is_some_and(|one| one == "IPv6"),
            ports,
            selector: pairs(spec.selector.iter().flatten(), names),
            opaque,
            local: spec.internal_traffic_policy.as_deref() == Some("Local"),
            sticky: spec.session_affinity.as_deref() == Some("ClientIP"),
            ignored: annotations.get(IGNORE).is_some_and(|value| is_yes(value)),
            key: ObjectKey {
                namespace: names.name(meta.namespace.as_deref().unwrap_or_default()),
                name: names.name(meta.name.as_deref().unwrap_or_default()),
            },
            addresses: addresses.into(),
        }
    }

    /// Whether it selects an injected pod; one without a selector selects none.
    #[must_use]
    pub fn selects(&self, pod: &Pod) -> bool {
        let Some(injected) = &pod.injected else {
            return false;
        };
        let has =
            |(key, value): &(Arc<str>, Arc<str>)| value_of(&injected.labels, key) == Some(&**value);
        !self.selector.is_empty() && self.selector.iter().all(has)
    }

    /// Its port of this number.
    #[must_use]
    pub fn port(&self, number: u16) -> Option<&ServicePort> {
        self.ports.iter().find(|port| port.port == number)
    }
}

fn is_yes(value: &str) -> bool {
    ["true", "yes", "enabled"].contains(&value)
}

fn is_tcp(protocol: Option<&str>) -> bool {
    protocol.is_none_or(|protocol| protocol.is_empty() || protocol == "TCP")
}

impl ServicePort {
    fn keep(
        port: &v1::ServicePort,
        annotated: Option<Arc<str>>,
        names: &mut Interner,
    ) -> Option<Self> {
        let number = u16::try_from(port.port).ok()?;
        let target = match &port.target_port {
            Some(IntOrString::Int(0)) | None => TargetPort::Number(number),
            Some(IntOrString::Int(target)) => TargetPort::Number(u16::try_from(*target).ok()?),
            Some(IntOrString::String(name)) => TargetPort::Name(names.name(name)),
        };
        Some(Self {
            name: names.name(port.name.as_deref().unwrap_or_default()),
            port: number,
            target,
            app_protocol: port.app_protocol.as_deref().map(|text| names.name(text)),
            annotated,
        })
    }
}

/// One endpoint of a slice.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SliceEndpoint {
    /// Its address.
    pub address: IpAddr,
    /// The pod behind it.
    pub pod: Option<ObjectKey>,
    /// Its name below a headless Service.
    pub hostname: Option<Arc<str>>,
    /// Its node.
    pub node: Option<Arc<str>>,
    /// Its zone.
    pub zone: Option<Arc<str>>,
    /// Takes new connections.
    pub ready: bool,
    /// Serves while it is being deleted.
    pub draining: bool,
    /// Zones it is meant for; empty where nothing is said.
    pub zones: Box<[Arc<str>]>,
    /// Nodes it is meant for; empty where nothing is said.
    pub nodes: Box<[Arc<str>]>,
}

/// One EndpointSlice.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Slice {
    /// Its own namespace and name.
    pub key: ObjectKey,
    /// The Service it belongs to, in the same namespace.
    pub service: ObjectKey,
    /// Its addresses are IPv6.
    pub is_v6: bool,
    /// TCP ports by name; a port without a number is any port.
    pub ports: Box<[(Arc<str>, Option<u16>)]>,
    /// Its endpoints; those that cannot be used are left out.
    pub endpoints: Box<[SliceEndpoint]>,
}

impl Slice {
    /// Keeps of an object what is used. A slice of no Service has an owner without a name; names in place of
    /// addresses are no endpoints.
    pub(super) fn keep(slice: discovery::EndpointSlice, names: &mut Interner) -> Self {
        let namespace = names.name(slice.metadata.namespace.as_deref().unwrap_or_default());
        let labels = slice.metadata.labels.as_ref();
        let service = labels.and_then(|labels| labels.get(SERVICE_NAME));
        let ports = slice.ports.iter().flatten();
        let ports = ports.filter(|port| is_tcp(port.protocol.as_deref()));
        let ports = ports.map(|port| {
            let name = names.name(port.name.as_deref().unwrap_or_default());
            (
                name,
                port.port.and_then(|number| u16::try_from(number).ok()),
            )
        });
        let ports = ports.collect();
        let endpoints = slice.endpoints.into_iter();
        Self {
            ports,
            endpoints: endpoints
                .filter_map(|endpoint| SliceEndpoint::keep(endpoint, &namespace, names))
                .collect(),
            is_v6: slice.address_type == "IPv6",
            service: ObjectKey {
                name: names.name(service.map_or("", String::as_str)),
                namespace: namespace.clone(),
            },
            key: ObjectKey {
                namespace,
                name: slice.metadata.name.as_deref().unwrap_or_default().into(),
            },
        }
    }
}

impl SliceEndpoint {
    fn keep(
        endpoint: discovery::Endpoint,
        namespace: &Arc<str>,
        names: &mut Interner,
    ) -> Option<Self> {
        let conditions = endpoint.conditions.unwrap_or_default();
        let ready = conditions.ready.unwrap_or(true);
        let serving = conditions.serving.unwrap_or(ready);
        let terminating = conditions.terminating.unwrap_or(false);
        let pod = endpoint
            .target_ref
            .filter(|target| target.kind.as_deref() == Some("Pod"));
        let hints = endpoint.hints.unwrap_or_default();
        let mut name = |text: &str| names.name(text);
        let kept = Self {
            address: endpoint.addresses.first()?.parse().ok()?,
            hostname: endpoint.hostname.as_deref().map(&mut name),
            node: endpoint.node_name.as_deref().map(&mut name),
            zone: endpoint.zone.as_deref().map(&mut name),
            zones: hints
                .for_zones
                .iter()
                .flatten()
                .map(|one| name(&one.name))
                .collect(),
            nodes: hints
                .for_nodes
                .iter()
                .flatten()
                .map(|one| name(&one.name))
                .collect(),
            pod: pod.and_then(|pod| {
                Some(ObjectKey {
                    namespace: namespace.clone(),
                    name: pod.name?.into(),
                })
            }),
            ready,
            draining: !ready && serving && terminating,
        };
        (kept.ready || kept.draining).then_some(kept)
    }
}

/// The labels of a Node that are used.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Node {
    /// Its name.
    pub name: Arc<str>,
    /// `topology.kubernetes.io/zone`.
    pub zone: Option<Arc<str>>,
    /// `topology.kubernetes.io/region`.
    pub region: Option<Arc<str>>,
}

/// Label of a Node: its zone.
pub const ZONE: &str = "topology.kubernetes.io/zone";
/// Label of a Node: its region.
pub const REGION: &str = "topology.kubernetes.io/region";

impl Node {
    /// Keeps of a Node's metadata what is used.
    pub(super) fn keep(meta: &kube::api::ObjectMeta, names: &mut Interner) -> Self {
        let mut label = |key: &str| Some(names.name(meta.labels.as_ref()?.get(key)?));
        Self {
            zone: label(ZONE),
            region: label(REGION),
            name: names.name(meta.name.as_deref().unwrap_or_default()),
        }
    }
}

/// Whether the proxies of a Mesh have an identity.
pub(super) fn has_identity(mesh: &Mesh) -> bool {
    mesh.spec.mtls_mode() != MtlsMode::Disabled
}
