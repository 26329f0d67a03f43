//! The connections of one worker to all endpoints, by service, and the search of a stream for one
//! of them. The application is a service of its own for each of its clients.
//!
//! `worker` owns it and calls `sweep` at its ticks; `client` and `stream` find their way through
//! it. Everything here is one worker's. It must not know streams or their accounts, and pins no
//! series: connections and requests do that for themselves.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::net::SocketAddr;
use std::rc::Rc;

use bytes::Bytes;
use hyper::http::Request;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::Config;
use super::link::{Lease, Link};
use super::message::HeadFields;
use super::slot::{Refused, Slot};
use super::socket::Socket;
use crate::endpoints::{Beside, Claim, Endpoint, EndpointSet, Search};
use crate::forward::{Connected, Dialer, Failed, search};
use crate::record::{Book, Side};
use crate::routes::{Choice, Ports};

mod application;

/// What all connections of a worker are made with.
pub(super) struct Setup {
    pub(super) config: Config,
    pub(super) dialer: Dialer,
    pub(super) tasks: TaskTracker,
    /// Clients that are connected when it is cancelled are asked to leave.
    pub(super) draining: CancellationToken,
    /// The proxy is to end: who comes from then on is not asked to leave.
    pub(super) stopping: CancellationToken,
    /// They are one client's: when a connection has ended that was made with it, so should the client's.
    pub(super) is_own: bool,
    /// The address that this client has dialed.
    pub(super) hop: Option<SocketAddr>,
}

/// The connections of one worker to the endpoints of its services.
pub struct Links {
    setup: Rc<Setup>,
    services: RefCell<Vec<Rc<Service>>>,
}

impl Links {
    /// None yet. Tasks are tracked by `tasks`; `draining` is cancelled when the proxy is to end.
    pub fn new(
        config: Config,
        dialer: Dialer,
        tasks: TaskTracker,
        draining: CancellationToken,
    ) -> Self {
        let setup = Setup {
            config,
            dialer,
            tasks,
            stopping: draining.clone(),
            draining,
            is_own: false,
            hop: None,
        };
        Self {
            setup: Rc::new(setup),
            services: RefCell::default(),
        }
    }

    /// The connections to one service, counted as `book` says.
    pub fn service(&self, set: &Rc<EndpointSet>, book: &Book) -> Rc<Service> {
        let mut services = self.services.borrow_mut();
        if let Some(known) = services.iter().find(|s| Rc::ptr_eq(&s.set, set)) {
            return Rc::clone(known);
        }
        let setup = Rc::clone(&self.setup);
        let service = Service::new(setup, Rc::clone(set), (book.clone(), None));
        services.push(Rc::clone(&service));
        service
    }

    /// Closes what has been idle for as long as it may, and what goes to endpoints that have left
    /// their service. To be called now and then.
    pub fn sweep(&self, now: std::time::Instant) {
        let mut services = self.services.borrow_mut();
        services.iter().for_each(|service| service.sweep(now));
        services.retain(|service| service.is_used());
    }
}

/// The connections to one service.
pub struct Service {
    pub(super) setup: Rc<Setup>,
    set: Rc<EndpointSet>,
    /// It knows no endpoint.
    book: RefCell<Book>,
    /// What the application's ports let in, where it is the application of one client.
    ports: Option<Rc<Ports>>,
    slots: RefCell<HashMap<SocketAddr, Rc<Slot>>>,
    /// The connections for routes that have backends of their own.
    branches: RefCell<Vec<Rc<Service>>>,
    /// Which endpoints of the set the slots were last compared with.
    compared: Cell<u64>,
}

/// An endpoint that was found for a stream.
pub(super) struct Found {
    pub(super) claim: Claim,
    pub(super) slot: Rc<Slot>,
    pub(super) lease: Lease,
    pub(super) service: Rc<Service>,
}

impl Service {
    fn new(
        setup: Rc<Setup>,
        set: Rc<EndpointSet>,
        (book, ports): (Book, Option<Rc<Ports>>),
    ) -> Rc<Self> {
        Rc::new(Self {
            setup,
            book: RefCell::new(book),
            ports,
            slots: RefCell::default(),
            branches: RefCell::default(),
            compared: Cell::new(set.replaced()),
            set,
        })
    }

    /// The connections that a request goes over of which the routes say this.
    pub(super) fn branch(self: &Rc<Self>, choice: &Choice) -> Rc<Self> {
        let branch = choice.route().and_then(|route| route.branch());
        let Some(set) = branch.and_then(|branch| self.set.branch(branch)) else {
            return Rc::clone(self);
        };
        let mut branches = self.branches.borrow_mut();
        if let Some(known) = branches.iter().find(|known| Rc::ptr_eq(&known.set, &set)) {
            return Rc::clone(known);
        }
        let branch = Self::new(Rc::clone(&self.setup), set, (self.book(), None));
        branches.push(Rc::clone(&branch));
        branch
    }

    /// Takes over a connection that detection has opened, with its account; these bytes were read of it, and counted.
    pub fn adopt(&self, connected: Connected, greeting: Bytes, dialed: Side) {
        let only = || self.set.choose(std::time::Instant::now());
        if let Some(claim) = connected.claim.or_else(only) {
            let socket = Socket::dialed(connected.stream, greeting, dialed);
            self.slot(&claim).adopt(socket);
        }
    }

    /// What it is counted under that has no endpoint yet.
    pub(super) fn book(&self) -> Book {
        self.book.borrow().clone()
    }

