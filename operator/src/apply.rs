//! Writes the resources that the operator makes itself: the Dataplanes of injected pods (`dataplanes`), the policies
//! that a Mesh begins with (`policies`), what authors of routes are told (`routes`), and Mesh `default`, once, where an installation has no Mesh. Spawned by `app`; `reconcile` decides. That it was decided is
//! kept in a ConfigMap of ours, so a Mesh that the user deletes stays deleted.

mod dataplanes;
mod policies;
mod routes;

use std::collections::BTreeMap;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::ObjectMeta;
use kube::{Api, Client};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use weir_crds::Mesh;

use crate::backoff::Backoff;
use crate::call::{CallError, within};
use crate::index::MeshView;
use crate::metrics::{Controller, Metrics, Outcome};
use crate::object::written_by_us;
use crate::reconcile::{self, Initial};

pub use self::dataplanes::DataplaneWriter;
pub use self::policies::PolicyWriter;
pub use self::routes::RouteTeller;

/// ConfigMap that remembers the decision.
pub const STATE: &str = "weir-operator";
/// Its key: `created <time>` or `found <time>`.
pub const INITIAL_MESH: &str = "initial-mesh";

/// Creates the initial Mesh.
pub struct InitialMesh {
    meshes: Api<Mesh>,
    states: Api<ConfigMap>,
    metrics: Metrics,
}

impl InitialMesh {
    /// Keeps its memory in `namespace`.
    #[must_use]
    pub fn new(client: Client, namespace: &str, metrics: Metrics) -> Self {
        Self {
            meshes: Api::all(client.clone()),
            states: Api::namespaced(client, namespace),
            metrics,
        }
    }

    /// Waits until this replica leads and the Meshes are known, decides, and ends.
    pub async fn run(
        self,
        mut meshes: watch::Receiver<MeshView>,
        mut leading: watch::Receiver<bool>,
        stop: CancellationToken,
    ) {
        tokio::select! {
            () = stop.cancelled() => {}
            () = self.decide(&mut meshes, &mut leading) => {}
        }
    }

    async fn decide(
        &self,
        meshes: &mut watch::Receiver<MeshView>,
        leading: &mut watch::Receiver<bool>,
    ) {
        let mut backoff = Backoff::default();
        loop {
            // Neither sender ends before `stop`; if one does, there is nothing to decide from.
            if leading.wait_for(|leads| *leads).await.is_err() {
                return;
            }
            let count = match meshes.wait_for(Option::is_some).await {
                Ok(view) => view.as_ref().map_or(0, |set| set.len()),
                Err(_) => return,
            };
            let result = self.pass(count, Timestamp::now()).await;
            let outcome = match &result {
                Ok(Initial::Done) => Outcome::Unchanged,
                Ok(_) => Outcome::Changed,
                Err(error) => Outcome::from_class(error.class()),
            };
            self.metrics
                .count_reconcile(Controller::DefaultMesh, outcome);
            match result {
                Ok(_) => return,
                Err(error) => {
                    // Usual while the webhook starts, where an older configuration asks it about the Mesh.
                    tracing::info!(%error, "Mesh default is not created yet, trying again");
                    tokio::time::sleep(backoff.next_pause()).await;
                }
            }
        }
    }

    /// Decides with `meshes` Meshes in the cluster and carries the decision out.
    ///
    /// # Errors
    /// When a request failed; the next try starts over.
    pub async fn pass(&self, meshes: usize, now: Timestamp) -> Result<Initial, CallError> {
        let state = within(self.states.get_opt(STATE)).await?;
        let was_decided = state
            .as_ref()
            .and_then(|state| state.data.as_ref())
            .is_some_and(|data| data.contains_key(INITIAL_MESH));
        let decision = reconcile::initial_mesh(was_decided, meshes);
        match decision {
            Initial::Done => return Ok(decision),
            Initial::Create => self.create().await?,
            Initial::Remember => {}
        }
        let word = if decision == Initial::Create {
            "created"
        } else {
            "found"
        };
        self.remember(state, format!("{word} {now:.0}")).await?;
        Ok(decision)
    }

    async fn create(&self) -> Result<(), CallError> {
        match within(self.meshes.create(&written_by_us(), &Mesh::initial())).await {
            Ok(_) => {
                tracing::info!("created Mesh default");
                Ok(())
            }
            // Someone made it in the meantime, which is as good.
            Err(error) if error.is_conflict() => Ok(()),
            Err(error) => Err(error),
        }
    }

    async fn remember(&self, state: Option<ConfigMap>, word: String) -> Result<(), CallError> {
        let Some(mut state) = state else {
            let state = ConfigMap {
                metadata: ObjectMeta {
                    name: Some(STATE.to_owned()),
                    labels: Some(BTreeMap::from([(
                        "app.kubernetes.io/part-of".to_owned(),
                        "weir".to_owned(),
                    )])),
                    ..ObjectMeta::default()
                },
                data: Some(BTreeMap::from([(INITIAL_MESH.to_owned(), word)])),
                ..ConfigMap::default()
            };
            return within(self.states.create(&written_by_us(), &state))
                .await
                .map(|_| ());
        };
        let data = state.data.get_or_insert_default();
        data.insert(INITIAL_MESH.to_owned(), word);
        within(self.states.replace(STATE, &written_by_us(), &state))
            .await
            .map(|_| ())
    }
}
