//! The TrafficPermissions by Mesh, as selection sees them. Fed by `watch`, read by `serve`. One that
//! cannot be read is left out, as one that the webhook would have refused. It selects nothing.

use std::collections::BTreeMap;
use std::sync::Arc;

use kube::ResourceExt;
use tokio::sync::watch;
use weir_crds::TrafficPermission;
use weir_crds::permission::Candidate;

use crate::index::Indexed;

/// The candidates of each Mesh.
pub type PermissionSet = BTreeMap<String, Vec<Candidate>>;

/// What readers see: `None` until the first complete list.
pub type PermissionView = Option<Arc<PermissionSet>>;

/// All TrafficPermissions, published as a whole: there are few of them.
#[derive(Debug)]
pub struct Permissions {
    known: BTreeMap<String, (String, Candidate)>,
    view: watch::Sender<PermissionView>,
}

impl Default for Permissions {
    fn default() -> Self {
        Self {
            known: BTreeMap::new(),
            view: watch::Sender::new(None),
        }
    }
}

impl Permissions {
    /// The permissions now and at every change.
    #[must_use]
    pub fn view(&self) -> watch::Receiver<PermissionView> {
        self.view.subscribe()
    }

    fn take(&mut self, permission: &TrafficPermission) -> bool {
        let name = permission.name_any();
        let Some(candidate) = candidate(permission) else {
            tracing::warn!(name, "a TrafficPermission cannot be read, and is left out");
            return self.known.remove(&name).is_some();
        };
        let entry = (permission.mesh_name().to_owned(), candidate);
        if self.known.get(&name) == Some(&entry) {
            return false;
        }
        self.known.insert(name, entry);
        true
    }

    fn publish(&self) {
        let mut set = PermissionSet::new();
        for (mesh, candidate) in self.known.values() {
            set.entry(mesh.clone()).or_default().push(candidate.clone());
        }
        self.view.send_replace(Some(Arc::new(set)));
    }
}

fn candidate(permission: &TrafficPermission) -> Option<Candidate> {
    let created = permission.metadata.creation_timestamp.as_ref();
    Some(Candidate {
        name: permission.name_any(),
        created: created.map_or(0, |time| time.0.as_second()),
        sources: permission.spec.sources().ok()?,
        destinations: permission.spec.destinations().ok()?,
    })
}

impl Indexed<TrafficPermission> for Permissions {
    fn apply(&mut self, permission: TrafficPermission) {
        if self.take(&permission) {
            self.publish();
        }
    }

    fn delete(&mut self, permission: &TrafficPermission) {
        if self.known.remove(&permission.name_any()).is_some() {
            self.publish();
        }
    }

    fn reset(&mut self, permissions: Vec<TrafficPermission>) {
        self.known.clear();
        for permission in &permissions {
            self.take(permission);
        }
        self.publish();
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use weir_crds::traffic_permission::TrafficPermissionSpec;

    use super::*;

    fn permission(name: &str, mesh: &str, service: serde_json::Value) -> TrafficPermission {
        let spec = json!({
            "sources": [{"match": {"kuma.io/service": "*"}}],
            "destinations": [{"match": {"kuma.io/service": service}}],
        });
        let mut permission = TrafficPermission::new(name, TrafficPermissionSpec(spec));
        permission.mesh = Some(mesh.to_owned());
        permission
    }

    #[test]
    fn permissions_are_known_by_their_mesh() {
        let mut index = Permissions::default();
        let mut view = index.view();
        assert!(view.borrow_and_update().is_none());
        index.reset(vec![
            permission("a", "default", json!("*")),
            permission("b", "other", json!("x")),
        ]);
        index.apply(permission("c", "default", json!("web")));
        index.apply(permission("broken", "default", json!(["web"])));
        let names = |view: &PermissionSet, mesh: &str| -> Vec<String> {
            view.get(mesh)
                .into_iter()
                .flatten()
                .map(|one| one.name.clone())
                .collect()
        };
        let set = view.borrow_and_update().clone().unwrap();
        assert_eq!(names(&set, "default"), ["a", "c"]);
        assert_eq!(names(&set, "other"), ["b"]);
        index.apply(permission("c", "default", json!("web")));
        assert!(
            !view.has_changed().unwrap(),
            "what is known already wakes nobody"
        );
        index.delete(&permission("a", "default", json!("*")));
        assert_eq!(names(view.borrow().as_ref().unwrap(), "default"), ["c"]);
    }
}
