//! What of 4191 is for this pod alone: `/` (a page of live metrics), `/config`, `/log-level` and `/shutdown`. Called by
//! `routes`; who may ask is `access`'s to say. It asks for changes and makes none: the drain is `app`'s, the filter
//! `log`'s.

use super::access;
use super::body::Body;
use super::endpoint::EndpointStatus;
use super::page;
use super::report::{self, Entry};
use super::routes::{READING, refuse_method, text};
use crate::log::{self, Levels, MAX_FILTER};
use crate::redirection;
use http_body_util::{BodyExt, Limited};
use hyper::body::Incoming;
use hyper::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderValue, X_CONTENT_TYPE_OPTIONS};
use hyper::{Method, Request, Response, StatusCode};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tracing::info;
use weir_crds::settings::Settings;

/// How long the body of a request may take to arrive.
const BODY_TIMEOUT: Duration = Duration::from_secs(10);

/// One of the paths.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Control {
    Page,
    Config,
    LogLevel,
    Shutdown,
}

impl Control {
    /// The control of this path, if it is one.
    pub(super) fn at(path: &str) -> Option<Self> {
        match path {
            "/" => Some(Self::Page),
            "/config" => Some(Self::Config),
            "/log-level" => Some(Self::LogLevel),
            "/shutdown" => Some(Self::Shutdown),
            _ => None,
        }
    }

    fn methods(self) -> &'static [Method] {
        match self {
            Self::Page | Self::Config => READING,
            Self::LogLevel => &[Method::GET, Method::HEAD, Method::PUT, Method::POST],
            Self::Shutdown => &[Method::POST],
        }
    }
}

/// What the controls read and ask.
#[derive(Clone)]
pub(super) struct Controls {
    pub(super) report: Arc<[Entry]>,
    pub(super) settings: watch::Receiver<Arc<Settings>>,
    pub(super) endpoint: watch::Receiver<EndpointStatus>,
    /// Whether the pod is redirected; `None` where there is no pod.
    pub(super) redirection: Option<watch::Receiver<redirection::State>>,
    /// `None` where nothing is logged.
    pub(super) levels: Option<Levels>,
    /// To be cancelled when the proxy is to drain and end.
    pub(super) drain: CancellationToken,
}

impl Controls {
    pub(super) async fn answer(
        &self,
        control: Control,
        request: Request<Incoming>,
        peer: SocketAddr,
    ) -> Response<Body> {
        let mut answer = match access::check(peer, request.headers()) {
            Err(denied) => text(StatusCode::FORBIDDEN, format!("{denied}\n")),
            Ok(()) => match refuse_method(request.method(), control.methods()) {
                Some(refused) => refused,
                None => self.perform(control, request).await,
            },
        };
        let headers = answer.headers_mut();
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
        answer
    }

    async fn perform(&self, control: Control, request: Request<Incoming>) -> Response<Body> {
        match control {
            Control::Page => page::answer(),
            Control::Config => self.config(),
            Control::LogLevel if matches!(*request.method(), Method::GET | Method::HEAD) => {
                self.log_level()
            }
            Control::LogLevel => self.set_log_level(request.into_body()).await,
            Control::Shutdown => self.shutdown(),
        }
    }

    fn config(&self) -> Response<Body> {
        let settings = Arc::clone(&self.settings.borrow());
        let endpoint = self.endpoint.borrow().clone();
        let mut answer = text(
            StatusCode::OK,
            report::render(&self.report, &settings, &endpoint, self.redirection()),
        );
        let json = HeaderValue::from_static("application/json");
        answer.headers_mut().insert(CONTENT_TYPE, json);
        answer
    }

    /// What is known of the redirection; `None` where there is no pod.
    pub(super) fn redirection(&self) -> Option<redirection::State> {
        self.redirection.as_ref().map(|state| *state.borrow())
    }

    fn log_level(&self) -> Response<Body> {
        let Some(levels) = &self.levels else {
            return not_logging();
        };
        match levels.get() {
            Ok(filter) => text(StatusCode::OK, format!("{filter}\n")),
            Err(error) => text(StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")),
        }
    }

    async fn set_log_level(&self, body: Incoming) -> Response<Body> {
        let Some(levels) = &self.levels else {
            return not_logging();
        };
        let body = Limited::new(body, MAX_FILTER + 1).collect();
        let given = match timeout(BODY_TIMEOUT, body).await {
            Ok(Ok(body)) => body.to_bytes(),
            Ok(Err(_)) => {
                let said = format!("log level: {}\n", log::BadFilter::TooLong);
                return text(StatusCode::PAYLOAD_TOO_LARGE, said);
            }
            Err(_) => {
                let said = "log level: it did not arrive within 10 seconds\n";
                return text(StatusCode::REQUEST_TIMEOUT, said);
            }
        };
        let filter = match log::filter(&String::from_utf8_lossy(&given)) {
            Ok(filter) => filter,
            Err(error) => return text(StatusCode::BAD_REQUEST, format!("log level: {error}\n")),
        };
        let told = filter.to_string();
        match levels.set(filter) {
            Ok(()) => {
                info!(filter = told, "the log level was changed");
                text(StatusCode::OK, format!("{told}\n"))
            }
            Err(error) => text(StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")),
        }
    }

    fn shutdown(&self) -> Response<Body> {
        if self.drain.is_cancelled() {
            return text(StatusCode::OK, "already draining\n");
        }
        info!("asked over the admin port to end");
        self.drain.cancel();
        text(
            StatusCode::OK,
            "draining: the proxy ends once nothing is under way, or when --drain-time is over\n",
        )
    }
}

fn not_logging() -> Response<Body> {
    text(StatusCode::NOT_IMPLEMENTED, "this process does not log\n")
}
