//! Cells: `AtomicU64`s with exactly one writer, the worker whose shard they are in. So a write is a relaxed load, an
//! add and a relaxed store, with no locked instruction; whoever reads sums the shards. Knows no labels.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::family::Value;

/// Upper bounds of the buckets of every histogram, in milliseconds; a last one without bound follows.
pub(super) const BOUNDS_MS: [u64; 25] = [
    1, 2, 3, 4, 5, 10, 20, 30, 40, 50, 100, 200, 300, 400, 500, 1_000, 2_000, 3_000, 4_000, 5_000,
    10_000, 20_000, 30_000, 40_000, 50_000,
];
/// Buckets of a histogram, the unbounded one included.
pub(super) const BUCKETS: usize = BOUNDS_MS.len() + 1;

/// The cells of one series in one worker's shard.
pub(super) type Block = Arc<[AtomicU64]>;

/// A zeroed block for a series of the given type.
pub(super) fn block(value: Value) -> Block {
    let cells = match value {
        Value::Counter => 1,
        Value::Gauge => 2,
        Value::Histogram => BUCKETS + 1,
    };
    (0..cells).map(|_| AtomicU64::new(0)).collect()
}

fn add(cell: &AtomicU64, n: u64) {
    cell.store(
        cell.load(Ordering::Relaxed).wrapping_add(n),
        Ordering::Relaxed,
    );
}

/// Writes a counter.
pub(super) struct Counter(pub(super) Block);

impl Counter {
    pub(super) fn add(&self, n: u64) {
        add(&self.0[0], n);
    }
}

/// Writes a gauge that goes up and down by one.
pub(super) struct Gauge(pub(super) Block);

impl Gauge {
    pub(super) fn up(&self) {
        add(&self.0[0], 1);
    }

    /// Stored with release, so that a reader who sees this down sees its up as well.
    pub(super) fn down(&self) {
        let downs = &self.0[1];
        downs.store(
            downs.load(Ordering::Relaxed).wrapping_add(1),
            Ordering::Release,
        );
    }

    pub(super) fn is_zero(&self) -> bool {
        self.0[0].load(Ordering::Relaxed) == self.0[1].load(Ordering::Relaxed)
    }
}

/// Writes a histogram of durations.
pub(super) struct Histogram(pub(super) Block);

impl Histogram {
    /// Counts `duration` in the first bucket whose bound it does not exceed (compared exactly, in nanoseconds) and
    /// adds it to the sum in whole microseconds.
    pub(super) fn observe(&self, duration: Duration) {
        let nanos = u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
        let bucket = BOUNDS_MS.partition_point(|ms| ms * 1_000_000 < nanos);
        add(&self.0[bucket], 1);
        add(&self.0[BUCKETS], nanos / 1_000);
    }
}

/// One series' cells summed over the shards.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reading {
    /// The count.
    Counter(u64),
    /// Ups and downs; `downs <= ups`.
    Gauge {
        /// How often it went up.
        ups: u64,
        /// How often it went down.
        downs: u64,
    },
    /// Observations by bucket (not cumulative) and their sum in microseconds.
    Histogram {
        /// Observations, bucket by bucket.
        buckets: [u64; BUCKETS],
        /// Microseconds.
        sum: u64,
    },
}

impl Reading {
    /// Sums a series over the shards that have it.
    pub(super) fn of<'a>(value: Value, shards: impl Iterator<Item = &'a Block> + Clone) -> Self {
        let sum = |at: usize, order| {
            let cells = shards.clone().map(|block| block[at].load(order));
            cells.fold(0, u64::wrapping_add)
        };
        match value {
            Value::Counter => Self::Counter(sum(0, Ordering::Relaxed)),
            Value::Gauge => {
                // The downs first: each was stored after its up, by the same worker.
                let downs = sum(1, Ordering::Acquire);
                Self::Gauge {
                    ups: sum(0, Ordering::Relaxed),
                    downs,
                }
            }
            Value::Histogram => Self::Histogram {
                buckets: std::array::from_fn(|at| sum(at, Ordering::Relaxed)),
                sum: sum(BUCKETS, Ordering::Relaxed),
            },
        }
    }

    /// The sum of all cells. Cells only grow, so two readings of a series are equal exactly when these are.
    pub(super) fn checksum(&self) -> u64 {
        match self {
            Self::Counter(n) => *n,
            Self::Gauge { ups, downs } => ups.wrapping_add(*downs),
            Self::Histogram { buckets, sum } => {
                buckets.iter().fold(*sum, |a, n| a.wrapping_add(*n))
            }
        }
    }

    /// True if anything was ever written to it.
    pub(super) fn changed(&self) -> bool {
        match self {
            Self::Counter(n) => *n > 0,
            Self::Gauge { ups, .. } => *ups > 0,
            Self::Histogram { buckets, .. } => buckets.iter().any(|n| *n > 0),
        }
    }
}
