//! The workloads that Universal documents state, by Mesh and name. Filled by `documents`, followed by `serve` one
//! workload at a time, so that a change wakes those it concerns and nobody else. It judges nothing.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard};

use tokio::sync::watch;

use super::{Workload, WorkloadView, Workloads};
use crate::token::Caller;

/// Mesh and name of a Dataplane.
pub type StatedKey = (String, String);

type Views = HashMap<StatedKey, watch::Sender<WorkloadView>>;

/// The workloads; clones are the same.
#[derive(Clone, Debug, Default)]
pub struct Stated(Arc<Mutex<Views>>);

impl Stated {
    fn views(&self) -> MutexGuard<'_, Views> {
        self.0.lock().expect("nothing panics while it is held")
    }

    /// The workload of this Mesh and name, now and at every change.
    #[must_use]
    pub fn named(&self, key: StatedKey) -> watch::Receiver<WorkloadView> {
        let mut views = self.views();
        if !views.contains_key(&key) {
            sweep(&mut views);
        }
        let view = views.entry(key);
        view.or_insert_with(|| watch::Sender::new(None)).subscribe()
    }

    /// These are all workloads there are.
    pub fn reset(&self, mut workloads: HashMap<StatedKey, Workload>) {
        let mut views = self.views();
        for (key, view) in views.iter() {
            show(view, workloads.remove(key));
        }
        for (key, workload) in workloads {
            views.insert(key, watch::Sender::new(Some(Arc::new(workload))));
        }
        sweep(&mut views);
    }
}

fn show(view: &watch::Sender<WorkloadView>, workload: Option<Workload>) {
    view.send_if_modified(|known| {
        let changed = known.as_deref() != workload.as_ref();
        if changed {
            *known = workload.map(Arc::new);
        }
        changed
    });
}

/// Forgets what is nobody's and nobody follows.
fn sweep(views: &mut Views) {
    views.retain(|_, view| view.receiver_count() > 0 || view.borrow().is_some());
}

impl Workloads for Stated {
    /// Of a cluster's callers none is known.
    fn follow(&self, caller: &Caller) -> watch::Receiver<WorkloadView> {
        match caller {
            Caller::Dataplane(grant) => self.named((grant.mesh.clone(), grant.name.clone())),
            Caller::Account(_) => watch::Sender::new(None).subscribe(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::token::Grant;

    fn caller(name: &str) -> Caller {
        Caller::Dataplane(Grant {
            mesh: "default".to_owned(),
            name: name.to_owned(),
            ..Grant::default()
        })
    }

    fn stated(names: &[&str], version: &str) -> HashMap<StatedKey, Workload> {
        let workload = |name: &&str| {
            let workload = Workload {
                mesh: "default".to_owned(),
                tags: [("version".to_owned(), [version.to_owned()].into())].into(),
                ..Workload::default()
            };
            (("default".to_owned(), (*name).to_owned()), workload)
        };
        names.iter().map(workload).collect()
    }

    #[test]
    fn a_change_wakes_its_own_workload_alone() {
        let workloads = Stated::default();
        let mut web = workloads.follow(&caller("web-1"));
        assert!(web.borrow_and_update().is_none());
        workloads.reset(stated(&["web-1", "db-1"], "1"));
        assert_eq!(web.borrow_and_update().as_ref().unwrap().mesh, "default");
        let mut db = workloads.follow(&caller("db-1"));
        db.mark_unchanged();
        let mut both = stated(&["db-1"], "1");
        both.extend(stated(&["web-1"], "2"));
        workloads.reset(both);
        assert!(web.has_changed().unwrap() && !db.has_changed().unwrap());
        workloads.reset(HashMap::new());
        assert!(db.borrow_and_update().is_none());
    }

    #[test]
    fn names_that_nobody_states_and_follows_are_forgotten() {
        let workloads = Stated::default();
        for number in 0..100 {
            drop(workloads.follow(&caller(&number.to_string())));
        }
        assert!(workloads.views().len() <= 1);
    }
}
