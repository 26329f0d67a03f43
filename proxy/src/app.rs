//! The wiring of a proxy: binds every listener, starts the workers and the service
//! tasks, and ends them in order.
//!
//! `main` and the tests call it. It is the only module that knows all the others.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use socket2::{Domain, Protocol, Socket, Type};
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use weir_crds::metrics_policy::MetricsPolicy;
use weir_crds::settings::Settings;

use crate::accept::{Aim, Handoff, Plan};
use crate::activity::Gauge;
use crate::control::{Operator, compile_closed};
use crate::destinations::Link;
use crate::endpoints::Roster;
use crate::heartbeat::{self, Heart, Pulse};
use crate::identity::{self, Identity};
use crate::log::Levels;
use crate::record::CallSource;
use crate::routes::Closed;
use crate::telemetry::{self, Seat, Telemetry};
use crate::{admin, drain, redirection, worker};

mod compose;
mod operator;
mod pod;
mod record;
mod run;

pub use run::{RETRY, RunError, run};

/// Connections that may wait for the metrics endpoint to take them.
pub const HANDOFFS: usize = 64;
/// Connections that may wait for a worker to accept them (listen(2)).
pub const BACKLOG: i32 = 1024;
/// How often idle series are looked for.
pub const SWEEP: Duration = Duration::from_secs(1);

/// Everything a proxy is made from.
#[derive(Clone, Debug, Default)]
pub struct Config {
    /// Worker threads; at least one.
    pub workers: usize,
    pub worker: worker::Config,
    /// Where traffic is accepted, and what for.
    pub listeners: Vec<(SocketAddr, Aim)>,
    /// The endpoints of the services among them, as they change. Default: they do not.
    pub roster: Option<watch::Receiver<Arc<Roster>>>,
    pub admin: admin::Config,
    pub telemetry: telemetry::Config,
    /// The proxy's identity, now and whenever it changes. Default none is kept, and TLS is not spoken.
    pub identity: Option<watch::Receiver<Option<Arc<Identity>>>>,
    /// Where the proxy's identity lies that somebody else keeps, and the name that it is for. Default nowhere.
    pub identity_files: Option<(identity::Files, Arc<str>)>,
    /// What is recorded, now and whenever it changes; `None` is everything.
    pub metrics_policy: Option<watch::Receiver<Arc<MetricsPolicy>>>,
    /// The authorities of known Services, which no budget refuses.
    pub known_authorities: Vec<String>,
    /// The operator that knows destinations. Default none: connections go where they are going.
    pub operator: Option<Operator>,
    /// Whether the redirection depends on a heartbeat.
    pub beats: bool,
    /// How it is found out whether there is a redirection, where a proxy beats for one.
    pub redirection: redirection::Config,
    pub drain: drain::Config,
    /// How much less than a worker's the priority of the thread is that calls [`App::serve`], and of the threads that it
    /// starts besides: as in nice(1). Default none.
    pub service_nice: u8,
    /// What `/log-level` reads and sets. Default nothing.
    pub levels: Option<Levels>,
}

/// Why a proxy could not start, or not go on.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error(
        "cannot listen on {addr}: {error}; is another proxy or the application using the port?"
    )]
    Listen { addr: SocketAddr, error: io::Error },
    #[error(transparent)]
    Admin(#[from] admin::BindError),
    #[error("a worker could not run: {0}")]
    Worker(io::Error),
}

/// The real addresses of a bound proxy.
#[derive(Clone, Debug)]
pub struct Bound {
    pub admin: SocketAddr,
    /// In the order of [`Config::listeners`].
    pub listeners: Vec<SocketAddr>,
    /// What the metrics endpoint is doing, once served.
    pub metrics: watch::Receiver<admin::EndpointStatus>,
}

/// A proxy that is bound and not yet serving.
pub struct App {
    bound: Bound,
    config: Config,
    admin: admin::Bound,
    plans: Vec<Vec<Plan>>,
    settings: watch::Receiver<Arc<Settings>>,
}

/// Binds every listener. Needs a tokio runtime, the service thread's.
pub fn bind(
    mut config: Config,
    settings: watch::Receiver<Arc<Settings>>,
) -> Result<App, StartError> {
    let workers = config.workers.max(1);
    config.worker.endpoints.workers = workers;
    let admin = admin::bind(config.admin.clone())?;
    let mut plans: Vec<Vec<Plan>> = (0..workers).map(|_| Vec::new()).collect();
    let mut listeners = Vec::new();
    for (addr, aim) in &config.listeners {
        let mut addr = *addr;
        // One of all addresses and one of this one: a connection goes to the one that names its address.
        let mut joins = listeners.iter().any(|other| shares_a_port(other, &addr));
        for plans in &mut plans {
            let error = |error| StartError::Listen { addr, error };
            let listener = listener(addr, joins).map_err(error)?;
            joins = true;
            addr = listener.local_addr().map_err(error)?;
            plans.push(Plan {
                listener,
                aim: aim.clone(),
            });
        }
        listeners.push(addr);
    }
    let bound = Bound {
        admin: admin.addr,
        listeners,
        metrics: admin.endpoint.clone(),
    };
    Ok(App {
        bound,
        config,
        admin,
        plans,
        settings,
    })
}

