//! What the operator knows of the resources, kept from watch events. Synchronous and without a
//! client: sources call `apply`, `delete` and `reset`, readers hold a `watch` on what they use.
//! Called by `watch` (in), by `status` and `apply`, and by `serve` and `monitoring` (out). It judges nothing.

mod backends;
mod container;
mod dataplane;
mod discovery;
mod facts;
mod fault;
mod interner;
mod offers;
mod pod;
mod ports;
mod publish;
mod routes;
mod scrape;
mod service;
mod touched;
mod view;

use std::collections::BTreeMap;
use std::sync::Arc;

use kube::ResourceExt;
use kube::api::ObjectMeta;
use tokio::sync::watch;
use weir_crds::Mesh;

pub use self::container::Container;
pub use self::dataplane::{
    Dataplane, MANAGED_BY, MANAGER, READY, content, is_closed, pod_of, status,
};
pub use self::discovery::{Discovery, Ingredients, Watched};
pub use self::facts::{Config, DEFAULT_OPAQUE_PORTS};
pub use self::fault::RouteFault;
pub use self::offers::{Offer, OfferSet, OfferView, Wanted};
pub use self::pod::{Injected, ObjectKey, OwnerKind, Pairs, Pod, Workload, value_of};
pub use self::ports::Ports;
pub use self::routes::{HttpRoute, ServiceProfile};
pub use self::scrape::{AdminPort, Phase, Proxy, Scrape};
pub use self::service::{
    Node, REGION, Service, ServicePort, Slice, SliceEndpoint, TargetPort, ZONE,
};
pub use self::view::{
    Caller, Destination, Endpoint, Profile, RouteKind, Routes, ServiceView, Table,
};

/// Takes the events of one kind of object.
pub trait Indexed<K>: Send {
    /// The object was added or changed.
    fn apply(&mut self, object: K);
    /// The object is gone.
    fn delete(&mut self, object: &K);
    /// These are all objects there are; whatever else was known is gone.
    fn reset(&mut self, objects: Vec<K>);
    /// They cannot be listed for now, and nobody is to wait for them: called before the first list, of kinds that an
    /// installation need not have.
    fn unlisted(&mut self) {}
}

/// Two indexes that are told the same.
impl<K: Clone, A: Indexed<K>, B: Indexed<K>> Indexed<K> for (A, B) {
    fn apply(&mut self, object: K) {
        self.0.apply(object.clone());
        self.1.apply(object);
    }

    fn delete(&mut self, object: &K) {
        self.0.delete(object);
        self.1.delete(object);
    }

    fn reset(&mut self, objects: Vec<K>) {
        self.0.reset(objects.clone());
        self.1.reset(objects);
    }
}

/// All Meshes by name.
pub type MeshSet = BTreeMap<String, Arc<Mesh>>;

/// What readers see: `None` until the first complete list.
pub type MeshView = Option<Arc<MeshSet>>;

/// The Meshes, published as a whole: there are few of them. Every proxy's settings follow their specifications, which
/// are published apart, so that a status that is written wakes only those who write it.
#[derive(Debug)]
pub struct Meshes {
    meshes: MeshSet,
    view: watch::Sender<MeshView>,
    specs: watch::Sender<MeshView>,
}

impl Default for Meshes {
    fn default() -> Self {
        Self {
            meshes: MeshSet::new(),
            view: watch::Sender::new(None),
            specs: watch::Sender::new(None),
        }
    }
}

impl Meshes {
    /// The Meshes now and at every change.
    #[must_use]
    pub fn view(&self) -> watch::Receiver<MeshView> {
        self.view.subscribe()
    }

    /// The same, moving only where a Mesh comes or goes or its specification changes.
    #[must_use]
    pub fn specs(&self) -> watch::Receiver<MeshView> {
        self.specs.subscribe()
    }

    fn publish(&self) {
        let meshes = Arc::new(self.meshes.clone());
        self.specs.send_if_modified(|known| {
            let before = known.replace(meshes.clone());
            before.is_none_or(|before| !have_same_specs(&before, &meshes))
        });
        self.view.send_replace(Some(meshes));
    }
}

/// Without what nobody reads.
fn kept(mut mesh: Mesh) -> Mesh {
    mesh.metadata.managed_fields = None;
    mesh
}

/// Whether two versions of a Mesh say the same.
fn is_same(one: &Mesh, other: &Mesh) -> bool {
    let version = &other.metadata.resource_version;
    let metadata = ObjectMeta {
        resource_version: version.clone(),
        ..one.metadata.clone()
    };
    one.spec == other.spec && one.status == other.status && metadata == other.metadata
}

fn have_same_specs(one: &MeshSet, other: &MeshSet) -> bool {
    let mut pairs = one.iter().zip(other);
    one.len() == other.len()
        && pairs.all(|((name, mesh), (other, theirs))| name == other && mesh.spec == theirs.spec)
}

