//! The admin side of the proxy: the 4191 server (`/metrics`, `/live`, `/ready`, `/probe/<n>`, and the controls) and the
//! metrics endpoint on the port and path of the settings in force. `app` binds and serves it on the service thread. It
//! reads the telemetry store and never touches a traffic metric or a proxied connection.

mod access;
mod activity;
mod body;
mod controls;
mod endpoint;
mod exposition;
mod gzip;
mod listen;
mod negotiate;
mod page;
mod probe;
mod query;
mod report;
mod routes;
mod scrape;
mod server;
mod socket;
#[cfg(test)]
mod tests;

pub use endpoint::EndpointStatus;
pub use exposition::Exposition;
pub use gzip::Gzip;
pub use report::{Entry, Source};

pub use crate::accept::Handoff;

use crate::identity::Identity;
use crate::log::Levels;
use crate::redirection;
use controls::Controls;
use endpoint::{Endpoint, Inputs};
use exposition::Exposer;
use probe::Prober;
use routes::Admin;
use server::Server;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use weir_crds::probe::Probe;
use weir_crds::settings::Settings;

/// How long answers under way may take to end once the server is told to stop.
const SHUTDOWN_GRACE: Duration = Duration::from_secs(1);

/// The admin server's settings.
#[derive(Debug, Clone)]
pub struct Config {
    /// Where the admin server listens; default `[::]:4191`, which is IPv4 too.
    pub addr: SocketAddr,
    /// The IP on which the metrics endpoint listens; the port comes with the settings. Default `::`.
    pub metrics_ip: IpAddr,
    /// The pod's IP: where probes without a host of their own go. Default `127.0.0.1` (no pod).
    pub pod_ip: IpAddr,
    /// The addresses of the pod or the machine itself, whose scrapes are subject to nothing. Default none but loopback.
    pub own_ips: Vec<IpAddr>,
    /// The ports that the application declares: the endpoint leaves them to it. Default none.
    pub application_ports: Vec<u16>,
    /// The probes and hooks that `/probe/<n>` performs, in order.
    pub probes: Vec<Probe>,
    /// What `/config` tells of flags and variables. Default nothing.
    pub report: Vec<Entry>,
    pub limits: Limits,
    pub retry: RetryPolicy,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            addr: (Ipv6Addr::UNSPECIFIED, weir_crds::ports::ADMIN).into(),
            metrics_ip: Ipv6Addr::UNSPECIFIED.into(),
            pod_ip: Ipv4Addr::LOCALHOST.into(),
            own_ips: Vec::new(),
            application_ports: Vec::new(),
            probes: Vec::new(),
            report: Vec::new(),
            limits: Limits::default(),
            retry: RetryPolicy::default(),
        }
    }
}

/// What a client of the admin ports may take; each listener has its own.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Open connections; one more ends the one idle longest. Default 64.
    pub connections: usize,
    /// A connection without a request is closed after this; default 130 s, more than two scrape intervals of
    /// 60 s.
    pub idle_timeout: Duration,
    /// From the first byte of a request to the end of its head; default 10 s.
    pub head_timeout: Duration,
    /// A peer that takes none of its answer for this long is dropped; default 30 s.
    pub write_timeout: Duration,
    /// Largest request head, in bytes; at least 8192, the default 16 KiB. A larger one is answered 431.
    pub head_size: usize,
    /// Expositions written at once; default 8.
    pub expositions: usize,
    /// How long a scrape waits for one of these places before 503; default 5 s.
    pub exposition_wait: Duration,
    /// A scraper that has not taken all of it by then is cut off; default 60 s.
    pub exposition_timeout: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 64,
            idle_timeout: Duration::from_secs(130),
            head_timeout: Duration::from_secs(10),
            write_timeout: Duration::from_secs(30),
            head_size: 16 * 1024,
            expositions: 8,
            exposition_wait: Duration::from_secs(5),
            exposition_timeout: Duration::from_secs(60),
        }
    }
}

/// The pauses between attempts to bind the metrics port: from `first`, doubling, to `longest`.
#[derive(Debug, Clone)]
pub struct RetryPolicy {
    /// Default 1 s.
    pub first: Duration,
    /// Default 30 s.
    pub longest: Duration,
}

impl Default for RetryPolicy {
    fn default() -> Self {
        Self {
            first: Duration::from_secs(1),
            longest: Duration::from_secs(30),
        }
    }
}

