//! The store: which label sets exist, who is attached to them, and which of them an exposition shows. Workers come
//! here when they meet a label set for the first time; the exposition takes snapshots; `sweep` retires. Its lock is
//! held for a bounded number of sets at a time. Knows neither label types nor text formats.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use indexmap::IndexMap;

use super::cells::Block;
use super::family::{Family, Kind};
use super::set::Set;

mod snapshot;
mod sweep;

pub(super) use snapshot::{Exposition, Shown};

/// How many label sets are looked at in one hold of the lock: some tens of microseconds.
const CHUNK: usize = 512;

/// All label sets of the process.
pub(super) struct Store {
    config: super::Config,
    workers: usize,
    epoch: Instant,
    registry: Mutex<Registry>,
    held: [AtomicU64; Family::COUNT],
    evicted: [AtomicU64; Family::COUNT],
}

#[derive(Default)]
struct Registry {
    /// An `IndexMap` keeps the hashes: it grows without hashing every label text again under the lock.
    by_labels: HashMap<Kind, IndexMap<Arc<str>, u64>>,
    slots: BTreeMap<u64, Slot>,
    next_id: u64,
    /// Sets to which no worker is attached; one that has been attached since drops out when next looked at.
    idle: Vec<u64>,
    /// Sets hidden from expositions, the longest hidden first; stale entries as above.
    hidden: VecDeque<(u64, Hidden)>,
    expositions: Expositions,
}

struct Slot {
    set: Arc<Set>,
    /// Workers that hold it in their table.
    attached: usize,
    /// True while its id is in `Registry::idle`.
    queued: bool,
    hidden: Option<Hidden>,
}

/// Since when a set has been left out.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Hidden {
    /// Expositions up to this one may have shown it.
    after: u64,
    /// Milliseconds since the store's epoch.
    at: u64,
}

/// Numbers of expositions, counted from 1, and when they were last seen to happen.
#[derive(Default)]
struct Expositions {
    started: u64,
    in_flight: BTreeSet<u64>,
    /// The highest number of a finished one, and of a finished complete one (all families printed).
    finished: u64,
    complete: u64,
    /// What `finished` and `complete` were when a sweep last looked.
    finished_seen: u64,
    complete_seen: u64,
    /// When a sweep last saw them change; milliseconds since the epoch.
    finished_at: u64,
    complete_at: u64,
}

impl Store {
    pub(super) fn new(config: super::Config, workers: usize) -> Self {
        Self {
            config,
            workers,
            epoch: Instant::now(),
            registry: Mutex::default(),
            held: [const { AtomicU64::new(0) }; Family::COUNT],
            evicted: [const { AtomicU64::new(0) }; Family::COUNT],
        }
    }

    pub(super) fn config(&self) -> &super::Config {
        &self.config
    }

    /// Milliseconds since the store was made.
    pub(super) fn millis(&self, now: Instant) -> u64 {
        let since = now.saturating_duration_since(self.epoch);
        u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
    }

    fn registry(&self) -> MutexGuard<'_, Registry> {
        self.registry.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Attaches one worker to the label set, which is made if there is none, and shown again if it was hidden: then
    /// it goes on from its totals.
    pub(super) fn attach(&self, kind: Kind, labels: &str) -> Arc<Set> {
        let registry = &mut *self.registry();
        let known = registry.by_labels.entry(kind).or_default();
        if let Some(id) = known.get(labels) {
            let slot = registry.slots.get_mut(id).expect("ids name slots");
            slot.attached += 1;
            slot.hidden = None;
            return Arc::clone(&slot.set);
        }
        let id = registry.next_id;
        registry.next_id += 1;
        let labels: Arc<str> = labels.into();
        known.insert(Arc::clone(&labels), id);
        let set = Arc::new(Set::new(id, kind, labels));
        let slot = Slot {
            set: Arc::clone(&set),
            attached: 1,
            queued: false,
            hidden: None,
        };
        registry.slots.insert(id, slot);
        set
    }

    /// The worker's cells of a series of a set that it is attached to.
    pub(super) fn block(&self, worker: usize, set: &Set, family: Family, suffix: &str) -> Block {
        let (block, new) = set.block((worker, self.workers), family, suffix);
        if new {
            self.held[family as usize].fetch_add(1, Ordering::Relaxed);
        }
        block
    }

    /// Detaches one worker from each of the sets: it has dropped every handle to their cells, and its writes are
    /// visible to whoever takes the lock after it.
    pub(super) fn detach(&self, sets: Vec<Arc<Set>>) {
        for chunk in sets.chunks(CHUNK / 8) {
            let registry = &mut *self.registry();
            for set in chunk {
                let slot = registry
                    .slots
                    .get_mut(&set.id)
                    .expect("an attached set stays");
                slot.attached -= 1;
                if slot.attached == 0 && !slot.queued {
                    slot.queued = true;
                    registry.idle.push(set.id);
                }
            }
        }
    }

    /// How many series of the family there are, and how many have been retired.
    pub(super) fn counts(&self, family: Family) -> (u64, u64) {
        let at = family as usize;
        (
            self.held[at].load(Ordering::Relaxed),
            self.evicted[at].load(Ordering::Relaxed),
        )
    }
}
