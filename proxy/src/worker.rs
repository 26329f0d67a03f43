//! A worker: one thread, one local runtime, its own listeners and its own cells.
//! A connection never leaves its worker.
//!
//! `app` starts them; everything a connection needs of its worker is in [`Worker`].

use std::cell::{Cell, RefCell};
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::net::TcpListener;
use tokio::runtime::{Builder, LocalOptions};
use tokio::sync::{mpsc, watch};
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use weir_crds::settings::{MtlsMode, Settings};

use crate::accept::{Guard, Handoff, Plan, Purpose, listen};
use crate::activity::{Activity, Gauge};
use crate::buffer::Pool;
use crate::destinations::{Destinations, Link};
use crate::detect::learned::{Habits, ServerFirst};
use crate::endpoints::{EndpointSet, Roster};
use crate::forward::Dialer;
use crate::heartbeat::Pulse;
use crate::identity::Identity;
use crate::mesh::Mesh;
use crate::permission::{Gate, Permissions};
use crate::record::{Book, CallSource, Calls, Census, Known, Labels, Subject};
use crate::routes::Closed;
use crate::telemetry::{Recorder, Seat};
use crate::terminate::Links;
use crate::{destinations, detect, endpoints, forward, terminate};

/// What the connections of a worker are served with.
#[derive(Clone, Debug)]
pub struct Config {
    pub detect: detect::wait::Config,
    pub forward: forward::Config,
    pub endpoints: endpoints::Config,
    pub terminate: terminate::Config,
    pub destinations: destinations::Config,
    pub guard: Guard,
    /// Name of the default policy, the `srv_name` and `authz_name` of traffic that no
    /// resource describes.
    pub policy: String,
    /// How long a refused client may take to read its answer. Default: 1 s.
    pub refusal_drain: Duration,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            detect: detect::wait::Config::default(),
            forward: forward::Config::default(),
            endpoints: endpoints::Config::default(),
            terminate: terminate::Config::default(),
            destinations: destinations::Config::default(),
            guard: Guard::default(),
            policy: "all-unauthenticated".to_owned(),
            refusal_drain: Duration::from_secs(1),
        }
    }
}

/// Everything a worker starts from; made by `app` and moved to the worker's thread.
pub struct Start {
    pub config: Config,
    pub seat: Seat,
    pub plans: Vec<Plan>,
    pub told: Told,
    /// The endpoints of services, now and whenever they change.
    pub roster: watch::Receiver<Arc<Roster>>,
    /// The way to whoever knows destinations; none where there is no operator.
    pub link: Option<Link>,
    /// The calls to the operator, of the one worker that counts them.
    pub calls: Option<CallSource>,
    pub handoff: mpsc::Sender<Handoff>,
    pub gauge: Gauge,
    pub pulse: Pulse,
    /// Cancelled when the proxy is to end, and serves on what is under way.
    pub draining: CancellationToken,
    pub stop: CancellationToken,
}

/// What is in force, now and whenever it changes.
pub struct Told {
    pub settings: watch::Receiver<Arc<Settings>>,
    /// What closed ports of the application let in, by the same settings.
    pub closed: watch::Receiver<Arc<Closed>>,
    /// The proxy's identity; `None` where nobody keeps one, and TLS is not spoken.
    pub identity: Option<watch::Receiver<Option<Arc<Identity>>>>,
}

/// What all connections of one worker share; it never leaves the worker's thread.
pub struct Worker {
    pub config: Config,
    pub recorder: Rc<Recorder>,
    pub labels: Rc<Labels>,
    pub pool: Rc<Pool>,
    pub dialer: Dialer,
    /// Who may connect to the application, and what its ports let in.
    pub gate: Rc<Gate>,
    pub activity: Activity,
    pub server_first: RefCell<ServerFirst>,
    /// What clients of the application did before.
    pub habits: RefCell<Habits>,
    pub destinations: Rc<Destinations>,
    /// The connections that requests to several endpoints share.
    pub links: Links,
    /// The metrics port in force, where connections are handed over instead of dialed.
    pub metrics_port: Cell<Option<u16>>,
    pub handoff: mpsc::Sender<Handoff>,
    tasks: TaskTracker,
}

