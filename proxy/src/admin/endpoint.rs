//! The metrics endpoint of the Mesh: a listener on the port of the settings in force that answers exactly their
//! path. It follows the settings live, also takes connections handed over in-process, and never serves in
//! plaintext what the settings want under TLS. Started by `admin::serve`; it knows nothing of 4191's routes.

use super::body::Body;
use super::exposition::Exposer;
use super::listen;
use super::query::Base;
use super::routes::{READING, metrics, not_found, refuse_method, refuse_scrape};
use super::scrape::{self, Place};
use super::server::{Server, Site, Unanswered};
use super::socket::{Client, Identities};
use super::{Handoff, RetryPolicy};
use hyper::body::Incoming;
use hyper::{Request, Response};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};
use weir_crds::settings::{MetricsSettings, MetricsTls, MtlsMode, Settings};

/// What the metrics endpoint is doing, for whoever reports it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EndpointStatus {
    /// The settings have metrics off.
    Off,
    /// Serving at this address.
    Serving(SocketAddr),
    /// Kept closed on purpose, and why.
    Closed(String),
    /// The port could not be bound; it is tried again.
    Unbound(String),
}

/// What the settings ask of the endpoint.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Wanted {
    Off,
    Closed(&'static str),
    Open(u16),
}

/// `has_identities`: whether somebody keeps the proxy's identity; `declared`: the ports of the application.
fn wanted(settings: &Settings, has_identities: bool, declared: &[u16]) -> Wanted {
    let Some(metrics) = &settings.metrics else {
        return Wanted::Off;
    };
    if settings.metrics_port(declared).is_none() {
        return Wanted::Closed(
            "its port is the application's: choose another in metrics.backends[].conf.port of the Mesh or with the pod's \
             annotation prometheus.metrics.kuma.io/port",
        );
    }
    match (metrics.tls, settings.mtls) {
        (MetricsTls::ProvidedTls, _) => Wanted::Closed(
            "tls mode providedTLS asks for TLS, which this version does not serve yet",
        ),
        (MetricsTls::ActiveMtlsBackend, MtlsMode::Permissive | MtlsMode::Strict)
            if !has_identities =>
        {
            Wanted::Closed(
                "tls mode activeMTLSBackend in a mesh with mTLS asks for mutual TLS, and without an operator the proxy \
                 has no certificate",
            )
        }
        (MetricsTls::Disabled | MetricsTls::ActiveMtlsBackend, _) => Wanted::Open(metrics.port),
    }
}

/// What a request meets; derived from the settings once, when they change.
#[derive(Debug, Clone, Default)]
struct View {
    /// `None` while the endpoint is off or closed.
    path: Option<String>,
    base: Base,
}

impl View {
    fn new(settings: &Settings, wanted: &Wanted) -> Self {
        let (Wanted::Open(_), Some(metrics)) = (wanted, &settings.metrics) else {
            return Self::default();
        };
        Self {
            path: Some(rooted(&metrics.path)),
            base: Base {
                filter: filter(metrics),
                used_only: metrics.used_only,
            },
        }
    }
}

fn rooted(path: &str) -> String {
    let path = path.trim_start_matches('/');
    format!("/{path}")
}

fn filter(metrics: &MetricsSettings) -> Option<regex::Regex> {
    let filter = metrics
        .filter
        .as_deref()
        .filter(|filter| !filter.is_empty())?;
    weir_crds::filter::compile(filter)
        .inspect_err(|error| {
            error!(%error, "filterRegex of the Mesh is no valid regular expression: nothing is filtered");
        })
        .ok()
}

/// The endpoint's site: the path in force and nothing else.
#[derive(Clone)]
struct Metrics {
    exposer: Exposer,
    view: watch::Receiver<Arc<View>>,
    settings: watch::Receiver<Arc<Settings>>,
    own_ips: Arc<[IpAddr]>,
}

impl Site for Metrics {
    async fn answer(
        &self,
        request: Request<Incoming>,
        client: &Client,
    ) -> Result<Response<Body>, Unanswered> {
        if let Some(refused) = refuse_method(request.method(), READING) {
            return Ok(refused);
        }
        let view = Arc::clone(&self.view.borrow());
        if view.path.as_deref() != Some(request.uri().path()) {
            return Ok(not_found());
        }
        let settings = Arc::clone(&self.settings.borrow());
        if let Err(refused) = scrape::check(&settings, Place::Endpoint, client, &self.own_ips) {
            return Ok(refuse_scrape(refused));
        }
        Ok(metrics(&self.exposer, view.base.clone(), &request).await)
    }
}

/// What the endpoint needs from outside.
pub(super) struct Inputs {
    pub(super) ip: IpAddr,
    /// The pod's own addresses.
    pub(super) own_ips: Arc<[IpAddr]>,
    /// The ports that the application declares.
    pub(super) application_ports: Vec<u16>,
    pub(super) identities: Identities,
    pub(super) retry: RetryPolicy,
    pub(super) exposer: Exposer,
    pub(super) settings: watch::Receiver<Arc<Settings>>,
    pub(super) handoffs: mpsc::Receiver<Handoff>,
    pub(super) status: watch::Sender<EndpointStatus>,
}

