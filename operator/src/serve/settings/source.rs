//! Makes the settings of one workload of everything they depend on: its Mesh, its authority, the
//! permissions and the workload itself, merged as the webhook merges them. Used by `settings`, which
//! sends them. It knows no caller and no protobuf.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};
use weir_crds::identity::Identity;
use weir_crds::permission;
use weir_crds::settings::{IdentitySettings, MtlsMode, Settings};
use weir_crds::{Mesh, merge};

use super::WatchError;
use super::closed::Closed;
use crate::index::{Discovery, MeshSet, MeshView};
use crate::mesh_ca::View as AuthorityView;
use crate::token::{Caller, NotGranted};
use crate::workload::{PermissionView, Unknown, Workload, WorkloadView, Workloads};

/// How long a stream waits for its workload and the Mesh of that to be known, as a pod that has just been created soon is.
/// Then it ends with the reason, and its proxy asks again.
pub const PATIENCE: Duration = Duration::from_secs(5);

/// Where settings come from.
#[derive(Clone)]
pub struct Sources {
    /// The Meshes.
    pub meshes: watch::Receiver<MeshView>,
    /// Whom their proxies trust.
    pub authorities: watch::Receiver<AuthorityView>,
    /// The TrafficPermissions.
    pub permissions: watch::Receiver<PermissionView>,
    /// The workloads.
    pub workloads: Arc<dyn Workloads>,
    /// The routes of the Services that their ports belong to.
    pub routes: Discovery,
    /// The last labels of every DNS name in a certificate.
    pub trust_domain: Arc<str>,
}

/// The settings of one workload, now and at every change.
pub(super) struct Following {
    caller: Caller,
    /// The DNS name of its certificate, where the token alone tells it.
    name: Option<String>,
    meshes: watch::Receiver<MeshView>,
    authorities: watch::Receiver<AuthorityView>,
    permissions: watch::Receiver<PermissionView>,
    workload: watch::Receiver<WorkloadView>,
    routes: Discovery,
    /// The workload that was seen last, and its routes where it refuses requests without one.
    seen: Option<Arc<Workload>>,
    closed: Option<Closed>,
    /// The fingerprint of what was handed out last: thousands of streams would keep as many documents.
    last: Option<u64>,
    /// Until when something has to be known of the workload.
    patience: Instant,
}

impl Sources {
    pub(super) fn follow(&self, caller: &Caller) -> Following {
        Following {
            name: caller.own_name(&self.trust_domain),
            caller: caller.clone(),
            meshes: self.meshes.clone(),
            authorities: self.authorities.clone(),
            permissions: self.permissions.clone(),
            workload: self.workloads.follow(caller),
            routes: self.routes.clone(),
            seen: None,
            closed: None,
            last: None,
            patience: Instant::now() + PATIENCE,
        }
    }
}

impl Following {
    /// Whether its token allows what the workload is now.
    pub(super) fn check(&self) -> Result<(), NotGranted> {
        match &*self.workload.borrow() {
            Some(workload) => self.caller.allows(&workload.tags),
            None => Ok(()),
        }
    }

    /// The next settings that differ from the last. What is not known (yet, or any more) changes
    /// nothing: the last settings stand, also once nobody tells of changes any more.
    ///
    /// # Errors
    /// When the token does not allow what the workload has become, or there is no workload in time, or none of its Mesh.
    pub(super) async fn next(&mut self) -> Result<Settings, WatchError> {
        loop {
            if let Some(settings) = self.current()? {
                let now = Some(fingerprint(&settings));
                if std::mem::replace(&mut self.last, now) != now {
                    return Ok(settings);
                }
            }
            let unknown = self.unknown();
            let changed = tokio::select! {
                unknown = late(self.patience, unknown) => return Err(unknown.into()),
                changed = self.meshes.changed() => changed,
                changed = self.authorities.changed() => changed,
                changed = self.permissions.changed() => changed,
                changed = self.workload.changed() => changed,
                () = changed(self.closed.as_mut()) => Ok(()),
            };
            if changed.is_err() {
                // The operator ends; the server tells the stream.
                std::future::pending::<()>().await;
            }
        }
    }

