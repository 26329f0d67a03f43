//! Where a connection may go: one address, or the endpoints of a service.
//!
//! Built from a Dataplane file (later from the operator's stream) and read by
//! `connection`, which picks one endpoint for a connection. It must not know sockets.

use std::cell::Cell;
use std::net::SocketAddr;
use std::rc::Rc;

use crate::telemetry::Dst;

/// One address of a service, with the labels it is counted under.
#[derive(Debug)]
pub struct Endpoint {
    pub addr: SocketAddr,
    pub dst: Dst,
    /// Connections that this worker has open to it.
    open: Cell<usize>,
}

impl Endpoint {
    pub fn new(addr: SocketAddr, dst: Dst) -> Self {
        Self {
            addr,
            dst,
            open: Cell::new(0),
        }
    }
}

/// The endpoints of one service, as one worker sees them.
#[derive(Debug)]
pub struct EndpointSet {
    /// The service's name, the `authority` of its connections.
    pub name: Rc<str>,
    endpoints: Vec<Rc<Endpoint>>,
    turn: Cell<usize>,
}

/// A connection's claim on an endpoint: its load counts as long as this lives.
#[derive(Debug)]
pub struct Chosen(Rc<Endpoint>);

impl std::ops::Deref for Chosen {
    type Target = Endpoint;

    fn deref(&self) -> &Endpoint {
        &self.0
    }
}

impl Drop for Chosen {
    fn drop(&mut self) {
        self.0.open.set(self.0.open.get() - 1);
    }
}

impl EndpointSet {
    pub fn new(name: &str, endpoints: Vec<Endpoint>) -> Self {
        let endpoints = endpoints.into_iter().map(Rc::new).collect();
        Self {
            name: name.into(),
            endpoints,
            turn: Cell::new(0),
        }
    }

    /// The endpoint with the fewest open connections, in turn among equals; none when
    /// the service has no endpoint.
    pub fn choose(&self) -> Option<Chosen> {
        let count = self.endpoints.len();
        let turn = self.turn.get();
        self.turn.set(turn.wrapping_add(1));
        let chosen = (0..count)
            .map(|i| &self.endpoints[(turn.wrapping_add(i)) % count])
            .min_by_key(|e| e.open.get())?;
        chosen.open.set(chosen.open.get() + 1);
        Some(Chosen(Rc::clone(chosen)))
    }
}

#[cfg(test)]
mod tests {
    use super::{Endpoint, EndpointSet};
    use crate::telemetry::Dst;

    fn set(ports: &[u16]) -> EndpointSet {
        let endpoint = |port: &u16| Endpoint::new(([127, 0, 0, 1], *port).into(), Dst::unknown());
        EndpointSet::new("web", ports.iter().map(endpoint).collect())
    }

    #[test]
    fn connections_spread_evenly_and_return() {
        let set = set(&[1, 2, 3]);
        let held: Vec<_> = (0..3).filter_map(|_| set.choose()).collect();
        let mut ports: Vec<_> = held.iter().map(|e| e.addr.port()).collect();
        ports.sort_unstable();
        assert_eq!(ports, [1, 2, 3]);
        drop(held);
        assert!(set.endpoints.iter().all(|e| e.open.get() == 0));
    }

    #[test]
    fn the_least_loaded_is_chosen() {
        let set = set(&[1, 2]);
        let _gone_again = set.choose().map(|c| c.addr);
        let busy = set.choose();
        let next = set.choose().map(|e| e.addr);
        assert_ne!(next, busy.as_ref().map(|e| e.addr));
    }

    #[test]
    fn a_service_without_endpoints_has_no_choice() {
        assert!(set(&[]).choose().is_none());
    }
}
