//! The budgets: how many series each family may have, and how many bytes all of them. Asked by the store whenever
//! something is to be added, and by workers, who see without a lock whether there is room. Knows no labels, only how
//! strong the claim of a label set is.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use super::cells;
use super::family::{Family, Kind};

/// How strong a label set's claim on the budget is. The weaker stop earlier, so that strangers cannot take the place
/// of what is vouched for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Claim {
    /// It has labels that anybody can make up: it stops at the family's budget and at three quarters of the bytes.
    Open,
    /// Its authority is a known Service's: at seven eighths of the bytes.
    Known,
    /// No such label, or `__overflow__` in its place: at all of the bytes.
    Overflow,
    /// Neither those nor ports: only configuration makes more of them, so they are never refused.
    Last,
}

/// One number for each family.
type PerFamily = [AtomicU64; Family::COUNT];

fn zeroes() -> PerFamily {
    [const { AtomicU64::new(0) }; Family::COUNT]
}

/// What is held, what may be, and what came of it.
pub(super) struct Budget {
    most_bytes: usize,
    bytes: AtomicUsize,
    /// The most series of each family; `u64::MAX` where the family is left out.
    most: PerFamily,
    /// How many series of each family a label set has from its beginning; 1 where it has none.
    each: PerFamily,
    held: PerFamily,
    evicted: PerFamily,
    /// By worker, each of which is the only writer of its own.
    refused: Box<[PerFamily]>,
}

/// The counts of one family.
pub(super) struct Counts {
    /// Series held.
    pub(super) held: u64,
    /// Series forgotten.
    pub(super) evicted: u64,
    /// How often a series was refused.
    pub(super) refused: u64,
}

impl Budget {
    pub(super) fn new(most_bytes: usize, workers: usize) -> Self {
        Self {
            most_bytes,
            bytes: AtomicUsize::new(0),
            most: zeroes(),
            each: zeroes(),
            held: zeroes(),
            evicted: zeroes(),
            refused: (0..workers).map(|_| zeroes()).collect(),
        }
    }

    /// Sets the most series of a family, and how many of them a label set begins with.
    pub(super) fn allow(&self, family: Family, series: u64, each: u64) {
        self.most[family as usize].store(series, Ordering::Relaxed);
        self.each[family as usize].store(each, Ordering::Relaxed);
    }

    /// Whether one more label set of the kind would be taken. For the weakest claim that is so as long as each of its
    /// families has room, others do not ask.
    pub(super) fn has_room(&self, kind: Kind, claim: Claim) -> bool {
        let has_room = |f: &Family| {
            let at = *f as usize;
            let held = self.held[at].load(Ordering::Relaxed);
            let more = held.saturating_add(self.each[at].load(Ordering::Relaxed));
            more <= self.most[at].load(Ordering::Relaxed)
        };
        self.has_bytes(claim) && (claim > Claim::Open || kind.families().iter().all(has_room))
    }

    /// Whether a few more bytes would be taken.
    pub(super) fn has_bytes(&self, claim: Claim) -> bool {
        self.bytes() < self.most_bytes(claim)
    }

    fn most_bytes(&self, claim: Claim) -> usize {
        match claim {
            Claim::Open => self.most_bytes / 4 * 3,
            Claim::Known => self.most_bytes / 8 * 7,
            Claim::Overflow => self.most_bytes,
            Claim::Last => usize::MAX,
        }
    }

    /// Takes so many bytes, if there is room for them.
    pub(super) fn take_bytes(&self, bytes: usize, claim: Claim) -> bool {
        let most = self.most_bytes(claim);
        let taken = self
            .bytes
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |held| {
                held.checked_add(bytes).filter(|held| *held <= most)
            });
        taken.is_ok()
    }

    pub(super) fn give_bytes(&self, bytes: usize) {
        self.bytes.fetch_sub(bytes, Ordering::Relaxed);
    }

    /// Takes a series of the family, if there is room for it.
    pub(super) fn take_series(&self, family: Family, claim: Claim) -> bool {
        let at = family as usize;
        let most = match claim {
            Claim::Open => self.most[at].load(Ordering::Relaxed),
            Claim::Known | Claim::Overflow | Claim::Last => u64::MAX,
        };
        let taken = self.held[at].fetch_update(Ordering::Relaxed, Ordering::Relaxed, |held| {
            (held < most).then_some(held + 1)
        });
        taken.is_ok()
    }

    /// Gives back a series that could not be made after all.
    pub(super) fn give_series(&self, family: Family) {
        self.held[family as usize].fetch_sub(1, Ordering::Relaxed);
    }

    /// A series of the family was forgotten.
    pub(super) fn evict(&self, family: Family) {
        self.give_series(family);
        self.evicted[family as usize].fetch_add(1, Ordering::Relaxed);
    }

    /// A series of the family was refused to the worker, which is the one that calls.
    pub(super) fn refuse(&self, worker: usize, family: Family) {
        cells::add(&self.refused[worker][family as usize], 1);
    }

    /// Everything that is counted of a family.
    pub(super) fn counts(&self, family: Family) -> Counts {
        let at = family as usize;
        let refused = self.refused.iter().map(|r| r[at].load(Ordering::Relaxed));
        Counts {
            held: self.held[at].load(Ordering::Relaxed),
            evicted: self.evicted[at].load(Ordering::Relaxed),
            refused: refused.sum(),
        }
    }

    /// The bytes held.
    pub(super) fn bytes(&self) -> usize {
        self.bytes.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_weaker_claim_stops_earlier() {
        let budget = Budget::new(800, 1);
        for (claim, fits, over) in [
            (Claim::Open, 600, 1),
            (Claim::Known, 100, 1),
            (Claim::Overflow, 100, 1),
        ] {
            assert!(budget.take_bytes(fits, claim), "{claim:?}");
            assert!(!budget.take_bytes(over, claim), "{claim:?}");
        }
        assert!(budget.take_bytes(1_000, Claim::Last));
        budget.give_bytes(1_800);
        assert_eq!(budget.bytes(), 0);
    }

    #[test]
    fn only_strangers_stop_at_the_number_of_series() {
        let budget = Budget::new(800, 1);
        let family = Family::RequestTotal;
        for family in Kind::Http.families() {
            budget.allow(*family, 1, 1);
        }
        assert!(budget.take_series(family, Claim::Open));
        assert!(!budget.take_series(family, Claim::Open));
        assert!(!budget.has_room(Kind::Http, Claim::Open));
        assert!(budget.has_room(Kind::Http, Claim::Known));
        assert!(budget.take_series(family, Claim::Known));
        budget.evict(family);
        assert!(
            !budget.take_series(family, Claim::Open),
            "the known one counts too"
        );
        budget.evict(family);
        assert!(budget.take_series(family, Claim::Open));
        assert_eq!(budget.counts(family).evicted, 2);
    }

    #[test]
    fn a_label_set_finds_room_for_all_that_it_begins_with() {
        let budget = Budget::new(800, 1);
        let family = Family::GrpcMessages;
        budget.allow(family, 3, 2);
        for has_room in [true, true, false, false] {
            assert_eq!(budget.has_room(Kind::Grpc, Claim::Open), has_room);
            assert!(budget.take_series(family, Claim::Last));
        }
    }
}