impl Worker {
    /// Runs a connection on this worker.
    pub fn spawn(&self, connection: impl Future<Output = ()> + 'static) {
        self.tasks.spawn_local(connection);
    }

    /// Takes over what is in force now.
    fn obey(&self, told: &mut Told, known: &mut Known) {
        let settings = told.settings.borrow_and_update();
        let declared = &self.config.guard.application_ports;
        self.metrics_port.set(settings.metrics_port(declared));
        self.destinations.set_passthrough(settings.passthrough);
        let is_strict = settings.mtls == MtlsMode::Strict;
        self.destinations.set_strict(is_strict);
        let asked = settings.identity.as_ref().map(|identity| &*identity.name);
        self.dialer.mesh.expect(asked);
        if let Some(identity) = &mut told.identity {
            let identity = identity.borrow_and_update().clone();
            let identity = identity.filter(|_| settings.mtls != MtlsMode::Disabled);
            self.dialer.mesh.set(settings.mtls, identity);
        }
        let mode = self.dialer.mesh.mode();
        self.gate.set(Permissions::of(&settings, mode));
        self.gate.close(&told.closed.borrow_and_update());
        known.describe((&self.recorder, &self.labels), self.gate.servers());
    }

    /// Tells the time to what retires by it.
    fn tick(&self, now: Instant) {
        self.recorder.tick(now);
        self.pool.tick();
        self.links.sweep(now);
    }
}

/// Events that are taken from the kernel at a time: as many as the runtime runs tasks before it looks for more
/// (`event_interval`). Of thousands at once the rest waits there, and not in a list of tasks that never becomes
/// shorter again.
const EVENTS: usize = 61;

/// Runs a worker on this thread until it is stopped; connections that are still open then
/// are closed and counted.
pub fn run(start: Start) -> io::Result<()> {
    let runtime = Builder::new_current_thread()
        .enable_all()
        .max_io_events_per_tick(EVENTS)
        .build_local(LocalOptions::default())?;
    runtime.block_on(serve(start))
}

async fn serve(start: Start) -> io::Result<()> {
    let Start {
        config,
        seat,
        plans,
        mut told,
        mut roster,
        link,
        calls,
        handoff,
        gauge,
        pulse,
        draining,
        stop,
    } = start;
    let (tasks, pool) = (TaskTracker::new(), Rc::new(Pool::default()));
    let dialer = dialer(&config, &pool);
    let worker = Rc::new(Worker {
        labels: Rc::new(Labels::new(&config.policy)),
        destinations: Destinations::new(config.destinations, config.endpoints, link, tasks.clone()),
        links: Links::new(config.terminate, dialer.clone(), tasks.clone(), draining),
        config,
        dialer,
        gate: Rc::default(),
        recorder: Rc::new(seat.take()),
        pool,
        activity: Activity::new(gauge),
        server_first: RefCell::default(),
        habits: RefCell::default(),
        metrics_port: Cell::default(),
        handoff,
        tasks,
    });
    let (sets, books) = open(&worker, plans, &stop)?;
    worker.spawn(Rc::clone(&worker.destinations).follow());
    regroup(&sets, &roster.borrow_and_update());
    let mut known = Known::new(books);
    let mut census = census(&worker, &sets);
    let mut calls = calls.map(|source| Calls::new(Rc::clone(&worker.recorder), source));
    let mut ticks = ticks();
    worker.obey(&mut told, &mut known);
    loop {
        tokio::select! {
            () = stop.cancelled() => return Ok(()),
            now = ticks.tick() => {
                pulse.bump();
                worker.tick(Instant::from(now));
                known.renew();
                calls.iter_mut().for_each(Calls::renew);
                census.publish(sets.iter().map(|(_, set)| set.census()));
            }
            () = told.changed() => worker.obey(&mut told, &mut known),
            Ok(()) = roster.changed() => regroup(&sets, &roster.borrow_and_update()),
            () = enter(&mut calls) => {}
        }
    }
}

