//! The labels that traffic is counted under. The pipeline builds these values (groups once per connection or
//! per configuration, the borrowed `*Labels` per look-up) and hands them to a `Recorder`. A group is rendered
//! when it is made, so that a look-up compares pointers and hashes a few words. Knows no series and no cells.

use std::convert::Infallible;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

use super::render;

mod key;
mod overflow;

pub(super) use key::{HttpKey, TransportKey};
pub(super) use overflow::{Stand, without_port};

/// The value that stands for those beyond a bound.
pub const OVERFLOW: &str = "__overflow__";
/// The port that stands for those beyond a bound, printed as [`OVERFLOW`]: no connection can be meant for it.
pub(super) const ANY_PORT: u16 = 0;

/// Text equality for the hot path. Empty texts mostly have no address, and a `memcmp` of no bytes that uses masked
/// vector loads takes 100 ns at an address that is not mapped: so they are never compared by it.
pub(super) fn same_text(a: &str, b: &str) -> bool {
    a.len() == b.len() && (a.is_empty() || a == b)
}

/// Which way a connection goes, seen from the pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Direction {
    /// From outside the pod, or from the proxy to the application.
    Inbound,
    /// From the application, or from the proxy to outside the pod.
    Outbound,
}

/// Which end of a relayed connection is meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Peer {
    /// Accepted by the proxy.
    Src,
    /// Opened by the proxy.
    Dst,
}

/// How a request, a response or a connection ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Classification {
    /// It ended well.
    Success,
    /// The server, or the connection, failed.
    Failure,
}

/// Why a connection carries no identity.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoTlsReason {
    /// The client did not speak mesh TLS.
    NoTlsFromRemote,
    /// Discovery gave the endpoint no identity.
    NotProvidedByServiceDiscovery,
    /// The connection stays inside the pod.
    Loopback,
    /// The port is configured to be left alone.
    PortSkipped,
}

/// What is known about the security of a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Tls {
    /// Mesh TLS; `id` is the peer's Linkerd-style name.
    Mutual {
        /// Printed as `client_id` inbound and `server_id` outbound.
        id: Arc<str>,
    },
    /// No mesh TLS, and why.
    NoIdentity(NoTlsReason),
    /// TLS of somebody else passing through.
    Opaque {
        /// The server name of the ClientHello, empty without one.
        sni: Arc<str>,
    },
}

/// A rendered group of labels, cheap to clone, to compare and to hash. `T` is what takes its place past the budget.
#[derive(Debug)]
pub(super) struct Group<T>(Arc<Rendered<T>>);

#[derive(Debug)]
struct Rendered<T> {
    hash: u64,
    text: Box<str>,
    overflow: Option<T>,
}

impl<T> Group<T> {
    fn new(pairs: &[(&str, &str)], overflow: Option<T>) -> Self {
        let mut text = String::new();
        for (key, value) in pairs {
            render::label(&mut text, key, value);
        }
        let mut hasher = DefaultHasher::new();
        text.hash(&mut hasher);
        Self(Arc::new(Rendered {
            hash: hasher.finish(),
            text: text.into(),
            overflow,
        }))
    }

    pub(super) fn text(&self) -> &str {
        &self.0.text
    }

    fn digest(&self) -> u64 {
        self.0.hash
    }

    /// What takes its place past the budget; `None` if it stays.
    fn overflow(&self) -> Option<&T> {
        self.0.overflow.as_ref()
    }
}

impl<T> Clone for Group<T> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<T> PartialEq for Group<T> {
    fn eq(&self, other: &Self) -> bool {
        let same =
            |a: &Rendered<T>, b: &Rendered<T>| a.hash == b.hash && same_text(&a.text, &b.text);
        Arc::ptr_eq(&self.0, &other.0) || same(&self.0, &other.0)
    }
}

impl<T> Eq for Group<T> {}

