//! One series of a label set: a block of cells per worker, and how far it has gone once no rule gives its labels any
//! more. Used by `set`, which holds its lock while it changes one; the store decides when it goes.

use std::sync::Arc;

use super::{ALLOCATION, COUNTS};
use crate::telemetry::bounds::Bounds;
use crate::telemetry::cells::{Block, Reading, block, cells};
use crate::telemetry::family::{Family, Value};
use crate::telemetry::rules::Rules;

/// One series of a label set. A clone has the same cells.
#[derive(Clone)]
pub(in crate::telemetry) struct Series {
    pub(in crate::telemetry) family: Family,
    /// The labels that follow those of the set; may be empty.
    pub(in crate::telemetry) suffix: Box<str>,
    /// The newest rules under which it was asked for.
    generation: u64,
    leaving: Leaving,
    /// Of the blocks in `shards`.
    bounds: Arc<Bounds>,
    shards: Box<[Option<Block>]>,
    /// Blocks that were made under a policy with other buckets.
    others: Vec<Other>,
}

#[derive(Clone)]
pub(super) struct Other {
    worker: usize,
    bounds: Arc<Bounds>,
    block: Block,
}

/// The cells that a worker wants.
pub(in crate::telemetry) struct Wanted<'a> {
    pub(in crate::telemetry) worker: usize,
    pub(in crate::telemetry) workers: usize,
    pub(in crate::telemetry) family: Family,
    pub(in crate::telemetry) suffix: &'a str,
    /// What the worker goes by.
    pub(in crate::telemetry) rules: &'a Rules,
}

impl<'a> Wanted<'a> {
    pub(super) fn bounds(&self) -> &'a Arc<Bounds> {
        self.rules.bounds(self.family)
    }
}

/// What a label set grows by.
#[derive(Clone, Copy)]
pub(in crate::telemetry) struct Growth {
    /// By a series more.
    pub(in crate::telemetry) series: bool,
    pub(in crate::telemetry) bytes: usize,
}

/// Since when something waits to be forgotten.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::telemetry) struct Mark {
    /// Expositions up to this one may have shown it otherwise.
    pub(in crate::telemetry) after: u64,
    /// Milliseconds since the store's epoch.
    pub(in crate::telemetry) at: u64,
}

/// How far a series has gone whose labels no rule gives any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::telemetry) enum Leaving {
    /// Somebody may write to it.
    No,
    /// Nobody does since then: its value has not changed.
    Quiet(Mark),
    /// Expositions leave it out since then.
    Hidden(Mark),
}

impl Series {
    /// Without cells.
    pub(super) fn new((family, suffix): (Family, &str), rules: &Rules, workers: usize) -> Self {
        Self {
            family,
            suffix: suffix.into(),
            generation: rules.generation,
            leaving: Leaving::No,
            bounds: Arc::clone(rules.bounds(family)),
            shards: vec![None; workers].into(),
            others: Vec::new(),
        }
    }

    /// Whether expositions leave it out.
    pub(in crate::telemetry) fn is_hidden(&self) -> bool {
        matches!(self.leaving, Leaving::Hidden(_))
    }

    /// Whether [`Self::keep`] would change nothing.
    pub(super) fn is_kept(&self, rules: &Rules) -> bool {
        self.generation >= rules.generation && self.leaving == Leaving::No
    }

    /// A worker has got cells of it, under these rules: it is not to be forgotten.
    pub(super) fn keep(&mut self, rules: &Rules) {
        self.generation = self.generation.max(rules.generation);
        self.leaving = Leaving::No;
    }

    /// Whether these rules give its labels to no series.
    pub(super) fn is_former(&self, rules: &Rules) -> bool {
        rules.has_reshaped(self.family, self.generation)
    }

    /// Goes one step on, if there is one: `step` answers where to, or nothing once it may be forgotten. False then.
    pub(super) fn leave(&mut self, step: impl FnOnce(Leaving) -> Option<Leaving>) -> bool {
        let next = if self.is_held() {
            Some(Leaving::No)
        } else {
            step(self.leaving)
        };
        next.inspect(|next| self.leaving = *next).is_some()
    }

    /// Whether a worker has a handle to its cells. After that nobody can write to them, and what was written is seen.
    fn is_held(&mut self) -> bool {
        let shards = self.shards.iter_mut().flatten();
        let mut blocks = shards.chain(self.others.iter_mut().map(|other| &mut other.block));
        blocks.any(|block| Arc::get_mut(block).is_none())
    }

    /// The cells summed over the shards; a histogram in the given buckets.
    pub(in crate::telemetry) fn read(&self, bounds: &Bounds) -> Reading {
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

    pub(super) fn find(&self, wanted: &Wanted<'_>) -> Option<Block> {
        if self.is_laid_out_for(wanted) {
            return self.shards[wanted.worker].clone();
        }
        let fits =
            |other: &&Other| other.worker == wanted.worker && other.bounds == *wanted.bounds();
        self.others
            .iter()
            .find(fits)
            .map(|other| Arc::clone(&other.block))
    }

    pub(super) fn is_laid_out_for(&self, wanted: &Wanted<'_>) -> bool {
        self.family.value() != Value::Histogram
            || Arc::ptr_eq(&self.bounds, wanted.bounds())
            || self.bounds == *wanted.bounds()
    }

    pub(super) fn make(&mut self, wanted: &Wanted<'_>) -> Block {
        let cells = block(cells(self.family.value(), wanted.bounds()));
        if self.is_laid_out_for(wanted) {
            self.shards[wanted.worker] = Some(Arc::clone(&cells));
        } else {
            self.others.push(Other {
                worker: wanted.worker,
                bounds: Arc::clone(wanted.bounds()),
                block: Arc::clone(&cells),
            });
        }
        cells
    }

    /// The bytes it takes.
    pub(in crate::telemetry) fn bytes(&self) -> usize {
        let shards = self.shards.iter().flatten();
        let others = self.others.iter().map(|other| &other.block);
        let blocks = shards.chain(others).map(|block| block_bytes(block.len()));
        let others = self.others.len() * 2 * size_of::<Other>();
        series_bytes(&self.suffix, self.shards.len()) + others + blocks.sum::<usize>()
    }
}

/// Of a series without cells; the lists that series are in double as they grow.
pub(super) fn series_bytes(suffix: &str, workers: usize) -> usize {
    2 * size_of::<Series>() + suffix.len() + workers * size_of::<Option<Block>>() + 2 * ALLOCATION
}

pub(super) fn block_bytes(cells: usize) -> usize {
    COUNTS + cells * size_of::<u64>() + ALLOCATION
}
