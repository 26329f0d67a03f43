//! The search of one connection for an endpoint that takes it: the best first, then others,
//! each once; those that are set aside only when nothing else is left.
//!
//! `forward` dials what it gives out. Nothing has been sent yet, so trying another endpoint
//! is always safe.

use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Instant;

use super::{Claim, Endpoint, EndpointSet};

/// Where a request goes that is sent again: not where it was.
#[derive(Clone, Debug, Default)]
pub struct Beside {
    /// The endpoint where it has failed. It goes there again only where no other is fit: who fails fast would be chosen
    /// for that.
    pub failed: Option<SocketAddr>,
    /// The endpoints that have not seen it, as if they had taken no connection: none of them again.
    pub refused: Vec<SocketAddr>,
}

/// A search through one set, which may be replaced meanwhile.
#[derive(Debug)]
pub struct Search {
    set: Rc<EndpointSet>,
    tried: Vec<SocketAddr>,
    /// The endpoint that is tried only where no other is fit.
    avoided: Option<SocketAddr>,
    resorts: usize,
    /// One of those that were tried has cost the whole time that it was given.
    is_late: bool,
}

impl Search {
    pub fn new(set: Rc<EndpointSet>) -> Self {
        Self {
            resorts: set.shared.config.last_resorts,
            set,
            tried: Vec::new(),
            avoided: None,
            is_late: false,
        }
    }

    /// For a request that is sent again.
    #[must_use]
    pub fn beside(self, beside: Beside) -> Self {
        Self {
            avoided: beside.failed,
            tried: beside.refused,
            ..self
        }
    }

    /// The name of the service.
    pub fn service(&self) -> &Rc<str> {
        &self.set.name
    }

    /// The next endpoint to try; none when there is no other. Where the set has an original destination, it comes once none
    /// is fit, or after the first that has not answered in time: what is known of endpoints is old then, and each further
    /// one may cost as long.
    /// Whoever is set aside comes last, in the order of their failures, and at most [`super::Config::last_resorts`] of
    /// them: where nobody is left, a wrong guess costs less than an answer that is never tried for ("fail open").
    pub fn next(&mut self, now: Instant) -> Option<Claim> {
        let fit = || {
            let other = self.avoided.and_then(|avoided| {
                let beside = [&self.tried[..], &[avoided]].concat();
                self.set.choose_beside(&beside, now)
            });
            other.or_else(|| self.set.choose_beside(&self.tried, now))
        };
        let original = || self.set.original(&self.tried);
        let next = match self.is_late {
            true => original().or_else(fit),
            false => fit().or_else(original),
        };
        next.or_else(|| {
            self.resorts = self.resorts.checked_sub(1)?;
            self.set.least_recently_failed(&self.tried)
        })
    }

    /// This endpoint did not take the connection.
    pub fn failed(&mut self, addr: SocketAddr) {
        self.tried.push(addr);
    }

    /// The same, and it took all of its time not to.
    pub fn timed_out(&mut self, addr: SocketAddr) {
        self.is_late = true;
        self.failed(addr);
    }

    /// Whether there is another endpoint to try beside `addr`.
    pub fn has_other(&self, addr: SocketAddr, now: Instant) -> bool {
        let may_use = |e: &Endpoint| self.resorts > 0 || e.state.health.is_fit(now);
        self.set.has_other_that(addr, &self.tried, may_use)
    }
}
