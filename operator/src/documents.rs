//! The source of resources without Kubernetes: a directory of Universal documents, read again every few seconds. `shelf`
//! keeps of every file what was last right with it, `facts` makes of all documents what the rest of the operator reads,
//! and this publishes it. Spawned by `app`; it knows no caller and no protobuf.

mod facts;
mod hosts;
mod shelf;

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::Duration;

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use self::facts::{Facts, Initial};
use self::hosts::Hosts;
use self::shelf::Shelf;
use crate::health::Pending;
use crate::index::{MeshView, OfferView};
use crate::metrics::{Documents as Kind, Metrics};
use crate::workload::{PermissionView, Stated};

pub use shelf::{FILE_SIZE, MOST_FILES, Problem, ShelfError, TOTAL_SIZE};

/// How often the directory is looked at, unless a setting says otherwise.
pub const LOOK: Duration = Duration::from_secs(5);

/// How long a file must not have changed before it is read, unless a setting says otherwise: half of a Mesh is a Mesh, too,
/// and perhaps one without mutual TLS.
pub const SETTLE: Duration = Duration::from_millis(500);

/// Where the documents are.
#[derive(Clone, Debug)]
pub struct Config {
    /// Every `*.yaml` and `*.yml` in it is read, in the order of the names; directories in it are not.
    pub directory: PathBuf,
    /// How often it is looked at. Default [`LOOK`].
    pub look: Duration,
    /// How long a file must not have changed before it is read. Default [`SETTLE`].
    pub settle: Duration,
}

/// Reads the documents and publishes what they say.
pub struct Documents {
    config: Config,
    metrics: Metrics,
    /// `None` while a look is under way.
    desk: Option<Desk>,
    /// What is wrong with documents.
    standing: BTreeSet<Problem>,
    /// What is wrong, as it was logged.
    told: BTreeSet<Problem>,
    meshes: watch::Sender<MeshView>,
    permissions: watch::Sender<PermissionView>,
    workloads: Stated,
    offers: watch::Sender<OfferView>,
}

/// What a look goes over.
#[derive(Default)]
struct Desk {
    shelf: Shelf,
    hosts: Hosts,
    /// The directory was read once.
    is_read: bool,
    initial: Initial,
}

impl Documents {
    /// Nothing is known before the first look.
    #[must_use]
    pub fn new(config: Config, metrics: Metrics) -> Self {
        Self {
            config,
            metrics,
            desk: Some(Desk::default()),
            standing: BTreeSet::new(),
            told: BTreeSet::new(),
            meshes: watch::Sender::new(None),
            permissions: watch::Sender::new(None),
            workloads: Stated::default(),
            offers: watch::Sender::new(None),
        }
    }

    /// The Meshes, now and at every change.
    #[must_use]
    pub fn meshes(&self) -> watch::Receiver<MeshView> {
        self.meshes.subscribe()
    }

    /// The permissions, now and at every change.
    #[must_use]
    pub fn permissions(&self) -> watch::Receiver<PermissionView> {
        self.permissions.subscribe()
    }

    /// The Dataplanes as workloads.
    #[must_use]
    pub fn workloads(&self) -> Stated {
        self.workloads.clone()
    }

    /// The Dataplanes as endpoints, now and at every change.
    #[must_use]
    pub fn offers(&self) -> watch::Receiver<OfferView> {
        self.offers.subscribe()
    }

    /// Looks again and again until `stop`; `pending` is dropped once all was read once.
    pub async fn run(mut self, pending: Pending, stop: CancellationToken) {
        let mut pending = Some(pending);
        loop {
            let is_settled = tokio::select! {
                () = stop.cancelled() => return,
                is_settled = self.look() => is_settled,
            };
            if self.meshes.borrow().is_some() {
                pending.take();
            }
            let pause = match is_settled {
                true => self.config.look,
                false => self.config.look.min(self.config.settle),
            };
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(pause) => {}
            }
        }
    }

    /// Looks once; answers whether nothing was left for a look that is soon.
    pub async fn look(&mut self) -> bool {
        let mut desk = self.desk.take().unwrap_or_default();
        let (directory, settle) = (self.config.directory.clone(), self.config.settle);
        let is_moved = desk.hosts.look();
        // Files may take their time.
        let looking = tokio::task::spawn_blocking(move || {
            let looked = desk.shelf.look(&directory, settle);
            let is_new = match &looked {
                Err(_) => false,
                // At first all of it is needed: what is missing would be read as absent.
                Ok(found) if !desk.is_read => !found.is_unsettled,
                Ok(found) => found.is_changed || is_moved,
            };
            let facts = is_new.then(|| Facts::of(&desk.shelf, &mut desk.hosts, &mut desk.initial));
            desk.is_read |= is_new;
            (desk, looked, facts)
        });
        let (mut desk, looked, mut facts) = looking.await.expect("a look does not panic");
        desk.hosts.ask();
        if facts.is_some() && desk.hosts.settle().await {
            let again = tokio::task::spawn_blocking(move || {
                let facts = Facts::of(&desk.shelf, &mut desk.hosts, &mut desk.initial);
                (desk, Some(facts))
            });
            (desk, facts) = again.await.expect("facts do not panic");
        }
        self.desk = Some(desk);
        if let Some(facts) = facts {
            self.standing = facts.problems.iter().cloned().collect();
            self.metrics.set_documents(Kind::InForce, facts.count);
            self.publish(facts);
        }
        let directory = self.config.directory.display().to_string();
        let found = looked.as_ref().copied().unwrap_or_default();
        if found.is_changed {
            tracing::info!(directory, "documents were read");
        }
        let problem = looked.err().map(|error| Problem::of(&directory, error));
        self.tell(problem);
        !found.is_unsettled
    }

    /// Logs what is wrong once, and counts it as long as it is.
    fn tell(&mut self, problem: Option<Problem>) {
        let now: BTreeSet<Problem> = self.standing.iter().cloned().chain(problem).collect();
        for problem in now.difference(&self.told) {
            tracing::error!(%problem, "what was right before stays in force");
        }
        for problem in self.told.difference(&now) {
            tracing::info!(%problem, "is right now");
        }
        self.metrics.set_documents(Kind::Wrong, now.len());
        self.told = now;
    }

    fn publish(&self, facts: Facts) {
        show(&self.meshes, facts.meshes);
        show(&self.permissions, facts.permissions);
        show(&self.offers, facts.offers);
        self.workloads.reset(facts.workloads);
    }
}

/// Wakes readers only where it is another.
fn show<T: PartialEq>(readers: &watch::Sender<Option<std::sync::Arc<T>>>, now: T) {
    readers.send_if_modified(|known| {
        let changed = known.as_deref() != Some(&now);
        if changed {
            *known = Some(std::sync::Arc::new(now));
        }
        changed
    });
}

#[cfg(test)]
mod tests;
