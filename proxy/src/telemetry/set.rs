//! A label set: the unit that registers and retires. It holds the series of all its families, each with one block of
//! cells per worker. Workers add to it on their slow path, the exposition reads it; the store decides how long it
//! lives. Knows neither label types nor text formats.

use std::ops::Deref;
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
    /// A worker changes a copy of them where somebody reads them meanwhile. An exposition reads one set at a time, so
    /// there are at most as many copies as expositions under way.
    series: Mutex<Arc<List>>,
    /// Checksum of the last complete exposition that showed it.
    exposed: AtomicU64,
    ended: AtomicBool,
}

/// The series of a set, in the order in which they came.
#[derive(Clone)]
pub(super) struct List {
    series: Vec<Series>,
    /// What all copies have in common: who is alone with it has the only handles to the cells beside the workers.
    copies: Arc<()>,
}

impl Deref for List {
    type Target = [Series];

    fn deref(&self) -> &[Series] {
        &self.series
    }
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
            series: Mutex::new(Arc::new(List {
                series: series.collect(),
                copies: Arc::default(),
            })),
            exposed: AtomicU64::new(0),
            ended: AtomicBool::new(false),
        }
    }

    /// The series as they are now. Whoever reads them keeps nobody waiting.
    pub(super) fn series(&self) -> Arc<List> {
        Arc::clone(&self.lock())
    }

    fn lock(&self) -> MutexGuard<'_, Arc<List>> {
        self.series.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The cells of a worker for a series. What there is not yet is made if `permit` says so; else there are none.
    pub(super) fn block(
        &self,
        wanted: &Wanted<'_>,
        permit: impl FnOnce(Growth) -> bool,
    ) -> Option<Block> {
        let mut list = self.lock();
        let found = list
            .iter()
            .position(|s| s.family == wanted.family && *s.suffix == *wanted.suffix);
        let cells = cells(wanted.family.value(), wanted.bounds());
        let mut growth = Growth {
            series: false,
            bytes: block_bytes(cells),
        };
        if let Some(at) = found {
            let series = &list[at];
            let known = series.find(wanted);
            if known.is_some() && series.is_kept(wanted.rules) {
                return known;
            }
            if !series.is_laid_out_for(wanted) {
                growth.bytes += 2 * size_of::<Other>();
            }
            if known.is_none() && !permit(growth) {
                return None;
            }
            let series = &mut Arc::make_mut(&mut list).series[at];
            series.keep(wanted.rules);
            return known.or_else(|| Some(series.make(wanted)));
        }
        growth.series = true;
        growth.bytes += series_bytes(wanted.suffix, wanted.workers);
        permit(growth).then(|| {
            let labels = (wanted.family, wanted.suffix);
            let mut new = Series::new(labels, wanted.rules, wanted.workers);
            let block = new.make(wanted);
            Arc::make_mut(&mut list).series.push(new);
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
        let mut list = self.lock();
        let list = Arc::get_mut(&mut list);
        let alone = list.and_then(|list| Arc::get_mut(&mut list.copies).map(|()| &mut list.series));
        let Some(series) = alone else {
            // An exposition reads them, or a copy, and has handles to their cells: another time.
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
    size_of::<Set>() + size_of::<List>() + labels + 4 * (COUNTS + ALLOCATION) + REGISTRY
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
    use crate::telemetry::known::Authorities;
    use std::sync::mpsc;
    use std::time::Duration;
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

    fn set(rules: &Rules) -> Set {
        Set::new((0, 0), Kind::Http, "".into(), None, (&[], rules, 1))
    }

    fn count(set: &Set, suffix: &str, rules: &Rules) {
        let block = set.block(&wanted(suffix, rules), |_| true).unwrap();
        block[0].fetch_add(1, Ordering::Relaxed);
    }

    fn values(series: &[Series], rules: &Rules) -> Vec<(String, u64)> {
        let value = |series: &Series| match series.read(rules.bounds(FAMILY)) {
            Reading::Counter(value) => (series.suffix.to_string(), value),
            other => panic!("{other:?}"),
        };
        series.iter().map(value).collect()
    }

    #[test]
    fn who_reads_the_series_keeps_no_worker_waiting() {
        let rules = Arc::new(Rules::new(
            0,
            &MetricsPolicy::default(),
            Authorities::default(),
            100,
        ));
        let set = Arc::new(set(&rules));
        count(&set, "a", &rules);
        let seen = set.series();
        let (done, is_done) = mpsc::channel();
        let worker = (Arc::clone(&set), Arc::clone(&rules));
        std::thread::spawn(move || {
            let (set, rules) = worker;
            count(&set, "a", &rules);
            count(&set, "b", &rules);
            done.send(()).unwrap();
        });
        let in_time = is_done.recv_timeout(Duration::from_secs(10));
        in_time.expect("a worker waits for a reader");
        assert_eq!(values(&seen, &rules), [("a".to_owned(), 2)]);
        let now = [("a".to_owned(), 2), ("b".to_owned(), 1)];
        assert_eq!(values(&set.series(), &rules), now);
    }

    #[test]
    fn what_a_reader_has_a_copy_of_is_not_taken_for_used() {
        let policy = MetricsPolicy::default();
        let old = Rules::new(0, &policy, Authorities::default(), 100);
        let mut reshaped = policy.clone();
        reshaped.drop_labels.insert("error".to_owned());
        let new = Rules::new(1, &reshaped, Authorities::default(), 100).after(&old);
        let set = set(&old);
        count(&set, "a", &old);
        let mark = Mark { after: 0, at: 0 };
        let step = |to: Option<Leaving>| {
            let mut freed = Vec::new();
            let is_left = set.forget_former(&new, |_| to, &mut freed);
            (is_left, freed.len(), set.series()[0].is_hidden())
        };
        assert_eq!(step(Some(Leaving::Hidden(mark))), (true, 0, true));
        let seen = set.series();
        count(&set, "b", &new);
        assert_eq!(step(None), (true, 0, true), "it stays as it was");
        drop(seen);
        let mut freed = Vec::new();
        assert!(!set.forget_former(&new, |_| None, &mut freed));
        assert_eq!(values(&freed, &old), [("a".to_owned(), 1)]);
    }
}
