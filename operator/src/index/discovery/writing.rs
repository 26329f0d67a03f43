//! What the writer of Dataplanes asks the index: which pods to look at again, and everything that one Dataplane is made
//! of.

use std::sync::Arc;

use tokio::sync::watch;
use weir_crds::Mesh;

use super::{Cluster, Discovery, Source};
use crate::index::Indexed;
use crate::index::dataplane::Dataplane;
use crate::index::facts::find;
use crate::index::pod::{ObjectKey, Pod};
use crate::index::service::{Node, Service};

/// Everything that the Dataplane of a pod is made of, and the Dataplane there is.
#[derive(Clone, Debug, Default)]
pub struct Ingredients {
    /// The pod.
    pub pod: Option<Arc<Pod>>,
    /// The Services of its namespace that select it, by name.
    pub services: Vec<Arc<Service>>,
    /// Its node.
    pub node: Option<Node>,
    /// Its Mesh.
    pub mesh: Option<Arc<Mesh>>,
    /// The Dataplane of its name.
    pub known: Option<Dataplane>,
}

impl Discovery {
    /// Moves when there are pods whose Dataplane may have to change.
    #[must_use]
    pub fn touched(&self) -> watch::Receiver<u64> {
        self.lock().touched.moved()
    }

    /// Takes the pods whose Dataplane may have to change; none before everything was listed once.
    #[must_use]
    pub fn take_touched(&self) -> Vec<ObjectKey> {
        let cluster = &mut *self.lock();
        match *cluster.complete.borrow() && cluster.listed.contains(&Source::Dataplanes) {
            true => cluster.touched.take(),
            false => Vec::new(),
        }
    }

    /// Has every injected pod and every Dataplane of ours looked at again.
    pub fn touch_all(&self) {
        let cluster = &mut *self.lock();
        cluster.touched.touch_where(&cluster.facts, |_| true);
        let ours = cluster
            .dataplanes
            .values()
            .filter(|one| one.owner.is_some());
        let ours: Vec<ObjectKey> = ours.map(|one| one.key.clone()).collect();
        for key in ours {
            cluster.touched.touch(key);
        }
    }

    /// Everything that the Dataplane of a pod is made of.
    #[must_use]
    pub fn ingredients(&self, key: &ObjectKey) -> Ingredients {
        let cluster = self.lock();
        let facts = &cluster.facts;
        let known = cluster.dataplanes.get(key).cloned();
        let Some(pod) = find(&facts.pods, key) else {
            return Ingredients {
                known,
                ..Ingredients::default()
            };
        };
        let services = facts.services.get(&key.namespace).into_iter();
        let services = services.flat_map(|names| names.values());
        let mut services: Vec<Arc<Service>> = services
            .filter(|service| service.selects(pod))
            .cloned()
            .collect();
        services.sort_by(|one, other| one.key.cmp(&other.key));
        let workload = &pod.workload;
        Ingredients {
            node: workload
                .node
                .as_ref()
                .and_then(|node| facts.nodes.get(node))
                .cloned(),
            mesh: workload
                .mesh
                .as_ref()
                .and_then(|mesh| facts.meshes.get(mesh))
                .cloned(),
            pod: Some(pod.clone()),
            services,
            known,
        }
    }
}

impl Cluster {
    /// Takes a Dataplane over, unless a later one is known: the writer tells of what it wrote before the watch does.
    fn set_dataplane(&mut self, dataplane: Dataplane) {
        let key = dataplane.key.clone();
        let known = self.dataplanes.get(&key);
        if known.is_some_and(|known| known.version > dataplane.version) {
            return;
        }
        if known.is_none_or(|known| differ(known, &dataplane)) {
            self.touched.touch(key.clone());
        }
        self.dataplanes.insert(key, dataplane);
    }
}

/// Whether two versions of a Dataplane say different things.
fn differ(one: &Dataplane, other: &Dataplane) -> bool {
    let said = |dataplane: &Dataplane| Dataplane {
        version: 0,
        ..dataplane.clone()
    };
    said(one) != said(other)
}

impl Indexed<Dataplane> for Discovery {
    fn apply(&mut self, dataplane: Dataplane) {
        self.lock().set_dataplane(dataplane);
    }

    fn delete(&mut self, dataplane: &Dataplane) {
        let mut cluster = self.lock();
        if cluster.dataplanes.remove(&dataplane.key).is_some() {
            cluster.touched.touch(dataplane.key.clone());
        }
    }

    fn reset(&mut self, dataplanes: Vec<Dataplane>) {
        let cluster = &mut *self.lock();
        let before = std::mem::take(&mut cluster.dataplanes);
        for dataplane in dataplanes {
            let key = dataplane.key.clone();
            if before
                .get(&key)
                .is_none_or(|known| differ(known, &dataplane))
            {
                cluster.touched.touch(key.clone());
            }
            cluster.dataplanes.insert(key, dataplane);
        }
        // Those of before may be gone without a word, with their kind.
        let has = |pod: &Pod| cluster.dataplanes.contains_key(&pod.workload.pod);
        cluster.touched.touch_where(&cluster.facts, |pod| !has(pod));
        cluster.has_listed(Source::Dataplanes);
    }
}

/// Objects of which another index beside it keeps more.
impl Indexed<weir_crds::Dataplane> for Discovery {
    fn apply(&mut self, object: weir_crds::Dataplane) {
        self.apply(Dataplane::keep(&object));
    }

    fn delete(&mut self, object: &weir_crds::Dataplane) {
        self.delete(&Dataplane::keep(object));
    }

    fn reset(&mut self, objects: Vec<weir_crds::Dataplane>) {
        self.reset(objects.iter().map(Dataplane::keep).collect::<Vec<_>>());
    }
}
