//! Which label sets there may be, read without a lock: a counting Bloom filter over the hashes of their labels. The
//! store writes it under its own lock; a worker that finds the budget spent asks it before it asks the store.

use std::sync::atomic::{AtomicU8, Ordering};

/// Counters for each label set that may be: with two probes, one stranger in fifty is taken for known.
const PER_SET: usize = 8;
/// Most counters, for budgets beyond any sense.
const MOST: usize = 1 << 22;

/// Says "no" for certain, or "perhaps".
pub(super) struct Presence {
    counters: Box<[AtomicU8]>,
}

impl Presence {
    /// For about so many label sets.
    pub(super) fn new(sets: u64) -> Self {
        let sets = usize::try_from(sets).unwrap_or(MOST);
        let counters = sets
            .saturating_mul(PER_SET)
            .clamp(1, MOST)
            .next_power_of_two();
        Self {
            counters: (0..counters).map(|_| AtomicU8::new(0)).collect(),
        }
    }

    /// Only one thread may write at a time.
    pub(super) fn add(&self, hash: u64) {
        for counter in self.probes(hash) {
            let n = counter.load(Ordering::Relaxed);
            counter.store(n.saturating_add(1), Ordering::Relaxed);
        }
    }

    /// Takes back an [`add`](Self::add). A counter that was ever full stays so: it no longer knows how many it stands for.
    pub(super) fn remove(&self, hash: u64) {
        for counter in self.probes(hash) {
            let n = counter.load(Ordering::Relaxed);
            if n < u8::MAX {
                counter.store(n.saturating_sub(1), Ordering::Relaxed);
            }
        }
    }

    /// False if nothing of this hash was added and not removed, as far as this thread can see by now.
    pub(super) fn may_hold(&self, hash: u64) -> bool {
        self.probes(hash)
            .into_iter()
            .all(|counter| counter.load(Ordering::Relaxed) > 0)
    }

    fn probes(&self, hash: u64) -> [&AtomicU8; 2] {
        let mask = self.counters.len() - 1;
        // Both halves of a good hash are as good; truncation is meant.
        [hash as usize & mask, (hash >> 32) as usize & mask].map(|at| &self.counters[at])
    }
}

#[cfg(test)]
mod tests {
    use std::hash::{BuildHasher, RandomState};

    use super::*;

    #[test]
    fn what_was_added_is_found_and_strangers_mostly_not() {
        let presence = Presence::new(1_000);
        let hasher = RandomState::new();
        let hash = |n: u32| hasher.hash_one(n);
        (0..1_000).for_each(|n| presence.add(hash(n)));
        assert!((0..1_000).all(|n| presence.may_hold(hash(n))));
        let taken = (1_000..11_000).filter(|n| presence.may_hold(hash(*n)));
        assert!(taken.count() < 1_000, "one in ten would be too many");
        (0..1_000).for_each(|n| presence.remove(hash(n)));
        assert!(!(0..1_000).any(|n| presence.may_hold(hash(n))));
    }
}
