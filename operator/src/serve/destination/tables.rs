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
use crate::serve::version::Versions;

/// The versions of the table that are written.
const VERSIONS: Versions = Versions::new(TABLE_VERSION, &[]);

/// The service, on the same index and with room for the same streams as [`Destination`].
#[derive(Clone, Debug)]
pub struct Tables(Destination);

impl Tables {
    pub(super) fn new(destination: Destination) -> Self {
        Self(destination)
    }

    fn watch(&self, request: WatchRequest) -> Result<Following, Status> {
        let version = VERSIONS.choose(request.newest_version)?;
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
            version,
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
    version: u32,
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
        let json = table.as_ref();
        let json = json.map(|table| VERSIONS.write(&table.table, self.version));
        self.told = Some(table);
        Some(Document {
            version: self.version,
            json: json.unwrap_or_default(),
        })
    }
}