/// `srv_group`, `srv_kind`, `srv_name`, `srv_port`: the inbound that traffic arrived at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Server(pub(super) Group<Server>);

impl Server {
    /// A server of the given group (`kuma.io` or empty), kind, name and port.
    pub fn new(group: &str, kind: &str, name: &str, port: u16) -> Self {
        let port = port.to_string();
        let with = |port: &str, overflow| {
            let pairs = [
                ("srv_group", group),
                ("srv_kind", kind),
                ("srv_name", name),
                ("srv_port", port),
            ];
            Self(Group::new(&pairs, overflow))
        };
        with(&port, Some(with(OVERFLOW, None)))
    }
}

/// `route_group`, `route_kind`, `route_name`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route(pub(super) Group<Infallible>);

impl Route {
    /// A route of the given group, kind and name; without routes that is `""`, `default`, `default`.
    pub fn new(group: &str, kind: &str, name: &str) -> Self {
        let pairs = [
            ("route_group", group),
            ("route_kind", kind),
            ("route_name", name),
        ];
        Self(Group::new(&pairs, None))
    }
}

/// `authz_group`, `authz_kind`, `authz_name`: the permission that let the traffic in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Authz(pub(super) Group<Infallible>);

impl Authz {
    /// A permission of the given group, kind and name.
    pub fn new(group: &str, kind: &str, name: &str) -> Self {
        let pairs = [
            ("authz_group", group),
            ("authz_kind", kind),
            ("authz_name", name),
        ];
        Self(Group::new(&pairs, None))
    }
}

/// Every known `dst_*` label of a destination, in key order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dst(pub(super) Group<Dst>);

impl Dst {
    /// From pairs keyed **without** the prefix (`deployment`, `zone_locality`), in any order; of one key the last
    /// value counts, and a character that no label name may hold becomes `_`.
    pub fn new<'a>(pairs: impl IntoIterator<Item = (&'a str, &'a str)>) -> Self {
        let sorted: std::collections::BTreeMap<String, &str> = pairs
            .into_iter()
            .map(|(key, value)| (render::label_name("dst_", key), value))
            .collect();
        let mut pairs: Vec<_> = sorted.iter().map(|(k, v)| (k.as_str(), *v)).collect();
        let known = pairs.clone();
        pairs.iter_mut().for_each(|(_, value)| *value = OVERFLOW);
        let overflow = (!pairs.is_empty()).then(|| Self(Group::new(&pairs, None)));
        Self(Group::new(&known, overflow))
    }

    /// A destination about which nothing is known.
    pub fn unknown() -> Self {
        Self::new([])
    }
}

/// The labels of `request_total`, `response_total` and `response_latency_ms` that a request begins with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HttpLabels<'a> {
    /// Lower-cased `:authority` or `Host`, without the port its scheme implies.
    pub authority: &'a str,
    /// The port the connection was meant for.
    pub target_port: u16,
    /// Security of the client's connection (inbound) or of the endpoint's (outbound).
    pub tls: &'a Tls,
    /// The direction and what only that direction has.
    pub side: HttpSide<'a>,
}

/// The direction of a request, with the labels that belong to it alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HttpSide<'a> {
    /// To the application of this pod.
    Inbound {
        /// Where it arrived.
        server: &'a Server,
        /// Which route it took.
        route: &'a Route,
        /// Which permission allowed it.
        authz: &'a Authz,
    },
    /// From the application of this pod.
    Outbound {
        /// Where it goes.
        dst: &'a Dst,
    },
}

/// The labels of the `tcp_*` families.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TransportLabels<'a> {
    /// The port the connection was meant for.
    pub target_port: u16,
    /// Security of this very connection.
    pub tls: &'a Tls,
    /// Direction, peer, and what only that end has.
    pub end: TransportEnd<'a>,
}

