//! The views that follow from what is known: pure functions of the facts. Called by `discovery` for the keys that
//! somebody watches.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use weir_crds::identity;

use super::{Facts, find};
use crate::index::pod::{ObjectKey, Pod, Workload};
use crate::index::service::{Service, ServicePort, Slice, SliceEndpoint, has_identity};
use crate::index::view::{Caller, Destination, Endpoint, Profile, ServiceView};

/// Values of `appProtocol`, and of Kuma's annotation, for bytes that are not to be looked at.
const OPAQUE_PROTOCOLS: [&str; 4] = ["kafka", "linkerd.io/opaque", "linkerd.io/tcp", "tcp"];
/// Values for bytes that are, whatever the port.
const KNOWN_PROTOCOLS: [&str; 8] = [
    "grpc",
    "http",
    "http2",
    "https",
    "kubernetes.io/h2c",
    "kubernetes.io/ws",
    "kubernetes.io/wss",
    "tls",
];

impl Facts {
    /// A Service's port and its endpoints.
    pub(in crate::index) fn service_view(&self, key: &ObjectKey, port: u16) -> ServiceView {
        let Some(service) = find(&self.services, key) else {
            return ServiceView::default();
        };
        let slices = self.slices.get(key).map_or(&[][..], Vec::as_slice);
        let has = |v6: bool| slices.iter().any(|slice| slice.is_v6 == v6);
        let v6 = if has(service.prefers_v6) {
            service.prefers_v6
        } else {
            !service.prefers_v6
        };
        let mut endpoints = Vec::new();
        for slice in slices.iter().filter(|slice| slice.is_v6 == v6) {
            let Some(target) = target_port(service, slice, port) else {
                continue;
            };
            let found = slice.endpoints.iter();
            endpoints.extend(found.map(|one| self.endpoint(one, target, (service, port))));
        }
        endpoints.sort_by_key(|endpoint| endpoint.address);
        endpoints.dedup_by_key(|endpoint| endpoint.address);
        ServiceView {
            destination: Some(self.destination(service, port)),
            endpoints: endpoints.into(),
        }
    }

    fn endpoint(
        &self,
        found: &SliceEndpoint,
        target: u16,
        (service, port): (&Service, u16),
    ) -> Endpoint {
        let pod = found.pod.as_ref().and_then(|key| find(&self.pods, key));
        let workload = pod.map(|pod| pod.workload.clone());
        let said = said_of(service, port);
        let of_pod = workload
            .as_ref()
            .and_then(|workload| workload.opaque.as_ref());
        Endpoint {
            address: SocketAddr::new(found.address, target),
            identity: self.identity(workload.as_deref(), target),
            opaque: said == Some(true)
                || match of_pod {
                    Some(ports) => ports.contains(target),
                    None => said.is_none() && (self.is_opaque(port) || self.is_opaque(target)),
                },
            workload,
            hostname: found.hostname.clone(),
            node: found.node.clone(),
            zone: found.zone.clone(),
            ready: found.ready,
            zones: found.zones.clone(),
            nodes: found.nodes.clone(),
        }
    }

    fn is_opaque(&self, port: u16) -> bool {
        self.config.opaque_ports.contains(port)
    }

    fn destination(&self, service: &Service, port: u16) -> Arc<Destination> {
        let ObjectKey { namespace, name } = &service.key;
        let name = format!("{name}.{namespace}.svc.{}", self.config.cluster_domain);
        Arc::new(Destination {
            service: service.key.clone(),
            port,
            name: name.into(),
            opaque: said_of(service, port).unwrap_or_else(|| self.is_opaque(port)),
            external: service.external_name.is_some(),
            local: service.local && !service.headless,
            sticky: service.sticky && !service.headless,
        })
    }

    fn identity(&self, workload: Option<&Workload>, port: u16) -> Option<Arc<str>> {
        let workload = workload.filter(|workload| !workload.excluded.contains(port))?;
        let mesh = self.meshes.get(workload.mesh.as_ref()?)?;
        let (account, namespace) = (&workload.service_account, &workload.pod.namespace);
        has_identity(mesh)
            .then(|| identity::workload_name(account, namespace, &self.config.trust_domain).into())
    }

