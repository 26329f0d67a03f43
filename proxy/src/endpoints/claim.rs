//! A claim on an endpoint: its load counts as long as the claim lives, and what becomes of
//! it is fed back into the choice.
//!
//! Connections hold one for their lifetime, HTTP/2 streams one each. Given out by
//! `EndpointSet::choose` and by `Search`.

use std::cell::Cell;
use std::ops::Deref;
use std::rc::Rc;
use std::time::{Duration, Instant};

use super::health::Health;
use super::latency::{Latency, nanos};
use super::{Endpoint, Shared};

/// What is known of an address, whatever its labels.
#[derive(Debug)]
pub(super) struct State {
    shared: Rc<Shared>,
    /// Connections and streams that this worker has open to it.
    pub(super) open: Cell<usize>,
    latency: Latency,
    pub(super) health: Health,
    /// The log says that it is set aside.
    is_told: Cell<bool>,
}

impl State {
    pub(super) fn new(shared: &Rc<Shared>, now: Instant) -> Rc<Self> {
        Rc::new(Self {
            shared: Rc::clone(shared),
            open: Cell::new(0),
            latency: Latency::new(shared.config.assumed, now),
            health: Health::default(),
            is_told: Cell::new(false),
        })
    }

    /// What one more connection would cost: latency times the connections there would be.
    pub(super) fn load(&self, now: Instant) -> f64 {
        let config = &self.shared.config;
        let latency = self.latency.get(now, config.decay);
        latency.max(nanos(config.floor)) * (self.open.get() + 1) as f64
    }

    /// Runs `change`, and keeps the count of the set's troubled endpoints.
    fn watched(&self, change: impl FnOnce(&Health)) {
        let before = self.health.is_troubled();
        change(&self.health);
        let after = self.health.is_troubled();
        let troubled = &self.shared.troubled;
        match (before, after) {
            (false, true) => troubled.set(troubled.get() + 1),
            (true, false) => troubled.set(troubled.get() - 1),
            _ => {}
        }
    }

    #[cfg(test)]
    pub(super) fn is_told(&self) -> bool {
        self.is_told.get()
    }

    fn rest(&self, rests: u32) -> Duration {
        let config = &self.shared.config;
        let factor = 1u32.checked_shl(rests).unwrap_or(u32::MAX);
        let rest = config.rest_min.saturating_mul(factor).min(config.rest_max);
        let part = self.shared.random.borrow_mut().f64() * config.jitter.max(0.0);
        rest + rest.mul_f64(part)
    }
}

impl Drop for State {
    fn drop(&mut self) {
        if self.health.is_troubled() {
            let troubled = &self.shared.troubled;
            troubled.set(troubled.get() - 1);
        }
    }
}

/// A claim on an endpoint.
#[derive(Debug)]
pub struct Claim {
    endpoint: Rc<Endpoint>,
    /// This connection decides whether the endpoint takes part again.
    is_probe: Cell<bool>,
    /// When the request began whose first byte is awaited.
    started: Cell<Option<Instant>>,
}

impl Claim {
    pub(super) fn new(endpoint: &Rc<Endpoint>) -> Self {
        let state = &endpoint.state;
        state.open.set(state.open.get() + 1);
        Self {
            endpoint: Rc::clone(endpoint),
            is_probe: Cell::new(state.health.begin_probe()),
            started: Cell::new(None),
        }
    }

    /// The endpoint took the connection.
    pub fn accepted(&self) {
        self.end_probe();
        self.endpoint.state.watched(Health::succeed);
    }

    /// The endpoint took no connection, or has nobody to serve it: it is set aside. How fast it said so tells nothing.
    pub fn refused(&self, now: Instant) {
        self.started.set(None);
        self.end_probe();
        let state = &self.endpoint.state;
        state.watched(|h| h.fail(now, |rests| state.rest(rests)));
        if !state.is_told.replace(true) {
            tracing::info!(addr = %self.endpoint.addr, "an endpoint takes no connections and is set aside");
        }
    }

    /// A latency was measured: a request's time to the first byte of its answer, or for bytes
    /// of another protocol the time to connect. Who answers is there, which one that accepts need not be.
    pub fn observe(&self, latency: Duration, now: Instant) {
        self.measure(latency, now);
        let state = &self.endpoint.state;
        if state.is_told.get() && !state.health.is_troubled() {
            state.is_told.set(false);
            tracing::info!(addr = %self.endpoint.addr, "an endpoint takes connections again");
        }
    }

    fn measure(&self, latency: Duration, now: Instant) {
        let state = &self.endpoint.state;
        let decay = state.shared.config.decay;
        state.latency.observe(latency, now, decay);
    }

    /// A request begins: the time to its first byte counts from here.
    pub fn start(&self, now: Instant) {
        self.started.set(Some(now));
    }

    /// The first byte of the answer is there.
    pub fn first_byte(&self, now: Instant) {
        if let Some(started) = self.started.take() {
            self.observe(now.saturating_duration_since(started), now);
        }
    }

    /// Ends the claim. A request that was given up before its answer began took at least as
    /// long as it was waited for: that counts where it is more than was known.
    pub fn end(self, now: Instant) {
        self.give_up(now);
    }

    fn give_up(&self, now: Instant) {
        let Some(started) = self.started.take() else {
            return;
        };
        let state = &self.endpoint.state;
        let waited = now.saturating_duration_since(started);
        if nanos(waited) > state.latency.get(now, state.shared.config.decay) {
            self.measure(waited, now);
        }
    }

    fn end_probe(&self) {
        if self.is_probe.replace(false) {
            self.endpoint.state.health.end_probe();
        }
    }
}

impl Deref for Claim {
    type Target = Endpoint;

    fn deref(&self) -> &Endpoint {
        &self.endpoint
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        if self.started.get().is_some() {
            self.give_up(Instant::now());
        }
        self.end_probe();
        let open = &self.endpoint.state.open;
        open.set(open.get() - 1);
    }
}
