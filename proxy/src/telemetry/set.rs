//! A label set: the unit that registers and retires. It holds the series of all its families, each with one block of
//! cells per worker. Workers add to it on their slow path, the exposition reads it; the store decides how long it
//! lives. Knows neither label types nor text formats.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::bounds::Bounds;
use super::cells::{Block, Reading, block, cells};
use super::family::{Family, Kind, Value};
use super::labels::Dst;
use super::rules::Rules;

/// What an allocation takes beside its content, in bytes: the allocator's header, and rounding up to its next size.
pub(super) const ALLOCATION: usize = 16;
/// The two counts before the content of an `Arc` or an `Rc`.
pub(super) const COUNTS: usize = 16;
/// What the store's tables take for a label set, in bytes, with the room by which they grow.
const REGISTRY: usize = 288;

/// One label set. `labels` is its identity within its kind.
pub(super) struct Set {
    /// Position in the order of registration.
    pub(super) id: u64,
    pub(super) kind: Kind,
    /// The rendered labels that all its series begin with.
    pub(super) labels: Arc<str>,
    /// The hash of the labels that it was made for.
    pub(super) hash: u64,
    /// The destination it is about, where it is about one.
    pub(super) dst: Option<Dst>,
    series: Mutex<Vec<Series>>,
    /// Checksum of the last complete exposition that showed it.
    exposed: AtomicU64,
    ended: AtomicBool,
}

/// One series of a label set.
pub(super) struct Series {
    pub(super) family: Family,
    /// The labels that follow those of the set; may be empty.
    pub(super) suffix: Box<str>,
    /// Of the blocks in `shards`.
    bounds: Arc<Bounds>,
    shards: Box<[Option<Block>]>,
    /// Blocks that were made under a policy with other buckets.
    others: Vec<Other>,
}

struct Other {
    worker: usize,
    bounds: Arc<Bounds>,
    block: Block,
}

/// The cells that a worker wants.
pub(super) struct Wanted<'a> {
    pub(super) worker: usize,
    pub(super) workers: usize,
    pub(super) family: Family,
    pub(super) suffix: &'a str,
    pub(super) bounds: &'a Arc<Bounds>,
}

/// What a label set grows by.
#[derive(Clone, Copy)]
pub(super) struct Growth {
    /// By a series more.
    pub(super) series: bool,
    pub(super) bytes: usize,
}

impl Series {
    fn new(family: Family, suffix: &str, bounds: &Arc<Bounds>, workers: usize) -> Self {
        Self {
            family,
            suffix: suffix.into(),
            bounds: Arc::clone(bounds),
            shards: vec![None; workers].into(),
            others: Vec::new(),
        }
    }

    /// The cells summed over the shards; a histogram in the given buckets.
    pub(super) fn read(&self, bounds: &Bounds) -> Reading {
        let shards = self.shards.iter().flatten();
        let others = self.others.iter();
        match self.family.value() {
            Value::Histogram => {
                let shards = shards.map(|block| (&*self.bounds, block));
                let others = others.map(|other| (&*other.bounds, &other.block));
                Reading::histogram(bounds, shards.chain(others))
            }
            value => Reading::plain(value, shards.chain(others.map(|other| &other.block))),
        }
    }

    fn find(&self, wanted: &Wanted<'_>) -> Option<Block> {
        if self.is_laid_out_for(wanted) {
            return self.shards[wanted.worker].clone();
        }
        let fits = |other: &&Other| other.worker == wanted.worker && other.bounds == *wanted.bounds;
        self.others
            .iter()
            .find(fits)
            .map(|other| Arc::clone(&other.block))
    }

    fn is_laid_out_for(&self, wanted: &Wanted<'_>) -> bool {
        self.family.value() != Value::Histogram
            || Arc::ptr_eq(&self.bounds, wanted.bounds)
            || self.bounds == *wanted.bounds
    }

    fn make(&mut self, wanted: &Wanted<'_>) -> Block {
        let cells = block(cells(self.family.value(), wanted.bounds));
        if self.is_laid_out_for(wanted) {
            self.shards[wanted.worker] = Some(Arc::clone(&cells));
        } else {
            self.others.push(Other {
                worker: wanted.worker,
                bounds: Arc::clone(wanted.bounds),
                block: Arc::clone(&cells),
            });
        }
        cells
    }

