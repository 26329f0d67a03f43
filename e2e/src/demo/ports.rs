//! The ports of the demo, all on loopback: free ones, or consecutive ones from a number the user
//! gave. Called by `demo` before anything starts; knows only what each port is for.

use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};

/// Why there are no ports.
#[derive(Debug, thiserror::Error)]
pub(super) enum PortError {
    #[error(
        "port {port} ({role}) cannot be used: {error}; give another number to --ports-from, or leave it out for free ports"
    )]
    Taken {
        port: u16,
        role: String,
        error: io::Error,
    },
    #[error("no free port for {role}: {error}")]
    None { role: String, error: io::Error },
    #[error("--ports-from {from}: {needed} ports are needed, up to 65535")]
    Beyond { from: u16, needed: usize },
}

/// The listeners of a proxy and of the application behind it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    /// Of the proxy: `/metrics`, `/ready`, `/live`.
    pub admin: SocketAddr,
    /// Of the proxy: the metrics endpoint of the Mesh.
    pub metrics: SocketAddr,
    /// Of the proxy: what others call.
    pub inbound: SocketAddr,
    /// Of the proxy: what the application calls in place of the service it needs.
    pub outbound: SocketAddr,
    /// Of the application; only its proxy calls it.
    pub application: SocketAddr,
}

/// The ports of a place, in this order.
pub(super) const ROLES: [&str; 5] = ["admin", "metrics", "inbound", "outbound", "application"];

/// A place for each name, on ports that were free a moment ago.
pub(super) fn places<const N: usize>(
    names: [&str; N],
    from: Option<u16>,
) -> Result<[Place; N], PortError> {
    let needed = N * ROLES.len();
    let last = from.map(|from| usize::from(from) + needed - 1);
    if let (Some(from), true) = (from, last > Some(usize::from(u16::MAX))) {
        return Err(PortError::Beyond { from, needed });
    }
    // Held together until all are there, or the system would give one twice.
    let mut held = Vec::new();
    let roles = names
        .iter()
        .flat_map(|name| ROLES.map(|role| format!("{role} of {name}")));
    for (offset, role) in (0u16..).zip(roles) {
        held.push(match from {
            Some(from) => bind(from + offset).map_err(|error| PortError::Taken {
                port: from + offset,
                role,
                error,
            })?,
            None => bind(0).map_err(|error| PortError::None { role, error })?,
        });
    }
    let mut addresses = held.iter().filter_map(|held| held.local_addr().ok());
    let mut next = || {
        addresses
            .next()
            .expect("a bound listener has an address, and each role was bound")
    };
    Ok(names.map(|_| Place {
        admin: next(),
        metrics: next(),
        inbound: next(),
        outbound: next(),
        application: next(),
    }))
}

fn bind(port: u16) -> io::Result<TcpListener> {
    TcpListener::bind((Ipv4Addr::LOCALHOST, port))
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn free_ports_differ() {
        let places = places(["a", "b", "c"], None).unwrap();
        let all: HashSet<SocketAddr> = places
            .iter()
            .flat_map(|p| [p.admin, p.metrics, p.inbound, p.outbound, p.application])
            .collect();
        assert_eq!(all.len(), 15);
        assert!(all.iter().all(|a| a.ip().is_loopback() && a.port() != 0));
    }

    #[test]
    fn a_taken_port_is_named_with_its_role_and_the_remedy() {
        let taken = bind(0).unwrap();
        let port = taken.local_addr().unwrap().port();
        let error = places(["web"], Some(port)).unwrap_err().to_string();
        assert!(
            error.starts_with(&format!("port {port} (admin of web) cannot be used: "))
                && error.contains("--ports-from"),
            "{error}"
        );
    }

    #[test]
    fn ports_end_at_65535() {
        let error = places(["a", "b", "c"], Some(65530)).unwrap_err();
        assert!(matches!(error, PortError::Beyond { needed: 15, .. }));
    }
}