/// One of the four kinds of connection, with the labels that belong to it alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TransportEnd<'a> {
    /// A client outside the pod connected to the proxy.
    InboundSrc {
        /// Where it arrived.
        server: &'a Server,
    },
    /// The proxy connected to the application.
    InboundDst,
    /// The application connected to the proxy.
    OutboundSrc,
    /// The proxy connected to an endpoint outside the pod.
    OutboundDst {
        /// The discovered Service's fully qualified name, else empty.
        authority: &'a str,
        /// Where it goes.
        dst: &'a Dst,
    },
}

impl TransportEnd<'_> {
    pub(super) fn direction(&self) -> Direction {
        match self {
            Self::InboundSrc { .. } | Self::InboundDst => Direction::Inbound,
            Self::OutboundSrc | Self::OutboundDst { .. } => Direction::Outbound,
        }
    }

    pub(super) fn peer(&self) -> Peer {
        match self {
            Self::InboundSrc { .. } | Self::OutboundSrc => Peer::Src,
            Self::InboundDst | Self::OutboundDst { .. } => Peer::Dst,
        }
    }
}

/// The labels of `grpc_messages_total` that a call begins with.
#[derive(Clone, Copy, Debug)]
pub struct GrpcLabels<'a> {
    /// Seen from the pod.
    pub direction: Direction,
    /// As in [`HttpLabels`].
    pub authority: &'a str,
    /// The port the connection was meant for: no label, but it tells whether the authority is a known Service's.
    pub target_port: u16,
}

/// The labels of `weir_endpoints`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EndpointLabels<'a> {
    /// The service's name, as on its connections.
    pub authority: &'a str,
    /// The port of its listener.
    pub target_port: u16,
}

/// A connection that the proxy could not process: `inbound_tcp_errors_total`, `outbound_tcp_errors_total`.
#[derive(Clone, Copy, Debug)]
pub struct TcpErrorLabels {
    /// Chooses the family.
    pub direction: Direction,
    /// The end that failed.
    pub peer: Peer,
    /// One of the fixed error names.
    pub error: &'static str,
    /// The port the connection was meant for.
    pub target_port: u16,
}

/// An answer the proxy made up itself: `inbound_http_errors_total`, `outbound_http_errors_total`.
#[derive(Clone, Copy, Debug)]
pub struct HttpErrorLabels<'a> {
    /// Chooses the family.
    pub direction: Direction,
    /// Where the request arrived; inbound only. Unknown servers print empty labels.
    pub server: Option<&'a Server>,
    /// One of the fixed error names.
    pub error: &'static str,
}

/// A decision on who may connect: `inbound_http_authz_*_total`, `inbound_tcp_authz_*_total`.
#[derive(Clone, Copy, Debug)]
pub struct AuthzLabels<'a> {
    /// The authority of the request; none where the connection speaks no HTTP.
    pub authority: Option<&'a str>,
    /// The port the connection was meant for: no label, but it tells whether the authority is a known Service's.
    pub target_port: u16,
    /// Where it arrived.
    pub server: &'a Server,
    /// Which route it took.
    pub route: &'a Route,
    /// The permission that lets it in; none where it is denied.
    pub authz: Option<&'a Authz>,
    /// Security of the client's connection.
    pub tls: &'a Tls,
}

/// A request that its port has no route for: `inbound_http_route_not_found_total`.
#[derive(Clone, Copy, Debug)]
pub struct NotFoundLabels<'a> {
    /// As in [`HttpLabels`].
    pub authority: &'a str,
    /// As in [`AuthzLabels`].
    pub target_port: u16,
    /// Where it arrived.
    pub server: &'a Server,
    /// Security of the client's connection.
    pub tls: &'a Tls,
}

/// How a response stream ended.
#[derive(Clone, Copy, Debug)]
pub struct ResponseEnd<'a> {
    /// Absent when there was no head.
    pub status: Option<u16>,
    /// By rule.
    pub classification: Classification,
    /// The value of `grpc-status`, empty without one.
    pub grpc_status: &'a str,
    /// Empty for a normal end.
    pub error: &'a str,
}
