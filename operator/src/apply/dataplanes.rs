//! Keeps a Dataplane for every injected pod, and its status. Spawned by `app`; only the leader writes. The index says
//! which pods to look at, `reconcile` what to do about each. Nothing is written where nothing changed, and what a user
//! wrote is left alone.

mod retries;

use std::collections::{BTreeSet, HashMap};
use std::hash::{DefaultHasher, Hash, Hasher};

use futures::StreamExt;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{ObjectReference, Pod};
use kube::api::{DeleteParams, PartialObjectMeta, Patch, PatchParams, Preconditions};
use kube::{Api, Client, Resource, ResourceExt};
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;
use weir_crds::Dataplane;
use weir_crds::kubernetes::Status;

use self::retries::Retries;
use crate::FIELD_MANAGER;
use crate::call::{CallError, within};
use crate::events::Events;
use crate::index::{Discovery, Indexed, Ingredients, MANAGED_BY, MANAGER, ObjectKey};
use crate::metrics::{Controller, Metrics, Outcome};
use crate::reconcile::{DataplaneChange, Note, dataplane_change};

/// Requests to the API server at once.
const PARALLEL: usize = 8;

/// Writes Dataplanes.
pub struct DataplaneWriter {
    client: Client,
    index: Discovery,
    events: Events,
    metrics: Metrics,
    zone: Option<String>,
    /// Pods that are looked at again without having been touched.
    retries: Retries,
    /// What the author of a pod was told last, as a fingerprint, for the pods that cannot be converted.
    told: HashMap<ObjectKey, u64>,
}

/// What became of one pod.
struct Done {
    key: ObjectKey,
    result: Result<DataplaneChange, CallError>,
}

impl DataplaneWriter {
    /// A writer whose events are signed with `identity`. `zone` is the value of the tag `kuma.io/zone`.
    #[must_use]
    pub fn new(
        client: Client,
        index: Discovery,
        identity: String,
        zone: Option<String>,
        metrics: Metrics,
    ) -> Self {
        Self {
            events: Events::new(client.clone(), identity),
            client,
            index,
            metrics,
            zone,
            retries: Retries::default(),
            told: HashMap::new(),
        }
    }

    /// Follows the index until `stop`, writing while `leading`.
    pub async fn run(mut self, mut leading: watch::Receiver<bool>, stop: CancellationToken) {
        let mut touched = self.index.touched();
        let mut led = false;
        loop {
            touched.borrow_and_update();
            let leads = *leading.borrow_and_update();
            if leads && !led {
                self.index.touch_all();
            }
            led = leads;
            if leads {
                tokio::select! {
                    () = stop.cancelled() => return,
                    () = self.pass(&leading) => {}
                }
            } else {
                self.retries.clear();
                drop(self.index.take_touched());
            }
            let next = self.retries.next();
            tokio::select! {
                () = stop.cancelled() => return,
                () = sleep_until(next.unwrap_or_else(Instant::now)), if next.is_some() => {}
                Ok(()) = touched.changed() => {}
                Ok(()) = leading.changed() => {}
            }
        }
    }

    /// Looks at every pod that was touched, and at what is to be tried again by now.
    async fn pass(&mut self, leading: &watch::Receiver<bool>) {
        let mut keys: BTreeSet<ObjectKey> = self.index.take_touched().into_iter().collect();
        keys.extend(self.retries.due(Instant::now()));
        let this = &*self;
        let mut left = keys.clone();
        let done: Vec<Done> = futures::stream::iter(keys)
            .take_while(|_| std::future::ready(*leading.borrow()))
            .map(|key| this.look(key))
            .buffer_unordered(PARALLEL)
            .collect()
            .await;
        let now = Instant::now();
        let mut failures = 0_usize;
        let mut first = None;
        for Done { key, result } in done {
            left.remove(&key);
            let outcome = match &result {
                Ok(DataplaneChange::Nothing) => Outcome::Unchanged,
                Ok(_) => Outcome::Changed,
                Err(error) => Outcome::from_class(error.class()),
            };
            self.metrics.count_reconcile(Controller::Dataplane, outcome);
            match result {
                Ok(DataplaneChange::Tell(note)) => {
                    self.retries.settled(&key);
                    self.told.insert(key, fingerprint(&note));
                }
                Ok(_) => {
                    self.retries.settled(&key);
                    self.told.remove(&key);
                }
                Err(error) => {
                    failures += 1;
                    first.get_or_insert_with(|| (key.clone(), error));
                    self.retries.failed(key, now);
                }
            }
        }
        // The lead was lost for a moment.
        left.into_iter()
            .for_each(|key| self.retries.failed(key, now));
        if let Some((ObjectKey { namespace, name }, error)) = first {
            tracing::warn!(failures, %namespace, %name, %error, "cannot write Dataplanes, trying again; the first of them");
        }
    }