    /// What has to be known before anything can be said. Once something was, that stands.
    fn unknown(&self) -> Option<Unknown> {
        if self.last.is_some() {
            return None;
        }
        let workload = self.workload.borrow();
        let Some(workload) = workload.as_ref() else {
            return Some(Unknown::of(&self.caller));
        };
        let is_listed = |meshes: &Arc<MeshSet>| meshes.contains_key(&workload.mesh);
        let is_missing = self
            .meshes
            .borrow()
            .as_ref()
            .is_some_and(|all| !is_listed(all));
        is_missing.then(|| Unknown::mesh_of(&self.caller, &workload.mesh))
    }

    fn current(&mut self) -> Result<Option<Settings>, NotGranted> {
        let Some(workload) = self.workload.borrow_and_update().clone() else {
            return Ok(None);
        };
        self.caller.allows(&workload.tags)?;
        Ok(self.of(workload))
    }

    fn of(&mut self, workload: Arc<Workload>) -> Option<Settings> {
        let meshes = self.meshes.borrow_and_update().clone();
        let authorities = self.authorities.borrow_and_update().clone();
        let permissions = self.permissions.borrow_and_update().clone();
        self.follow_routes(&workload);
        if self
            .closed
            .as_mut()
            .is_some_and(|closed| !closed.is_known())
        {
            return None;
        }
        let mesh = meshes?.get(&workload.mesh)?.clone();
        let mut settings = merged(&mesh, &workload);
        let needs_permissions = settings.mtls != MtlsMode::Disabled || self.closed.is_some();
        if needs_permissions && permissions.is_none() {
            // A document without any would lift those that are in force.
            return None;
        }
        if settings.mtls != MtlsMode::Disabled {
            let bundle = authorities
                .as_deref()
                .and_then(|known| known.get(&workload.mesh));
            let bundle = bundle.map(|authority| &*authority.bundle);
            // Without anybody to trust, the proxy waits with what it was given at its start.
            settings.identity =
                Some(self.identity(&workload, bundle.filter(|pem| !pem.is_empty())?));
        }
        if let Some(permissions) = permissions {
            let candidates = permissions.get(&workload.mesh);
            let inbounds = workload.inbounds.iter();
            let inbounds = inbounds.map(|inbound| (inbound.port, &inbound.tags));
            permission::permit(
                &mut settings,
                inbounds,
                candidates.map_or(&[], Vec::as_slice),
            );
        }
        if let Some(closed) = &mut self.closed {
            for inbound in settings.inbounds.iter_mut().flatten() {
                inbound.routes = closed.conditions(inbound.port);
            }
        }
        Some(settings)
    }

    fn follow_routes(&mut self, workload: &Arc<Workload>) {
        let is_seen = self
            .seen
            .as_ref()
            .is_some_and(|seen| Arc::ptr_eq(seen, workload));
        if !is_seen {
            let closed = workload.closed_routes;
            self.closed = closed.then(|| Closed::of(&workload.inbounds, &self.routes));
            self.seen = Some(workload.clone());
        }
    }

    fn identity(&self, workload: &Workload, bundle: &str) -> IdentitySettings {
        let name = workload.name.as_ref().or(self.name.as_ref());
        let identity = Identity {
            name: name.cloned().unwrap_or_default(),
            mesh: workload.mesh.clone(),
            tags: workload.tags.clone(),
        };
        IdentitySettings {
            uris: identity.uris(),
            name: identity.name,
            trust_bundle: bundle.to_owned(),
        }
    }
}

/// What is unknown, once it has been for too long.
async fn late(until: Instant, unknown: Option<Unknown>) -> Unknown {
    match unknown {
        Some(unknown) => {
            sleep_until(until).await;
            unknown
        }
        None => std::future::pending().await,
    }
}

fn fingerprint(settings: &Settings) -> u64 {
    let mut hasher = DefaultHasher::new();
    settings.hash(&mut hasher);
    hasher.finish()
}

async fn changed(closed: Option<&mut Closed>) {
    match closed {
        // In a box, because few workloads have it, and all would have the room.
        Some(closed) => Box::pin(closed.changed()).await,
        None => std::future::pending().await,
    }
}

