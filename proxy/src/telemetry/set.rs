//! A label set: the unit that registers and retires. It holds the series of all its families, each with one block of
//! cells per worker. Workers add to it on their slow path, the exposition reads it; the store decides how long it
//! lives. Knows neither label types nor text formats.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::cells::{Block, Reading, block};
use super::family::{Family, Kind};

/// One label set. `labels` is its identity within its kind.
pub(super) struct Set {
    /// Position in the order of registration.
    pub(super) id: u64,
    pub(super) kind: Kind,
    /// The rendered labels that all its series begin with.
    pub(super) labels: Arc<str>,
    series: Mutex<Vec<Series>>,
    /// Checksum of the last complete exposition that showed it.
    exposed: AtomicU64,
}

/// One series of a label set.
pub(super) struct Series {
    pub(super) family: Family,
    /// The labels that follow those of the set; may be empty.
    pub(super) suffix: Box<str>,
    shards: Box<[Option<Block>]>,
}

impl Series {
    fn new(family: Family, suffix: &str, workers: usize) -> Self {
        Self {
            family,
            suffix: suffix.into(),
            shards: vec![None; workers].into(),
        }
    }

    /// The cells summed over the shards.
    pub(super) fn read(&self) -> Reading {
        Reading::of(self.family.value(), self.shards.iter().flatten())
    }
}

impl Set {
    pub(super) fn new(id: u64, kind: Kind, labels: Arc<str>) -> Self {
        Self {
            id,
            kind,
            labels,
            series: Mutex::default(),
            exposed: AtomicU64::new(0),
        }
    }

    /// The series in the order in which they came. Never call out or write to a socket while holding this: a worker
    /// that adds a series to this very set waits for it.
    pub(super) fn series(&self) -> MutexGuard<'_, Vec<Series>> {
        self.series.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The cells of `worker` for the series, made on first use; and whether the series itself is new.
    pub(super) fn block(
        &self,
        (worker, workers): (usize, usize),
        family: Family,
        suffix: &str,
    ) -> (Block, bool) {
        let mut series = self.series();
        let found = series
            .iter()
            .position(|s| s.family == family && *s.suffix == *suffix);
        let at = found.unwrap_or_else(|| {
            series.push(Series::new(family, suffix, workers));
            series.len() - 1
        });
        let shard = &mut series[at].shards[worker];
        let cells = shard.get_or_insert_with(|| block(family.value()));
        (Arc::clone(cells), found.is_none())
    }

    /// The checksum of all cells as they are now.
    pub(super) fn checksum(&self) -> u64 {
        let sums = self
            .series()
            .iter()
            .map(|s| s.read().checksum())
            .collect::<Vec<_>>();
        sums.into_iter().fold(0, u64::wrapping_add)
    }

    /// Notes what a complete exposition has shown of it.
    pub(super) fn set_exposed(&self, checksum: u64) {
        self.exposed.store(checksum, Ordering::Relaxed);
    }

    /// True if the last complete exposition that showed it showed `checksum`.
    pub(super) fn is_exposed(&self, checksum: u64) -> bool {
        self.exposed.load(Ordering::Relaxed) == checksum
    }
}
