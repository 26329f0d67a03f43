//! Keeps one copy of every name that many objects share: namespaces, nodes, label keys, service accounts.
//! Used by the index while it takes objects over. It knows nothing of what is named.

use std::collections::HashSet;
use std::sync::Arc;

/// Below this many names nothing is worth forgetting.
const SMALLEST_SWEEP: usize = 4096;

/// One shared copy a name. Names that nobody holds any more are forgotten whenever their number has doubled.
#[derive(Debug)]
pub(crate) struct Interner {
    names: HashSet<Arc<str>>,
    sweep_at: usize,
}

impl Default for Interner {
    fn default() -> Self {
        Self {
            names: HashSet::new(),
            sweep_at: SMALLEST_SWEEP,
        }
    }
}

impl Interner {
    /// The shared copy of a name.
    pub(crate) fn name(&mut self, name: &str) -> Arc<str> {
        if let Some(known) = self.names.get(name) {
            return known.clone();
        }
        if self.names.len() >= self.sweep_at {
            self.names.retain(|name| Arc::strong_count(name) > 1);
            self.sweep_at = (self.names.len() * 2).max(SMALLEST_SWEEP);
        }
        let name: Arc<str> = name.into();
        self.names.insert(name.clone());
        name
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_kept_once() {
        let mut names = Interner::default();
        let first = names.name("default");
        assert!(Arc::ptr_eq(&first, &names.name("default")));
        assert!(!Arc::ptr_eq(&first, &names.name("other")));
    }

    #[test]
    fn names_that_nobody_holds_are_forgotten() {
        let mut names = Interner::default();
        let held = names.name("held");
        for number in 0..10 * SMALLEST_SWEEP {
            names.name(&number.to_string());
        }
        assert!(names.names.len() <= SMALLEST_SWEEP, "{}", names.names.len());
        assert!(Arc::ptr_eq(&held, &names.name("held")));
    }
}
