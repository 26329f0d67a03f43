//! A service that a destination is, with all that is followed of it: its endpoints, its routes, and the endpoints of the
//! destinations that its requests, or those of some routes, are divided among. Made by `follow`.

use std::net::SocketAddr;
use std::sync::Arc;

use super::addresses::{Addresses, next_of};
use super::follow::Lookup;
use super::tables::Tables;
use crate::endpoints::{Branch, Listed, MOST_BRANCHES, MOST_DESTINATIONS, Service, Share};
use crate::routes::{Backend, Compiled};
use crate::telemetry::Dst;

/// A service that is followed.
pub(super) struct Resolved {
    lookup: Lookup,
    name: String,
    port: u16,
    own: Addresses,
    /// None where it has no routes.
    tables: Option<Tables>,
    /// The other services that its requests go to, or those of some of its routes.
    parts: Vec<Addresses>,
}

impl Resolved {
    pub(super) fn new(lookup: &Lookup, name: String, port: u16) -> Self {
        Self {
            own: Addresses::new(lookup, format!("{name}:{port}")),
            lookup: lookup.clone(),
            name,
            port,
            tables: None,
            parts: Vec::new(),
        }
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// Follows its routes from now on, or no longer.
    pub(super) fn follow_routes(&mut self, has_routes: bool) {
        if !has_routes {
            self.tables = None;
            self.parts.clear();
        } else if self.tables.is_none() {
            let path = format!("{}:{}", self.name, self.port);
            self.tables = Some(Tables::new(&self.lookup, path));
        }
    }

    /// Whether anything was said about all that it is to be known by.
    pub(super) fn is_said(&self) -> bool {
        let tables = self.tables.as_ref();
        self.own.is_said() && tables.is_none_or(Tables::is_said) && self.are_parts_said()
    }

    /// Whether anything was said about every destination that its requests go to.
    pub(super) fn are_parts_said(&self) -> bool {
        self.parts.iter().all(Addresses::is_said)
    }

    /// The next thing that is said about any of it is taken over.
    pub(super) async fn next(&mut self) {
        tokio::select! {
            () = self.own.next() => return,
            () = next_of(&mut self.parts) => return,
            () = next_table(&mut self.tables) => {}
        }
        self.divide();
    }

    /// Follows the destinations that its table names; those that it has named before go on.
    fn divide(&mut self) {
        let table = self.table();
        let lists = table.iter().flat_map(|table| lists(table));
        let mut wanted: Vec<&str> = Vec::new();
        for Backend { authority, .. } in lists.flat_map(|list| self.part_of(list)) {
            if authority != self.own.path() && !wanted.contains(&authority.as_str()) {
                wanted.push(authority);
            }
        }
        let mut before = std::mem::take(&mut self.parts);
        let followed = wanted.into_iter().map(|path| {
            let known = before.iter().position(|part| part.path() == path);
            match known {
                Some(known) => before.swap_remove(known),
                None => Addresses::new(&self.lookup, path.to_owned()),
            }
        });
        self.parts = followed.collect();
    }

    fn table(&self) -> Option<Arc<Compiled>> {
        self.tables.as_ref().and_then(Tables::latest)
    }

    /// As many of these backends as are followed.
    fn part_of<'b>(&self, backends: &'b [Backend]) -> &'b [Backend] {
        let Some(part) = backends.get(..MOST_DESTINATIONS) else {
            return backends;
        };
        if backends.len() > MOST_DESTINATIONS {
            tracing::warn!(
                service = self.name,
                "requests are divided among the first {MOST_DESTINATIONS} destinations alone"
            );
        }
        part
    }

    /// Whether its own endpoints may be others by now. Where its requests go elsewhere, the address they were going to is
    /// no place for them.
    pub(super) fn is_stale(&self) -> bool {
        let is_own = self.table().is_none_or(|t| t.destinations().is_empty());
        is_own && self.own.is_stale()
    }

    /// Whether nothing is to be read into the bytes of connections to it: all endpoints that these may go to are opaque.
    pub(super) fn is_opaque(&self) -> bool {
        let table = self.table();
        match self.destinations(table.as_deref()) {
            [] => self.own.is_opaque(),
            destinations => {
                let parts = destinations.iter().filter_map(|to| self.part(to));
                // Nothing goes to one that is not there.
                let mut parts = parts.filter(|part| !part.is_empty()).peekable();
                parts.peek().is_some() && parts.all(Addresses::is_opaque)
            }
        }
    }

    /// The destinations that connections are divided among by this table; none where they go to its own endpoints.
    fn destinations<'t>(&self, table: Option<&'t Compiled>) -> &'t [Backend] {
        let destinations = table.map_or(&[][..], Compiled::destinations);
        match self.are_parts_said() {
            true => &destinations[..destinations.len().min(MOST_DESTINATIONS)],
            false => &[],
        }
    }

    /// What is known of a destination of its requests, which may be itself.
    fn part(&self, to: &Backend) -> Option<&Addresses> {
        let mut known = self.parts.iter().chain([&self.own]);
        known.find(|part| part.path() == to.authority)
    }

    /// What is known of it.
    pub(super) fn service(&self, to: SocketAddr) -> Service {
        let table = self.table();
        let destinations = self.destinations(table.as_deref());
        let branches = table.as_ref().map_or_else(Vec::new, |t| branches(t));
        let branches = branches.into_iter().map(|backends| Branch {
            backends: backends.into(),
            endpoints: self.divided(backends),
        });
        Service {
            name: self.name.clone(),
            endpoints: match destinations {
                [] => self.listed(to),
                destinations => self.divided(destinations),
            },
            branches: branches.collect(),
            routes: table,
        }
    }

    /// Its endpoints. Of a service that the operator cannot resolve, connections go where they were going.
    fn listed(&self, to: SocketAddr) -> Vec<Listed> {
        let unknown = || vec![Listed::plain(to, Dst::unknown())];
        self.own.listed().unwrap_or_else(unknown)
    }

    /// The endpoints of all these destinations.
    fn divided(&self, backends: &[Backend]) -> Vec<Listed> {
        let backends = backends.iter().take(MOST_DESTINATIONS);
        let parts = (0..).zip(backends);
        let listed = parts.flat_map(|(destination, backend)| {
            let share = Some(Share {
                destination,
                weight: backend.weight,
            });
            let listed = self
                .part(backend)
                .and_then(Addresses::listed)
                .unwrap_or_default();
            listed
                .into_iter()
                .map(move |listed| Listed { share, ..listed })
        });
        listed.collect()
    }
}

/// The lists of backends of routes that have their own.
fn branches(table: &Compiled) -> Vec<&[Backend]> {
    let mut branches = table.branches();
    if branches.len() > MOST_BRANCHES {
        tracing::warn!("the first {MOST_BRANCHES} lists of backends alone are obeyed");
        branches.truncate(MOST_BRANCHES);
    }
    branches
}

/// All lists of backends.
fn lists(table: &Compiled) -> impl Iterator<Item = &[Backend]> {
    let branches = branches(table).into_iter();
    branches.chain([table.destinations()])
}

async fn next_table(tables: &mut Option<Tables>) {
    match tables {
        Some(tables) => tables.next().await,
        None => std::future::pending().await,
    }
}
