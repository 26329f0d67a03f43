//! What one exposition shows: the label sets that were registered and not hidden when it began. Numbers expositions,
//! because retirement waits for one to pass without the set.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::{CHUNK, Store};
use crate::telemetry::family::Kind;
use crate::telemetry::rules::Rules;
use crate::telemetry::set::Set;

/// An exposition under way. Dropping it unfinished means that nobody got it whole.
pub(in crate::telemetry) struct Exposition<'a> {
    store: &'a Store,
    number: u64,
    /// When it began.
    pub(in crate::telemetry) began: Instant,
    /// What it goes by, from its first family to its last.
    pub(in crate::telemetry) rules: Arc<Rules>,
    /// The longest that a worker may have waited for one of its locks so far.
    pub(in crate::telemetry) longest_hold: Duration,
    shown: HashMap<Kind, Vec<Shown>>,
}

/// A label set in an exposition.
pub(in crate::telemetry) struct Shown {
    pub(in crate::telemetry) set: Arc<Set>,
    /// The checksum of what was printed of it so far.
    pub(in crate::telemetry) checksum: u64,
}

impl Exposition<'_> {
    /// The sets of a kind, in the order of registration.
    pub(in crate::telemetry) fn sets(&mut self, kind: Kind) -> &mut [Shown] {
        self.shown.get_mut(&kind).map_or(&mut [], Vec::as_mut_slice)
    }

    /// The reader got everything. `complete`: every family was printed, so each set's checksum is what a scraper
    /// now knows of it.
    pub(in crate::telemetry) fn finish(self, complete: bool) {
        if complete {
            for shown in self.shown.values().flatten() {
                shown.set.set_exposed(shown.checksum);
            }
        }
        let expositions = &mut self.store.registry().expositions;
        expositions.finished = expositions.finished.max(self.number);
        if complete {
            expositions.complete = expositions.complete.max(self.number);
        }
    }
}

impl Drop for Exposition<'_> {
    fn drop(&mut self) {
        self.store
            .registry()
            .expositions
            .in_flight
            .remove(&self.number);
    }
}

impl Store {
    /// Begins an exposition. The sets are collected some at a time, so that no worker waits for the whole.
    pub(in crate::telemetry) fn begin(&self) -> Exposition<'_> {
        let number = {
            let expositions = &mut self.registry().expositions;
            expositions.started += 1;
            expositions.in_flight.insert(expositions.started);
            expositions.started
        };
        let mut exposition = Exposition {
            store: self,
            number,
            began: Instant::now(),
            rules: self.rules(),
            longest_hold: Duration::ZERO,
            shown: HashMap::new(),
        };
        let mut from = 0;
        while let Some(next) = self.collect(from, &mut exposition) {
            from = next;
        }
        exposition
    }

    /// Adds the visible ones of the next sets; the id to go on from, or `None` after the last.
    fn collect(&self, from: u64, exposition: &mut Exposition<'_>) -> Option<u64> {
        let registry = self.registry();
        let held_from = Instant::now();
        let mut seen = 0;
        let mut last = from;
        for (id, slot) in registry.slots.range(from..).take(CHUNK) {
            seen += 1;
            last = *id;
            if slot.hidden.is_none() {
                let set = Arc::clone(&slot.set);
                let shown = exposition.shown.entry(set.kind).or_default();
                shown.push(Shown { set, checksum: 0 });
            }
        }
        drop(registry);
        exposition.longest_hold = exposition.longest_hold.max(held_from.elapsed());
        (seen == CHUNK).then_some(last + 1)
    }
}
