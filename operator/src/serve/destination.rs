//! `io.linkerd.proxy.destination.Destination` of linkerd2-proxy-api: which endpoints a destination has, and what
//! stands behind an address. Served by `serve` to any client of the API; each stream holds a view of the index and
//! nothing else. `target` reads a request, `endpoints` and `profiles` follow the views, `message` writes them down.
//! `offers` is the same service without Kubernetes. `tables` is the service beside it (weir.routes.v1) that says all of a destination's routes.
//!
//! It differs from Linkerd's own service where that follows from what the API says: an address is a target of `Get`,
//! too, and a name of no Service has an empty profile in place of one that names it.

mod endpoints;
mod message;
pub mod offers;
mod profiles;
mod tables;
mod target;

use std::sync::Arc;

use axum::body::Body;
use axum::http::Response;
use linkerd2_proxy_api::destination::{GetDestination, destination_server};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tonic::Status;

use self::tables::Tables;
use self::target::{Target, TargetError};
use super::streaming::{CallRequest, Follow, Streaming, Streams, read, respond, unknown};
use crate::index::{Caller, Discovery, Profile, Watched};

/// Streams at once, of all kinds, over all connections: 2,000 proxies with ten destinations each use 40,000. Past it
/// a call is answered RESOURCE_EXHAUSTED.
pub const MAX_STREAMS: usize = 200_000;

/// The service.
#[derive(Clone, Debug)]
pub struct Destination {
    index: Discovery,
    streams: Arc<Semaphore>,
}

/// The services on `index`, each one line of the server's. `streams` is how many there are at once of both together,
/// [`MAX_STREAMS`] by default.
#[must_use]
pub fn services(index: Discovery, streams: usize) -> (Streaming<Destination>, Streaming<Tables>) {
    let destination = Destination {
        index,
        streams: Arc::new(Semaphore::new(streams)),
    };
    let tables = Tables::new(destination.clone());
    (Streaming(destination), Streaming(tables))
}

impl Destination {
    /// Starts to follow what stands behind a target.
    fn follow(&self, target: &Target) -> Watched<Profile> {
        match target {
            Target::Address(address, port) => self.index.address(*address, *port),
            Target::Name {
                service,
                instance,
                port,
            } => self.index.name(service.clone(), instance.as_deref(), *port),
        }
    }

    /// The target, who asks, and room for a stream.
    fn admit(&self, request: &GetDestination) -> Result<Admitted, Status> {
        let target = Target::parse(&request.path, &self.index.cluster_domain())?;
        if !*self.index.complete().borrow() {
            return Err(Status::unavailable(
                "the cluster is not listed yet: try again",
            ));
        }
        let slot = self.streams.clone().try_acquire_owned();
        let slot = slot.map_err(|_| Status::resource_exhausted("too many streams: try again"))?;
        let (pod, node) = target::read_context(&request.context_token);
        Ok(Admitted {
            caller: self.index.caller(pod, node.as_deref()),
            target,
            slot,
        })
    }
}

/// A request that is to be answered.
struct Admitted {
    target: Target,
    caller: Caller,
    slot: OwnedSemaphorePermit,
}

impl From<TargetError> for Status {
    fn from(error: TargetError) -> Self {
        match error {
            TargetError::NotFound(_) => Self::not_found(error.to_string()),
            _ => Self::invalid_argument(error.to_string()),
        }
    }
}

impl Destination {
    fn get(&self, asked: &GetDestination) -> Result<endpoints::Following, Status> {
        endpoints::Following::new(&self.index, self.admit(asked)?)
    }

    fn profile(&self, asked: &GetDestination) -> Result<profiles::Following, Status> {
        let admitted = self.admit(asked)?;
        let profile = self.follow(&admitted.target);
        Ok(profiles::Following::new(profile, admitted))
    }
}

/// Answers a call of the API by what its method is for; whoever knows destinations says what both streams tell.
async fn by_method<G: Follow, P: Follow>(
    method: &str,
    request: CallRequest,
    get: impl FnOnce(&GetDestination) -> Result<G, Status> + Send,
    profile: impl FnOnce(&GetDestination) -> Result<P, Status> + Send,
) -> Response<Body> {
    match method {
        "Get" => respond(read(request).await.and_then(|asked| get(&asked))),
        "GetProfile" => respond(read(request).await.and_then(|asked| profile(&asked))),
        _ => unknown(),
    }
}

impl Streams for Destination {
    const NAME: &'static str = destination_server::SERVICE_NAME;

    async fn answer(self, method: &str, request: CallRequest) -> Response<Body> {
        by_method(
            method,
            request,
            |asked| self.get(asked),
            |asked| self.profile(asked),
        )
        .await
    }
}
