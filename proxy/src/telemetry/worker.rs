//! One worker's side of the store: its hand (which shard it writes, what time it is), its attachment to a label set,
//! and the tables in which it finds the sets it knows. Single-threaded throughout: a pin is a strong reference that is
//! not the table's, counted without atomics.

use std::cell::{Cell, OnceCell, RefCell};
use std::hash::{Hash, RandomState};
use std::rc::Rc;
use std::sync::Arc;

use indexmap::{Equivalent, IndexMap};

use super::cells::{Block, Histogram};
use super::family::{Family, Kind};
use super::labels::{Classification, Direction, Peer, Tls};
use super::render::{self, Render};
use super::set::Set;
use super::store::Store;

/// Every label set is looked at once in so many ticks.
const TICKS_PER_ROUND: usize = 60;
/// At least so many are looked at in one tick.
const MIN_PER_TICK: usize = 64;
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
    durations: [OnceCell<Histogram>; DURATIONS],
}

impl Hand {
    pub(super) fn new(store: Arc<Store>, worker: usize) -> Self {
        Self {
            store,
            worker,
            clock: Cell::new(0),
            ticked: Cell::new(0),
            durations: [const { OnceCell::new() }; DURATIONS],
        }
    }

    /// Tells the time, in milliseconds since the store's epoch.
    pub(super) fn tick(&self, now: u64) {
        let step = now.saturating_sub(self.ticked.replace(now)).min(MAX_STEP);
        self.clock.set(self.clock.get() + step);
    }

    /// The histogram of `tcp_connection_duration_ms` with these labels, which never retires.
    pub(super) fn duration(
        &self,
        (direction, peer): (Direction, Peer),
        tls: &Tls,
        classification: Classification,
    ) -> &Histogram {
        let tls_at = match tls {
            Tls::Mutual { .. } => 0,
            Tls::NoIdentity(_) => 1,
            Tls::Opaque { .. } => 2,
        };
        let at = ((direction as usize * 2 + peer as usize) * 3 + tls_at) * 2;
        self.durations[at + classification as usize].get_or_init(|| {
            let mut labels = String::new();
            render::Duration(direction, peer, tls.name(), classification).render(&mut labels);
            let family = Family::TcpDuration;
            let set = self.store.attach(family.kind(), &labels);
            Histogram(self.store.block(self.worker, &set, family, ""))
        })
    }
}

/// A worker's hold on a label set.
pub(super) struct Attachment {
    pub(super) hand: Rc<Hand>,
    set: Arc<Set>,
    last_write: Cell<u64>,
}

impl Attachment {
    /// Attaches, making the set if there is none.
    pub(super) fn new(hand: &Rc<Hand>, kind: Kind, labels: &impl Render) -> Self {
        let mut text = String::with_capacity(512);
        labels.render(&mut text);
        Self {
            hand: Rc::clone(hand),
            set: hand.store.attach(kind, &text),
            last_write: Cell::new(hand.clock.get()),
        }
    }

    /// This worker's cells of one of the set's series, made on first use.
    pub(super) fn block(&self, family: Family, suffix: &str) -> Block {
        let hand = &self.hand;
        hand.store.block(hand.worker, &self.set, family, suffix)
    }

    /// Notes that something is being written.
    pub(super) fn touch(&self) {
        self.last_write.set(self.hand.clock.get());
    }

    /// True if nothing was written for as long as a set is kept. A write is dated to the tick before it, so it may be
    /// younger by one step.
    fn is_idle(&self) -> bool {
        let since = self.hand.clock.get() - self.last_write.get();
        let kept = self.hand.store.config().retain_idle.as_millis();
        u128::from(since) >= kept + u128::from(MAX_STEP)
    }
}

/// What a table holds: the worker's handle on a label set.
pub(super) trait Attached {
    fn attachment(&self) -> &Attachment;

    /// False while it must stay whatever its age, as with open connections.
    fn at_rest(&self) -> bool;
}

/// The label sets of one kind that a worker knows.
pub(super) struct Table<K, E> {
    entries: RefCell<IndexMap<K, Rc<E>, RandomState>>,
    /// Where the round over the entries is, and how many it takes in one tick.
    cursor: Cell<usize>,
    per_tick: Cell<usize>,
}

impl<K, E> Default for Table<K, E> {
    fn default() -> Self {
        Self {
            entries: RefCell::default(),
            cursor: Cell::new(0),
            per_tick: Cell::new(MIN_PER_TICK),
        }
    }
}

impl<K: Hash + Eq, E: Attached> Table<K, E> {
    /// A known entry: one hash, no allocation.
    pub(super) fn get<Q: Hash + Equivalent<K> + ?Sized>(&self, labels: &Q) -> Option<Rc<E>> {
        self.entries.borrow().get(labels).cloned()
    }

    pub(super) fn insert(&self, key: K, entry: E) -> Rc<E> {
        let entry = Rc::new(entry);
        self.entries.borrow_mut().insert(key, Rc::clone(&entry));
        entry
    }

    /// Looks at the next few entries and lets go of those that are idle, at rest and not pinned; returns their sets,
    /// from which the caller detaches once nothing here refers to their cells.
    pub(super) fn let_go(&self) -> Vec<Arc<Set>> {
        let mut entries = self.entries.borrow_mut();
        let mut gone = Vec::new();
        // A table that has grown since the round began must not make it longer.
        let looks = self.per_tick.get().max(share(entries.len()));
        self.per_tick.set(looks);
        for _ in 0..looks {
            let at = self.cursor.get();
            let Some((_, entry)) = entries.get_index(at) else {
                break;
            };
            let pinned = Rc::strong_count(entry) > 1;
            if pinned || !entry.at_rest() || !entry.attachment().is_idle() {
                self.cursor.set(at + 1);
                continue;
            }
            gone.push(Arc::clone(&entry.attachment().set));
            entries.swap_remove_index(at);
        }
        if self.cursor.get() >= entries.len() {
            self.begin_round(&mut entries);
        }
        gone
    }

    fn begin_round(&self, entries: &mut IndexMap<K, Rc<E>, RandomState>) {
        self.cursor.set(0);
        self.per_tick.set(share(entries.len()));
        if entries.len() < entries.capacity() / 4 {
            entries.shrink_to(entries.len() * 2);
        }
    }
}

/// How many of so many entries to look at in one tick.
fn share(entries: usize) -> usize {
    MIN_PER_TICK.max(entries / TICKS_PER_ROUND + 1)
}
