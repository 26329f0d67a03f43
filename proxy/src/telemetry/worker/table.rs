//! The label sets of one kind that a worker knows. Finds them by their labels, goes round to let go of those that are
//! idle, and keeps what was made under former rules until it is no longer in use.

use std::cell::{Cell, RefCell};
use std::hash::{BuildHasher, Hash, RandomState};
use std::rc::Rc;
use std::sync::Arc;

use indexmap::map::raw_entry_v1::RawEntryApiV1;
use indexmap::{Equivalent, IndexMap};

use super::Attachment;
use crate::telemetry::budget::Claim;
use crate::telemetry::rules::Rules;
use crate::telemetry::set::{ALLOCATION, COUNTS, Set};

/// Every label set is looked at once in so many ticks.
const TICKS_PER_ROUND: usize = 60;
/// At least so many are looked at in one tick.
const MIN_PER_TICK: usize = 64;
/// Of what was made under former rules, at most so many sets are let go of in one tick.
const MOST_FORMER: usize = 1_024;
/// What a table takes for an entry, in bytes, with the room by which it grows.
const PLACE: usize = 96;

/// What a table holds: the worker's handle on a label set, which hashes and compares as its labels.
pub(in crate::telemetry) trait Attached: Hash + Eq {
    fn attachment(&self) -> &Attachment;

    /// False while it must stay whatever its age, as with open connections.
    fn at_rest(&self) -> bool;

    /// How strong the claim of its labels is by these rules.
    fn claim(&self, rules: &Rules) -> Claim;

    /// Whether it stays for as long as the rules do.
    fn is_permanent(&self) -> bool {
        false
    }
}

/// The label sets of one kind that a worker knows.
pub(in crate::telemetry) struct Table<E> {
    entries: RefCell<IndexMap<Rc<E>, (), RandomState>>,
    /// Made under former rules.
    former: RefCell<Vec<Rc<E>>>,
    /// Where the round over the entries is, and how many it takes in one tick.
    cursor: Cell<usize>,
    per_tick: Cell<usize>,
}

/// What an entry takes with its place in a table, beside what it points to.
pub(in crate::telemetry) const fn entry_bytes<E>() -> usize {
    size_of::<E>() + COUNTS + ALLOCATION + PLACE
}

impl<E: Attached> Table<E> {
    pub(in crate::telemetry) fn new(hasher: RandomState) -> Self {
        Self {
            entries: RefCell::new(IndexMap::with_hasher(hasher)),
            former: RefCell::default(),
            cursor: Cell::new(0),
            per_tick: Cell::new(MIN_PER_TICK),
        }
    }

    pub(in crate::telemetry) fn hash(&self, labels: &impl Hash) -> u64 {
        self.entries.borrow().hasher().hash_one(labels)
    }

    /// A known entry, by its hash and labels: no allocation.
    pub(in crate::telemetry) fn get<Q>(&self, hash: u64, labels: &Q) -> Option<Rc<E>>
    where
        Q: Equivalent<Rc<E>> + ?Sized,
    {
        let entries = self.entries.borrow();
        let found = entries
            .raw_entry_v1()
            .from_hash(hash, |e| labels.equivalent(e));
        found.map(|(entry, ())| Rc::clone(entry))
    }

    pub(in crate::telemetry) fn insert(&self, entry: E) -> Rc<E> {
        let entry = Rc::new(entry);
        self.entries.borrow_mut().insert(Rc::clone(&entry), ());
        entry
    }

    /// Looks at the next few entries and lets go of those that are idle, at rest and not pinned; adds their sets to
    /// `gone`, from which the caller detaches once nothing here refers to their cells.
    pub(in crate::telemetry) fn let_go(&self, gone: &mut Vec<Arc<Set>>) {
        self.let_go_of_former(gone);
        let mut entries = self.entries.borrow_mut();
        // A table that has grown since the round began must not make it longer.
        let looks = self.per_tick.get().max(share(entries.len()));
        self.per_tick.set(looks);
        for _ in 0..looks {
            let at = self.cursor.get();
            let Some((entry, ())) = entries.get_index(at) else {
                break;
            };
            let idle = entry.attachment().is_idle() && !entry.is_permanent();
            if !is_free(entry) || !idle {
                self.cursor.set(at + 1);
                continue;
            }
            gone.extend(entry.attachment().sets());
            entries.swap_remove_index(at);
        }
        if self.cursor.get() >= entries.len() {
            self.begin_round(&mut entries);
        }
    }

    /// Sets aside what was made under former rules; answers the entries, each of which the caller may make anew.
    pub(in crate::telemetry) fn renew(&self) -> Vec<Rc<E>> {
        let entries = std::mem::take(&mut *self.entries.borrow_mut());
        *self.entries.borrow_mut() = IndexMap::with_hasher(entries.hasher().clone());
        self.cursor.set(0);
        let entries: Vec<_> = entries.into_keys().collect();
        entries.iter().for_each(|e| e.attachment().set_aside());
        self.former.borrow_mut().extend(entries.iter().cloned());
        entries
    }

    /// Takes over rules with the same layout: entries have the claims that are theirs by those. What stands for label sets
    /// that were refused is set aside, since some of them may have a stronger claim now.
    pub(in crate::telemetry) fn restate(&self, rules: &Arc<Rules>) {
        let mut former = self.former.borrow_mut();
        self.entries.borrow_mut().retain(|entry, ()| {
            let attachment = entry.attachment();
            attachment.restate(rules, entry.claim(rules));
            if attachment.stands_in() {
                attachment.set_aside();
                former.push(Rc::clone(entry));
            }
            !attachment.stands_in()
        });
        self.cursor.set(0);
    }

    /// What was made under former rules goes as soon as it is not in use, idle or not.
    fn let_go_of_former(&self, gone: &mut Vec<Arc<Set>>) {
        let mut former = self.former.borrow_mut();
        let most = gone.len() + MOST_FORMER;
        former.retain(|entry| {
            let free = is_free(entry) && gone.len() < most;
            if free {
                gone.extend(entry.attachment().sets());
            }
            !free
        });
        if former.is_empty() {
            *former = Vec::new();
        }
    }

    fn begin_round(&self, entries: &mut IndexMap<Rc<E>, (), RandomState>) {
        self.cursor.set(0);
        self.per_tick.set(share(entries.len()));
        if entries.len() < entries.capacity() / 4 {
            entries.shrink_to(entries.len() * 2);
        }
    }
}

/// Neither pinned nor in a state that has to be kept.
fn is_free<E: Attached>(entry: &Rc<E>) -> bool {
    Rc::strong_count(entry) == 1 && entry.at_rest()
}

/// How many of so many entries to look at in one tick.
fn share(entries: usize) -> usize {
    MIN_PER_TICK.max(entries / TICKS_PER_ROUND + 1)
}
