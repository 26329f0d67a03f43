//! The routes of one service while they may change: what its connections ask for every request.
//!
//! A set of endpoints has one; `worker` replaces the table, `record` asks it.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use fastrand::Rng;

use super::{Budget, Compiled, Request, Route, Table};

/// What the routes of a service say about a request.
#[derive(Clone, Debug, Default)]
pub enum Choice {
    /// The service has no routes.
    #[default]
    Unrouted,
    /// It is one of none of them, and goes on.
    Unmatched,
    /// It is one of none of them, and is answered 404.
    Refused,
    /// It is one of this.
    Matched(Rc<Route>),
    /// It is one of this, and goes to a backend of it that is not there: it is answered 500.
    Missing(Rc<Route>),
}

impl Choice {
    /// The route whose terms hold for it: none where it goes nowhere.
    pub fn route(&self) -> Option<&Rc<Route>> {
        match self {
            Self::Matched(route) => Some(route),
            Self::Unrouted | Self::Unmatched | Self::Refused | Self::Missing(_) => None,
        }
    }

    /// Whether it goes to no server: it is answered in the server's place.
    pub fn is_nowhere(&self) -> bool {
        matches!(self, Self::Refused | Self::Missing(_))
    }

    /// Draws its backend among those that are there and those that are not. A request has one lot, however often its route
    /// is looked for; without one nothing is drawn.
    #[must_use]
    pub fn drawn(self, lot: impl FnOnce() -> Option<u32>) -> Self {
        match self {
            Self::Matched(route)
                if route.missing > 0 && lot().is_some_and(|lot| route.is_missing(lot)) =>
            {
                Self::Missing(route)
            }
            other => other,
        }
    }
}

/// The routes of one service, as one worker has them now.
#[derive(Debug)]
pub struct Routing {
    /// The part of a budget's retries a second that is this worker's.
    share: f64,
    random: RefCell<Rng>,
    now: RefCell<Option<Current>>,
}

#[derive(Debug)]
struct Current {
    compiled: Arc<Compiled>,
    table: Table,
    budget: Option<Budget>,
}

impl Routing {
    /// Without routes, on one of so many workers. What it draws depends on `random` alone.
    pub fn new(workers: usize, random: Rng) -> Self {
        Self {
            share: 1.0 / workers.max(1) as f64,
            random: RefCell::new(random),
            now: RefCell::default(),
        }
    }

    /// Takes these routes instead. What was spent of a budget that stays is remembered.
    pub fn replace(&self, compiled: Option<&Arc<Compiled>>, now: Instant) {
        let mut current = self.now.borrow_mut();
        let compiled = compiled.filter(|compiled| !compiled.is_empty());
        let Some(compiled) = compiled else {
            *current = None;
            return;
        };
        if current.as_ref().is_some_and(|c| c.compiled == *compiled) {
            return;
        }
        let table = Table::new(compiled);
        let spent = current.take().and_then(|current| current.budget);
        let spent = spent.filter(|budget| Some(budget.limits()) == table.budget);
        let fresh = || Some(Budget::new(table.budget?, self.share, now));
        *current = Some(Current {
            budget: spent.or_else(fresh),
            compiled: Arc::clone(compiled),
            table,
        });
    }

    /// Whether there are any.
    pub fn has_routes(&self) -> bool {
        self.now.borrow().is_some()
    }

    /// What they say about a request.
    pub fn choose(&self, request: &Request<'_>) -> Choice {
        let current = self.now.borrow();
        let Some(Current { table, .. }) = &*current else {
            return Choice::Unrouted;
        };
        match table.find(request) {
            Some(route) => Choice::Matched(route),
            None if table.is_closed() => Choice::Refused,
            None => Choice::Unmatched,
        }
    }

    /// A lot for one request.
    pub fn lot(&self) -> u32 {
        self.random.borrow_mut().u32(..)
    }

    /// A request has come that a retry may be spent on.
    pub fn note_request(&self, now: Instant) {
        if let Some(budget) = self.budget().as_deref() {
            budget.request(now);
        }
    }

    /// Whether a request may be sent again: takes a retry of the budget, where there is one left.
    pub fn may_retry(&self, now: Instant) -> bool {
        self.budget().is_some_and(|budget| budget.withdraw(now))
    }

    fn budget(&self) -> Option<std::cell::Ref<'_, Budget>> {
        let current = self.now.borrow();
        std::cell::Ref::filter_map(current, |c| c.as_ref()?.budget.as_ref()).ok()
    }
}
