//! The authorities of known Services, which no budget refuses, by who tells of them: each takes back what it said itself,
//! and nothing else. Kept by the store and asked by its rules. It must not know who tells, nor where they know it from.

use std::collections::HashSet;
use std::sync::Arc;

use super::store::Store;

/// Names in lower case, each without or with its port.
type Names = Arc<HashSet<Box<str>>>;

/// What each of those who tell has said last; clones share it.
#[derive(Clone, Debug, Default)]
pub(super) struct Authorities(Vec<Names>);

/// One of those who tell. What it has said last stands when it is gone.
pub struct Known {
    pub(super) store: Arc<Store>,
    pub(super) place: usize,
}

impl Authorities {
    /// A place for one more of them.
    pub(super) fn add(&mut self) -> usize {
        self.0.push(Names::default());
        self.0.len() - 1
    }

    /// Takes over what one of them says; whether it is anything else than before.
    pub(super) fn set(&mut self, place: usize, names: HashSet<Box<str>>) -> bool {
        let is_other = *self.0[place] != names;
        if is_other {
            self.0[place] = Arc::new(names);
        }
        is_other
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.iter().all(|names| names.is_empty())
    }

    /// Whether any of them has said it.
    pub(super) fn contains(&self, name: &str) -> bool {
        self.0.iter().any(|names| names.contains(name))
    }
}

impl Known {
    /// Says which authorities are those of known Services, in place of what it said before; each without or with its port.
    pub fn set(&self, authorities: impl IntoIterator<Item = String>) {
        let names = authorities.into_iter().map(String::into_boxed_str);
        self.store.set_known(self.place, names.collect());
    }
}
