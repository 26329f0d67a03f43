//! The owned forms of the borrowed label structs: the keys of a worker's tables. A key hashes and compares as the
//! labels it was made of, so that a look-up borrows and allocates nothing.

use std::hash::{Hash, Hasher};

use super::{
    Authz, Dst, HttpLabels, HttpSide, Route, Server, Tls, TransportEnd, TransportLabels, same_text,
};

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

    pub(in crate::telemetry) fn view(&self) -> HttpLabels<'_> {
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

    pub(in crate::telemetry) fn view(&self) -> TransportLabels<'_> {
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

/// As the derived equality, but never compares empty texts.
impl HttpLabels<'_> {
    pub(in crate::telemetry) fn is(&self, key: &HttpLabels<'_>) -> bool {
        self.target_port == key.target_port
            && same_text(self.authority, key.authority)
            && self.tls == key.tls
            && self.side == key.side
    }
}

/// As above.
impl TransportLabels<'_> {
    pub(in crate::telemetry) fn is(&self, key: &TransportLabels<'_>) -> bool {
        let same_end = match (self.end, key.end) {
            (
                TransportEnd::OutboundDst { authority, dst },
                TransportEnd::OutboundDst {
                    authority: known,
                    dst: known_dst,
                },
            ) => dst == known_dst && same_text(authority, known),
            (end, known) => end == known,
        };
        self.target_port == key.target_port && self.tls == key.tls && same_end
    }
}

impl Hash for HttpLabels<'_> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        let side = match self.side {
            HttpSide::Inbound {
                server,
                route,
                authz,
            } => mix(mix(server.0.digest(), route.0.digest()), authz.0.digest()),
            HttpSide::Outbound { dst } => dst.0.digest(),
        };
        state.write_u64(mix(side, u64::from(self.target_port)));
        state.write(self.authority.as_bytes());
        self.tls.hash_into(state);
    }
}

impl Hash for TransportLabels<'_> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        let end = match self.end {
            TransportEnd::InboundSrc { server } => server.0.digest(),
            TransportEnd::InboundDst => 1,
            TransportEnd::OutboundSrc => 2,
            TransportEnd::OutboundDst { dst, .. } => dst.0.digest(),
        };
        state.write_u64(mix(end, u64::from(self.target_port)));
        if let TransportEnd::OutboundDst { authority, .. } = self.end {
            state.write(authority.as_bytes());
        }
        self.tls.hash_into(state);
    }
}

impl Tls {
    fn hash_into<H: Hasher>(&self, state: &mut H) {
        match self {
            Self::Mutual { id: text } | Self::Opaque { sni: text } => state.write(text.as_bytes()),
            Self::NoIdentity(reason) => state.write_u8(*reason as u8),
        }
    }
}

/// One word for two, so that the keyed hasher is fed few times. The words are digests of configuration, not of what a
/// client sends; what a client sends (authorities, names) goes through the keyed hasher.
fn mix(a: u64, b: u64) -> u64 {
    a.rotate_left(25) ^ b
}
