//! The routes of the admin port (4191): `/metrics`, `/live`, `/ready`, `/probe/<n>`; everything else is 404.
//! Served by `server`. `/metrics` here takes nothing from the Mesh's settings; that endpoint is `endpoint`'s.

use super::body::Body;
use super::exposition::Exposer;
use super::probe::{Prober, Verdict};
use super::query::{self, Base};
use super::server::{Site, Unanswered};
use hyper::body::Incoming;
use hyper::header::{ALLOW, CONTENT_TYPE, HeaderValue, RETRY_AFTER, USER_AGENT};
use hyper::{Method, Request, Response, StatusCode};
use std::sync::Arc;
use tokio::sync::watch;

pub(super) const METRICS_PATH: &str = "/metrics";
const PROBE_PREFIX: &str = "/probe/";
const TEXT: HeaderValue = HeaderValue::from_static("text/plain; charset=utf-8");
/// How a kubelet names itself where it calls a lifecycle hook.
const LIFECYCLE_AGENT: &[u8] = b"kube-lifecycle/";

/// The admin port's site.
#[derive(Clone)]
pub(super) struct Admin {
    pub(super) exposer: Exposer,
    pub(super) prober: Arc<Prober>,
    /// The traffic listeners are bound.
    pub(super) bound: watch::Receiver<bool>,
    /// The proxy is on its way out.
    pub(super) draining: watch::Receiver<bool>,
}

impl Site for Admin {
    async fn answer(&self, request: Request<Incoming>) -> Result<Response<Body>, Unanswered> {
        if let Some(refused) = refuse_method(request.method()) {
            return Ok(refused);
        }
        match request.uri().path() {
            METRICS_PATH => Ok(metrics(&self.exposer, Base::default(), &request).await),
            "/live" => Ok(state(self.lacks_life())),
            "/ready" => Ok(state(self.lacks_readiness())),
            path => match path.strip_prefix(PROBE_PREFIX).map(str::parse) {
                Some(Ok(n)) => self.probe(n, &request).await,
                _ => Ok(not_found()),
            },
        }
    }
}

impl Admin {
    fn lacks_life(&self) -> Vec<&'static str> {
        let mut reasons = Vec::new();
        if !*self.bound.borrow() {
            reasons.push("the traffic listeners are not bound yet");
        }
        reasons
    }

    fn lacks_readiness(&self) -> Vec<&'static str> {
        let mut reasons = self.lacks_life();
        if *self.draining.borrow() {
            reasons.push("draining: the proxy was told to stop");
        }
        reasons
    }

    /// Performs the `n`-th probe. Where a lifecycle hook could not reach the application there is no answer at
    /// all: a kubelet takes any answer to a hook, whatever its status, for success.
    async fn probe(
        &self,
        n: usize,
        request: &Request<Incoming>,
    ) -> Result<Response<Body>, Unanswered> {
        let agent = request.headers().get(USER_AGENT);
        let Some(verdict) = self.prober.perform(n, agent).await else {
            return Ok(not_found());
        };
        let Verdict {
            status,
            body,
            reached,
        } = verdict;
        let hook = agent.is_some_and(|agent| agent.as_bytes().starts_with(LIFECYCLE_AGENT));
        if hook && !reached {
            return Err(Unanswered);
        }
        Ok(text(status, body))
    }
}

/// Answers a request for the metrics, selected by `base` and the request's query.
pub(super) async fn metrics(
    exposer: &Exposer,
    base: Base,
    request: &Request<Incoming>,
) -> Response<Body> {
    let selection = match query::select(base, request.uri().query()) {
        Ok(selection) => selection,
        Err(error) => return text(StatusCode::BAD_REQUEST, format!("{error}\n")),
    };
    let content_type = HeaderValue::from_static(selection.format.content_type());
    let mut response = Response::new(Body::text(""));
    if request.method() != Method::HEAD {
        *response.body_mut() = match exposer.start(selection).await {
            Ok(body) => body,
            Err(busy) => {
                let mut refused = text(StatusCode::SERVICE_UNAVAILABLE, format!("{busy}\n"));
                refused
                    .headers_mut()
                    .insert(RETRY_AFTER, HeaderValue::from_static("1"));
                return refused;
            }
        };
    }
    response.headers_mut().insert(CONTENT_TYPE, content_type);
    response
}

/// The answer to a method that is neither GET nor HEAD.
pub(super) fn refuse_method(method: &Method) -> Option<Response<Body>> {
    if matches!(*method, Method::GET | Method::HEAD) {
        return None;
    }
    let mut refused = text(
        StatusCode::METHOD_NOT_ALLOWED,
        "only GET and HEAD are served\n",
    );
    refused
        .headers_mut()
        .insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
    Some(refused)
}

pub(super) fn not_found() -> Response<Body> {
    text(StatusCode::NOT_FOUND, "not found\n")
}

fn state(lacking: Vec<&'static str>) -> Response<Body> {
    if lacking.is_empty() {
        return text(StatusCode::OK, "ok\n");
    }
    let reasons: String = lacking.iter().map(|reason| format!("{reason}\n")).collect();
    text(StatusCode::SERVICE_UNAVAILABLE, reasons)
}

fn text(status: StatusCode, body: impl Into<bytes::Bytes>) -> Response<Body> {
    let mut response = Response::new(Body::text(body));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, TEXT);
    response
}
