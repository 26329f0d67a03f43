//! The store: which label sets exist, who is attached to them, and which of them an exposition shows. Workers come
//! here when they meet a label set for the first time; the exposition takes snapshots; `sweep` retires. Its lock is
//! held for a bounded number of sets at a time. Knows neither label types nor text formats.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet, VecDeque};
use std::hash::RandomState;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use indexmap::IndexMap;
use weir_crds::metrics_policy::MetricsPolicy;

use super::budget::{Budget, Claim};
use super::cells::Block;
use super::family::{Family, Kind};
use super::known::Authorities;
use super::labels::Dst;
use super::presence::Presence;
use super::rules::{Grouping, Rules};
use super::set::{Mark, Set, Wanted, bytes_of_base, bytes_of_labels};

mod ended;
mod former;
mod snapshot;
mod sweep;

pub(super) use snapshot::Exposition;

/// How many label sets are looked at in one hold of the lock: a few microseconds.
const CHUNK: usize = 128;

/// All label sets of the process.
pub(super) struct Store {
    config: super::Config,
    workers: usize,
    epoch: Instant,
    /// What all tables hash labels with, so that a hash means the same everywhere.
    pub(super) hasher: RandomState,
    pub(super) budget: Budget,
    /// Which label sets there may be, for those who do not want to wait for the registry.
    presence: Presence,
    inputs: Mutex<Inputs>,
    /// The generation of the rules in force.
    generation: AtomicU64,
    /// The layout of the rules in force.
    layout: AtomicU64,
    /// Whether there may be series whose labels no rule gives any more, in label sets that are in use.
    has_former: AtomicBool,
    registry: Mutex<Registry>,
}

/// What the rules in force were made from.
struct Inputs {
    policy: MetricsPolicy,
    known: Authorities,
    rules: Arc<Rules>,
}

/// A label set that a worker asks for, in parts that leave out different labels.
pub(super) struct Ask<'a> {
    pub(super) kind: Kind,
    /// The rendered labels of each part.
    pub(super) parts: &'a [(String, &'a Grouping)],
    pub(super) claim: Claim,
    /// The hash of the labels in the worker's table.
    pub(super) hash: u64,
    pub(super) dst: Option<&'a Dst>,
    /// What the worker itself needs for it.
    pub(super) bytes: usize,
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
    hidden: VecDeque<(u64, Mark)>,
    expositions: Expositions,
}

