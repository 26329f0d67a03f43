//! The application as the service of one client: one endpoint, whose connection is nobody else's and ends with the
//! client's. So it sees as many clients as there are, and what is counted has their labels. There are several connections
//! only where the application takes fewer streams on one than its client has.
//!
//! Made by `connection` where the port lets in only what there is a route for. It must not know who asks.

use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Instant;

use hyper::http::Request;

use super::{Links, Service, Setup};
use crate::endpoints::{self, EndpointSet, Listed};
use crate::permission::Verdict;
use crate::record::Book;
use crate::routes::{Choice, Ports};
use crate::terminate::message::HeadFields;

impl Links {
    /// The connections of one client to the application at this address, which it has come to by another, counted as `book`
    /// says. Its port is one of these.
    pub fn application(
        &self,
        (addr, hop): (SocketAddr, Option<SocketAddr>),
        book: &Book,
        ports: &Rc<Ports>,
    ) -> Rc<Service> {
        let described = endpoints::Service {
            endpoints: vec![Listed::plain(addr, book.labels.unknown_destination())],
            ..endpoints::Service::default()
        };
        // There is nothing to choose.
        let random = fastrand::Rng::with_seed(0);
        let weighed = endpoints::Config::default();
        let set = EndpointSet::new(described, weighed, random, Instant::now());
        let setup = Setup {
            config: self.setup.config,
            dialer: self.setup.dialer.clone(),
            tasks: self.setup.tasks.clone(),
            draining: self.setup.draining.child_token(),
            stopping: self.setup.stopping.clone(),
            is_own: true,
            hop,
        };
        let of = (book.clone(), Some(Rc::clone(ports)));
        Service::new(Rc::new(setup), Rc::new(set), of)
    }
}

impl Service {
    /// What its port says about a request. Of a client that may make none it is not asked.
    pub(super) fn let_in(&self, ports: &Ports, head: &Request<()>) -> Choice {
        let port = self.book.borrow().target_port;
        match self.is_denied() || !ports.is_closed(port) {
            true => Choice::Unrouted,
            false => ports.choose(port, &HeadFields(head).request()),
        }
    }

    /// Whether its client may make no requests.
    pub(in crate::terminate) fn is_denied(&self) -> bool {
        self.book.borrow().standing.is_denied
    }

    /// What its client asks from now on goes by this judgement.
    pub(in crate::terminate) fn judge(&self, verdict: &Verdict) {
        self.book.borrow_mut().standing.judge(verdict);
        let slots = self.slots.borrow();
        slots.values().for_each(|slot| slot.recount(self.book()));
    }

    /// Its client has left: the connections that are its own end with their streams.
    pub(in crate::terminate) fn leave(&self) {
        if self.setup.is_own {
            self.slots.borrow().values().for_each(|slot| slot.retire());
        }
    }
}
