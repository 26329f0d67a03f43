//! The owned forms of the borrowed label structs: the keys of a worker's tables. A key hashes and compares as the
//! labels it was made of, so that a look-up borrows and allocates nothing.

use std::hash::{Hash, Hasher};

use indexmap::Equivalent;

use super::{Authz, Dst, HttpLabels, HttpSide, Route, Server, Tls, TransportEnd, TransportLabels};

/// The owned form of [`HttpLabels`], the key of a worker's table.
#[derive(Debug)]
pub(in crate::telemetry) struct HttpKey {
    authority: Box<str>,
    target_port: u16,
    tls: Tls,
    side: HttpKeySide,
}

#[derive(Debug)]
enum HttpKeySide {
    Inbound(Server, Route, Authz),
    Outbound(Dst),
}

impl HttpKey {
    pub(in crate::telemetry) fn new(labels: &HttpLabels<'_>) -> Self {
        Self {
            authority: labels.authority.into(),
            target_port: labels.target_port,
            tls: labels.tls.clone(),
            side: match labels.side {
                HttpSide::Inbound {
                    server,
                    route,
                    authz,
                } => HttpKeySide::Inbound(server.clone(), route.clone(), authz.clone()),
                HttpSide::Outbound { dst } => HttpKeySide::Outbound(dst.clone()),
            },
        }
    }

    fn view(&self) -> HttpLabels<'_> {
        HttpLabels {
            authority: &self.authority,
            target_port: self.target_port,
            tls: &self.tls,
            side: match &self.side {
                HttpKeySide::Inbound(server, route, authz) => HttpSide::Inbound {
                    server,
                    route,
                    authz,
                },
                HttpKeySide::Outbound(dst) => HttpSide::Outbound { dst },
            },
        }
    }
}

/// The owned form of [`TransportLabels`].
#[derive(Debug)]
pub(in crate::telemetry) struct TransportKey {
    target_port: u16,
    tls: Tls,
    end: TransportKeyEnd,
}

#[derive(Debug)]
enum TransportKeyEnd {
    InboundSrc(Server),
    InboundDst,
    OutboundSrc,
    OutboundDst(Box<str>, Dst),
}

impl TransportKey {
    pub(in crate::telemetry) fn new(labels: &TransportLabels<'_>) -> Self {
        Self {
            target_port: labels.target_port,
            tls: labels.tls.clone(),
            end: match labels.end {
                TransportEnd::InboundSrc { server } => TransportKeyEnd::InboundSrc(server.clone()),
                TransportEnd::InboundDst => TransportKeyEnd::InboundDst,
                TransportEnd::OutboundSrc => TransportKeyEnd::OutboundSrc,
                TransportEnd::OutboundDst { authority, dst } => {
                    TransportKeyEnd::OutboundDst(authority.into(), dst.clone())
                }
            },
        }
    }

    fn view(&self) -> TransportLabels<'_> {
        TransportLabels {
            target_port: self.target_port,
            tls: &self.tls,
            end: match &self.end {
                TransportKeyEnd::InboundSrc(server) => TransportEnd::InboundSrc { server },
                TransportKeyEnd::InboundDst => TransportEnd::InboundDst,
                TransportKeyEnd::OutboundSrc => TransportEnd::OutboundSrc,
                TransportKeyEnd::OutboundDst(authority, dst) => {
                    TransportEnd::OutboundDst { authority, dst }
                }
            },
        }
    }
}

macro_rules! look_up_by {
    ($labels:ident, $key:ident) => {
        impl Hash for $key {
            fn hash<H: Hasher>(&self, state: &mut H) {
                self.view().hash(state);
            }
        }

        impl PartialEq for $key {
            fn eq(&self, other: &Self) -> bool {
                self.view() == other.view()
            }
        }

        impl Eq for $key {}

        impl Equivalent<$key> for $labels<'_> {
            fn equivalent(&self, key: &$key) -> bool {
                *self == key.view()
            }
        }
    };
}

look_up_by!(HttpLabels, HttpKey);
look_up_by!(TransportLabels, TransportKey);