struct Slot {
    set: Arc<Set>,
    /// Workers that hold it in their table.
    attached: usize,
    /// True while its id is in `Registry::idle`.
    queued: bool,
    /// Of the expositions that had begun when the last worker let go of it, the last.
    idle_after: u64,
    hidden: Option<Mark>,
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
        let policy = MetricsPolicy::default();
        let known = Authorities::default();
        let rules = Rules::new(0, &policy, known.clone(), config.most_series);
        let store = Self {
            workers,
            epoch: Instant::now(),
            hasher: RandomState::new(),
            budget: Budget::new(config.most_bytes, workers),
            presence: Presence::new(config.most_series),
            generation: AtomicU64::new(0),
            layout: AtomicU64::new(0),
            has_former: AtomicBool::new(false),
            registry: Mutex::default(),
            config,
            inputs: Mutex::new(Inputs {
                policy,
                known,
                rules: Arc::new(rules),
            }),
        };
        store.allow(&store.rules());
        store
    }

    pub(super) fn config(&self) -> &super::Config {
        &self.config
    }

    /// The rules in force.
    pub(super) fn rules(&self) -> Arc<Rules> {
        Arc::clone(&self.inputs().rules)
    }

    /// The generation of the rules in force.
    pub(super) fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }

    /// Puts a policy in force.
    pub(super) fn set_policy(&self, policy: &MetricsPolicy) {
        let mut inputs = self.inputs();
        if inputs.policy != *policy {
            inputs.policy = policy.clone();
            self.renew(&mut inputs);
        }
    }

    /// A place for one who says which authorities are those of known Services.
    pub(super) fn add_known(&self) -> usize {
        self.inputs().known.add()
    }

    /// Takes over what is said at a place.
    pub(super) fn set_known(&self, place: usize, known: HashSet<Box<str>>) {
        let mut inputs = self.inputs();
        if inputs.known.set(place, known) {
            self.renew(&mut inputs);
        }
    }

    fn renew(&self, inputs: &mut Inputs) {
        let generation = inputs.rules.generation + 1;
        let known = inputs.known.clone();
        let rules = Rules::new(generation, &inputs.policy, known, self.config.most_series);
        let rules = rules.after(&inputs.rules);
        self.allow(&rules);
        self.layout.store(rules.layout, Ordering::Release);
        inputs.rules = Arc::new(rules);
        self.generation.store(generation, Ordering::Release);
        self.has_former.store(true, Ordering::Release);
    }

    fn allow(&self, rules: &Rules) {
        for family in Family::ALL {
            self.budget
                .allow(*family, rules.most(*family), rules.each(*family));
        }
    }

    fn inputs(&self) -> MutexGuard<'_, Inputs> {
        self.inputs.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Milliseconds since the store was made.
    pub(super) fn millis(&self, now: Instant) -> u64 {
        let since = now.saturating_duration_since(self.epoch);
        u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
    }

    fn registry(&self) -> MutexGuard<'_, Registry> {
        self.registry.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Keeps everyone waiting who needs the registry.
    #[cfg(test)]
    pub(super) fn hold(&self) -> impl Drop {
        self.registry()
    }

    /// Whether asking for a label set would be of any use, as far as it can be told without waiting: there is room for
    /// one more, or perhaps there is one already.
    pub(super) fn may_attach(&self, kind: Kind, claim: Claim, hash: u64) -> bool {
        self.budget.has_room(kind, claim)
            || (self.budget.has_bytes(claim) && self.presence.may_hold(hash))
    }

    /// Attaches one worker to every part of the label set. Those that there are not are made, if the budget has room;
    /// else there is nothing. One that was hidden is shown again: then it goes on from its totals.
    pub(super) fn attach(&self, ask: &Ask<'_>, rules: &Rules) -> Option<Vec<Arc<Set>>> {
        let registry = &mut *self.registry();
        let known = registry.by_labels.entry(ask.kind).or_default();
        let new = ask
            .parts
            .iter()
            .filter(|(labels, _)| !known.contains_key(labels.as_str()));
        let bytes = new.map(|(labels, grouping)| {
            bytes_of_labels(labels.len()) + bytes_of_base(grouping.base(), self.workers)
        });
        let estimate: usize = bytes.sum();
        if estimate > 0 && !self.budget.has_room(ask.kind, ask.claim) {
            return None;
        }
        if !self.budget.take_bytes(ask.bytes + estimate, ask.claim) {
            return None;
        }
        let mut made = 0;
        let sets = ask.parts.iter().map(|(labels, grouping)| {
            let found = registry.find(ask.kind, labels);
            found.unwrap_or_else(|| {
                for (family, _) in grouping.base() {
                    self.budget.take_series(*family, Claim::Last);
                }
                let dst = ask.dst.filter(|_| grouping.keeps_destination()).cloned();
                let set = (ask.kind, labels.as_str(), ask.hash, dst);
                let set = registry.make(set, (grouping, rules, self.workers));
                self.presence.add(ask.hash);
                made += set.bytes();
                set
            })
        });
        let sets = sets.collect();
        // Parts that turn out to be the same label set were counted more than once.
        self.budget.give_bytes(estimate - made);
        Some(sets)
    }

    /// The worker's cells of a series of a set that it is attached to; what there is not yet is made if the budget has
    /// room.
    pub(super) fn block(
        &self,
        set: &Set,
        (worker, family, suffix): (usize, Family, &str),
        (rules, claim): (&Rules, Claim),
    ) -> Option<Block> {
        let wanted = Wanted {
            worker,
            workers: self.workers,
            family,
            suffix,
            rules,
        };
        if rules.layout != self.layout.load(Ordering::Acquire) {
            // What began under former rules may make a series of theirs.
            self.has_former.store(true, Ordering::Release);
        }
        set.block(&wanted, |growth| {
            if growth.series && !self.budget.take_series(family, claim) {
                return false;
            }
            let fits = self.budget.take_bytes(growth.bytes, claim);
            if !fits && growth.series {
                self.budget.give_series(family);
            }
            fits
        })
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
                if slot.attached > 0 {
                    continue;
                }
                slot.idle_after = registry.expositions.started;
                if !slot.queued {
                    slot.queued = true;
                    registry.idle.push(set.id);
                }
            }
        }
    }
}

impl Registry {
    /// The label set, attached once more.
    fn find(&mut self, kind: Kind, labels: &str) -> Option<Arc<Set>> {
        let id = self.by_labels.get(&kind)?.get(labels)?;
        let slot = self.slots.get_mut(id).expect("ids name slots");
        slot.attached += 1;
        slot.hidden = None;
        slot.set.set_ended(false);
        Some(Arc::clone(&slot.set))
    }

    /// A new label set, attached once.
    fn make(
        &mut self,
        (kind, labels, hash, dst): (Kind, &str, u64, Option<Dst>),
        (grouping, rules, workers): (&Grouping, &Rules, usize),
    ) -> Arc<Set> {
        let id = self.next_id;
        self.next_id += 1;
        let labels: Arc<str> = labels.into();
        let known = self.by_labels.entry(kind).or_default();
        known.insert(Arc::clone(&labels), id);
        let set = Arc::new(Set::new(
            (id, hash),
            kind,
            labels,
            dst,
            (grouping.base(), rules, workers),
        ));
        let slot = Slot {
            set: Arc::clone(&set),
            attached: 1,
            queued: false,
            idle_after: 0,
            hidden: None,
        };
        self.slots.insert(id, slot);
        set
    }
}
