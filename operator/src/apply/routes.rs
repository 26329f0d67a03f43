//! Tells the authors of ServiceProfiles and HTTPRoutes what is not obeyed in them: by the log, and by events, which only
//! the leader publishes. Spawned by `app`. The index says what is wrong, `standing` what of that is to be said.

mod standing;

use std::collections::HashMap;

use k8s_openapi::api::core::v1::ObjectReference;
use kube::Client;
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use self::standing::Standing;
use crate::backoff;
use crate::events::Events;
use crate::index::{Discovery, ObjectKey, RouteFault, RouteKind};
use crate::reconcile::route_note;

/// Which route.
type Key = (RouteKind, ObjectKey);

/// Says what is wrong with routes.
pub struct RouteTeller {
    index: Discovery,
    events: Events,
    /// The routes with which something is wrong.
    standing: HashMap<Key, Standing>,
}

impl RouteTeller {
    /// One whose events are signed with `identity`.
    #[must_use]
    pub fn new(client: Client, index: Discovery, identity: String) -> Self {
        Self {
            index,
            events: Events::new(client, identity),
            standing: HashMap::new(),
        }
    }

    /// Follows the index until `stop`, publishing while `leading`.
    pub async fn run(mut self, mut leading: watch::Receiver<bool>, stop: CancellationToken) {
        let mut faulty = self.index.faulty();
        loop {
            faulty.borrow_and_update();
            leading.borrow_and_update();
            let next = tokio::select! {
                () = stop.cancelled() => return,
                next = self.pass(&leading) => next,
            };
            let left = next.map(|next| next.saturating_duration_since(Instant::now()));
            tokio::select! {
                () = stop.cancelled() => return,
                () = backoff::pause(left) => {}
                Ok(()) = faulty.changed() => {}
                Ok(()) = leading.changed() => {}
            }
        }
    }

    /// Says what has stood for long enough. When the next thing will have; none where nothing waits.
    async fn pass(&mut self, leading: &watch::Receiver<bool>) -> Option<Instant> {
        let now = Instant::now();
        self.look(now);
        for (key, standing) in &mut self.standing {
            if !standing.is_untold(now) {
                continue;
            }
            if !*leading.borrow() {
                break;
            }
            // The events before it took their time. What is another by now rings, and waits anew.
            if self.index.fault(key.0, &key.1).as_ref() == Some(standing.fault()) {
                let note = route_note(&standing.fault().problems);
                let about = about(standing.fault());
                self.events.publish(&about, &note, "Obey").await;
                standing.told();
            }
        }
        let ends = self.standing.values().map(Standing::settles_at);
        ends.filter(|end| *end > now).min()
    }

    /// Takes over what is wrong now, and logs what has stood for long enough.
    fn look(&mut self, now: Instant) {
        let mut before = std::mem::take(&mut self.standing);
        for fault in self.index.faults() {
            let key = (fault.kind, fault.key.clone());
            let standing = match before.remove(&key) {
                Some(known) => known.followed_by(fault, now),
                None => Standing::new(fault, now),
            };
            self.standing.insert(key, standing);
        }
        for ((kind, key), gone) in before {
            if gone.is_logged() && self.index.has_route(kind, &key) {
                let ObjectKey { namespace, name } = key;
                tracing::info!(%namespace, %name, "nothing is wrong with this {kind} any more");
            }
        }
        for ((kind, key), standing) in &mut self.standing {
            let ObjectKey { namespace, name } = key;
            for problem in standing.log(now) {
                tracing::warn!(%namespace, %name, problem, "a {kind} is not obeyed in all it says");
            }
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