    /// What stands behind an address: a Service where it has this port, or a pod.
    pub(in crate::index) fn address_view(&self, address: IpAddr, port: u16) -> Profile {
        let service = self.service_addresses.get(&address);
        if let Some(service) = service.and_then(|key| find(&self.services, key)) {
            return match service.port(port) {
                Some(_) => self.service_profile(service, port),
                None => Profile::Unknown,
            };
        }
        match self.pod_at(address) {
            Some(pod) => Profile::Endpoint(Box::new(self.pod_endpoint(pod, address, port))),
            None => Profile::Unknown,
        }
    }

    fn service_profile(&self, service: &Service, port: u16) -> Profile {
        let routes = self.routes.of(&service.key, port).cloned();
        Profile::Service(self.destination(service, port), routes)
    }

    fn pod_endpoint(&self, pod: &Pod, address: IpAddr, port: u16) -> Endpoint {
        let workload = pod.workload.clone();
        let node = workload.node.as_ref().and_then(|node| self.nodes.get(node));
        Endpoint {
            address: SocketAddr::new(address, port),
            identity: self.identity(Some(&workload), port),
            opaque: match &workload.opaque {
                Some(ports) => ports.contains(port),
                None => self.is_opaque(port),
            },
            hostname: None,
            node: workload.node.clone(),
            zone: node.and_then(|node| node.zone.clone()),
            ready: true,
            zones: Box::default(),
            nodes: Box::default(),
            workload: Some(workload),
        }
    }

    /// What stands behind a Service's name.
    pub(in crate::index) fn name_view(&self, service: &ObjectKey, port: u16) -> Profile {
        match find(&self.services, service) {
            Some(service) => self.service_profile(service, port),
            None => Profile::Unknown,
        }
    }

    /// What stands behind the name of one pod of a headless Service.
    pub(in crate::index) fn instance_view(
        &self,
        service: &ObjectKey,
        hostname: &str,
        port: u16,
    ) -> Profile {
        let view = self.service_view(service, port);
        let mut endpoints = view.endpoints.into_iter();
        let found = endpoints.find(|one| one.hostname.as_deref() == Some(hostname));
        found.map_or(Profile::Unknown, |found| Profile::Endpoint(Box::new(found)))
    }

    /// Who asks, by what it says of itself. What is known shares its names with all streams of the pod.
    pub(in crate::index) fn caller(&self, pod: Option<ObjectKey>, node: Option<&str>) -> Caller {
        let known = pod.as_ref().and_then(|key| find(&self.pods, key));
        let workload = known.map(|pod| &pod.workload);
        let said = node.map(|node| match self.nodes.get(node) {
            Some(known) => known.name.clone(),
            None => node.into(),
        });
        let node = said.or_else(|| workload?.node.clone());
        let place = node.as_ref().and_then(|node| self.nodes.get(node));
        Caller {
            zone: place.and_then(|place| place.zone.clone()),
            mesh: workload.and_then(|workload| workload.mesh.clone()),
            node,
            pod: workload.map(|workload| workload.pod.clone()).or(pod),
        }
    }
}

/// The port on the endpoints of a slice that a Service's port leads to.
fn target_port(service: &Service, slice: &Slice, port: u16) -> Option<u16> {
    match service.port(port) {
        Some(ServicePort { name, .. }) => {
            let found = slice.ports.iter().find(|(known, _)| known == name)?;
            Some(found.1.unwrap_or(port))
        }
        // Its pods are dialed, on any port.
        None if service.headless => Some(port),
        None => None,
    }
}

/// Whether a Service says that a port is opaque, or is not; `None` where it says nothing.
fn said_of(service: &Service, port: u16) -> Option<bool> {
    if let Some(ports) = &service.opaque {
        return Some(ports.contains(port));
    }
    let port = service.port(port)?;
    let protocol = port.app_protocol.as_ref().or(port.annotated.as_ref())?;
    let protocol = protocol.to_ascii_lowercase();
    let is_opaque = OPAQUE_PROTOCOLS.contains(&protocol.as_str());
    (is_opaque || KNOWN_PROTOCOLS.contains(&protocol.as_str())).then_some(is_opaque)
}
