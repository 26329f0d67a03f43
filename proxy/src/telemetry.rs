//! Telemetry: what the proxy counts and how it is read. Workers hold a [`Recorder`] each and write to cells that
//! nobody else writes; the admin thread holds a [`Telemetry`], which sums the workers' shards into the text format and
//! retires what is idle. Must know nothing of the pipeline: labels and events are told to it.
//!
//! ```text
//! worker: Recorder -> tables -> HttpSeries / TransportSeries -> cells (one shard per worker)
//!                        | slow path, a label set met for the first time      | read
//!                        v                                                    v
//!                      store: label sets, attachments, retirement  --->  exposition
//! ```

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use weir_crds::metrics_policy::{self, MetricsPolicy};
use weir_crds::universal::UniversalError;

mod bounds;
mod budget;
mod calls;
mod cells;
mod certificates;
mod control;
mod count;
mod endpoints;
mod expose;
mod family;
mod http;
mod http2;
mod known;
mod labels;
mod plan;
mod presence;
mod process;
mod recorder;
mod redirection;
mod render;
mod resolve;
mod route;
mod rules;
mod set;
mod store;
mod transport;
mod worker;

pub use certificates::Certificates;
pub use control::{ControlLabels, ControlSeries};
pub use count::CountRef;
pub use endpoints::EndpointSeries;
pub use http::{HttpRef, HttpSeries};
pub use http2::{GrpcRef, GrpcSeries, Http2Series};
pub use known::Known;
pub use labels::{
    Authz, AuthzLabels, Classification, Direction, Dst, EndpointLabels, GrpcLabels,
    HttpErrorLabels, HttpLabels, HttpSide, NoTlsReason, NotFoundLabels, OVERFLOW, Peer,
    ResponseEnd, Route, Server, TcpErrorLabels, Tls, TransportEnd, TransportLabels,
};
pub use plan::{Plan, PlanError, Saving, Size, plan};
pub use recorder::{Recorder, Seat};
pub use redirection::Redirection;
pub use route::{RouteLabels, RouteRef, RouteSeries};
pub use transport::TransportSeries;

/// How telemetry is kept.
#[derive(Clone, Debug)]
pub struct Config {
    /// How long a label set stays without being written to, and how long an absent scraper is waited for. Default
    /// 10 minutes.
    pub retain_idle: Duration,
    /// How long a retired label set is at least left out of expositions before its totals are forgotten: longer than
    /// the interval of any scraper that shall notice. Default 1 minute.
    pub hidden_for: Duration,
    /// The most series of each family (a histogram is one), past which labels that anybody can make up become
    /// [`OVERFLOW`]. Default 10,000.
    pub most_series: u64,
    /// The most bytes of all that is kept for series: labels, cells and tables of the store and of every worker.
    /// Default 32 MiB.
    pub most_bytes: usize,
    /// The labels of `proxy_build_info`.
    pub build: BuildInfo,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            retain_idle: Duration::from_secs(600),
            hidden_for: Duration::from_secs(60),
            most_series: 10_000,
            most_bytes: 32 * 1024 * 1024,
            build: BuildInfo::default(),
        }
    }
}

/// What was built; by default taken from the environment of the build.
#[derive(Clone, Debug)]
pub struct BuildInfo {
    /// The version of the package.
    pub version: String,
    /// The commit, from `WEIR_GIT_SHA`, empty if unknown.
    pub git_sha: String,
    /// `release` or `debug`.
    pub profile: String,
    /// Who built it, from `WEIR_VENDOR`, else `weir`.
    pub vendor: String,
}

impl Default for BuildInfo {
    fn default() -> Self {
        let profile = if cfg!(debug_assertions) {
            "debug"
        } else {
            "release"
        };
        Self {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            git_sha: option_env!("WEIR_GIT_SHA").unwrap_or_default().to_owned(),
            profile: profile.to_owned(),
            vendor: option_env!("WEIR_VENDOR").unwrap_or("weir").to_owned(),
        }
    }
}

/// What a scraper asks for.
#[derive(Clone, Debug, Default)]
pub struct Selection {
    /// Only families whose printed name each of these matches anywhere.
    pub filters: Vec<regex::Regex>,
    /// Leave out series that never changed.
    pub used_only: bool,
    /// The format of the body.
    pub format: Format,
}

/// A format that telemetry can be read in. Samples, and so what a filter sees, are the same in each but for the
/// bounds of buckets; what is said about a family is not.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Format {
    /// The Prometheus text format 0.0.4.
    #[default]
    Text,
    /// OpenMetrics 1.0, with `# EOF` at its end.
    OpenMetrics,
}

impl Format {
    /// The media type with its parameters, the value of `Content-Type`.
    pub fn content_type(self) -> &'static str {
        match self {
            Self::Text => "text/plain; version=0.0.4; charset=utf-8",
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
        }
    }
}

/// Reads a record-time policy, which may name the families of traffic and their labels.
///
/// # Errors
/// Everything that is wrong with it, each with its field and its place.
pub fn policy(text: &str) -> Result<MetricsPolicy, Vec<UniversalError>> {
    metrics_policy::parse(text, rules::vocabulary(&rules::families()))
}

/// The reader's side of telemetry; clones read the same.
#[derive(Clone)]
pub struct Telemetry {
    store: Arc<store::Store>,
    own: Arc<expose::Own>,
}

/// Telemetry for the given number of workers: the reader, and a seat for each of them.
pub fn new(config: Config, workers: usize) -> (Telemetry, Vec<Seat>) {
    let own = Arc::new(expose::Own::new());
    let store = Arc::new(store::Store::new(config, workers));
    let seats = (0..workers).map(|worker| Seat {
        store: Arc::clone(&store),
        worker,
    });
    let seats = seats.collect();
    (Telemetry { store, own }, seats)
}

impl Telemetry {
    /// Streams the selected families, one after the other. Blocks for as long as `out` does, holding no lock
    /// meanwhile. An error is that of `out`; such an exposition does not count as seen.
    pub fn expose(&self, selection: &Selection, out: &mut dyn io::Write) -> io::Result<()> {
        expose::expose(&self.store, &self.own, selection, out)
    }

    /// Retires what is idle. Call about once a second, from one thread.
    pub fn sweep(&self, now: Instant) {
        self.store.sweep(now);
    }

    /// Puts a record-time policy in force. Workers take it over at their next tick; a series that keeps its name and
    /// labels goes on from its count, one that is relabelled starts anew.
    pub fn set_policy(&self, policy: &MetricsPolicy) {
        self.store.set_policy(policy);
    }

    /// One more who says which authorities are those of known Services, each without or with its port: they are never
    /// refused, whoever said so.
    pub fn known(&self) -> Known {
        Known {
            place: self.store.add_known(),
            store: Arc::clone(&self.store),
        }
    }

    /// Says that these destinations are gone: their label sets retire as soon as nothing of them is open and their last
    /// values were scraped.
    pub fn end(&self, destinations: &[Dst]) {
        self.store.end(destinations);
    }

    /// Where the renewals of the proxy's own certificate are told.
    pub fn certificates(&self) -> Certificates {
        self.own.certificates.clone()
    }

    /// Where it is told whether the pod is redirected.
    pub fn redirection(&self) -> Redirection {
        self.own.redirection.clone()
    }

    /// The bytes of the budget that are in use.
    pub fn bytes(&self) -> usize {
        self.store.budget.bytes()
    }

    /// How many label sets are held, those included that are no longer shown.
    pub fn label_sets(&self) -> usize {
        self.store.sets()
    }
}