impl Indexed<Mesh> for Meshes {
    fn apply(&mut self, mesh: Mesh) {
        let (name, mesh) = (mesh.name_any(), kept(mesh));
        let known = self.meshes.get(&name);
        if known.is_some_and(|known| is_same(known, &mesh)) {
            return;
        }
        self.meshes.insert(name, Arc::new(mesh));
        self.publish();
    }

    fn delete(&mut self, mesh: &Mesh) {
        if self.meshes.remove(&mesh.name_any()).is_some() {
            self.publish();
        }
    }

    fn reset(&mut self, meshes: Vec<Mesh>) {
        self.meshes = meshes
            .into_iter()
            .map(|mesh| (mesh.name_any(), Arc::new(kept(mesh))))
            .collect();
        self.publish();
    }
}

/// Counts changes and keeps nothing: for objects whose reader asks the API server itself.
#[derive(Clone, Debug)]
pub struct Changes(Arc<watch::Sender<u64>>);

impl Default for Changes {
    fn default() -> Self {
        Self(Arc::new(watch::Sender::new(0)))
    }
}

impl Changes {
    /// Moves at every change.
    #[must_use]
    pub fn count(&self) -> watch::Receiver<u64> {
        self.0.subscribe()
    }

    fn bump(&self) {
        self.0.send_modify(|count| *count += 1);
    }
}

impl<K: Send> Indexed<K> for Changes {
    fn apply(&mut self, _: K) {
        self.bump();
    }

    fn delete(&mut self, _: &K) {
        self.bump();
    }

    fn reset(&mut self, _: Vec<K>) {
        self.bump();
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::ManagedFieldsEntry;
    use serde_json::json;
    use weir_crds::kubernetes::Status;
    use weir_crds::mesh::MeshSpec;

    use super::*;

    fn names(view: &watch::Receiver<MeshView>) -> Option<Vec<String>> {
        let view = view.borrow();
        view.as_ref().map(|set| set.keys().cloned().collect())
    }

    #[test]
    fn nothing_is_known_before_the_first_complete_list() {
        let mut index = Meshes::default();
        let view = index.view();
        assert_eq!(names(&view), None);
        index.reset(Vec::new());
        assert_eq!(names(&view), Some(vec![]));
    }

    #[test]
    fn readers_see_what_is_applied_deleted_and_reset() {
        let mut index = Meshes::default();
        let view = index.view();
        index.reset(vec![Mesh::initial()]);
        index.apply(Mesh::new("b", MeshSpec::default()));
        assert_eq!(names(&view), Some(vec!["b".into(), "default".into()]));
        index.delete(&Mesh::initial());
        assert_eq!(names(&view), Some(vec!["b".into()]));
        index.reset(vec![Mesh::new("c", MeshSpec::default())]);
        assert_eq!(names(&view), Some(vec!["c".into()]));
    }

    #[test]
    fn what_is_known_already_wakes_nobody() {
        let mut index = Meshes::default();
        index.reset(vec![Mesh::initial()]);
        let mut view = index.view();
        view.mark_unchanged();
        index.apply(Mesh::initial());
        index.delete(&Mesh::new("other", MeshSpec::default()));
        assert!(!view.has_changed().unwrap());
        index.apply(Mesh::new("default", MeshSpec(json!({"a": 1}))));
        assert!(view.has_changed().unwrap());
    }

    #[test]
    fn a_status_wakes_nobody_who_follows_specifications() {
        let mut index = Meshes::default();
        index.reset(vec![Mesh::initial()]);
        let (mut view, mut specs) = (index.view(), index.specs());
        let mut moved = || {
            let moved = (view.has_changed().unwrap(), specs.has_changed().unwrap());
            view.mark_unchanged();
            specs.mark_unchanged();
            moved
        };
        moved();
        let mut mesh = Mesh::initial();
        mesh.metadata.resource_version = Some("2".to_owned());
        mesh.metadata.managed_fields = Some(vec![ManagedFieldsEntry::default()]);
        index.apply(mesh.clone());
        assert_eq!(moved(), (false, false), "nothing of it is used");
        mesh.metadata.resource_version = Some("3".to_owned());
        mesh.status = Some(Status::default());
        index.apply(mesh.clone());
        assert_eq!(moved(), (true, false));
        let shown = index.specs().borrow().clone().unwrap()["default"].clone();
        assert_eq!(shown.metadata.managed_fields, None);
        assert!(shown.status.is_some());
        index.reset(vec![mesh.clone()]);
        assert_eq!(moved(), (true, false));
        mesh.spec = MeshSpec(json!({"a": 1}));
        index.apply(mesh.clone());
        assert_eq!(moved(), (true, true));
        index.delete(&mesh);
        assert_eq!(moved(), (true, true));
    }

    #[test]
    fn every_event_is_a_change() {
        let mut changes = Changes::default();
        let count = changes.count();
        changes.apply(1);
        changes.delete(&1);
        changes.reset(vec![1, 2]);
        assert_eq!(*count.borrow(), 3);
    }
}