/// Whether the workers serve traffic, as `/live` tells it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Service {
    /// The traffic listeners are not bound yet.
    Starting,
    /// Every worker moves.
    Running,
    /// A worker does not move: what it serves stands still, and a new start is the remedy.
    Stuck,
}

/// What the admin server reads of the rest of the proxy.
pub struct Deps {
    pub exposition: Arc<dyn Exposition>,
    pub settings: watch::Receiver<Arc<Settings>>,
    pub handoffs: mpsc::Receiver<Handoff>,
    /// Whether traffic is served.
    pub service: watch::Receiver<Service>,
    /// The proxy's identity, whose TLS is spoken besides plain text; `None` where nobody keeps one.
    pub identity: Option<watch::Receiver<Option<Arc<Identity>>>>,
    /// Whether the pod is redirected; `None` where there is no pod.
    pub redirection: Option<watch::Receiver<redirection::State>>,
    /// True from SIGTERM on.
    pub draining: watch::Receiver<bool>,
    /// Cancelled by `/shutdown`: the proxy is to drain and end.
    pub drain: CancellationToken,
    /// What `/log-level` reads and sets; `None` where nothing is logged.
    pub levels: Option<Levels>,
}

/// The admin server could not start.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on the admin address {addr} (--admin-addr): {error}")]
pub struct BindError {
    addr: SocketAddr,
    error: io::Error,
}

/// A bound admin server that does not serve yet.
pub struct Bound {
    /// The real address of the admin listener.
    pub addr: SocketAddr,
    /// What the metrics endpoint is doing, once served.
    pub endpoint: watch::Receiver<EndpointStatus>,
    config: Config,
    listener: TcpListener,
    status: watch::Sender<EndpointStatus>,
}

/// Binds the admin listener; the metrics endpoint binds when it is served. Needs a tokio runtime.
///
/// # Errors
/// When the address cannot be bound.
pub fn bind(config: Config) -> Result<Bound, BindError> {
    let bind_error = |error| BindError {
        addr: config.addr,
        error,
    };
    let listener = listen::bind(config.addr).map_err(bind_error)?;
    let addr = listener.local_addr().map_err(bind_error)?;
    let (status, endpoint) = watch::channel(EndpointStatus::Off);
    Ok(Bound {
        addr,
        endpoint,
        config,
        listener,
        status,
    })
}

/// Serves both listeners until `shutdown`, then gives answers under way a second to end.
pub async fn serve(bound: Bound, deps: Deps, shutdown: CancellationToken) {
    let Bound {
        config,
        listener,
        status,
        endpoint,
        ..
    } = bound;
    let tracker = TaskTracker::new();
    let limits = config.limits;
    let own_ips: Arc<[IpAddr]> = config.own_ips.into();
    let exposer = Exposer::new(deps.exposition, limits.clone(), tracker.clone());
    let controls = Controls {
        report: config.report.into(),
        settings: deps.settings.clone(),
        endpoint,
        redirection: deps.redirection,
        levels: deps.levels,
        drain: deps.drain,
    };
    let site = Admin {
        exposer: exposer.clone(),
        prober: Arc::new(Prober::new(config.probes, config.pod_ip)),
        own_ips: own_ips.clone(),
        controls,
        service: deps.service,
        draining: deps.draining,
        identities: deps.identity.clone(),
    };
    let inputs = Inputs {
        ip: config.metrics_ip,
        own_ips: own_ips.clone(),
        application_ports: config.application_ports,
        identities: deps.identity.clone(),
        retry: config.retry,
        exposer,
        settings: deps.settings,
        handoffs: deps.handoffs,
        status,
    };
    let endpoint = Endpoint::new(inputs, limits.clone(), tracker.clone(), shutdown.clone());
    tracker.spawn(endpoint.run());
    let mut server = Server::new(site, deps.identity, limits, tracker.clone());
    loop {
        tokio::select! {
            () = shutdown.cancelled() => break,
            (stream, peer) = listen::accept(&listener) => {
                server.admit(stream, peer, shutdown.child_token());
            }
        }
    }
    drop(listener);
    tracker.close();
    if tokio::time::timeout(SHUTDOWN_GRACE, tracker.wait())
        .await
        .is_err()
    {
        tracing::debug!("admin connections were cut off at shutdown");
    }
}
