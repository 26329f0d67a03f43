//! Whether an endpoint may be chosen: one that could not be connected to rests, for longer
//! each time, and is then tried by one connection alone before it takes part again.
//!
//! `claim` tells it what became of connections. A pure value: it is told the time, and how
//! long to rest.

use std::cell::Cell;
use std::time::{Duration, Instant};

#[derive(Debug, Default)]
pub(super) struct Health {
    /// Rests since it last took a connection.
    rests: Cell<u32>,
    until: Cell<Option<Instant>>,
    failed_at: Cell<Option<Instant>>,
    /// How many rests there were, for whoever fails again before this time: an endpoint whose proxy accepts for an
    /// application that is gone takes connections between two failures.
    remembered: Cell<Option<(u32, Instant)>>,
    /// A connection is under way that decides whether it takes part again.
    is_probed: Cell<bool>,
}

impl Health {
    /// Whether it may be chosen.
    pub(super) fn is_fit(&self, now: Instant) -> bool {
        !self.is_troubled() || (!self.is_resting(now) && !self.is_probed.get())
    }

    /// Whether it has failed since it last took a connection.
    pub(super) fn is_troubled(&self) -> bool {
        self.rests.get() > 0
    }

    /// When it last failed; none sorts before any time.
    pub(super) fn failed_at(&self) -> Option<Instant> {
        self.failed_at.get()
    }

    /// It has been chosen. Answers whether the connection is the one that decides.
    pub(super) fn begin_probe(&self) -> bool {
        self.is_troubled() && !self.is_probed.replace(true)
    }

    pub(super) fn end_probe(&self) {
        self.is_probed.set(false);
    }

    /// It took a connection.
    pub(super) fn succeed(&self) {
        self.rests.set(0);
        self.until.set(None);
    }

    /// It took no connection: it rests, unless it rests already and was only tried for want
    /// of others, or by connections that were under way together. `rest` is told how many
    /// rests there were, and answers how long this one is. Rests are forgotten once it has taken connections for as
    /// long as it rested last.
    pub(super) fn fail(&self, now: Instant, rest: impl FnOnce(u32) -> Duration) {
        self.failed_at.set(Some(now));
        if self.is_resting(now) {
            return;
        }
        let before = match (self.rests.get(), self.remembered.get()) {
            (0, Some((rests, until))) if now <= until => rests,
            (rests, _) => rests,
        };
        let (length, rests) = (rest(before), before.saturating_add(1));
        self.until.set(Some(now + length));
        self.rests.set(rests);
        self.remembered.set(Some((rests, now + length * 2)));
    }

    fn is_resting(&self, now: Instant) -> bool {
        self.until.get().is_some_and(|until| now < until)
    }
}