fn merged(mesh: &Mesh, workload: &Workload) -> Settings {
    merge::settings(&workload.mesh, &mesh.spec, workload.metrics.as_ref())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use weir_crds::mesh::MeshSpec;

    use super::*;
    use crate::token::Grant;
    use crate::workload::{Stated, StatedKey};

    /// Everybody who tells of changes.
    struct Scene {
        workloads: Stated,
        meshes: watch::Sender<MeshView>,
        _authorities: watch::Sender<AuthorityView>,
        _permissions: watch::Sender<PermissionView>,
    }

    /// The settings of web-1, which has to be tagged `web`, in a Mesh that is there.
    fn scene() -> (Scene, Following) {
        let mesh = Arc::new(Mesh::new("default", MeshSpec::initial()));
        let meshes = BTreeMap::from([("default".to_owned(), mesh)]);
        let meshes = watch::Sender::new(Some(Arc::new(meshes)));
        let workloads = Stated::default();
        let (authorities, permissions) = (watch::Sender::new(None), watch::Sender::new(None));
        let sources = Sources {
            meshes: meshes.subscribe(),
            authorities: authorities.subscribe(),
            permissions: permissions.subscribe(),
            workloads: Arc::new(workloads.clone()),
            routes: Discovery::default(),
            trust_domain: "cluster.local".into(),
        };
        let caller = Caller::Dataplane(Grant {
            mesh: "default".to_owned(),
            name: "web-1".to_owned(),
            tags: [("kuma.io/service".to_owned(), ["web".to_owned()].into())].into(),
        });
        let following = sources.follow(&caller);
        let scene = Scene {
            workloads,
            meshes,
            _authorities: authorities,
            _permissions: permissions,
        };
        (scene, following)
    }

    fn put(scene: &Scene, service: &str) {
        let key: StatedKey = ("default".to_owned(), "web-1".to_owned());
        let workload = Workload {
            mesh: "default".to_owned(),
            tags: [("kuma.io/service".to_owned(), [service.to_owned()].into())].into(),
            ..Workload::default()
        };
        scene.workloads.reset([(key, workload)].into());
    }

    #[tokio::test(start_paused = true)]
    async fn a_workload_that_stays_unknown_is_said_to_be_and_one_that_comes_late_is_not() {
        let (_scene, mut following) = scene();
        let begun = Instant::now();
        let error = following.next().await.unwrap_err();
        assert_eq!(begun.elapsed(), PATIENCE);
        assert!(matches!(error, WatchError::Unknown(_)), "{error}");
        assert!(error.to_string().contains("--documents"), "{error}");

        let (scene, mut following) = scene();
        let late = async {
            tokio::time::sleep(PATIENCE / 2).await;
            put(&scene, "web");
        };
        let (said, ()) = tokio::join!(following.next(), late);
        assert_eq!(said.unwrap().mesh, "default");
        // What was known and is not any more stands.
        scene.workloads.reset([].into());
        let quiet = tokio::time::timeout(PATIENCE * 10, following.next()).await;
        assert!(quiet.is_err(), "{quiet:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_mesh_that_is_not_there_is_named_and_one_that_goes_takes_nothing_away() {
        let (scene, mut following) = scene();
        put(&scene, "web");
        let there = scene.meshes.send_replace(Some(Arc::default()));
        let begun = Instant::now();
        let error = following.next().await.unwrap_err();
        assert_eq!(begun.elapsed(), PATIENCE);
        let text = error.to_string();
        assert!(text.contains("no document of Mesh \"default\""), "{text}");
        assert!(text.contains("--documents"), "{text}");

        let (scene, mut following) = self::scene();
        put(&scene, "web");
        scene.meshes.send_replace(Some(Arc::default()));
        let late = async {
            tokio::time::sleep(PATIENCE / 2).await;
            scene.meshes.send_replace(there);
        };
        let (said, ()) = tokio::join!(following.next(), late);
        said.unwrap();
        scene.meshes.send_replace(Some(Arc::default()));
        let quiet = tokio::time::timeout(PATIENCE * 10, following.next()).await;
        assert!(quiet.is_err(), "{quiet:?}");
        // Nobody has listed them yet: they may be there.
        let (scene, mut following) = self::scene();
        put(&scene, "web");
        scene.meshes.send_replace(None);
        let quiet = tokio::time::timeout(PATIENCE * 10, following.next()).await;
        assert!(quiet.is_err(), "{quiet:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn tags_that_the_token_does_not_allow_end_the_stream() {
        let (scene, mut following) = scene();
        put(&scene, "web");
        following.next().await.unwrap();
        put(&scene, "db");
        let error = following.next().await.unwrap_err();
        assert!(matches!(error, WatchError::NotGranted(_)), "{error}");
        assert!(error.to_string().contains("kuma.io/service=db"), "{error}");
    }
}
