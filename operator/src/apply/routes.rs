//! Tells the authors of ServiceProfiles and HTTPRoutes what is not obeyed in them, by events. Spawned by `app`; only the
//! leader publishes, and each thing once. The index says what is wrong.

use std::collections::HashMap;
use std::sync::Arc;

use k8s_openapi::api::core::v1::ObjectReference;
use kube::Client;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::events::Events;
use crate::index::{Discovery, ObjectKey, RouteFault, RouteKind};
use crate::reconcile::route_note;

/// Publishes what is wrong with routes.
pub struct RouteTeller {
    index: Discovery,
    events: Events,
    /// What was told last of each route with which something is wrong.
    told: HashMap<(RouteKind, ObjectKey), Arc<RouteFault>>,
}

impl RouteTeller {
    /// One whose events are signed with `identity`.
    #[must_use]
    pub fn new(client: Client, index: Discovery, identity: String) -> Self {
        Self {
            index,
            events: Events::new(client, identity),
            told: HashMap::new(),
        }
    }

    /// Follows the index until `stop`, telling while `leading`.
    pub async fn run(mut self, mut leading: watch::Receiver<bool>, stop: CancellationToken) {
        let mut faulty = self.index.faulty();
        loop {
            faulty.borrow_and_update();
            if *leading.borrow_and_update() {
                tokio::select! {
                    () = stop.cancelled() => return,
                    () = self.pass(&leading) => {}
                }
            }
            tokio::select! {
                () = stop.cancelled() => return,
                Ok(()) = faulty.changed() => {}
                Ok(()) = leading.changed() => {}
            }
        }
    }

    async fn pass(&mut self, leading: &watch::Receiver<bool>) {
        let faults = self.index.faults().into_iter();
        let mut before = std::mem::take(&mut self.told);
        let mut new = Vec::new();
        for fault in faults {
            let key = (fault.kind, fault.key.clone());
            match before.remove(&key).filter(|told| *told == fault) {
                Some(told) => drop(self.told.insert(key, told)),
                None => new.push((key, fault)),
            }
        }
        for (key, fault) in new {
            if !*leading.borrow() {
                return;
            }
            let note = route_note(&fault.problems);
            self.events.publish(&about(&fault), &note, "Obey").await;
            self.told.insert(key, fault);
        }
    }
}

fn about(fault: &RouteFault) -> ObjectReference {
    let (version, kind) = fault.kind.names();
    ObjectReference {
        api_version: Some(version.to_owned()),
        kind: Some(kind.to_owned()),
        namespace: Some(fault.key.namespace.to_string()),
        name: Some(fault.key.name.to_string()),
        uid: Some(fault.uid.to_string()),
        ..ObjectReference::default()
    }
}
