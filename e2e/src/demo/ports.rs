//! The ports of the demo, all on loopback: free ones, or consecutive ones from a number the user
//! gave. Called by `demo` before anything starts; knows only what each port is for.

use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};

use crate::ports::RANGE;

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
    #[error("no {needed} free ports in a row from {} to {}: give a number to --ports-from", RANGE.start, RANGE.end)]
    None { needed: usize },
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

/// A place for each name, on consecutive ports that were free a moment ago: those from a number on,
/// else the first free ones after a place that depends on `seed`.
pub(super) fn places<const N: usize>(
    names: [&str; N],
    from: Option<u16>,
    seed: u32,
) -> Result<[Place; N], PortError> {
    let roles: Vec<String> = names
        .iter()
        .flat_map(|name| ROLES.map(|role| format!("{role} of {name}")))
        .collect();
    if let Some(from) = from {
        return held(from, &roles).map(|addresses| placed(names, &addresses));
    }
    let blocks = RANGE.len() / roles.len();
    let first = usize::try_from(seed).unwrap_or_default();
    let mut candidates = (0..blocks).map(|offset| {
        let start = (first.wrapping_add(offset) % blocks) * roles.len();
        RANGE.start + u16::try_from(start).expect("a block begins within the range")
    });
    let addresses = candidates.find_map(|start| held(start, &roles).ok());
    addresses
        .map(|addresses| placed(names, &addresses))
        .ok_or(PortError::None {
            needed: roles.len(),
        })
}

/// Addresses on the ports from a number on, one for each role.
fn held(from: u16, roles: &[String]) -> Result<Vec<SocketAddr>, PortError> {
    let ports = from..=u16::MAX;
    if ports.len() < roles.len() {
        let needed = roles.len();
        return Err(PortError::Beyond { from, needed });
    }
    let bound = ports.zip(roles).map(|(port, role)| {
        let bound = TcpListener::bind((Ipv4Addr::LOCALHOST, port));
        bound
            .and_then(|listener| listener.local_addr())
            .map_err(|error| PortError::Taken {
                port,
                role: role.clone(),
                error,
            })
    });
    bound.collect()
}

fn placed<const N: usize>(names: [&str; N], addresses: &[SocketAddr]) -> [Place; N] {
    let mut addresses = addresses.iter().copied();
    let mut next = || addresses.next().expect("an address for each role");
    names.map(|_| Place {
        admin: next(),
        metrics: next(),
        inbound: next(),
        outbound: next(),
        application: next(),
    })
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn free_ports_differ() {
        let places = places(["a", "b", "c"], None, 7).unwrap();
        let all: HashSet<SocketAddr> = places
            .iter()
            .flat_map(|p| [p.admin, p.metrics, p.inbound, p.outbound, p.application])
            .collect();
        assert_eq!(all.len(), 15);
        assert!(
            all.iter()
                .all(|a| a.ip().is_loopback() && RANGE.contains(&a.port()))
        );
    }

    #[test]
    fn demos_at_the_same_time_look_in_different_places() {
        let [first] = places(["a"], None, 1000).unwrap();
        let held = TcpListener::bind(first.outbound).unwrap();
        let [again] = places(["a"], None, 1000).unwrap();
        let [other] = places(["a"], None, 2000).unwrap();
        assert!(again.admin != first.admin && other.admin != first.admin);
        assert_eq!(held.local_addr().unwrap(), first.outbound);
    }

    #[test]
    fn a_taken_port_is_named_with_its_role_and_the_remedy() {
        let taken = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = taken.local_addr().unwrap().port();
        let error = places(["web"], Some(port), 0).unwrap_err().to_string();
        assert!(
            error.starts_with(&format!("port {port} (admin of web) cannot be used: "))
                && error.contains("--ports-from"),
            "{error}"
        );
    }

    #[test]
    fn ports_end_at_65535() {
        let error = places(["a", "b", "c"], Some(65530), 0).unwrap_err();
        assert!(matches!(error, PortError::Beyond { needed: 15, .. }));
    }
}
