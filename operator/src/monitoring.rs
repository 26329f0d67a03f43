//! Tells what there is to scrape, on :5676: `GET /targets` lists the proxies for Prometheus' `http_sd`. Bound and spawned
//! by `app`, on every replica. It knows the index and no client; whoever reaches the port may ask.

mod targets;

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::middleware::map_response_with_state;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use futures::StreamExt as _;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::task::yield_now;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::health;
use crate::index::Discovery;
use crate::metrics::monitoring::{Monitoring, Outcome};

/// Prometheus takes no other.
const JSON: &str = "application/json";
const NOT_YET: &str = "the operator has not listed the pods yet: ask again\n";
const STALE: &str =
    "the operator has lost the API server, and what it knows is old: ask another replica\n";
const ELSEWHERE: &str = "there is only GET /targets, for http_sd\n";

/// How much the server gives to whom.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Connections at once, of one request each; further ones wait in the kernel's queue. Default 32.
    pub connections: usize,
    /// From accept to the end of a request's head. Default 5 s.
    pub head: Duration,
    /// From accept to the end of the answer. Default 60 s, in which a Prometheus asks once.
    pub answer: Duration,
    /// What an answer that is under way may take once the operator ends. Default 4 s.
    pub grace: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 32,
            head: Duration::from_secs(5),
            answer: Duration::from_mins(1),
            grace: Duration::from_secs(4),
        }
    }
}

/// What is listed, and whether it is what the API server has: it is not where that has been silent.
#[derive(Clone, Debug)]
pub struct Known {
    pub index: Discovery,
    pub contact: watch::Receiver<bool>,
}

/// Serves until `stop`. Every connection ends with its answer, so that who asks again asks whichever replica is ready.
pub async fn serve(
    listener: TcpListener,
    known: Known,
    limits: Limits,
    (metrics, stop): (Monitoring, CancellationToken),
) {
    let router = Router::new()
        .route("/targets", get(list))
        .fallback(async || (StatusCode::NOT_FOUND, ELSEWHERE))
        .with_state(known)
        .layer(map_response_with_state(metrics, count));
    let slots = Arc::new(Semaphore::new(limits.connections));
    let connections = TaskTracker::new();
    loop {
        let (slot, stream, peer) = tokio::select! {
            () = stop.cancelled() => break,
            accepted = health::accept(&listener, &slots) => accepted,
        };
        let answered = answer(stream, router.clone(), limits);
        let stop = stop.clone();
        connections.spawn(async move {
            tokio::select! {
                answered = answered => if let Err(error) = answered {
                    tracing::debug!(%peer, %error, "a connection ended");
                },
                () = sleep(limits.answer) => tracing::debug!(%peer, "hung up: too slow"),
                () = async { stop.cancelled().await; sleep(limits.grace).await } => {}
            }
            drop(slot);
        });
    }
    drop(listener);
    connections.close();
    connections.wait().await;
}

async fn answer(stream: TcpStream, router: Router, limits: Limits) -> hyper::Result<()> {
    http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(limits.head)
        .keep_alive(false)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(router))
        .await
}

/// Every proxy, in pieces that are made at the pace of the reader. Who is told nothing keeps the list of before.
async fn list(State(known): State<Known>) -> Response {
    if !*known.contact.borrow() {
        return (StatusCode::SERVICE_UNAVAILABLE, STALE).into_response();
    }
    let Some(pods) = known.index.proxies() else {
        return (StatusCode::SERVICE_UNAVAILABLE, NOT_YET).into_response();
    };
    // Others have the thread between two pieces.
    let pieces = futures::stream::iter(targets::pieces(pods)).then(async |piece| {
        yield_now().await;
        Ok::<_, Infallible>(piece)
    });
    ([(header::CONTENT_TYPE, JSON)], Body::from_stream(pieces)).into_response()
}

async fn count(State(metrics): State<Monitoring>, response: Response) -> Response {
    metrics.count_request(match response.status() {
        StatusCode::OK => Outcome::Listed,
        StatusCode::SERVICE_UNAVAILABLE => Outcome::Unavailable,
        _ => Outcome::Refused,
    });
    response
}

#[cfg(test)]
mod tests;
