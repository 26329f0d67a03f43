//! One worker's side of the store: its hand (which shard it writes, what time it is, what the rules are), its
//! attachment to a label set, and the tables in which it finds the sets it knows. Single-threaded throughout: a pin is
//! a strong reference that is not the table's, counted without atomics.

use std::cell::{Cell, Ref, RefCell};
use std::sync::Arc;
use std::time::Duration;

use super::bounds::Bounds;
use super::budget::Claim;
use super::cells::{Block, Histogram, block, cells};
use super::family::{Family, Kind, Value};
use super::labels::{Classification, Direction, Peer, Tls};
use super::render::{self, Render};
use super::rules::{Grouping, Rules};
use super::set::{ALLOCATION, Set};
use super::store::{Ask, Store};

mod attachment;
mod table;

pub(super) use attachment::{Attachment, Wish};
pub(super) use table::{Attached, Table, entry_bytes};

/// As much as goes by between two ticks, in milliseconds. A worker that ticks later was busy or stopped, and the rest
/// of that time does not count as idleness: it may have written until just now.
const MAX_STEP: u64 = 2_000;
/// Directions, peers, kinds of TLS, classifications.
const DURATIONS: usize = 2 * 2 * 3 * 2;

/// What every handle of a worker shares.
pub(super) struct Hand {
    pub(super) store: Arc<Store>,
    /// The shard this worker writes.
    worker: usize,
    /// Milliseconds that have gone by in ticks, none of which counts for more than `MAX_STEP`.
    clock: Cell<u64>,
    /// When the last tick was, in milliseconds since the store's epoch.
    ticked: Cell<u64>,
    /// The rules this worker goes by, those in force at its last tick.
    rules: RefCell<Arc<Rules>>,
    durations: RefCell<[Option<Lifetimes>; DURATIONS]>,
    /// Where everything is written that is not recorded.
    void: Block,
    no_bounds: Arc<Bounds>,
}

/// What the rules in force have changed.
pub(super) enum Renewal {
    Nothing,
    /// Only how strong the claims of label sets are, and how many there may be.
    Claims(Arc<Rules>),
    /// Also what is recorded of traffic.
    Layout,
}

/// `tcp_connection_duration_ms` under one label set, which never retires.
struct Lifetimes {
    labels: String,
    sets: Vec<Arc<Set>>,
    histogram: Histogram,
}

impl Lifetimes {
    fn bytes(&self) -> usize {
        Self::bytes_with(&self.labels)
    }

    fn bytes_with(labels: &str) -> usize {
        size_of::<Self>() + labels.len() + ALLOCATION
    }
}

impl Hand {
    pub(super) fn new(store: Arc<Store>, worker: usize) -> Self {
        let rules = store.rules();
        let no_bounds = Bounds::new(&[]);
        Self {
            store,
            worker,
            clock: Cell::new(0),
            ticked: Cell::new(0),
            rules: RefCell::new(rules),
            durations: RefCell::default(),
            void: block(cells(Value::Histogram, &no_bounds)),
            no_bounds,
        }
    }

    /// Tells the time, in milliseconds since the store's epoch.
    pub(super) fn tick(&self, now: u64) {
        let step = now.saturating_sub(self.ticked.replace(now)).min(MAX_STEP);
        self.clock.set(self.clock.get() + step);
    }

    /// Takes over the rules in force.
    pub(super) fn renew(&self) -> Renewal {
        if self.rules().generation == self.store.generation() {
            return Renewal::Nothing;
        }
        let rules = self.store.rules();
        let former = self.rules.replace(Arc::clone(&rules));
        if former.layout == rules.layout {
            return Renewal::Claims(rules);
        }
        let labels: Vec<_> = {
            let mut durations = self.durations.borrow_mut();
            let known = durations.iter_mut().enumerate();
            known.filter_map(|(at, d)| Some((at, d.take()?))).collect()
        };
        for (at, old) in labels {
            self.store.budget.give_bytes(old.bytes());
            self.durations.borrow_mut()[at] = Some(self.lifetimes(old.labels));
            drop(old.histogram);
            self.store.detach(old.sets);
        }
        Renewal::Layout
    }

    /// The rules this worker goes by.
    pub(super) fn rules(&self) -> Ref<'_, Arc<Rules>> {
        self.rules.borrow()
    }

    /// Counts the families of a kind as refused, those that are recorded.
    pub(super) fn refuse(&self, kind: Kind) {
        let rules = self.rules();
        for family in kind.families().iter().filter(|f| rules.records(**f)) {
            self.store.budget.refuse(self.worker, *family);
        }
    }

    /// Records a lifetime in `tcp_connection_duration_ms`.
    pub(super) fn lived(
        &self,
        (direction, peer): (Direction, Peer),
        tls: &Tls,
        classification: Classification,
        lifetime: Duration,
    ) {
        let tls_at = match tls {
            Tls::Mutual { .. } => 0,
            Tls::NoIdentity(_) => 1,
            Tls::Opaque { .. } => 2,
        };
        let at = ((direction as usize * 2 + peer as usize) * 3 + tls_at) * 2;
        let mut durations = self.durations.borrow_mut();
        let known = durations[at + classification as usize].get_or_insert_with(|| {
            let mut labels = String::new();
            render::Duration(direction, peer, tls.name(), classification).render(&mut labels);
            self.lifetimes(labels)
        });
        known.histogram.observe(lifetime);
    }

    fn lifetimes(&self, labels: String) -> Lifetimes {
        let family = Family::TcpDuration;
        let rules = self.rules();
        let parts = parts(&labels, rules.groupings(family.kind()));
        let ask = Ask {
            kind: family.kind(),
            parts: &parts,
            claim: Claim::Last,
            hash: 0,
            dst: None,
            bytes: Lifetimes::bytes_with(&labels),
        };
        let sets = self.store.attach(&ask, &rules);
        let sets = sets.expect("the last claim is never refused");
        let cells = sets.first().and_then(|set| {
            let bounds = rules.bounds(family);
            let block = self
                .store
                .block(set, (self.worker, family, ""), (&rules, Claim::Last))?;
            Some((block, Arc::clone(bounds)))
        });
        let histogram = match cells {
            Some((block, bounds)) => Histogram { block, bounds },
            None => self.unrecorded_histogram(),
        };
        drop(parts);
        Lifetimes {
            histogram,
            sets,
            labels,
        }
    }

    /// Cells for a family that is left out. A gauge has its own, since it is asked whether it is at zero.
    fn unrecorded(&self, family: Family) -> Block {
        match family.value() {
            Value::Gauge => block(cells(Value::Gauge, &self.no_bounds)),
            Value::Counter | Value::Histogram => Arc::clone(&self.void),
        }
    }

    fn unrecorded_histogram(&self) -> Histogram {
        Histogram {
            block: Arc::clone(&self.void),
            bounds: Arc::clone(&self.no_bounds),
        }
    }
}

/// Rendered labels as each of the groupings has them.
fn parts<'a>(labels: &str, groupings: &'a [Grouping]) -> Vec<(String, &'a Grouping)> {
    let part = |grouping: &'a Grouping| (grouping.part(labels), grouping);
    groupings.iter().map(part).collect()
}
