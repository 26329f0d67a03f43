//! The workloads of injected pods, from their Dataplane resources. Fed by `watch`, followed by `serve`
//! one workload at a time, so that a change wakes those it concerns and nobody else. A pod is known by
//! its Dataplane's owner: another pod of the same name is another workload. What others wrote is nobody's.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard};

use kube::ResourceExt;
use tokio::sync::watch;
use weir_crds::Dataplane;

use super::{Workload, WorkloadView, Workloads};
use crate::index::{Indexed, is_closed, pod_of};
use crate::token::{Account, Caller, PodRef};

/// Below this many workloads nothing is worth forgetting.
const SMALLEST_SWEEP: usize = 1024;

/// Namespace, name and uid of a pod.
type Key = (String, String, String);

/// The workloads by pod.
#[derive(Clone, Debug, Default)]
pub struct Dataplanes(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    views: HashMap<Key, watch::Sender<WorkloadView>>,
    /// The pod of each Dataplane, by namespace and name.
    pods: HashMap<(String, String), Key>,
    /// When so many views are kept, those of nobody are forgotten.
    sweep_at: usize,
}

impl Dataplanes {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().expect("nothing panics while it is held")
    }
}

impl State {
    fn set(&mut self, key: Key, workload: WorkloadView) {
        self.sweep();
        let view = self
            .views
            .entry(key)
            .or_insert_with(|| watch::Sender::new(None));
        view.send_if_modified(|known| {
            let changed = *known != workload;
            *known = workload;
            changed
        });
    }

    fn take(&mut self, dataplane: &Dataplane) {
        let name = name(dataplane);
        let key = key(dataplane);
        let before = match key.clone() {
            Some(key) => self.pods.insert(name, key),
            None => self.pods.remove(&name),
        };
        if let Some(before) = before.filter(|before| Some(before) != key.as_ref()) {
            self.set(before, None);
        }
        if let Some(key) = key {
            self.set(key, Some(Arc::new(workload(dataplane))));
        }
    }

    fn remove(&mut self, name: &(String, String)) {
        if let Some(key) = self.pods.remove(name) {
            self.set(key, None);
        }
    }

    fn sweep(&mut self) {
        if self.views.len() >= self.sweep_at.max(SMALLEST_SWEEP) {
            self.views
                .retain(|_, view| view.receiver_count() > 0 || view.borrow().is_some());
            self.sweep_at = self.views.len() * 2;
        }
    }
}

fn name(dataplane: &Dataplane) -> (String, String) {
    (
        dataplane.namespace().unwrap_or_default(),
        dataplane.name_any(),
    )
}

/// The pod of a Dataplane; `None` for one that a user wrote, which would give a pod any tags, and their identity.
fn key(dataplane: &Dataplane) -> Option<Key> {
    let pod = pod_of(dataplane)?;
    Some((dataplane.namespace()?, pod.name.clone(), pod.uid.clone()))
}

fn workload(dataplane: &Dataplane) -> Workload {
    let networking = dataplane.spec.networking().ok().flatten();
    let metrics = dataplane.spec.metrics_override().ok().flatten();
    let networking = networking.unwrap_or_default();
    Workload {
        closed_routes: is_closed(dataplane),
        ..Workload::new(dataplane.mesh_name(), networking, metrics)
    }
}

impl Indexed<Dataplane> for Dataplanes {
    fn apply(&mut self, dataplane: Dataplane) {
        self.state().take(&dataplane);
    }

    fn delete(&mut self, dataplane: &Dataplane) {
        self.state().remove(&name(dataplane));
    }

    fn reset(&mut self, dataplanes: Vec<Dataplane>) {
        let mut state = self.state();
        let listed: std::collections::HashSet<_> = dataplanes.iter().map(name).collect();
        let gone: Vec<_> = state
            .pods
            .keys()
            .filter(|name| !listed.contains(*name))
            .cloned()
            .collect();
        for name in gone {
            state.remove(&name);
        }
        for dataplane in &dataplanes {
            state.take(dataplane);
        }
    }
}