    /// What the routes of the service say about a request, which counts for their budget.
    pub(super) fn choose(&self, head: &Request<()>, now: std::time::Instant) -> Choice {
        if let Some(ports) = &self.ports {
            return self.let_in(ports, head);
        }
        let routing = &self.set.routing;
        if !routing.has_routes() {
            return Choice::Unrouted;
        }
        let choice = routing.choose(&HeadFields(head).request());
        let choice = choice.drawn(|| Some(routing.lot()));
        if choice.route().is_some_and(|route| route.is_retryable()) {
            routing.note_request(now);
        }
        choice
    }

    /// Whether it has several endpoints: what one has not seen, another may.
    pub(super) fn has_several(&self) -> bool {
        self.set.len() > 1
    }

    /// Whether there is an endpoint beside this one and those.
    pub(super) fn has_other(&self, addr: SocketAddr, tried: &[SocketAddr]) -> bool {
        self.set.has_other(addr, tried)
    }

    /// Takes a retry off the budget of the service's routes, if there is one left.
    pub(super) fn may_retry(&self, now: std::time::Instant) -> bool {
        self.set.routing.may_retry(now)
    }

    /// The place for one stream at the better of two endpoints, where that has a connection with
    /// room: nothing has to be waited for, which is so for nearly all.
    pub(super) fn find_now(self: &Rc<Self>, now: std::time::Instant) -> Option<Found> {
        let claim = self.set.choose(now)?;
        let slot = self.slot(&claim);
        let lease = slot.find(Link::has_room)?;
        claim.accepted();
        Some(self.found(claim, slot, lease))
    }

    /// Finds a place for one stream within `connect_timeout`: at the better of two endpoints,
    /// and where that one refuses, at another. For a request that is sent again, `beside` where it was.
    ///
    /// # Errors
    /// That of the [`search`].
    pub(super) async fn find(
        self: &Rc<Self>,
        beside: Option<Beside>,
    ) -> Result<Found, Failed<Refused>> {
        let found = search(
            Search::new(Rc::clone(&self.set)).beside(beside.unwrap_or_default()),
            &self.setup.dialer.config,
            async |claim, limit| {
                let slot = self.slot(claim);
                match slot.lease(Instant::now() + limit).await {
                    Ok(lease) => Ok((slot, lease)),
                    Err(error) => Err((error, slot.tls())),
                }
            },
        );
        let (claim, (slot, lease)) = found.await?;
        Ok(self.found(claim, slot, lease))
    }

    fn found(self: &Rc<Self>, claim: Claim, slot: Rc<Slot>, lease: Lease) -> Found {
        Found {
            claim,
            slot,
            lease,
            service: Rc::clone(self),
        }
    }

    /// Finds a place for a stream that its endpoint has not looked at: on another connection
    /// there, else anywhere.
    pub(super) async fn find_again(
        self: &Rc<Self>,
        found: Found,
    ) -> Result<Found, Failed<Refused>> {
        let Found {
            claim, slot, lease, ..
        } = found;
        drop(lease);
        let limit = Instant::now() + self.setup.dialer.config.attempt_timeout;
        match slot.lease(limit).await {
            Ok(lease) => Ok(self.found(claim, slot, lease)),
            Err(_) => {
                drop(claim);
                self.find(None).await
            }
        }
    }

    fn slot(&self, endpoint: &Endpoint) -> Rc<Slot> {
        let mut slots = self.slots.borrow_mut();
        if let Some(slot) = slots.get(&endpoint.addr) {
            if slot.is_of(endpoint) && slot.is_current() {
                return Rc::clone(slot);
            }
            slot.retire();
        }
        let mesh = &self.setup.dialer.mesh;
        let way = mesh.way_to(endpoint.addr, endpoint.identity.as_ref());
        let mut book = self.book();
        book.settle(Some(endpoint.dst.clone()), way.tls());
        let slot = Slot::new(endpoint, (book, way.tls()), Rc::clone(&self.setup));
        slots.insert(endpoint.addr, Rc::clone(&slot));
        slot
    }

    /// Whether there are connections, or may be again: somebody else has the set as well. Those of its branches do not:
    /// they would keep each other.
    fn is_used(self: &Rc<Self>) -> bool {
        Rc::strong_count(&self.set) > 1 || self.has_work()
    }

    /// Whether somebody has the service, or there are connections, of its branches too.
    fn has_work(self: &Rc<Self>) -> bool {
        Rc::strong_count(self) > 1
            || !self.slots.borrow().values().all(|slot| slot.is_unused())
            || self.branches.borrow().iter().any(Self::has_work)
    }

    fn sweep(&self, now: std::time::Instant) {
        let mut branches = self.branches.borrow_mut();
        branches.iter().for_each(|branch| branch.sweep(now));
        branches.retain(|branch| self.set.has_branch(&branch.set) || branch.has_work());
        drop(branches);
        if self.compared.replace(self.set.replaced()) != self.set.replaced() {
            self.retire_gone();
        }
        if let Some(idle_since) = now.checked_sub(self.setup.config.idle) {
            let slots = self.slots.borrow();
            slots.values().for_each(|slot| slot.sweep(idle_since));
        }
    }

    /// Closes what goes to endpoints that are no longer in the set.
    fn retire_gone(&self) {
        self.slots.borrow_mut().retain(|addr, slot| {
            let stays = slot.dst().is_some_and(|dst| self.set.holds(*addr, dst));
            if !stays {
                slot.retire();
            }
            stays
        });
    }
}

#[cfg(test)]
mod tests;
