//! Writes the status of Meshes and the events that go with it. Spawned by `app`; only the leader
//! writes. What to write is `reconcile`'s to say; this module knows when and how.

use std::collections::BTreeMap;
use std::future::pending;

use jiff::Timestamp;
use kube::api::{Patch, PatchParams};
use kube::{Api, Client, Resource, ResourceExt};
use serde_json::json;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use weir_crds::{Mesh, Violation};

use crate::FIELD_MANAGER;
use crate::call::{CallError, within};
use crate::events::Events;
use crate::index::{MeshSet, MeshView};
use crate::mesh_ca::{Authorities, NotReady, View};
use crate::metrics::{Controller, Metrics, Outcome};
use crate::passes::{self, Pass};
use crate::reconcile::{self, StatusChange};

/// Writes what the Meshes' status should be.
pub struct StatusWriter {
    meshes: Api<Mesh>,
    events: Events,
    metrics: Metrics,
    /// What is wrong with the Meshes' authorities.
    authorities: watch::Receiver<View>,
    /// The version of each Mesh that we answered already, and what was wrong with its authority then,
    /// until the watch brings the next.
    answered: BTreeMap<String, (String, Option<Violation>)>,
}

impl Pass for StatusWriter {
    async fn pass(&mut self, meshes: &MeshSet, now: Timestamp) -> bool {
        self.answered.retain(|name, _| meshes.contains_key(name));
        let mut succeeded = true;
        let authorities = self.authorities.borrow_and_update().clone();
        for (name, mesh) in meshes {
            let version = mesh.resource_version().unwrap_or_default();
            let wrong = wrong_with(authorities.as_deref(), name);
            let seen = (version, wrong);
            let stands = is_open(authorities.as_deref(), name) && reconcile::blames_authority(mesh);
            if stands || self.answered.get(name) == Some(&seen) {
                continue;
            }
            let outcome = match reconcile::mesh_status(mesh, seen.1.as_ref(), now) {
                None => Outcome::Unchanged,
                Some(change) => match self.write(mesh, &change).await {
                    Ok(()) => Outcome::Changed,
                    // Deleted since: there is nothing left to say.
                    Err(error) if error.is_not_found() => Outcome::Unchanged,
                    Err(error) => {
                        tracing::warn!(mesh = %name, %error, "cannot write the status, trying again");
                        succeeded = false;
                        Outcome::from_class(error.class())
                    }
                },
            };
            self.metrics.count_reconcile(Controller::Mesh, outcome);
            if matches!(outcome, Outcome::Changed | Outcome::Unchanged) {
                self.answered.insert(name.clone(), seen);
            }
        }
        succeeded
    }

    async fn changed(&mut self) {
        if self.authorities.changed().await.is_err() {
            // Nobody keeps them any more: they stay as they are.
            pending().await
        }
    }
}

impl StatusWriter {
    /// A writer whose events are signed with `identity`.
    #[must_use]
    pub fn new(
        client: Client,
        identity: String,
        authorities: watch::Receiver<View>,
        metrics: Metrics,
    ) -> Self {
        Self {
            meshes: Api::all(client.clone()),
            events: Events::new(client, identity),
            metrics,
            authorities,
            answered: BTreeMap::new(),
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

    async fn write(&self, mesh: &Mesh, change: &StatusChange) -> Result<(), CallError> {
        let name = mesh.name_any();
        // The uid keeps the status of a deleted Mesh off its successor of the same name.
        let status = json!({
            "apiVersion": Mesh::api_version(&()),
            "kind": Mesh::kind(&()),
            "metadata": {"name": name, "uid": mesh.uid()},
            "status": {"conditions": change.conditions},
        });
        let params = PatchParams::apply(FIELD_MANAGER).force();
        within(
            self.meshes
                .patch_status(&name, &params, &Patch::Apply(status)),
        )
        .await?;
        tracing::info!(mesh = %name, generation = mesh.metadata.generation, "wrote the status");
        if let Some(note) = &change.note {
            let about = mesh.object_ref(&());
            self.events.publish(&about, note, "Validate").await;
        }
        Ok(())
    }
}

/// Whether nobody can say yet if a Mesh's authority can be used: a leader that has just begun has not tried to make it, and
/// what the one before said of it stands.
fn is_open(authorities: Option<&Authorities>, mesh: &str) -> bool {
    let authority = authorities.and_then(|all| all.get(mesh));
    authority.is_none_or(|authority| authority.signer == Err(NotReady::Soon))
}

/// What is wrong with a Mesh's authority that its specification alone does not show.
fn wrong_with(authorities: Option<&Authorities>, mesh: &str) -> Option<Violation> {
    match &authorities?.get(mesh)?.signer {
        Err(NotReady::Unusable(violation)) => Some(violation.clone()),
        _ => None,
    }
}
