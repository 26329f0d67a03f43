//! The endpoints: reviews in, answers out, and health and metrics beside them. Called by `app`; tests call the router
//! without a cluster. It joins the stages (review, decide, inject, patch, review) and holds none of their rules.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use axum::{
    Json, Router,
    body::Bytes,
    extract::{DefaultBodyLimit, FromRequest as _, State},
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use jiff::Timestamp;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};
use weir_process::exposition;

use crate::{
    cluster::{Cluster, LookupError},
    inject::Config,
    metrics::Metrics,
    ready::{self, NotReady},
    review::{self, Answer, Request},
};

mod pods;
mod resources;

/// Largest review taken, in bytes; the API server itself takes objects of up to 3 MiB, and an update sends two.
pub const MAX_BODY: usize = 8 * 1024 * 1024;
/// From the whole body to the answer; below the 3 s that the API server waits, so that it hears why.
pub const REVIEW_TIMEOUT: Duration = Duration::from_millis(2500);

/// From the head of a review to its whole body.
pub const BODY_TIMEOUT: Duration = Duration::from_secs(2);

/// What the endpoints need.
pub struct Service {
    /// The cluster's state.
    pub cluster: Cluster,
    /// How injected containers look.
    pub config: Config,
    /// The webhook's own metrics.
    pub metrics: Metrics,
    /// DNS name by which the API server calls this webhook.
    pub name: String,
    /// Cancelled once the process is to end: `/ready` says so at once.
    pub stopping: CancellationToken,
}

/// Which rules a review meets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Endpoint {
    Inject,
    Validate,
    Default,
}

impl Endpoint {
    fn name(self) -> &'static str {
        match self {
            Self::Inject => "inject",
            Self::Validate => "validate",
            Self::Default => "default",
        }
    }
}

/// All endpoints.
pub fn router(service: Arc<Service>) -> Router {
    let review =
        |endpoint: Endpoint| {
            post(
                async move |state: State<Arc<Service>>, request: axum::extract::Request| {
                    match timeout(BODY_TIMEOUT, Bytes::from_request(request, &())).await {
                        Ok(Ok(body)) => reviewed(endpoint, state, body).await,
                        Ok(Err(refused)) => refused.into_response(),
                        Err(_) => StatusCode::REQUEST_TIMEOUT.into_response(),
                    }
                },
            )
        };
    Router::new()
        .route("/inject", review(Endpoint::Inject))
        .route("/validate", review(Endpoint::Validate))
        .route("/default", review(Endpoint::Default))
        .route("/live", get(|| async { "live\n" }))
        .route("/ready", get(ready))
        .route("/metrics", get(metrics))
        .layer(DefaultBodyLimit::max(MAX_BODY))
        .with_state(service)
}

async fn reviewed(
    endpoint: Endpoint,
    State(service): State<Arc<Service>>,
    body: Bytes,
) -> Response {
    let started = Instant::now();
    let (outcome, response) = match review::parse(&body) {
        Err(error) => (
            "bad_request",
            (StatusCode::BAD_REQUEST, format!("{error}\n")).into_response(),
        ),
        Ok(request) => match timeout(REVIEW_TIMEOUT, answer(endpoint, &service, &request)).await {
            Ok(Ok(answer)) => (
                answer.outcome(),
                Json(review::reply(&request, answer)).into_response(),
            ),
            Ok(Err(error)) => failed(endpoint, &error.to_string()),
            Err(_) => failed(endpoint, "the review took too long"),
        },
    };
    service
        .metrics
        .reviewed(endpoint.name(), outcome, started.elapsed());
    response
}

/// An answer that the API server meets with the failure policy.
fn failed(endpoint: Endpoint, error: &str) -> (&'static str, Response) {
    warn!(endpoint = endpoint.name(), error, "review failed");
    (
        "error",
        (StatusCode::SERVICE_UNAVAILABLE, format!("{error}\n")).into_response(),
    )
}

async fn answer(
    endpoint: Endpoint,
    service: &Service,
    request: &Request,
) -> Result<Answer, LookupError> {
    let answer = match endpoint {
        Endpoint::Inject => pods::inject(service, request).await?,
        Endpoint::Validate => resources::validate(service, request).await?,
        Endpoint::Default => resources::default(request),
    };
    if let Answer::Denied(violations) = &answer {
        let message = weir_crds::violation::joined(violations);
        let namespace = request.namespace.as_deref().unwrap_or_default();
        info!(
            kind = request.kind.kind,
            namespace,
            name = request.name,
            message,
            "denied"
        );
    }
    Ok(answer)
}

async fn ready(State(service): State<Arc<Service>>) -> Response {
    match check(&service, Timestamp::now()) {
        Ok(()) => "ready\n".into_response(),
        Err(why) => (StatusCode::SERVICE_UNAVAILABLE, format!("{why}\n")).into_response(),
    }
}

fn check(service: &Service, now: Timestamp) -> Result<(), NotReady> {
    if service.stopping.is_cancelled() {
        return Err(NotReady::Stopping);
    }
    let pending = service.cluster.pending();
    if !pending.is_empty() {
        return Err(NotReady::Cache(pending.join(", ")));
    }
    let serving = service.cluster.serving.borrow().clone();
    let hooks = service.cluster.hooks.borrow().clone();
    ready::trusted(&serving, &hooks, &service.name, now)
}

async fn metrics(State(service): State<Arc<Service>>, headers: HeaderMap) -> Response {
    let expires = service.cluster.serving.borrow().expires;
    let accept = headers.get_all(header::ACCEPT).iter();
    let accept = accept.filter_map(|value| value.to_str().ok());
    let (kind, text) = exposition::negotiated(accept, service.metrics.expose(expires));
    ([(header::CONTENT_TYPE, kind)], text).into_response()
}
