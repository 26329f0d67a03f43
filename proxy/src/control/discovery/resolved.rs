//! A service that a destination is, with all that is followed of it: its endpoints, its routes, and the endpoints of the
//! destinations that its requests are divided among. Made by `follow`.

use std::future::poll_fn;
use std::net::SocketAddr;
use std::pin::pin;
use std::task::Poll;

use weir_crds::routes::Backend;

use super::addresses::Addresses;
use super::follow::Lookup;
use super::tables::Tables;
use crate::endpoints::{Listed, MOST_DESTINATIONS, Service, Share};
use crate::telemetry::Dst;

/// A service that is followed.
pub(super) struct Resolved {
    lookup: Lookup,
    name: String,
    port: u16,
    own: Addresses,
    /// None where it has no routes.
    tables: Option<Tables>,
    /// Where its requests go instead; nothing where they go to it.
    parts: Vec<(u32, Addresses)>,
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

    /// Whether anything was said about every destination that its requests are divided among.
    pub(super) fn are_parts_said(&self) -> bool {
        self.parts.iter().all(|(_, part)| part.is_said())
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
        let table = self.tables.as_ref().and_then(Tables::latest);
        let backends = table.as_ref().map_or(&[][..], |table| table.destinations());
        if backends.len() > MOST_DESTINATIONS {
            tracing::warn!(
                service = self.name,
                "requests are divided among the first {MOST_DESTINATIONS} destinations alone"
            );
        }
        let mut before = std::mem::take(&mut self.parts);
        let followed = backends.iter().take(MOST_DESTINATIONS);
        let followed = followed.map(|Backend { authority, weight }| {
            let known = before.iter().position(|(_, part)| part.path() == authority);
            let part = match known {
                Some(known) => before.swap_remove(known).1,
                None => Addresses::new(&self.lookup, authority.clone()),
            };
            (*weight, part)
        });
        self.parts = followed.collect();
    }

    /// Whether its own endpoints may be others by now. Where its requests go elsewhere, the address they were going to is
    /// no place for them.
    pub(super) fn is_stale(&self) -> bool {
        self.parts.is_empty() && self.own.is_stale()
    }

    /// What is known of it.
    pub(super) fn service(&self, to: SocketAddr) -> Service {
        Service {
            name: self.name.clone(),
            endpoints: self.divided().unwrap_or_else(|| self.listed(to)),
            routes: self.tables.as_ref().and_then(Tables::latest),
        }
    }

    /// Its endpoints. Of a service that the operator cannot resolve, connections go where they were going.
    fn listed(&self, to: SocketAddr) -> Vec<Listed> {
        let unknown = || vec![Listed::plain(to, Dst::unknown())];
        self.own.listed().unwrap_or_else(unknown)
    }

    /// The endpoints of all destinations, once all are known.
    fn divided(&self) -> Option<Vec<Listed>> {
        if self.parts.is_empty() || !self.are_parts_said() {
            return None;
        }
        let parts = (0..).zip(&self.parts);
        let listed = parts.flat_map(|(destination, (weight, part))| {
            let share = Some(Share {
                destination,
                weight: *weight,
            });
            let listed = part.listed().unwrap_or_default().into_iter();
            listed.map(move |listed| Listed { share, ..listed })
        });
        Some(listed.collect())
    }
}

async fn next_table(tables: &mut Option<Tables>) {
    match tables {
        Some(tables) => tables.next().await,
        None => std::future::pending().await,
    }
}

/// The next thing that is said about any of them is taken over.
async fn next_of(parts: &mut [(u32, Addresses)]) {
    poll_fn(|cx| {
        let mut parts = parts.iter_mut();
        // What is waited for stays where it is: a future that was dropped has lost nothing.
        let said = parts.any(|(_, part)| pin!(part.next()).poll(cx).is_ready());
        if said { Poll::Ready(()) } else { Poll::Pending }
    })
    .await;
}
