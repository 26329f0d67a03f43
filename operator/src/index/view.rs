//! What a subscriber is shown: a Service's endpoints, and what stands behind an address. Made by `facts`, read by
//! `serve`. Which endpoints a client is given is decided here, as Kubernetes' own proxies decide it. It knows no
//! protobuf.

use std::net::SocketAddr;
use std::sync::Arc;

use weir_crds::routes::RouteTable;

use super::pod::{ObjectKey, Workload};

/// Where traffic can be sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// Where to connect.
    pub address: SocketAddr,
    /// The pod behind it.
    pub workload: Option<Arc<Workload>>,
    /// The name in its certificate, where connections to this port reach a proxy that has one.
    pub identity: Option<Arc<str>>,
    /// Its bytes are not to be looked at.
    pub opaque: bool,
    /// Its name below a headless Service.
    pub hostname: Option<Arc<str>>,
    /// Its node.
    pub node: Option<Arc<str>>,
    /// Its zone.
    pub zone: Option<Arc<str>>,
    /// Takes new connections; else it serves while it ends, for when nobody else is left.
    pub ready: bool,
    /// Zones it is meant for; empty where nothing is said.
    pub zones: Box<[Arc<str>]>,
    /// Nodes it is meant for; empty where nothing is said.
    pub nodes: Box<[Arc<str>]>,
}

/// A Service's port, without its endpoints.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Destination {
    /// Namespace and name of the Service.
    pub service: ObjectKey,
    /// The port of the Service.
    pub port: u16,
    /// `<name>.<namespace>.svc.<cluster domain>`.
    pub name: Arc<str>,
    /// Its bytes are not to be looked at.
    pub opaque: bool,
    /// It is an alias of a name outside; there are no endpoints.
    pub external: bool,
    /// Only endpoints on the client's node (`internalTrafficPolicy: Local`).
    pub local: bool,
    /// A client keeps its endpoint (`sessionAffinity: ClientIP`).
    pub sticky: bool,
}

/// A Service's port and its endpoints; no destination where there is no such Service.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ServiceView {
    /// The Service.
    pub destination: Option<Arc<Destination>>,
    /// In the order of their addresses.
    pub endpoints: Box<[Endpoint]>,
}

/// What stands behind an address or a name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Profile {
    /// Nothing of this cluster.
    #[default]
    Unknown,
    /// A Service, and its routes where it has any.
    Service(Arc<Destination>, Option<Arc<Routes>>),
    /// One pod.
    Endpoint(Box<Endpoint>),
}

/// What a table was written as.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum RouteKind {
    /// A ServiceProfile; it comes before HTTPRoutes, as in Linkerd.
    ServiceProfile,
    /// HTTPRoutes.
    HttpRoute,
}

impl RouteKind {
    /// Group and version, and the kind's name.
    #[must_use]
    pub fn names(self) -> (&'static str, &'static str) {
        match self {
            Self::ServiceProfile => ("linkerd.io/v1alpha2", "ServiceProfile"),
            Self::HttpRoute => ("gateway.networking.k8s.io/v1", "HTTPRoute"),
        }
    }
}

impl std::fmt::Display for RouteKind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.names().1)
    }
}

/// The routes of a Service's port as one namespace has written them.
#[derive(Clone, Debug, PartialEq)]
pub struct Table {
    /// What it was written as.
    pub kind: RouteKind,
    /// Where: the ServiceProfile, or the first of the HTTPRoutes.
    pub of: ObjectKey,
    /// Compiled.
    pub table: RouteTable,
}

/// A ratio that is no number makes a table unequal to itself: it is told again, which harms nothing.
impl Eq for Table {}

/// The routes of a Service's port. Those of its own namespace are for every client, those of another one for the
/// clients in it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Routes(pub Box<[Arc<Table>]>);

impl Routes {
    /// The table for a client of this Service: a ServiceProfile before HTTPRoutes, and of either that of the client's
    /// namespace before that of the Service's.
    #[must_use]
    pub fn for_client(&self, client: &Caller, service: &ObjectKey) -> Option<&Arc<Table>> {
        let home = client.pod.as_ref().map(|pod| &pod.namespace);
        let rank = |table: &Arc<Table>| {
            let namespace = &table.of.namespace;
            let is_home = home == Some(namespace);
            (is_home || *namespace == service.namespace).then_some((table.kind, !is_home))
        };
        let ranked = self
            .0
            .iter()
            .filter_map(|table| Some((rank(table)?, table)));
        ranked.min_by_key(|(rank, _)| *rank).map(|(_, table)| table)
    }
}

/// Who asks, as far as it is known.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Caller {
    /// Namespace and name of its pod.
    pub pod: Option<ObjectKey>,
    /// Its node.
    pub node: Option<Arc<str>>,
    /// Its zone.
    pub zone: Option<Arc<str>>,
    /// Its Mesh, where it is a proxy of ours.
    pub mesh: Option<Arc<str>>,
}