    /// Decides about one pod and does it.
    async fn look(&self, key: ObjectKey) -> Done {
        let ingredients = self.index.ingredients(&key);
        let change = dataplane_change(&ingredients, self.zone.as_deref(), Timestamp::now());
        let result = match self.write(&key, &ingredients, &change).await {
            // Gone since: there is nothing left to write. What is to be created was not there anyway.
            Err(error) if error.is_not_found() && !matches!(change, DataplaneChange::Apply(_)) => {
                Ok(DataplaneChange::Nothing)
            }
            written => written.map(|()| change),
        };
        Done { key, result }
    }

    async fn write(
        &self,
        key: &ObjectKey,
        ingredients: &Ingredients,
        change: &DataplaneChange,
    ) -> Result<(), CallError> {
        let dataplanes: Api<Dataplane> = Api::namespaced(self.client.clone(), &key.namespace);
        match change {
            DataplaneChange::Nothing => Ok(()),
            DataplaneChange::Apply(object) => {
                // The index may not know yet what a user wrote a moment ago.
                let is_new = ingredients.known.is_none();
                if is_new && is_users(find(&dataplanes, &key.name).await?.as_ref()) {
                    return Ok(());
                }
                self.learn(apply(&dataplanes, &key.name, object).await?);
                Ok(())
            }
            DataplaneChange::Status(status, note) => {
                self.learn(write_status(&dataplanes, key, status).await?);
                if let Some(note) = note {
                    self.tell(key, ingredients, note).await;
                }
                Ok(())
            }
            DataplaneChange::Delete => delete(&dataplanes, &key.name).await,
            DataplaneChange::Tell(note) => {
                if self.told.get(key) != Some(&fingerprint(note)) {
                    self.tell(key, ingredients, note).await;
                }
                Ok(())
            }
        }
    }

    /// Tells the index what was written, before the watch does: it may be asked again at once.
    fn learn(&self, stored: Dataplane) {
        self.index.clone().apply(stored);
    }

    /// Publishes an event about the pod.
    async fn tell(&self, key: &ObjectKey, ingredients: &Ingredients, note: &Note) {
        let injected = ingredients
            .pod
            .as_ref()
            .and_then(|pod| pod.injected.as_ref());
        let about = ObjectReference {
            api_version: Some(Pod::api_version(&()).into_owned()),
            kind: Some(Pod::kind(&()).into_owned()),
            namespace: Some(key.namespace.to_string()),
            name: Some(key.name.to_string()),
            uid: injected.map(|injected| injected.uid.to_string()),
            ..ObjectReference::default()
        };
        self.events.publish(&about, note, "Convert").await;
    }
}

fn fingerprint(note: &Note) -> u64 {
    let mut hasher = DefaultHasher::new();
    note.text.hash(&mut hasher);
    hasher.finish()
}

type Found = PartialObjectMeta<Dataplane>;

async fn find(dataplanes: &Api<Dataplane>, name: &str) -> Result<Option<Found>, CallError> {
    within(dataplanes.get_metadata_opt(name)).await
}

fn is_users(found: Option<&Found>) -> bool {
    found.is_some_and(|found| {
        found
            .labels()
            .get(MANAGED_BY)
            .is_none_or(|one| one != MANAGER)
    })
}

async fn apply(
    dataplanes: &Api<Dataplane>,
    name: &str,
    object: &Value,
) -> Result<Dataplane, CallError> {
    let params = PatchParams::apply(FIELD_MANAGER).force();
    let stored = within(dataplanes.patch(name, &params, &Patch::Apply(object))).await?;
    tracing::debug!(name, "wrote a Dataplane");
    Ok(stored)
}

async fn write_status(
    dataplanes: &Api<Dataplane>,
    key: &ObjectKey,
    status: &Status,
) -> Result<Dataplane, CallError> {
    let object = json!({
        "apiVersion": Dataplane::api_version(&()),
        "kind": Dataplane::kind(&()),
        "metadata": {"name": *key.name, "namespace": *key.namespace},
        "status": status,
    });
    let params = PatchParams::apply(FIELD_MANAGER).force();
    within(dataplanes.patch_status(&key.name, &params, &Patch::Apply(object))).await
}

/// Deletes the Dataplane that is there now; what a user makes of that name meanwhile stays.
async fn delete(dataplanes: &Api<Dataplane>, name: &str) -> Result<(), CallError> {
    let found = find(dataplanes, name).await?;
    let Some(found) = found.filter(|found| !is_users(Some(found))) else {
        return Ok(());
    };
    let params = DeleteParams {
        preconditions: Some(Preconditions {
            uid: found.metadata.uid,
            resource_version: found.metadata.resource_version,
        }),
        ..DeleteParams::default()
    };
    within(dataplanes.delete(name, &params)).await?;
    tracing::debug!(name, "deleted a Dataplane");
    Ok(())
}