impl Workloads for Dataplanes {
    /// A caller whose token is bound to no pod is never known.
    fn follow(&self, caller: &Caller) -> watch::Receiver<WorkloadView> {
        let Caller::Account(Account {
            namespace,
            pod: Some(PodRef { name, uid }),
            ..
        }) = caller.clone()
        else {
            return watch::Sender::new(None).subscribe();
        };
        let mut state = self.state();
        state.sweep();
        let key = (namespace, name, uid);
        let view = state
            .views
            .entry(key)
            .or_insert_with(|| watch::Sender::new(None));
        view.subscribe()
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
    use serde_json::json;
    use weir_crds::dataplane::DataplaneSpec;

    use super::*;
    use crate::index::{MANAGED_BY, MANAGER};

    fn dataplane(name: &str, uid: &str, service: &str) -> Dataplane {
        let inbound = |port: u16, service: &str| json!({"port": port, "tags": {"kuma.io/service": service, "version": "1"}});
        let spec = json!({
            "networking": {"address": "10.0.0.1", "inbound": [inbound(80, service), inbound(81, "admin")]},
            "metrics": {"type": "prometheus", "conf": {"port": 1234}},
        });
        let mut dataplane = Dataplane::new(name, DataplaneSpec(spec));
        dataplane.mesh = Some("m".to_owned());
        dataplane.metadata.namespace = Some("shop".to_owned());
        let managed = (MANAGED_BY.to_owned(), MANAGER.to_owned());
        dataplane.metadata.labels = Some([managed].into());
        dataplane.metadata.owner_references = Some(vec![OwnerReference {
            kind: "Pod".to_owned(),
            name: name.to_owned(),
            uid: uid.to_owned(),
            ..OwnerReference::default()
        }]);
        dataplane
    }

    fn account() -> Account {
        Account {
            namespace: "shop".to_owned(),
            service_account: "web".to_owned(),
            pod: None,
        }
    }

    fn caller(name: &str, uid: &str) -> Caller {
        Caller::Account(Account {
            pod: Some(PodRef {
                name: name.to_owned(),
                uid: uid.to_owned(),
            }),
            ..account()
        })
    }

    #[test]
    fn a_pod_has_the_tags_of_all_its_inbounds() {
        let mut index = Dataplanes::default();
        let view = index.follow(&caller("web-0", "1"));
        assert_eq!(*view.borrow(), None);
        index.reset(vec![dataplane("web-0", "1", "web")]);
        let workload = view.borrow().clone().unwrap();
        assert_eq!(workload.mesh, "m");
        let values = |tag: &str| workload.tags[tag].iter().cloned().collect::<Vec<_>>();
        assert_eq!(values("kuma.io/service"), ["admin", "web"]);
        assert_eq!(values("version"), ["1"]);
        assert_eq!(workload.inbounds[0].port, 80);
        assert_eq!(workload.metrics.as_ref().unwrap().conf.port, Some(1234));
    }

    #[test]
    fn a_change_wakes_its_own_pod_alone() {
        let mut index = Dataplanes::default();
        index.reset(vec![
            dataplane("web-0", "1", "web"),
            dataplane("web-1", "2", "web"),
        ]);
        let mut own = index.follow(&caller("web-0", "1"));
        let mut other = index.follow(&caller("web-1", "2"));
        own.mark_unchanged();
        other.mark_unchanged();
        index.apply(dataplane("web-0", "1", "web2"));
        assert!(own.has_changed().unwrap() && !other.has_changed().unwrap());
        own.mark_unchanged();
        index.apply(dataplane("web-0", "1", "web2"));
        assert!(!own.has_changed().unwrap());
    }

    #[test]
    fn another_pod_of_the_same_name_is_another_workload() {
        let mut index = Dataplanes::default();
        index.reset(vec![dataplane("web-0", "1", "web")]);
        let (old, new) = (
            index.follow(&caller("web-0", "1")),
            index.follow(&caller("web-0", "2")),
        );
        assert!(old.borrow().is_some() && new.borrow().is_none());
        index.apply(dataplane("web-0", "2", "web"));
        assert!(old.borrow().is_none() && new.borrow().is_some());
        index.delete(&dataplane("web-0", "2", "web"));
        assert!(new.borrow().is_none());
        index.reset(vec![dataplane("web-0", "2", "web")]);
        index.reset(Vec::new());
        assert!(new.borrow().is_none());
    }

    #[test]
    fn what_others_write_gives_a_pod_no_tags() {
        let mut index = Dataplanes::default();
        let view = index.follow(&caller("web-0", "1"));
        let mut named = dataplane("web-0", "1", "payments");
        named.metadata.name = Some("mine".to_owned());
        let mut unmanaged = dataplane("web-0", "1", "payments");
        unmanaged.metadata.labels = None;
        let mut managed = unmanaged.clone();
        managed.labels_mut().insert(MANAGED_BY.into(), "me".into());
        for forged in [named, unmanaged, managed] {
            index.reset(vec![forged.clone()]);
            assert_eq!(*view.borrow(), None, "{:?}", forged.metadata);
            index.reset(vec![dataplane("web-0", "1", "web")]);
            assert!(view.borrow().is_some());
            // Beside the real one nothing changes, in its place there is none.
            let is_beside = forged.metadata.name.as_deref() != Some("web-0");
            index.apply(forged);
            assert_eq!(view.borrow().is_some(), is_beside);
        }
    }

    #[test]
    fn a_token_without_a_pod_is_nobodys_workload() {
        let index = Dataplanes::default();
        let unbound = Caller::Account(account());
        assert!(index.follow(&unbound).borrow().is_none());
    }

    #[test]
    fn workloads_that_nobody_follows_are_forgotten() {
        let index = Dataplanes::default();
        for number in 0..10 * SMALLEST_SWEEP {
            let _ = index.follow(&caller(&number.to_string(), "1"));
        }
        assert!(index.state().views.len() <= SMALLEST_SWEEP);
    }
}