/// As often as the heart beats, and never two at once because one was late.
fn ticks() -> tokio::time::Interval {
    let mut ticks = tokio::time::interval(crate::heartbeat::TICK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticks
}

/// How the worker's connections to others are made.
fn dialer(config: &Config, pool: &Rc<Pool>) -> Dialer {
    Dialer {
        config: config.forward,
        mesh: Rc::new(Mesh::new(config.guard.pod_ips.clone())),
        pool: Rc::clone(pool),
    }
}

/// The services that are listened for, and what the connections of all listeners will be counted under.
type Opened = (Vec<(SocketAddr, Rc<EndpointSet>)>, Vec<Book>);

/// Begins to accept.
fn open(worker: &Rc<Worker>, plans: Vec<Plan>, stop: &CancellationToken) -> io::Result<Opened> {
    let (mut sets, mut books) = (Vec::new(), Vec::new());
    for plan in plans {
        let (listener, purpose) = plan.open(worker.config.endpoints)?;
        if let Purpose::Service(set) = &purpose {
            sets.push((listener.local_addr()?, Rc::clone(set)));
        }
        books.extend(book(worker, &listener, &purpose));
        worker.spawn(listen(Rc::clone(worker), listener, purpose, stop.clone()));
    }
    Ok((sets, books))
}

/// Enters what happens to calls, where this worker does.
async fn enter(calls: &mut Option<Calls>) {
    match calls {
        Some(calls) => calls.enter().await,
        None => std::future::pending().await,
    }
}

impl Told {
    /// Something else is in force.
    async fn changed(&mut self) {
        tokio::select! {
            Ok(()) = self.settings.changed() => {}
            Ok(()) = self.closed.changed() => {}
            () = changed(self.identity.as_mut()) => {}
        }
    }
}

/// Waits for another identity; without one that is kept, for ever.
async fn changed(identity: Option<&mut watch::Receiver<Option<Arc<Identity>>>>) {
    if let Some(identity) = identity
        && identity.changed().await.is_ok()
    {
        return;
    }
    std::future::pending().await
}

/// Counts the endpoints of the services that are listened for.
fn census(worker: &Worker, sets: &[(SocketAddr, Rc<EndpointSet>)]) -> Census {
    let services = sets.iter();
    let services = services.map(|(at, set)| (Rc::clone(&set.name), at.port()));
    Census::new(Rc::clone(&worker.recorder), services.collect())
}

/// Gives the services that are listened for their new endpoints.
fn regroup(sets: &[(SocketAddr, Rc<EndpointSet>)], roster: &Roster) {
    for (at, set) in sets {
        if let Some(service) = roster.get(at).filter(|s| *s.name == *set.name) {
            set.update(service, Instant::now());
        }
    }
}

/// What the connections of a listener will be counted under, where that is known beforehand.
fn book(worker: &Worker, listener: &TcpListener, purpose: &Purpose) -> Option<Book> {
    let subject = match purpose {
        Purpose::Application { server, .. } => Subject::Inbound {
            server: server.clone(),
        },
        Purpose::Service(set) => Subject::Outbound {
            service: Rc::clone(&set.name),
            dst: worker.labels.unknown_destination(),
        },
        Purpose::Inbound | Purpose::Outbound => return None,
    };
    Some(Book {
        recorder: Rc::clone(&worker.recorder),
        labels: Rc::clone(&worker.labels),
        subject,
        target_port: listener.local_addr().ok()?.port(),
        standing: Default::default(),
    })
}