/// A wanted port that could not be bound, and when it is tried again.
struct Retry {
    at: Instant,
    delay: Duration,
}

/// Owns the listener; its loop is the one writer of the view and the status.
pub(super) struct Endpoint {
    inputs: Inputs,
    server: Server<Metrics>,
    view: watch::Sender<Arc<View>>,
    wanted: Wanted,
    listener: Option<TcpListener>,
    retry: Option<Retry>,
    /// Ends the connections of the settings they were accepted under.
    generation: CancellationToken,
    shutdown: CancellationToken,
}

impl Endpoint {
    pub(super) fn new(
        inputs: Inputs,
        limits: super::Limits,
        tracker: tokio_util::task::TaskTracker,
        shutdown: CancellationToken,
    ) -> Self {
        let (view, views) = watch::channel(Arc::default());
        let site = Metrics {
            exposer: inputs.exposer.clone(),
            view: views,
            settings: inputs.settings.clone(),
            own_ips: inputs.own_ips.clone(),
        };
        Self {
            server: Server::new(site, inputs.identities.clone(), limits, tracker),
            inputs,
            view,
            wanted: Wanted::Off,
            listener: None,
            retry: None,
            generation: shutdown.child_token(),
            shutdown,
        }
    }

    /// Serves until shutdown. Settings that no longer come leave the last ones in force.
    pub(super) async fn run(mut self) {
        self.inputs.settings.mark_changed();
        let mut following = true;
        let mut handing = true;
        loop {
            tokio::select! {
                () = self.shutdown.cancelled() => return,
                changed = self.inputs.settings.changed(), if following => match changed {
                    Ok(()) => self.apply(),
                    Err(_) => following = false,
                },
                handoff = self.inputs.handoffs.recv(), if handing => match handoff {
                    Some(handoff) => self.take(handoff),
                    None => handing = false,
                },
                (stream, peer) = accept(self.listener.as_ref()) => self.admit(stream, peer),
                () = at(self.retry.as_ref().map(|retry| retry.at)) => self.bind(),
            }
        }
    }

    fn apply(&mut self) {
        let settings = Arc::clone(&self.inputs.settings.borrow_and_update());
        let inputs = &self.inputs;
        let wanted = wanted(
            &settings,
            inputs.identities.is_some(),
            &inputs.application_ports,
        );
        self.view
            .send_replace(Arc::new(View::new(&settings, &wanted)));
        if wanted == self.wanted && !matches!(wanted, Wanted::Off) {
            return;
        }
        self.listener = None;
        self.retry = None;
        self.generation.cancel();
        self.generation = self.shutdown.child_token();
        self.wanted = wanted.clone();
        match wanted {
            Wanted::Off => self.publish(EndpointStatus::Off),
            Wanted::Closed(reason) => {
                warn!(reason, "the metrics endpoint stays closed");
                self.publish(EndpointStatus::Closed(reason.to_owned()));
            }
            Wanted::Open(_) => self.bind(),
        }
    }

    /// Binds the wanted port; a failure is logged once and tried again with growing pauses.
    fn bind(&mut self) {
        let Wanted::Open(port) = self.wanted else {
            return;
        };
        let bound = listen::bind(SocketAddr::new(self.inputs.ip, port))
            .and_then(|listener| Ok((listener.local_addr()?, listener)));
        match bound {
            Ok((address, listener)) => {
                info!(%address, "serving the metrics endpoint");
                self.listener = Some(listener);
                self.retry = None;
                self.publish(EndpointStatus::Serving(address));
            }
            Err(cause) => {
                let reason = format!(
                    "port {port} of the metrics endpoint cannot be bound ({cause}); free it or choose another \
                     in metrics.backends[].conf.port of the Mesh or with the pod's annotation \
                     prometheus.metrics.kuma.io/port"
                );
                let policy = &self.inputs.retry;
                let delay = match &self.retry {
                    Some(retry) => (retry.delay * 2).min(policy.longest),
                    None => {
                        error!("{reason}");
                        policy.first
                    }
                };
                let at = Instant::now() + delay;
                self.retry = Some(Retry { at, delay });
                self.publish(EndpointStatus::Unbound(reason));
            }
        }
    }

    fn take(&mut self, handoff: Handoff) {
        if self.view.borrow().path.is_none() {
            return;
        }
        let Handoff { stream, peer } = handoff;
        let stream = stream
            .set_nonblocking(true)
            .and_then(|()| TcpStream::from_std(stream));
        match stream {
            Ok(stream) => self.admit(stream, peer),
            Err(error) => warn!(%peer, %error, "lost a connection handed to the metrics endpoint"),
        }
    }

    fn admit(&mut self, stream: TcpStream, peer: SocketAddr) {
        self.server
            .admit(stream, peer, self.generation.child_token());
    }

    fn publish(&self, status: EndpointStatus) {
        self.inputs.status.send_replace(status);
    }
}

async fn accept(listener: Option<&TcpListener>) -> (TcpStream, SocketAddr) {
    match listener {
        Some(listener) => listen::accept(listener).await,
        None => std::future::pending().await,
    }
}

async fn at(time: Option<Instant>) {
    match time {
        Some(time) => sleep_until(time).await,
        None => std::future::pending().await,
    }
}
