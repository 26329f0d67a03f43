//! The sets of one service: beside its own one for each list of backends that some of its routes have and others do not.
//! Each is chosen from by itself; the routes are those of the service.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use super::{EndpointSet, Listed};
use crate::routes::Backend;

/// Most branches of one service; the requests of routes beyond them go where those of no route go.
pub const MOST_BRANCHES: usize = 64;

/// Where the requests of some routes go, in the form that moves between threads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Branch {
    /// What the routes say.
    pub backends: Arc<[Backend]>,
    /// The endpoints of all of them.
    pub endpoints: Vec<Listed>,
}

/// A branch as one worker has it.
#[derive(Debug)]
pub(super) struct Known {
    backends: Arc<[Backend]>,
    set: Rc<EndpointSet>,
}

impl EndpointSet {
    /// The set of the routes that have these backends; none where nobody has told of it.
    pub fn branch(&self, backends: &[Backend]) -> Option<Rc<EndpointSet>> {
        let branches = self.branches.borrow();
        let known = branches.iter().find(|known| *known.backends == *backends);
        known.map(|known| Rc::clone(&known.set))
    }

    /// Whether some requests go elsewhere than to its own endpoints.
    pub fn has_branches(&self) -> bool {
        !self.branches.borrow().is_empty()
    }

    /// Whether this is the set of one of its branches now.
    pub fn has_branch(&self, set: &Rc<EndpointSet>) -> bool {
        let branches = self.branches.borrow();
        branches.iter().any(|known| Rc::ptr_eq(&known.set, set))
    }

    /// Takes these branches instead. Of those that stay everything that is known is kept.
    pub(super) fn branch_out(&self, branches: &[Branch], now: Instant) {
        let mut current = self.branches.borrow_mut();
        let mut before = std::mem::take(&mut *current);
        for Branch {
            backends,
            endpoints,
        } in branches
        {
            let known = before.iter().position(|known| known.backends == *backends);
            let known = match known {
                Some(known) => before.swap_remove(known),
                None => Known {
                    backends: Arc::clone(backends),
                    set: Rc::new(self.bough()),
                },
            };
            known.set.replace(endpoints, now);
            current.push(known);
        }
    }

    /// An empty set of the same service.
    fn bough(&self) -> EndpointSet {
        let random = self.shared.random.borrow_mut().fork();
        let routing = Rc::clone(&self.routing);
        EndpointSet::empty(Rc::clone(&self.name), routing, self.shared.config, random)
    }
}

#[cfg(test)]
mod tests {
    use fastrand::Rng;

    use super::*;
    use crate::endpoints::{Config, Service};
    use crate::telemetry::Dst;

    fn branch(name: &str, host: u8) -> Branch {
        let backend = Backend {
            authority: name.to_owned(),
            weight: 1,
        };
        Branch {
            backends: [backend].into(),
            endpoints: vec![Listed::plain(([10, 0, 0, host], 80).into(), Dst::unknown())],
        }
    }

    #[test]
    fn each_list_of_backends_has_a_set_that_outlives_what_changes_in_it() {
        let now = Instant::now();
        let (a, b) = (branch("a", 1), branch("b", 2));
        let service = |branches: &[&Branch]| Service {
            branches: branches.iter().copied().cloned().collect(),
            ..Service::default()
        };
        let set = EndpointSet::new(
            service(&[&a, &b]),
            Config::default(),
            Rng::with_seed(7),
            now,
        );
        let chosen = |of: &Branch| {
            let claim = set.branch(&of.backends)?.choose(now)?;
            Some(claim.addr.ip())
        };
        assert_eq!(chosen(&a), Some([10, 0, 0, 1].into()));
        assert_eq!(chosen(&b), Some([10, 0, 0, 2].into()));
        assert!(set.choose(now).is_none(), "the service has nobody itself");
        let before = set.branch(&b.backends).expect("a set");
        let moved = Branch {
            endpoints: branch("", 3).endpoints,
            ..b.clone()
        };
        set.update(&service(&[&moved]), now);
        let after = set.branch(&b.backends).expect("a set");
        assert!(Rc::ptr_eq(&before, &after), "what was measured is kept");
        assert!(Rc::ptr_eq(&after.routing, &set.routing));
        assert_eq!(chosen(&b), Some([10, 0, 0, 3].into()));
        assert_eq!(chosen(&a), None);
    }
}
