//! Makes the settings of one workload of everything they depend on: its Mesh, its authority, the
//! permissions and the workload itself, merged as the webhook merges them. Used by `settings`, which
//! sends them. It knows no caller and no protobuf.

use std::sync::Arc;

use tokio::sync::watch;
use weir_crds::identity::Identity;
use weir_crds::permission;
use weir_crds::settings::{IdentitySettings, MtlsMode, Settings};
use weir_crds::{Mesh, merge};

use super::closed::Closed;
use crate::index::{Discovery, MeshView};
use crate::mesh_ca::View as AuthorityView;
use crate::token::{Caller, NotGranted};
use crate::workload::{PermissionView, Workload, WorkloadView, Workloads};

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
    /// What was handed out last.
    last: Option<Settings>,
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
    pub(super) async fn next(&mut self) -> Settings {
        loop {
            if let Some(settings) = self.current()
                && self.last.as_ref() != Some(&settings)
            {
                self.last = Some(settings.clone());
                return settings;
            }
            let changed = tokio::select! {
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

    fn current(&mut self) -> Option<Settings> {
        let workload = self.workload.borrow_and_update().clone();
        let meshes = self.meshes.borrow_and_update().clone();
        let authorities = self.authorities.borrow_and_update().clone();
        let permissions = self.permissions.borrow_and_update().clone();
        let workload = workload?;
        // A token that does not allow what the workload has become tells no more.
        self.caller.allows(&workload.tags).ok()?;
        self.follow_routes(&workload);
        if let Some(closed) = &mut self.closed
            && (permissions.is_none() || !closed.is_known())
        {
            return None;
        }
        let mesh = meshes?.get(&workload.mesh)?.clone();
        let mut settings = merged(&mesh, &workload);
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

async fn changed(closed: Option<&mut Closed>) {
    match closed {
        Some(closed) => closed.changed().await,
        None => std::future::pending().await,
    }
}

fn merged(mesh: &Mesh, workload: &Workload) -> Settings {
    merge::settings(&workload.mesh, &mesh.spec, workload.metrics.as_ref())
}
