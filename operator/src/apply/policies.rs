//! Creates the policies that a new Mesh begins with, and remembers in its status that it did. Spawned by `app`; only
//! the leader writes. `reconcile` decides; this module knows when and how.

use std::collections::BTreeSet;

use jiff::Timestamp;
use kube::api::{Patch, PatchParams};
use kube::{Api, Client, Resource, ResourceExt};
use serde_json::json;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use weir_crds::{Mesh, TrafficPermission};

use crate::call::{CallError, within};
use crate::index::{MeshSet, MeshView};
use crate::metrics::{Controller, Metrics, Outcome};
use crate::object::written_by_us;
use crate::passes::{self, Pass};
use crate::reconcile::{Policies, decided, initial_policies, is_of_predecessor};

/// The manager of the one condition written here: the others of a Mesh have a writer of their own.
const MANAGER: &str = "weir-operator-initial-policies";

/// Creates the policies.
pub struct PolicyWriter {
    meshes: Api<Mesh>,
    permissions: Api<TrafficPermission>,
    metrics: Metrics,
    /// The uids of Meshes that are done, for which the watch may not have brought it yet.
    done: BTreeSet<String>,
}

/// Why a Mesh is not done.
#[derive(Debug, thiserror::Error)]
enum NotDone {
    #[error(transparent)]
    Call(#[from] CallError),
    #[error("a TrafficPermission of that name belongs to an earlier Mesh, which goes first")]
    Predecessor,
}

impl NotDone {
    fn class(&self) -> &'static str {
        match self {
            Self::Call(error) => error.class(),
            Self::Predecessor => "conflict",
        }
    }
}

impl Pass for PolicyWriter {
    async fn pass(&mut self, meshes: &MeshSet, now: Timestamp) -> bool {
        let known: BTreeSet<String> = meshes.values().filter_map(|mesh| mesh.uid()).collect();
        self.done.retain(|uid| known.contains(uid));
        let mut succeeded = true;
        for mesh in meshes.values() {
            let uid = mesh.uid().unwrap_or_default();
            let policies = initial_policies(mesh);
            if policies == Policies::Decided || self.done.contains(&uid) {
                continue;
            }
            let outcome = match self.write(mesh, &policies, now).await {
                Ok(()) => Outcome::Changed,
                Err(error) => {
                    // Usual while the webhook starts, where an older configuration asks it about the permission.
                    let mesh = mesh.name_any();
                    tracing::info!(%mesh, %error, "the Mesh has no initial policies yet, trying again");
                    succeeded = false;
                    Outcome::from_class(error.class())
                }
            };
            self.metrics
                .count_reconcile(Controller::InitialPolicies, outcome);
            if outcome == Outcome::Changed {
                self.done.insert(uid);
            }
        }
        succeeded
    }
}

impl PolicyWriter {
    /// A writer that has done nothing yet.
    #[must_use]
    pub fn new(client: Client, metrics: Metrics) -> Self {
        Self {
            meshes: Api::all(client.clone()),
            permissions: Api::all(client),
            metrics,
            done: BTreeSet::new(),
        }
    }

    /// Follows `meshes` until `stop`, writing while `leading`.
    pub async fn run(
        self,
        meshes: watch::Receiver<MeshView>,
        leading: watch::Receiver<bool>,
        stop: CancellationToken,
    ) {
        passes::run(self, meshes, leading, stop).await;
    }

    async fn write(&self, mesh: &Mesh, policies: &Policies, now: Timestamp) -> Result<(), NotDone> {
        if let Policies::Create(permission) = policies {
            self.create(mesh, permission).await?;
        }
        // The uid keeps the decision about a deleted Mesh off its successor of the same name.
        let name = mesh.name_any();
        let status = json!({
            "apiVersion": Mesh::api_version(&()),
            "kind": Mesh::kind(&()),
            "metadata": {"name": name, "uid": mesh.uid()},
            "status": {"conditions": [decided(mesh, policies, now)]},
        });
        let params = PatchParams::apply(MANAGER).force();
        let patch = Patch::Apply(status);
        let written = self.meshes.patch_status(&name, &params, &patch);
        match within(written).await {
            Ok(_) => Ok(()),
            // Deleted since, and the permission with it.
            Err(error) if error.is_not_found() => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Creates the permission; one of that name that is there already stays as it is.
    async fn create(&self, mesh: &Mesh, permission: &TrafficPermission) -> Result<(), NotDone> {
        let name = permission.name_any();
        match within(self.permissions.create(&written_by_us(), permission)).await {
            Ok(_) => {
                tracing::info!(name, "created a TrafficPermission");
                Ok(())
            }
            Err(error) if error.is_conflict() => {
                let found = within(self.permissions.get_opt(&name)).await?;
                match found {
                    Some(found) if !is_of_predecessor(&found, mesh) => Ok(()),
                    _ => Err(NotDone::Predecessor),
                }
            }
            Err(error) => Err(error.into()),
        }
    }
}
