//! Writes the status of Meshes and the events that go with it. Spawned by `app`; only the leader
//! writes. What to write is `reconcile`'s to say; this module knows when and how.

use std::collections::BTreeMap;

use jiff::Timestamp;
use kube::api::{Patch, PatchParams};
use kube::{Api, Client, Resource, ResourceExt};
use serde_json::json;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use weir_crds::Mesh;

use crate::FIELD_MANAGER;
use crate::backoff::Backoff;
use crate::call::{CallError, within};
use crate::events::Events;
use crate::index::{MeshSet, MeshView};
use crate::metrics::{Controller, Metrics, Outcome};
use crate::reconcile::{self, StatusChange};

/// Writes what the Meshes' status should be.
pub struct StatusWriter {
    meshes: Api<Mesh>,
    events: Events,
    metrics: Metrics,
    /// The version of each Mesh that we answered already, until the watch brings the next.
    answered: BTreeMap<String, String>,
}

impl StatusWriter {
    /// A writer whose events are signed with `identity`.
    #[must_use]
    pub fn new(client: Client, identity: String, metrics: Metrics) -> Self {
        Self {
            meshes: Api::all(client.clone()),
            events: Events::new(client, identity),
            metrics,
            answered: BTreeMap::new(),
        }
    }

    /// Follows `meshes` until `stop`, writing while `leading`.
    pub async fn run(
        mut self,
        mut meshes: watch::Receiver<MeshView>,
        mut leading: watch::Receiver<bool>,
        stop: CancellationToken,
    ) {
        let mut backoff = Backoff::default();
        loop {
            let view = meshes.borrow_and_update().clone();
            let may_write = *leading.borrow_and_update();
            let mut retry = None;
            if let (true, Some(view)) = (may_write, view) {
                if self.pass(&view, Timestamp::now()).await {
                    backoff.reset();
                } else {
                    retry = Some(backoff.next_pause());
                }
            }
            tokio::select! {
                () = stop.cancelled() => return,
                () = pause(retry) => {}
                Ok(()) = meshes.changed() => {}
                Ok(()) = leading.changed() => {}
            }
        }
    }

    /// One pass over all Meshes. Returns whether every write succeeded.
    pub async fn pass(&mut self, meshes: &MeshSet, now: Timestamp) -> bool {
        self.answered.retain(|name, _| meshes.contains_key(name));
        let mut succeeded = true;
        for (name, mesh) in meshes {
            let version = mesh.resource_version().unwrap_or_default();
            if self.answered.get(name) == Some(&version) {
                continue;
            }
            let outcome = match reconcile::mesh_status(mesh, now) {
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
                self.answered.insert(name.clone(), version);
            }
        }
        succeeded
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

async fn pause(retry: Option<std::time::Duration>) {
    match retry {
        Some(pause) => tokio::time::sleep(pause).await,
        None => std::future::pending().await,
    }
}
