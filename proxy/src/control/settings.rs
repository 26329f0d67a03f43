//! The settings that the operator keeps for this proxy, as they change. What the webhook has baked into the pod, or the
//! files say, stands until the first of them; what was last said stands while the operator is away. A task of the service thread, started by
//! `app`.

use std::pin::pin;
use std::sync::Arc;

use tokio::sync::{mpsc, watch};
use tonic::{Status, Streaming};
use weir_crds::grpc::v1::settings_client::SettingsClient;
use weir_crds::grpc::v1::{Document, WatchRequest};
use weir_crds::settings::{SETTINGS_VERSION, Settings};

use super::operator::{Client, Retry};
use super::publish;
use super::stream::{Event, Watch, watch};

struct Documents(SettingsClient<Client>);

impl Watch for Documents {
    type Message = Document;

    async fn open(&self) -> Result<Streaming<Document>, Status> {
        let request = WatchRequest {
            newest_version: SETTINGS_VERSION,
        };
        Ok(self.0.clone().watch(request).await?.into_inner())
    }
}

/// Publishes what the operator says, until it refuses to say anything.
pub async fn follow(client: Client, retry: Retry, settings: watch::Sender<Arc<Settings>>) {
    let documents = Documents(SettingsClient::with_origin(client.clone(), client.origin()));
    let (events, mut said) = mpsc::channel(1);
    let mut following = pin!(watch(documents, (client, retry), events));
    loop {
        tokio::select! {
            () = &mut following => return,
            Some(event) = said.recv() => match event {
                Event::Message { message, .. } => take(&message, &settings),
                // What was said stands.
                Event::Broken => {}
                Event::Refused => {
                    tracing::warn!("the operator has no settings for this proxy: those it began with stay in force");
                    return;
                }
            }
        }
    }
}

/// Puts a document in force; one that cannot be read changes nothing.
fn take(document: &Document, settings: &watch::Sender<Arc<Settings>>) {
    match Settings::parse(&document.json) {
        Ok(said) => {
            let changed = publish(settings, said);
            tracing::info!(changed, "the operator has sent settings");
        }
        Err(error) => tracing::error!(%error, "what the operator has sent is not taken over"),
    }
}
