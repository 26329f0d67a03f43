//! A worker's hold on a label set, that is on each of its parts, and on the label set that takes what the budget
//! refuses it. Made for an entry of a table; gives out cells.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;

use super::{Hand, MAX_STEP, parts};
use crate::telemetry::budget::Claim;
use crate::telemetry::cells::{Block, Histogram};
use crate::telemetry::family::{Family, Kind};
use crate::telemetry::labels::Dst;
use crate::telemetry::rules::Rules;
use crate::telemetry::set::Set;
use crate::telemetry::store::Ask;

/// A worker's hold on a label set.
pub(in crate::telemetry) struct Attachment {
    pub(in crate::telemetry) hand: Rc<Hand>,
    kind: Kind,
    claim: Cell<Claim>,
    /// Whether it stands for label sets that were refused.
    stands_in: bool,
    /// The rules it goes by: those it was made under, or others with the same layout.
    rules: RefCell<Arc<Rules>>,
    /// Whether its table has it no more.
    is_aside: Cell<bool>,
    last_write: Cell<u64>,
    held: RefCell<Vec<Held>>,
    /// What the worker's own part takes of the budget.
    bytes: Cell<usize>,
}

/// One of the label sets that are held.
struct Held {
    grouping: usize,
    claim: Claim,
    set: Arc<Set>,
}

/// What is asked of the budget.
pub(in crate::telemetry) struct Wish<'a> {
    pub(in crate::telemetry) kind: Kind,
    /// Rendered.
    pub(in crate::telemetry) labels: &'a str,
    pub(in crate::telemetry) claim: Claim,
    pub(in crate::telemetry) stands_in: bool,
    pub(in crate::telemetry) hash: u64,
    pub(in crate::telemetry) dst: Option<&'a Dst>,
    /// What the entry takes.
    pub(in crate::telemetry) bytes: usize,
}

impl Attachment {
    /// Attaches, making the set if there is none and the budget has room; the last claim always gets one.
    pub(in crate::telemetry) fn new(hand: &Rc<Hand>, wish: &Wish<'_>) -> Option<Self> {
        let rules = Arc::clone(&hand.rules());
        let parts = parts(wish.labels, rules.groupings(wish.kind));
        let bytes = wish.bytes + parts.len() * size_of::<Held>();
        let ask = Ask {
            kind: wish.kind,
            parts: &parts,
            claim: wish.claim,
            hash: wish.hash,
            dst: wish.dst,
            bytes,
        };
        let sets = hand.store.attach(&ask, &rules)?;
        drop(parts);
        let held = |(grouping, set)| Held {
            grouping,
            claim: wish.claim,
            set,
        };
        Some(Self {
            hand: Rc::clone(hand),
            kind: wish.kind,
            claim: Cell::new(wish.claim),
            stands_in: wish.stands_in,
            rules: RefCell::new(rules),
            is_aside: Cell::new(false),
            last_write: Cell::new(hand.clock.get()),
            held: RefCell::new(sets.into_iter().enumerate().map(held).collect()),
            bytes: Cell::new(bytes),
        })
    }

    /// This worker's cells of a series that the label set has from its beginning. The budget has granted it with the
    /// set, and so does not refuse it: or what belongs together would be counted under different labels.
    pub(in crate::telemetry) fn base(&self, family: Family, suffix: &str) -> Block {
        let rules = self.rules();
        let recorded = rules.grouping(family).map(|at| {
            let suffix = rules.groupings(self.kind)[at].part(suffix);
            let set = Arc::clone(&self.held.borrow()[at].set);
            let series = (self.hand.worker, family, suffix.as_str());
            let cells = self.hand.store.block(&set, series, (&rules, Claim::Last));
            cells.expect("the last claim is never refused")
        });
        recorded.unwrap_or_else(|| self.hand.unrecorded(family))
    }

    /// This worker's cells of a series, made on first use. Where the budget refuses them they are those of the label
    /// set that `wider` gives for a stronger claim, whatever the claim of the last may be.
    pub(in crate::telemetry) fn cells(
        &self,
        family: Family,
        suffix: &str,
        wider: &dyn Fn(Claim) -> String,
    ) -> Block {
        self.recorded(family, suffix, wider)
            .unwrap_or_else(|| self.hand.unrecorded(family))
    }

    /// As [`cells`](Self::cells), for a histogram.
    pub(in crate::telemetry) fn histogram(
        &self,
        family: Family,
        suffix: &str,
        wider: &dyn Fn(Claim) -> String,
    ) -> Histogram {
        match self.recorded(family, suffix, wider) {
            Some(block) => Histogram {
                block,
                bounds: Arc::clone(self.rules().bounds(family)),
            },
            None => self.hand.unrecorded_histogram(),
        }
    }

