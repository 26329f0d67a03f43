//! Writes views down as the messages of the API, with `routes` for those of routes. Called by `endpoints` and `profiles`; pure.

mod routes;

use std::collections::HashMap;
use std::net::SocketAddr;

use linkerd2_proxy_api::destination::protocol_hint::{Opaque, Protocol};
use linkerd2_proxy_api::destination::tls_identity::{DnsLikeIdentity, Strategy};
use linkerd2_proxy_api::destination::update::Update as Change;
use linkerd2_proxy_api::destination::{
    AddrSet, DestinationProfile, NoEndpoints, ProtocolHint, TlsIdentity, Update, WeightedAddr,
    WeightedAddrSet,
};
use linkerd2_proxy_api::meta::{Metadata, Resource, metadata};
use linkerd2_proxy_api::net::TcpAddress;

use crate::index::{Caller, Destination, Endpoint, ObjectKey, Profile, RouteKind, Table};

/// The weight of every endpoint (Linkerd's).
pub(super) const WEIGHT: u32 = 10_000;
/// Label that the set has for all its endpoints.
const NAMESPACE: &str = "namespace";

/// Endpoints that are new, or are not what they were; `of` is the Service they belong to.
pub(super) fn add(endpoints: &[&Endpoint], of: Option<&Destination>, caller: &Caller) -> Update {
    let addrs = endpoints.iter().map(|endpoint| {
        let mut addr = weighted(endpoint, caller);
        if of.is_some() {
            addr.metric_labels.remove(NAMESPACE);
        }
        addr
    });
    let labels = of.into_iter().flat_map(|destination| {
        let ObjectKey { namespace, name } = &destination.service;
        [(NAMESPACE, namespace), ("service", name)]
    });
    update(Change::Add(WeightedAddrSet {
        addrs: addrs.collect(),
        metric_labels: owned(labels.map(|(key, value)| (key, &**value))),
    }))
}

/// Endpoints that are gone.
pub(super) fn remove(addresses: &[SocketAddr]) -> Update {
    update(Change::Remove(AddrSet {
        addrs: addresses.iter().copied().map(tcp_address).collect(),
    }))
}

/// There is none.
pub(super) fn no_endpoints(exists: bool) -> Update {
    update(Change::NoEndpoints(NoEndpoints { exists }))
}

/// A change.
pub(super) fn update(change: Change) -> Update {
    Update {
        update: Some(change),
    }
}

/// What stands behind a target.
pub(super) fn profile(profile: &Profile, caller: &Caller) -> DestinationProfile {
    match profile {
        Profile::Unknown => DestinationProfile::default(),
        Profile::Service(destination, routes) => {
            let told = DestinationProfile {
                fully_qualified_name: destination.name.to_string(),
                opaque_protocol: destination.opaque,
                parent_ref: Some(resource("Service", &destination.service, destination.port)),
                ..DestinationProfile::default()
            };
            let table = routes.as_ref();
            match table.and_then(|routes| routes.for_client(caller, &destination.service)) {
                Some(table) => routed(told, table),
                None => told,
            }
        }
        Profile::Endpoint(endpoint) => DestinationProfile {
            opaque_protocol: endpoint.opaque,
            endpoint: Some(weighted(endpoint, caller)),
            ..DestinationProfile::default()
        },
    }
}

/// Says what the API can say of routes, and where there are more words for them.
fn routed(told: DestinationProfile, table: &Table) -> DestinationProfile {
    let (group, kind) = match table.kind {
        RouteKind::ServiceProfile => ("linkerd.io", "ServiceProfile"),
        RouteKind::HttpRoute => ("gateway.networking.k8s.io", "HTTPRoute"),
    };
    let profile_ref = Some(Metadata {
        kind: Some(metadata::Kind::Resource(Resource {
            group: group.to_owned(),
            ..named(kind, &table.of)
        })),
    });
    match table.kind {
        RouteKind::ServiceProfile => DestinationProfile {
            routes: routes::routes(&table.table),
            retry_budget: routes::budget(&table.table),
            dst_overrides: routes::overrides(&table.table),
            profile_ref,
            ..told
        },
        RouteKind::HttpRoute => DestinationProfile {
            profile_ref,
            ..told
        },
    }
}

fn weighted(endpoint: &Endpoint, caller: &Caller) -> WeightedAddr {
    let workload = endpoint.workload.as_ref();
    WeightedAddr {
        addr: Some(tcp_address(endpoint.address)),
        weight: WEIGHT,
        metric_labels: owned(endpoint.labels(caller).into_iter()),
        tls_identity: endpoint.identity_for(caller).map(tls_identity),
        // No hint of HTTP/2: it would have HTTP/1 requests translated, which our proxies do not translate back.
        protocol_hint: endpoint.opaque.then_some(ProtocolHint {
            protocol: Some(Protocol::Opaque(Opaque {})),
            opaque_transport: None,
        }),
        resource_ref: workload
            .map(|workload| resource("Pod", &workload.pod, endpoint.address.port())),
        ..WeightedAddr::default()
    }
}

/// The DNS name to expect.
pub(super) fn tls_identity(name: &str) -> TlsIdentity {
    let name = DnsLikeIdentity {
        name: name.to_owned(),
    };
    TlsIdentity {
        server_name: Some(name.clone()),
        strategy: Some(Strategy::DnsLikeIdentity(name)),
    }
}

/// An address.
pub(super) fn tcp_address(address: SocketAddr) -> TcpAddress {
    TcpAddress {
        ip: Some(address.ip().into()),
        port: u32::from(address.port()),
    }
}

fn resource(kind: &str, key: &ObjectKey, port: u16) -> Metadata {
    Metadata {
        kind: Some(metadata::Kind::Resource(Resource {
            group: "core".to_owned(),
            port: u32::from(port),
            ..named(kind, key)
        })),
    }
}

fn named(kind: &str, key: &ObjectKey) -> Resource {
    Resource {
        kind: kind.to_owned(),
        name: key.name.to_string(),
        namespace: key.namespace.to_string(),
        ..Resource::default()
    }
}

fn owned<'a>(labels: impl Iterator<Item = (&'a str, &'a str)>) -> HashMap<String, String> {
    labels
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .collect()
}