impl ServiceView {
    /// The endpoints for `client`. Those that are ready, on its node alone where the Service says so, and the near ones
    /// where every one has a hint; where none is ready, those that still serve. `held` is where a client of a sticky
    /// Service was sent before.
    #[must_use]
    pub fn endpoints_for(&self, client: &Caller, held: Option<SocketAddr>) -> Vec<&Endpoint> {
        let Some(destination) = &self.destination else {
            return Vec::new();
        };
        let here = |endpoint: &&Endpoint| {
            !destination.local || client.node.is_none() || endpoint.node == client.node
        };
        let of = |ready: bool| {
            let endpoints = self.endpoints.iter();
            endpoints
                .filter(move |endpoint| endpoint.ready == ready)
                .filter(here)
        };
        let mut chosen: Vec<&Endpoint> = of(true).collect();
        if !destination.local {
            chosen = near(chosen, client);
        }
        if chosen.is_empty() {
            chosen = of(false).collect();
        }
        match (&client.pod, destination.sticky) {
            (Some(pod), true) => one_of(&chosen, pod, held).into_iter().collect(),
            _ => chosen,
        }
    }
}

/// The endpoints meant for the client's node, else for its zone: where all of them say whom they are for, and one is
/// for this client.
fn near<'a>(ready: Vec<&'a Endpoint>, client: &Caller) -> Vec<&'a Endpoint> {
    type Hints = fn(&Endpoint) -> &[Arc<str>];
    let levels: [(Hints, &Option<Arc<str>>); 2] = [
        (|one| &one.nodes, &client.node),
        (|one| &one.zones, &client.zone),
    ];
    for (hints, place) in levels {
        let Some(place) = place else { continue };
        if ready.iter().all(|one| !hints(one).is_empty()) {
            let mut near = ready.clone();
            near.retain(|one| hints(one).contains(place));
            if !near.is_empty() {
                return near;
            }
        }
    }
    ready
}

/// The one endpoint of a client: the one it has while that is there, else the one of highest weight, so that clients
/// spread and few of them move when endpoints come and go.
fn one_of<'a>(
    chosen: &[&'a Endpoint],
    client: &ObjectKey,
    held: Option<SocketAddr>,
) -> Option<&'a Endpoint> {
    let same = chosen.iter().find(|one| Some(one.address) == held);
    let heaviest = || chosen.iter().max_by_key(|one| weight(client, one.address));
    same.or_else(heaviest).copied()
}

/// FNV-1a and the finalizer of MurmurHash3: the same in every replica and release.
fn weight(client: &ObjectKey, address: SocketAddr) -> u64 {
    let text = format!("{}/{} {address}", client.namespace, client.name);
    let mut hash = text.bytes().fold(0xcbf2_9ce4_8422_2325, |hash: u64, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    for factor in [0xff51_afd7_ed55_8ccd_u64, 0xc4ce_b9fe_1a85_ec53] {
        hash = (hash ^ (hash >> 33)).wrapping_mul(factor);
    }
    hash ^ (hash >> 33)
}

impl Endpoint {
    /// Its metric labels without `dst_`, for a client in `client.zone`; those of its Service are not among them.
    #[must_use]
    pub fn labels(&self, client: &Caller) -> Vec<(&'static str, &str)> {
        let mut labels = Vec::with_capacity(8);
        if let Some(workload) = &self.workload {
            labels.push(("namespace", &*workload.pod.namespace));
            labels.push(("pod", &*workload.pod.name));
            labels.push(("serviceaccount", &*workload.service_account));
            let owner = workload.owner.as_ref();
            labels.extend(owner.map(|(kind, name)| (kind.label(), &**name)));
            let optional = [
                ("control_plane_ns", &workload.control_plane),
                ("pod_template_hash", &workload.template_hash),
            ];
            labels.extend(
                optional
                    .iter()
                    .filter_map(|(key, value)| Some((*key, value.as_deref()?))),
            );
        }
        labels.extend(self.zone.as_deref().map(|zone| ("zone", zone)));
        let locality = match (&self.zone, &client.zone) {
            (Some(zone), Some(theirs)) if zone == theirs => "local",
            (Some(_), Some(_)) => "remote",
            _ => "unknown",
        };
        labels.push(("zone_locality", locality));
        labels
    }

    /// The name to expect in its certificate: a certificate of another Mesh means nothing to `client`.
    #[must_use]
    pub fn identity_for(&self, client: &Caller) -> Option<&str> {
        let mesh = self
            .workload
            .as_ref()
            .and_then(|workload| workload.mesh.as_ref());
        let is_foreign = client.mesh.is_some() && client.mesh.as_ref() != mesh;
        self.identity.as_deref().filter(|_| !is_foreign)
    }
}
