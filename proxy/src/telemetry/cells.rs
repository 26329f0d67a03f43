//! Cells: `AtomicU64`s with exactly one writer, the worker whose shard they are in. So a write is a relaxed load, an
//! add and a relaxed store, with no locked instruction; whoever reads sums the shards. Knows no labels.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::bounds::Bounds;
use super::family::Value;

/// How often a gauge is read anew that changes while it is read.
const GAUGE_ATTEMPTS: usize = 16;

/// The cells of one series in one worker's shard.
pub(super) type Block = Arc<[AtomicU64]>;

/// How many cells a series of the type has; the bounds are a histogram's, others ignore them.
pub(super) fn cells(value: Value, bounds: &Bounds) -> usize {
    match value {
        Value::Counter => 1,
        Value::Gauge => 2,
        Value::Histogram => bounds.buckets() + 1,
    }
}

/// So many zeroes.
pub(super) fn block(cells: usize) -> Block {
    (0..cells).map(|_| AtomicU64::new(0)).collect()
}

/// Adds to a cell of this thread's own.
pub(super) fn add(cell: &AtomicU64, n: u64) {
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
pub(super) struct Histogram {
    pub(super) block: Block,
    /// Those that the block was made for.
    pub(super) bounds: Arc<Bounds>,
}

impl Histogram {
    /// Counts `duration` in the first bucket whose bound it does not exceed (compared exactly, in nanoseconds) and
    /// adds it to the sum in whole microseconds.
    pub(super) fn observe(&self, duration: Duration) {
        let nanos = u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
        add(&self.block[self.bounds.bucket(nanos)], 1);
        add(&self.block[self.bounds.buckets()], nanos / 1_000);
    }
}

/// One series' cells summed over the shards.
#[derive(Clone, Debug, PartialEq, Eq)]
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
        buckets: Vec<u64>,
        /// Microseconds.
        sum: u64,
    },
}

impl Reading {
    /// Sums a counter or a gauge over the shards that have it.
    pub(super) fn plain<'a>(value: Value, shards: impl Iterator<Item = &'a Block> + Clone) -> Self {
        let sum = |at: usize, order| {
            let cells = shards.clone().map(|block| block[at].load(order));
            cells.fold(0, u64::wrapping_add)
        };
        if value == Value::Gauge {
            // The downs first: each was stored after its up, by the same worker. A reader that was stopped between the
            // two would take ups that came meanwhile for open ones, so it looks again.
            let mut downs = sum(1, Ordering::Acquire);
            for _ in 0..GAUGE_ATTEMPTS {
                let ups = sum(0, Ordering::Acquire);
                let now = sum(1, Ordering::Acquire);
                if now == downs {
                    return Self::Gauge { ups, downs };
                }
                downs = now;
            }
            return Self::Gauge {
                ups: sum(0, Ordering::Relaxed),
                downs,
            };
        }
        Self::Counter(sum(0, Ordering::Relaxed))
    }

    /// Sums a histogram over the shards that have it, in the buckets of `bounds`, whatever those of the shards are.
    pub(super) fn histogram<'a>(
        bounds: &Bounds,
        shards: impl Iterator<Item = (&'a Bounds, &'a Block)>,
    ) -> Self {
        let mut buckets = vec![0u64; bounds.buckets()];
        let mut sum = 0u64;
        for (own, block) in shards {
            let same = std::ptr::eq(own, bounds);
            for at in 0..own.buckets() {
                let to = if same { at } else { bounds.place_of(own, at) };
                let n = block[at].load(Ordering::Relaxed);
                buckets[to] = buckets[to].wrapping_add(n);
            }
            sum = sum.wrapping_add(block[own.buckets()].load(Ordering::Relaxed));
        }
        Self::Histogram { buckets, sum }
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
