//! A label set: the unit that registers and retires. It holds the series of all its families, each with one block of
//! cells per worker. Workers add to it on their slow path, the exposition reads it; the store decides how long it
//! lives. Knows neither label types nor text formats.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::cells::{Block, cells};
use super::family::{Family, Kind};
use super::labels::Dst;
use super::rules::Rules;

mod series;

pub(super) use series::{Growth, Leaving, Mark, Series, Wanted};

use series::{Other, block_bytes, series_bytes};

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
    /// A worker changes a copy of them where somebody reads them meanwhile.
    series: Mutex<Arc<Vec<Series>>>,
    /// Checksum of the last complete exposition that showed it.
    exposed: AtomicU64,
    ended: AtomicBool,
}

impl Set {
    /// With the series that it has from its beginning, all at 0.
    pub(super) fn new(
        (id, hash): (u64, u64),
        kind: Kind,
        labels: Arc<str>,
        dst: Option<Dst>,
        (base, rules, workers): (&[(Family, &str)], &Rules, usize),
    ) -> Self {
        let series = base.iter().map(|base| Series::new(*base, rules, workers));
        Self {
            id,
            kind,
            labels,
            hash,
            dst,
            series: Mutex::new(Arc::new(series.collect())),
            exposed: AtomicU64::new(0),
            ended: AtomicBool::new(false),
        }
    }

    /// The series as they are now, in the order in which they came. Whoever reads them keeps nobody waiting.
    pub(super) fn series(&self) -> Arc<Vec<Series>> {
        Arc::clone(&self.lock())
    }

    fn lock(&self) -> MutexGuard<'_, Arc<Vec<Series>>> {
        self.series.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The cells of a worker for a series. What there is not yet is made if `permit` says so; else there are none.
    pub(super) fn block(
        &self,
        wanted: &Wanted<'_>,
        permit: impl FnOnce(Growth) -> bool,
    ) -> Option<Block> {
        let mut series = self.lock();
        let series = Arc::make_mut(&mut series);
        let found = series
            .iter_mut()
            .find(|s| s.family == wanted.family && *s.suffix == *wanted.suffix);
        let cells = cells(wanted.family.value(), wanted.bounds());
        let mut growth = Growth {
            series: false,
            bytes: block_bytes(cells),
        };
        if let Some(series) = found {
            let known = series.find(wanted);
            if !series.is_laid_out_for(wanted) {
                growth.bytes += 2 * size_of::<Other>();
            }
            let block = known.or_else(|| permit(growth).then(|| series.make(wanted)));
            return block.inspect(|_| series.keep(wanted.rules));
        }
        growth.series = true;
        growth.bytes += series_bytes(wanted.suffix, wanted.workers);
        permit(growth).then(|| {
            let labels = (wanted.family, wanted.suffix);
            let mut new = Series::new(labels, wanted.rules, wanted.workers);
            let block = new.make(wanted);
            series.push(new);
            block
        })
    }

    /// Has every series go one step on whose labels no rule gives any more; adds to `freed` those that were forgotten by
    /// that. True if there are others left.
    pub(super) fn forget_former(
        &self,
        rules: &Rules,
        step: impl Fn(Leaving) -> Option<Leaving>,
        freed: &mut Vec<Series>,
    ) -> bool {
        let mut is_left = false;
        let mut series = self.lock();
        let Some(series) = Arc::get_mut(&mut series) else {
            // An exposition reads them, and has handles to their cells: another time.
            return true;
        };
        freed.extend(series.extract_if(.., |series| {
            let is_former = series.is_former(rules);
            let stays = !is_former || series.leave(&step);
            is_left |= is_former && stays;
            !stays
        }));
        is_left
    }

    /// The bytes it takes, with its place in the store's tables.
    pub(super) fn bytes(&self) -> usize {
        let series: usize = self.series().iter().map(Series::bytes).sum();
        bytes_of_labels(self.labels.len()) + series
    }

    /// The checksum of all cells that an exposition shows as they are now.
    pub(super) fn checksum(&self, rules: &Rules) -> u64 {
        let series = self.series();
        let recorded = series
            .iter()
            .filter(|s| rules.records(s.family) && !s.is_hidden());
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
    size_of::<Set>() + size_of::<Vec<Series>>() + labels + 3 * (COUNTS + ALLOCATION) + REGISTRY
}

/// Of the series that a label set has from its beginning, still without cells.
pub(super) fn bytes_of_base(base: &[(Family, &str)], workers: usize) -> usize {
    let series = base.iter().map(|(_, suffix)| series_bytes(suffix, workers));
    series.sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::cells::Reading;
    use weir_crds::metrics_policy::MetricsPolicy;

    const FAMILY: Family = Family::ResponseTotal;

    fn wanted<'a>(suffix: &'a str, rules: &'a Rules) -> Wanted<'a> {
        Wanted {
            worker: 0,
            workers: 1,
            family: FAMILY,
            suffix,
            rules,
        }
    }

    #[test]
    fn who_reads_the_series_keeps_no_worker_waiting() {
        let rules = Rules::new(0, &MetricsPolicy::default(), Arc::default(), 100);
        let set = Set::new((0, 0), Kind::Http, "".into(), None, (&[], &rules, 1));
        let count = |suffix| {
            let block = set.block(&wanted(suffix, &rules), |_| true).unwrap();
            block[0].fetch_add(1, Ordering::Relaxed);
        };
        count("a");
        let seen = set.series();
        // With a lock the reader would wait here for itself.
        count("a");
        count("b");

        let values = |series: &[Series]| {
            let value = |series: &Series| match series.read(rules.bounds(FAMILY)) {
                Reading::Counter(value) => (series.suffix.to_string(), value),
                other => panic!("{other:?}"),
            };
            series.iter().map(value).collect::<Vec<_>>()
        };
        assert_eq!(values(&seen), [("a".to_owned(), 2)]);
        let now = [("a".to_owned(), 2), ("b".to_owned(), 1)];
        assert_eq!(values(&set.series()), now);
    }
}
