//! Tells what there is to scrape, on :5676: `GET /targets` lists the proxies for Prometheus' `http_sd`. Bound and spawned
//! by `app`, on every replica. It knows the index and no client; whoever reaches the port may ask.

mod targets;

use std::convert::Infallible;
use std::future::IntoFuture;

use axum::body::Body;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::middleware::map_response_with_state;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Router, serve as serve_http};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::index::Discovery;
use crate::metrics::monitoring::{Monitoring, Outcome};

/// Prometheus takes no other.
const JSON: &str = "application/json";
const NOT_YET: &str = "the operator has not listed the pods yet: ask again\n";
const ELSEWHERE: &str = "there is only GET /targets, for http_sd\n";

/// Serves until `stop`.
pub async fn serve(
    listener: TcpListener,
    index: Discovery,
    metrics: Monitoring,
    stop: CancellationToken,
) {
    let router = Router::new()
        .route("/targets", get(list))
        .fallback(async || (StatusCode::NOT_FOUND, ELSEWHERE))
        .with_state(index)
        .layer(map_response_with_state(metrics, count));
    let server = serve_http(listener, router);
    tokio::select! {
        () = stop.cancelled() => {}
        served = server.into_future() => if let Err(error) = served {
            tracing::error!(%error, "the monitoring server ended");
        }
    }
}

/// Every proxy, in pieces that are made at the pace of the reader. Who is told nothing keeps the list of before.
async fn list(State(index): State<Discovery>) -> Response {
    let Some(pods) = index.proxies() else {
        return (StatusCode::SERVICE_UNAVAILABLE, NOT_YET).into_response();
    };
    let pieces = targets::pieces(pods).map(Ok::<_, Infallible>);
    let body = Body::from_stream(futures::stream::iter(pieces));
    ([(header::CONTENT_TYPE, JSON)], body).into_response()
}

async fn count(State(metrics): State<Monitoring>, response: Response) -> Response {
    metrics.count_request(match response.status() {
        StatusCode::OK => Outcome::Listed,
        StatusCode::SERVICE_UNAVAILABLE => Outcome::Unavailable,
        _ => Outcome::Refused,
    });
    response
}
