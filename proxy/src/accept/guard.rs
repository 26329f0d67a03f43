//! The own-port guard: which redirected connections may be served at all.
//!
//! A pure decision on the original destination. Without it, a connection to the proxy's
//! own port would be dialed, redirected, accepted and dialed again without end.

use std::net::{IpAddr, SocketAddr};

/// What the guard knows of this pod.
#[derive(Clone, Debug, Default)]
pub struct Guard {
    /// The pod's addresses; empty when they are not known, then any address passes.
    pub pod_ips: Vec<IpAddr>,
    /// The ports the proxy itself listens on for redirected connections, and its admin port.
    pub own_ports: Vec<u16>,
    /// The ports that the application declares: no settings make them the metrics endpoint's.
    pub application_ports: Vec<u16>,
}

/// Why a connection is not served.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    #[error("the connection to {0} was not redirected: the port is the proxy's own")]
    NotRedirected(SocketAddr),
    #[error("{0} is a port of the proxy itself")]
    OwnPort(SocketAddr),
    #[error("{0} is not an address of this pod")]
    ForeignAddress(SocketAddr),
    #[error("the client has gone")]
    Gone,
}

impl Refusal {
    /// The port the client meant, 0 when it is not known.
    pub fn port(self) -> u16 {
        match self {
            Self::NotRedirected(a) | Self::OwnPort(a) | Self::ForeignAddress(a) => a.port(),
            Self::Gone => 0,
        }
    }
}

impl Guard {
    /// Judges a connection to the application.
    pub fn inbound(&self, original: SocketAddr) -> Result<SocketAddr, Refusal> {
        if self.own_ports.contains(&original.port()) {
            return Err(Refusal::OwnPort(original));
        }
        if !self.pod_ips.is_empty() && !self.pod_ips.contains(&original.ip()) {
            return Err(Refusal::ForeignAddress(original));
        }
        Ok(original)
    }

    /// Judges a connection of the application: anything but the proxy itself may be dialed.
    pub fn outbound(&self, original: SocketAddr) -> Result<SocketAddr, Refusal> {
        let is_own = original.ip().is_loopback() || self.pod_ips.contains(&original.ip());
        if is_own && self.own_ports.contains(&original.port()) {
            return Err(Refusal::OwnPort(original));
        }
        Ok(original)
    }
}

#[cfg(test)]
mod tests {
    use super::{Guard, Refusal};

    fn guard() -> Guard {
        let pod_ips = vec!["10.1.2.3".parse().expect("an address")];
        Guard {
            pod_ips,
            own_ports: vec![4140, 4143, 4191],
            application_ports: Vec::new(),
        }
    }

    #[test]
    fn own_ports_and_foreign_addresses_are_refused_inbound() {
        let addr = |s: &str| s.parse().expect("an address");
        assert_eq!(
            guard().inbound(addr("10.1.2.3:80")),
            Ok(addr("10.1.2.3:80"))
        );
        let own = addr("10.1.2.3:4143");
        assert_eq!(guard().inbound(own), Err(Refusal::OwnPort(own)));
        let foreign = addr("10.9.9.9:80");
        assert_eq!(
            guard().inbound(foreign),
            Err(Refusal::ForeignAddress(foreign))
        );
    }

    #[test]
    fn outbound_refuses_only_itself() {
        let addr = |s: &str| s.parse().expect("an address");
        assert_eq!(
            guard().outbound(addr("10.9.9.9:4143")),
            Ok(addr("10.9.9.9:4143"))
        );
        for own in ["10.1.2.3:4140", "127.0.0.1:4140"] {
            assert_eq!(
                guard().outbound(addr(own)),
                Err(Refusal::OwnPort(addr(own)))
            );
        }
    }
}
