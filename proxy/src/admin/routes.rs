//! The routes of the admin port (4191): `/metrics`, `/live`, `/ready` and `/probe/<n>`, for everyone whom the
//! Mesh lets read them, and the controls, for loopback alone; everything else is 404. Served by `server`. `/metrics` here takes nothing from the Mesh's
//! settings but who may read it; that endpoint is `endpoint`'s.

use super::Service;
use super::body::Body;
use super::controls::{Control, Controls};
use super::exposition::Exposer;
use super::negotiate::negotiate;
use super::probe::{Prober, Verdict};
use super::query::{self, Base};
use super::scrape::{self, Place, Refused};
use super::server::{Site, Unanswered};
use super::socket::{Client, Identities};
use crate::redirection::State;
use hyper::body::Incoming;
use hyper::header::{
    ALLOW, CONTENT_ENCODING, CONTENT_TYPE, HeaderValue, RETRY_AFTER, USER_AGENT, VARY,
};
use hyper::{Method, Request, Response, StatusCode};
use std::net::IpAddr;
use std::sync::Arc;
use tokio::sync::watch;
use weir_crds::settings::MtlsMode;

pub(super) const METRICS_PATH: &str = "/metrics";
const PROBE_PREFIX: &str = "/probe/";
const TEXT: HeaderValue = HeaderValue::from_static("text/plain; charset=utf-8");
/// How a kubelet names itself where it calls a lifecycle hook.
const LIFECYCLE_AGENT: &[u8] = b"kube-lifecycle/";
/// The methods of everything that is only read.
pub(super) const READING: &[Method] = &[Method::GET, Method::HEAD];

/// The admin port's site.
#[derive(Clone)]
pub(super) struct Admin {
    pub(super) exposer: Exposer,
    pub(super) prober: Arc<Prober>,
    /// The pod's own addresses.
    pub(super) own_ips: Arc<[IpAddr]>,
    pub(super) controls: Controls,
    /// Whether traffic is served.
    pub(super) service: watch::Receiver<Service>,
    /// The proxy is on its way out.
    pub(super) draining: watch::Receiver<bool>,
    pub(super) identities: Identities,
}

impl Site for Admin {
    async fn answer(
        &self,
        request: Request<Incoming>,
        client: &Client,
    ) -> Result<Response<Body>, Unanswered> {
        let path = request.uri().path();
        if let Some(control) = Control::at(path) {
            return Ok(self.controls.answer(control, request, client.addr).await);
        }
        if let Some(refused) = refuse_method(request.method(), READING) {
            return Ok(refused);
        }
        match path {
            METRICS_PATH => {
                if let Some(refused) = self.refuse_scrape(client) {
                    return Ok(refused);
                }
                Ok(metrics(&self.exposer, Base::default(), &request).await)
            }
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
    fn refuse_scrape(&self, client: &Client) -> Option<Response<Body>> {
        let settings = self.controls.settings.borrow();
        let judged = scrape::check(&settings, Place::Admin, client, &self.own_ips);
        judged.err().map(refuse_scrape)
    }

    fn lacks_life(&self) -> Vec<&'static str> {
        match *self.service.borrow() {
            Service::Running => Vec::new(),
            Service::Starting => vec!["the traffic listeners are not bound yet"],
            Service::Stuck => vec!["a worker does not move"],
        }
    }

    fn lacks_readiness(&self) -> Vec<&'static str> {
        let mut reasons = self.lacks_life();
        if *self.draining.borrow() {
            reasons.push("draining: the proxy was told to stop");
        }
        if self.lacks_certificate() {
            reasons.push("the Mesh is STRICT, and there is no certificate yet");
        }
        if self.lacks_redirection() {
            reasons.push(
                "the Mesh is STRICT, and this pod is not redirected, so whoever connects gets in unsecured: see the log of \
                 kuma-init or of the node's CNI plugin, and restart the pod",
            );
        }
        reasons
    }

    /// Whether nothing goes in or out for want of a certificate, which somebody is to bring.
    fn lacks_certificate(&self) -> bool {
        let kept = self.identities.as_ref();
        let is_missing = kept.is_some_and(|kept| kept.borrow().is_none());
        is_missing && self.is_strict()
    }

    /// Whether connections are known to pass this proxy that it is to refuse.
    fn lacks_redirection(&self) -> bool {
        self.controls.redirection() == Some(State::Direct) && self.is_strict()
    }

    fn is_strict(&self) -> bool {
        self.controls.settings.borrow().mtls == MtlsMode::Strict
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

/// Answers a request for the metrics, selected by `base` and the request's query, in the format and coding that its
/// headers ask for.
pub(super) async fn metrics(
    exposer: &Exposer,
    base: Base,
    request: &Request<Incoming>,
) -> Response<Body> {
    let wanted = negotiate(request.headers());
    let selection = match query::select(base, request.uri().query(), wanted.format) {
        Ok(selection) => selection,
        Err(error) => return text(StatusCode::BAD_REQUEST, format!("{error}\n")),
    };
    let mut response = Response::new(Body::text(""));
    if request.method() != Method::HEAD {
        *response.body_mut() = match exposer.start(selection, wanted.gzip).await {
            Ok(body) => body,
            Err(refused) => {
                let mut refused = text(StatusCode::SERVICE_UNAVAILABLE, format!("{refused}\n"));
                refused
                    .headers_mut()
                    .insert(RETRY_AFTER, HeaderValue::from_static("1"));
                return refused;
            }
        };
    }
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, wanted.content_type());
    headers.insert(VARY, HeaderValue::from_static("accept, accept-encoding"));
    if wanted.gzip {
        headers.insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
    }
    response
}

/// The answer to a scraper that may not read the metrics.
pub(super) fn refuse_scrape(refused: Refused) -> Response<Body> {
    text(StatusCode::FORBIDDEN, format!("{refused}\n"))
}

/// The answer to a method that is not one of `served`.
pub(super) fn refuse_method(method: &Method, served: &[Method]) -> Option<Response<Body>> {
    if served.contains(method) {
        return None;
    }
    let served: Vec<_> = served.iter().map(Method::as_str).collect();
    let served = served.join(", ");
    let mut refused = text(
        StatusCode::METHOD_NOT_ALLOWED,
        format!("only {served} is served here\n"),
    );
    let allow = HeaderValue::try_from(served).expect("methods are tokens");
    refused.headers_mut().insert(ALLOW, allow);
    Some(refused)
}

pub(super) fn not_found() -> Response<Body> {
    text(
        StatusCode::NOT_FOUND,
        "not found; here are /metrics, /live, /ready and /probe/<n>, and over loopback /, /config, /log-level and \
         /shutdown\n",
    )
}

fn state(lacking: Vec<&'static str>) -> Response<Body> {
    if lacking.is_empty() {
        return text(StatusCode::OK, "ok\n");
    }
    let reasons: String = lacking.iter().map(|reason| format!("{reason}\n")).collect();
    text(StatusCode::SERVICE_UNAVAILABLE, reasons)
}

pub(super) fn text(status: StatusCode, body: impl Into<bytes::Bytes>) -> Response<Body> {
    let mut response = Response::new(Body::text(body));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, TEXT);
    response
}