    fn bytes(&self) -> usize {
        let shards = self.shards.iter().flatten();
        let others = self.others.iter().map(|other| &other.block);
        let blocks = shards.chain(others).map(|block| block_bytes(block.len()));
        let others = self.others.len() * 2 * size_of::<Other>();
        series_bytes(&self.suffix, self.shards.len()) + others + blocks.sum::<usize>()
    }
}

/// Of a series without cells; the lists that series are in double as they grow.
fn series_bytes(suffix: &str, workers: usize) -> usize {
    2 * size_of::<Series>() + suffix.len() + workers * size_of::<Option<Block>>() + 2 * ALLOCATION
}

fn block_bytes(cells: usize) -> usize {
    COUNTS + cells * size_of::<u64>() + ALLOCATION
}

impl Set {
    /// With the series that it has from its beginning, all at 0.
    pub(super) fn new(
        (id, hash): (u64, u64),
        kind: Kind,
        labels: Arc<str>,
        dst: Option<Dst>,
        (base, workers): (&[(Family, Arc<Bounds>)], usize),
    ) -> Self {
        let series = base
            .iter()
            .map(|(f, bounds)| Series::new(*f, "", bounds, workers));
        Self {
            id,
            kind,
            labels,
            hash,
            dst,
            series: Mutex::new(series.collect()),
            exposed: AtomicU64::new(0),
            ended: AtomicBool::new(false),
        }
    }

    /// The series in the order in which they came. Never call out or write to a socket while holding this: a worker
    /// that adds a series to this very set waits for it.
    pub(super) fn series(&self) -> MutexGuard<'_, Vec<Series>> {
        self.series.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The cells of a worker for a series. What there is not yet is made if `permit` says so; else there are none.
    pub(super) fn block(
        &self,
        wanted: &Wanted<'_>,
        permit: impl FnOnce(Growth) -> bool,
    ) -> Option<Block> {
        let mut series = self.series();
        let found = series
            .iter_mut()
            .find(|s| s.family == wanted.family && *s.suffix == *wanted.suffix);
        let cells = cells(wanted.family.value(), wanted.bounds);
        let mut growth = Growth {
            series: false,
            bytes: block_bytes(cells),
        };
        if let Some(series) = found {
            let known = series.find(wanted);
            if !series.is_laid_out_for(wanted) {
                growth.bytes += 2 * size_of::<Other>();
            }
            return known.or_else(|| permit(growth).then(|| series.make(wanted)));
        }
        growth.series = true;
        growth.bytes += series_bytes(wanted.suffix, wanted.workers);
        permit(growth).then(|| {
            let mut new = Series::new(wanted.family, wanted.suffix, wanted.bounds, wanted.workers);
            let block = new.make(wanted);
            series.push(new);
            block
        })
    }

    /// The bytes it takes, with its place in the store's tables.
    pub(super) fn bytes(&self) -> usize {
        let series: usize = self.series().iter().map(Series::bytes).sum();
        bytes_of_labels(self.labels.len()) + series
    }

    /// The checksum of all cells of recorded families as they are now.
    pub(super) fn checksum(&self, rules: &Rules) -> u64 {
        let series = self.series();
        let recorded = series.iter().filter(|s| rules.records(s.family));
        recorded
            .map(|s| s.read(rules.bounds(s.family)).checksum())
            .fold(0, u64::wrapping_add)
    }

    /// Notes what a complete exposition has shown of it.
    pub(super) fn set_exposed(&self, checksum: u64) {
        self.exposed.store(checksum, Ordering::Relaxed);
    }

    /// True if the last complete exposition that showed it showed `checksum`.
    pub(super) fn is_exposed(&self, checksum: u64) -> bool {
        self.exposed.load(Ordering::Relaxed) == checksum
    }

    /// Notes that what it is about has ended, or goes on after all.
    pub(super) fn set_ended(&self, ended: bool) {
        self.ended.store(ended, Ordering::Relaxed);
    }

    /// Whether what it is about has ended: then it is not waited for.
    pub(super) fn is_ended(&self) -> bool {
        self.ended.load(Ordering::Relaxed)
    }
}

/// Of a label set without series, with labels of that length.
pub(super) fn bytes_of_labels(labels: usize) -> usize {
    size_of::<Set>() + labels + 2 * (COUNTS + ALLOCATION) + REGISTRY
}

/// Of the series that a label set has from its beginning, still without cells.
pub(super) fn bytes_of_base(series: usize, workers: usize) -> usize {
    series * series_bytes("", workers)
}