/// Whether an address can be listened on.
fn is_free(addr: SocketAddr) -> bool {
    listener(addr, false).is_ok()
}

fn shares_a_port(one: &SocketAddr, other: &SocketAddr) -> bool {
    one.port() == other.port() && one.ip() != other.ip()
}

/// A listener that shares its port with those that come after it. One that `joins` no other of this proxy becomes ready to
/// share only once it has the port, so that it fails where another process listens already: also one that is ready to
/// share, as another proxy is, which would take half of the connections.
fn listener(addr: SocketAddr, joins: bool) -> io::Result<TcpListener> {
    let domain = Domain::for_address(addr);
    let socket = Socket::new(domain, Type::STREAM.nonblocking(), Some(Protocol::TCP))?;
    if addr.is_ipv6() {
        // `[::]` takes IPv4 connections as well; `::1` does not care.
        socket.set_only_v6(!addr.ip().is_unspecified())?;
    }
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(joins)?;
    socket.bind(&addr.into())?;
    socket.set_reuse_port(true)?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

impl App {
    pub fn bound(&self) -> &Bound {
        &self.bound
    }

    /// Serves until `terminate` or `/shutdown`, then drains; a second `terminate` ends it at once. Of who asks for
    /// `/shutdown`, the first `terminate` is only the kubelet's, which follows.
    ///
    /// # Errors
    /// When a worker could not run: its traffic would wait for ever, so everything ends.
    pub async fn serve(self, mut terminate: mpsc::Receiver<()>) -> Result<(), StartError> {
        let Self {
            config,
            admin,
            plans,
            settings,
            bound,
        } = self;
        let stop = CancellationToken::new();
        let tasks = TaskTracker::new();
        let (telemetry, seats) = record::start(&config, plans.len(), &tasks, &stop);
        let operator = (config.operator.clone(), &settings);
        let operated = operator::start(operator, &telemetry, &tasks, &stop);
        let (handoff, handoffs) = mpsc::channel(HANDOFFS);
        let (heart, pulses, state) = heartbeat::new(pod::heartbeat(&config, &bound, plans.len()));
        let gauges: Vec<Gauge> = plans.iter().map(|_| Gauge::default()).collect();
        let template = Template {
            config: config.worker.clone(),
            settings: settings.clone(),
            closed: closed(&settings, &tasks, &stop),
            roster: roster(&config),
            link: operated.link,
            identity: identity(&config, operated.identity, &telemetry, (&tasks, &stop)),
            handoff,
            draining: CancellationToken::new(),
            stop: stop.clone(),
            ended: CancellationToken::new(),
        };
        let seats = seats.into_iter().zip(pulses).zip(gauges.iter().cloned());
        let workers = template.start_all(plans.into_iter().zip(seats), operated.calls);
        yield_to_workers(config.service_nice);
        let ((draining, is_draining), drain) = (watch::channel(false), CancellationToken::new());
        let deps = admin::Deps {
            exposition: Arc::new(telemetry.clone()),
            settings,
            handoffs,
            identity: template.identity.clone(),
            redirection: pod::redirection(&config, &bound, (&state, &telemetry), (&tasks, &stop)),
            service: pod::service(config.beats, state, &tasks),
            draining: is_draining.clone(),
            drain: drain.clone(),
            levels: config.levels,
        };
        tasks.spawn(admin::serve(admin, deps, stop.child_token()));
        tasks.spawn(sweep(telemetry, stop.child_token()));
        if config.beats {
            tasks.spawn(beat(heart, is_draining, stop.child_token()));
        }
        let is_told = until_asked(&mut terminate, [&drain, &template.ended]).await;
        draining.send_replace(true);
        template.draining.cancel();
        tokio::select! {
            left = drain::drain(&gauges, limits(config.drain, is_told)) => tracing::info!(left, "drained"),
            () = until_pressed(&mut terminate, is_told) => tracing::info!("ends without draining"),
            () = template.ended.cancelled() => {}
        }
        stop.cancel();
        end(workers, tasks).await
    }
}

/// Lowers the priority of this thread, and of those that it starts from now on. Threads of one container are weighed against
/// each other by it, so a worker that shares the CPU with a scrape hardly notices; nobody else in the pod loses or wins.
fn yield_to_workers(nice: u8) {
    let me = Some(rustix::thread::gettid());
    let lowered = rustix::process::getpriority_process(me)
        .and_then(|priority| rustix::process::setpriority_process(me, priority + i32::from(nice)));
    if let Err(error) = lowered {
        tracing::debug!(%error, "the service thread keeps the priority of a worker");
    }
}

/// Waits until the proxy is to end: by a signal or by one of these. Answers whether it was a signal.
async fn until_asked(
    terminate: &mut mpsc::Receiver<()>,
    [one, other]: [&CancellationToken; 2],
) -> bool {
    tokio::select! {
        _ = terminate.recv() => true,
        () = one.cancelled() => false,
        () = other.cancelled() => false,
    }
}

/// Waits for the signal that ends a proxy which drains: the second.
async fn until_pressed(terminate: &mut mpsc::Receiver<()>, is_told: bool) {
    let left = if is_told { 1 } else { 2 };
    for _ in 0..left {
        if terminate.recv().await.is_none() {
            // Nobody is left who could press.
            std::future::pending::<()>().await;
        }
    }
}

/// Whoever asks for `/shutdown` says that nothing will be asked of the proxy: it need not stay for that.
fn limits(drain: drain::Config, is_told: bool) -> drain::Config {
    let shortest = if is_told {
        drain.shortest
    } else {
        Duration::ZERO
    };
    drain::Config { shortest, ..drain }
}

/// The endpoints of its services; without one to tell of changes, those of its listeners.
fn roster(config: &Config) -> watch::Receiver<Arc<Roster>> {
    let told = config.roster.clone();
    told.unwrap_or_else(|| watch::channel(Arc::default()).1)
}

/// The proxy's identity: the one that is given, one that lies in files and is followed there, or the operator's.
fn identity(
    config: &Config,
    certified: Option<watch::Receiver<Option<Arc<Identity>>>>,
    telemetry: &Telemetry,
    (tasks, stop): (&TaskTracker, &CancellationToken),
) -> Option<watch::Receiver<Option<Arc<Identity>>>> {
    let in_files = config.identity_files.clone().map(|files| {
        let (force, identity) = watch::channel(None);
        let to = (force, telemetry.certificates());
        let stop = stop.child_token();
        tasks.spawn(identity::follow(files, identity::LOOK, to, stop));
        identity
    });
    config.identity.clone().or(in_files).or(certified)
}

/// What closed ports let in, compiled as settings change.
fn closed(
    settings: &watch::Receiver<Arc<Settings>>,
    tasks: &TaskTracker,
    stop: &CancellationToken,
) -> watch::Receiver<Arc<Closed>> {
    let (compiling, closed) = compile_closed(settings.clone());
    tasks.spawn(stop.clone().run_until_cancelled_owned(compiling.run()));
    closed
}

/// Waits for everything that was told to stop; answers how the workers ended.
async fn end(
    workers: Vec<JoinHandle<io::Result<()>>>,
    tasks: TaskTracker,
) -> Result<(), StartError> {
    let ended = join(workers);
    tasks.close();
    tasks.wait().await;
    ended
}

/// What all workers are started with.
struct Template {
    config: worker::Config,
    settings: watch::Receiver<Arc<Settings>>,
    closed: watch::Receiver<Arc<Closed>>,
    roster: watch::Receiver<Arc<Roster>>,
    link: Option<Link>,
    identity: Option<watch::Receiver<Option<Arc<Identity>>>>,
    handoff: mpsc::Sender<Handoff>,
    draining: CancellationToken,
    stop: CancellationToken,
    /// Cancelled by the first worker that ends, however it does.
    ended: CancellationToken,
}

impl Template {
    fn start_all(
        &self,
        workers: impl Iterator<Item = (Vec<Plan>, ((Seat, Pulse), Gauge))>,
        mut calls: Option<CallSource>,
    ) -> Vec<JoinHandle<io::Result<()>>> {
        workers
            .map(|(plans, own)| self.start(plans, own, calls.take()))
            .collect()
    }

    fn start(
        &self,
        plans: Vec<Plan>,
        ((seat, pulse), gauge): ((Seat, Pulse), Gauge),
        calls: Option<CallSource>,
    ) -> JoinHandle<io::Result<()>> {
        let start = worker::Start {
            config: self.config.clone(),
            seat,
            plans,
            told: worker::Told {
                settings: self.settings.clone(),
                closed: self.closed.clone(),
                identity: self.identity.clone(),
            },
            roster: self.roster.clone(),
            link: self.link.clone(),
            calls,
            handoff: self.handoff.clone(),
            gauge,
            pulse,
            draining: self.draining.clone(),
            stop: self.stop.clone(),
        };
        let ended = self.ended.clone();
        let run = move || {
            let _ended = ended.drop_guard();
            worker::run(start)
        };
        let thread = std::thread::Builder::new().name("worker".to_owned());
        thread
            .spawn(run)
            .expect("a system that starts the proxy starts its workers")
    }
}

/// Beats until the proxy drains: connections made from then on go direct.
async fn beat(heart: Heart, draining: watch::Receiver<bool>, stop: CancellationToken) {
    heartbeat::beat(heart, draining, stop).await;
}

async fn sweep(telemetry: Telemetry, stop: CancellationToken) {
    let mut ticks = tokio::time::interval(SWEEP);
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            now = ticks.tick() => telemetry.sweep(now.into()),
        }
    }
}

/// Waits for all workers; answers the first failure.
fn join(workers: Vec<JoinHandle<io::Result<()>>>) -> Result<(), StartError> {
    let panicked = |_| Err(io::Error::other("it panicked"));
    let ends: Vec<_> = workers
        .into_iter()
        .map(|worker| worker.join().unwrap_or_else(panicked))
        .collect();
    let all: io::Result<()> = ends.into_iter().collect();
    all.map_err(StartError::Worker)
}
