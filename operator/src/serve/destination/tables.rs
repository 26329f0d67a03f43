//! `Routes.Watch` (weir.routes.v1): the routes of a destination for one client, as a table. What `profiles` says of them
//! is what Linkerd's API has words for; this is the rest, too: HTTPRoutes, with fields, parameters and weights.

use std::pin::Pin;
use std::sync::Arc;

use futures::Stream;
use linkerd2_proxy_api::destination::GetDestination;
use tonic::{Request, Response, Status};
use weir_crds::grpc::routes_v1::routes_server;
use weir_crds::grpc::routes_v1::{Document, WatchRequest};
use weir_crds::routes::TABLE_VERSION;

use super::{Admitted, Destination};
use crate::index::{Profile, Table};

/// Why a stream does not begin.
#[derive(Debug, thiserror::Error)]
enum TableError {
    /// The caller reads no version.
    #[error(
        "newest_version: must be set: it is the newest version of the table that you read, from 1"
    )]
    Unsaid,
}

/// Documents as they are streamed.
type Documents = Pin<Box<dyn Stream<Item = Result<Document, Status>> + Send>>;

#[tonic::async_trait]
impl routes_server::Routes for Destination {
    type WatchStream = Documents;

    async fn watch(
        &self,
        request: Request<WatchRequest>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        let request = request.into_inner();
        if request.newest_version == 0 {
            return Err(Status::invalid_argument(TableError::Unsaid.to_string()));
        }
        let asked = GetDestination {
            path: request.path,
            context_token: request.context_token,
            ..GetDestination::default()
        };
        let following = Following {
            admitted: self.admit(&asked)?,
            told: None,
        };
        let profile = self.follow(&following.admitted.target);
        let documents = futures::stream::unfold(
            (following, profile, true),
            async |(mut following, mut profile, is_first)| {
                if !is_first && !profile.changed().await {
                    return None;
                }
                loop {
                    if let Some(document) = following.take(&profile.latest()) {
                        return Some((Ok(document), (following, profile, false)));
                    }
                    if !profile.changed().await {
                        return None;
                    }
                }
            },
        );
        Ok(Response::new(Box::pin(documents)))
    }
}

/// What one client was told.
struct Following {
    admitted: Admitted,
    told: Option<Option<Arc<Table>>>,
}

impl Following {
    /// What is to be told of a profile; nothing where that is known.
    fn take(&mut self, profile: &Profile) -> Option<Document> {
        let table = match profile {
            Profile::Service(destination, Some(routes)) => {
                routes.for_client(&self.admitted.caller, &destination.service)
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