    /// `None` if the family is left out.
    fn recorded(
        &self,
        family: Family,
        suffix: &str,
        wider: &dyn Fn(Claim) -> String,
    ) -> Option<Block> {
        let (rules, own) = (&*self.rules(), self.claim.get());
        let at = rules.grouping(family)?;
        let grouping = &rules.groupings(self.kind)[at];
        let suffix = grouping.part(suffix);
        let mut refused = false;
        for claim in [Claim::Open, Claim::Known, Claim::Overflow, Claim::Last] {
            if claim < own || (claim > own && claim < Claim::Overflow) {
                continue;
            }
            let set = self.set(at, claim, || grouping.part(&wider(claim)));
            let cells = set.and_then(|set| {
                let series = (self.hand.worker, family, suffix.as_str());
                self.hand.store.block(&set, series, (rules, claim))
            });
            if cells.is_some() {
                return cells;
            }
            if !std::mem::replace(&mut refused, true) {
                self.hand.store.budget.refuse(self.hand.worker, family);
            }
        }
        unreachable!("the last claim is never refused")
    }

    /// The part of the label set for this claim, which is attached to if it is not yet.
    fn set(&self, at: usize, claim: Claim, labels: impl Fn() -> String) -> Option<Arc<Set>> {
        let is = |held: &&Held| held.grouping == at && held.claim == claim;
        if let Some(held) = self.held.borrow().iter().find(is) {
            return Some(Arc::clone(&held.set));
        }
        let rules = self.rules();
        let grouping = &rules.groupings(self.kind)[at];
        let ask = Ask {
            kind: self.kind,
            parts: &[(labels(), grouping)],
            claim,
            hash: 0,
            dst: None,
            bytes: 2 * size_of::<Held>(),
        };
        let set = self.hand.store.attach(&ask, &rules)?.pop()?;
        self.bytes.set(self.bytes.get() + ask.bytes);
        self.held.borrow_mut().push(Held {
            grouping: at,
            claim,
            set: Arc::clone(&set),
        });
        Some(set)
    }

    fn rules(&self) -> Arc<Rules> {
        Arc::clone(&self.rules.borrow())
    }

    /// The rules it goes by, and its claim.
    pub(in crate::telemetry) fn standing(&self) -> (Arc<Rules>, Claim) {
        (self.rules(), self.claim.get())
    }

    /// Whether it stands for label sets that were refused.
    pub(super) fn stands_in(&self) -> bool {
        self.stands_in
    }

    /// Takes over rules with the same layout, by which the labels have this claim.
    pub(super) fn restate(&self, rules: &Arc<Rules>, claim: Claim) {
        *self.rules.borrow_mut() = Arc::clone(rules);
        let own = self.claim.get();
        if own.max(claim) < Claim::Overflow {
            let mut held = self.held.borrow_mut();
            let of_own = held.iter_mut().filter(|held| held.claim == own);
            of_own.for_each(|held| held.claim = claim);
            self.claim.set(claim);
        }
    }

    /// Its table has it no more: what is looked up anew is another.
    pub(super) fn set_aside(&self) {
        self.is_aside.set(true);
    }

    /// Takes so many bytes more for what the entry remembers. There is no refusal: it is bounded by what was granted.
    pub(in crate::telemetry) fn grow(&self, bytes: usize) {
        self.hand.store.budget.take_bytes(bytes, Claim::Last);
        self.bytes.set(self.bytes.get() + bytes);
    }

    /// Notes that something is being written.
    pub(in crate::telemetry) fn touch(&self) {
        self.last_write.set(self.hand.clock.get());
    }

    /// False once a new look-up could find something better: the rules have changed, or it stands for label sets that
    /// were refused and there is room now.
    pub(in crate::telemetry) fn is_current(&self) -> bool {
        let has_room = || self.hand.store.budget.has_room(self.kind, Claim::Open);
        !(self.is_aside.get() || self.stands_in && has_room())
    }

    /// True if nothing was written for as long as a set is kept, or need not be waited for. A write is dated to the
    /// tick before it, so it may be younger by one step.
    pub(super) fn is_idle(&self) -> bool {
        let since = self.hand.clock.get() - self.last_write.get();
        let kept = self.hand.store.config().retain_idle.as_millis();
        u128::from(since) >= kept + u128::from(MAX_STEP)
            || self.held.borrow().iter().any(|held| held.set.is_ended())
    }

    /// What is held, to detach from once nothing refers to its cells.
    pub(super) fn sets(&self) -> impl Iterator<Item = Arc<Set>> {
        let held = self.held.borrow();
        let sets: Vec<_> = held.iter().map(|held| Arc::clone(&held.set)).collect();
        sets.into_iter()
    }
}

impl Drop for Attachment {
    fn drop(&mut self) {
        self.hand.store.budget.give_bytes(self.bytes.get());
    }
}
