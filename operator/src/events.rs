//! Publishes events about objects. Called by `status` and `apply`; only the leader publishes. It knows no object.

use k8s_openapi::api::core::v1::ObjectReference;
use kube::Client;
use kube::runtime::events::{Event, EventType, Recorder, Reporter};

use crate::FIELD_MANAGER;
use crate::backoff::Backoff;
use crate::call::within;
use crate::reconcile::Note;

/// How often an event is tried; what it tells of is written by then.
const EVENT_TRIES: usize = 3;

/// Publishes events.
pub(crate) struct Events {
    client: Client,
    identity: String,
}

impl Events {
    /// Events signed with `identity`.
    pub(crate) fn new(client: Client, identity: String) -> Self {
        Self { client, identity }
    }

    /// Publishes a note about an object; `action` is what was tried.
    pub(crate) async fn publish(&self, about: &ObjectReference, note: &Note, action: &str) {
        let reporter = Reporter {
            controller: FIELD_MANAGER.to_owned(),
            instance: Some(self.identity.clone()),
        };
        let event = Event {
            type_: if note.is_warning {
                EventType::Warning
            } else {
                EventType::Normal
            },
            reason: note.reason.to_owned(),
            note: Some(note.text.clone()),
            action: action.to_owned(),
            secondary: None,
        };
        // A recorder of its own for each event: a shared one would repeat the first text.
        let recorder = Recorder::new(self.client.clone(), reporter);
        let mut backoff = Backoff::default();
        for left in (0..EVENT_TRIES).rev() {
            let Err(error) = within(recorder.publish(&event, about)).await else {
                return;
            };
            let (kind, name) = (about.kind.as_deref(), about.name.as_deref());
            tracing::warn!(kind, name, %error, "cannot publish an event");
            // A namespace that is being deleted admits none, for one.
            if error.is_final() || left == 0 {
                return;
            }
            tokio::time::sleep(backoff.next_pause()).await;
        }
    }
}
