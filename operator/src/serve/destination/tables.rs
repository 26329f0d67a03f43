//! `Routes.Watch` (weir.routes.v1): the routes of a destination for one client, as a table. What `profiles` says of them
//! is what Linkerd's API has words for; this is the rest, too: HTTPRoutes, with fields, parameters and weights.

use std::sync::Arc;

use axum::body::Body;
use axum::http::Response;
use linkerd2_proxy_api::destination::GetDestination;
use tokio::sync::OwnedSemaphorePermit;
use tonic::Status;
use weir_crds::grpc::routes_v1::{Document, WatchRequest, routes_server};
use weir_crds::routes::TABLE_VERSION;

use super::Destination;
use crate::index::{Caller, Profile, Table, Watched};
use crate::serve::streaming::{CallRequest, Follow, Streams, read, respond, unknown};

/// Why a stream does not begin.
#[derive(Debug, thiserror::Error)]
enum TableError {
    /// The caller reads no version.
    #[error(
        "newest_version: must be set: it is the newest version of the table that you read, from 1"
    )]
    Unsaid,
}

/// The service, on the same index and with room for the same streams as [`Destination`].
#[derive(Clone, Debug)]
pub struct Tables(Destination);

impl Tables {
    pub(super) fn new(destination: Destination) -> Self {
        Self(destination)
    }

    fn watch(&self, request: WatchRequest) -> Result<Following, Status> {
        if request.newest_version == 0 {
            return Err(Status::invalid_argument(TableError::Unsaid.to_string()));
        }
        let asked = GetDestination {
            path: request.path,
            context_token: request.context_token,
            ..GetDestination::default()
        };
        let admitted = self.0.admit(&asked)?;
        Ok(Following {
            profile: self.0.follow(&admitted.target),
            caller: admitted.caller,
            told: None,
            _slot: admitted.slot,
        })
    }
}

impl Streams for Tables {
    const NAME: &'static str = routes_server::SERVICE_NAME;

    async fn answer(self, method: &str, request: CallRequest) -> Response<Body> {
        match method {
            "Watch" => respond(read(request).await.and_then(|asked| self.watch(asked))),
            _ => unknown(),
        }
    }
}

/// One stream.
struct Following {
    profile: Watched<Profile>,
    caller: Caller,
    /// What the client was told; `None` before the first message.
    told: Option<Option<Arc<Table>>>,
    _slot: OwnedSemaphorePermit,
}

impl Follow for Following {
    type Message = Document;

    async fn next(&mut self) -> Result<Option<Document>, Status> {
        loop {
            if let Some(document) = self.take() {
                return Ok(Some(document));
            }
            if !self.profile.changed().await {
                return Ok(None);
            }
        }
    }
}

impl Following {
    /// What is to be told of the profile; nothing where that is known.
    fn take(&mut self) -> Option<Document> {
        let profile = self.profile.latest();
        let table = match &*profile {
            Profile::Service(destination, Some(routes)) => {
                routes.for_client(&self.caller, &destination.service)
            }
            Profile::Service(_, None) | Profile::Endpoint(_) | Profile::Unknown => None,
        };
        let table = table.cloned();
        if self.told.as_ref() == Some(&table) {
            return None;
        }
        let json = table.as_ref().map(|table| {
            serde_json::to_string(&table.table).expect("a table is made of texts and numbers")
        });
        self.told = Some(table);
        Some(Document {
            version: TABLE_VERSION,
            json: json.unwrap_or_default(),
        })
    }
}
