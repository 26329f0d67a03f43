//! A worker: one thread, one current-thread runtime, its own listeners and its own cells.
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
use tokio::sync::{mpsc, watch};
use tokio::task::LocalSet;
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use weir_crds::settings::Settings;

use crate::accept::{Guard, Handoff, Plan, Purpose, listen};
use crate::activity::{Activity, Gauge};
use crate::buffer::Pool;
use crate::detect::wait::ServerFirst;
use crate::endpoints::{EndpointSet, Roster};
use crate::heartbeat::Pulse;
use crate::record::{Book, Census, Known, Labels, Subject};
use crate::telemetry::{Recorder, Seat};
use crate::terminate::Links;
use crate::{detect, endpoints, forward, terminate};

/// What the connections of a worker are served with.
#[derive(Clone, Debug)]
pub struct Config {
    pub detect: detect::wait::Config,
    pub forward: forward::Config,
    pub endpoints: endpoints::Config,
    pub terminate: terminate::Config,
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
    pub settings: watch::Receiver<Arc<Settings>>,
    /// The endpoints of services, now and whenever they change.
    pub roster: watch::Receiver<Arc<Roster>>,
    pub handoff: mpsc::Sender<Handoff>,
    pub gauge: Gauge,
    pub pulse: Pulse,
    /// Cancelled when the proxy is to end, and serves on what is under way.
    pub draining: CancellationToken,
    pub stop: CancellationToken,
}

/// What all connections of one worker share; it never leaves the worker's thread.
pub struct Worker {
    pub config: Config,
    pub recorder: Rc<Recorder>,
    pub labels: Rc<Labels>,
    pub pool: Pool,
    pub activity: Activity,
    pub server_first: RefCell<ServerFirst>,
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

    /// Tells the time to what retires by it.
    fn tick(&self, now: Instant) {
        self.recorder.tick(now);
        self.pool.tick();
        self.links.sweep(now);
    }
}

/// Runs a worker on this thread until it is stopped; connections that are still open then
/// are closed and counted.
pub fn run(start: Start) -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let local = LocalSet::new();
    local.block_on(&runtime, serve(start))
}

async fn serve(start: Start) -> io::Result<()> {
    let Start {
        config,
        seat,
        plans,
        mut settings,
        mut roster,
        handoff,
        gauge,
        pulse,
        draining,
        stop,
    } = start;
    let tasks = TaskTracker::new();
    let worker = Rc::new(Worker {
        labels: Rc::new(Labels::new(&config.policy)),
        links: Links::new(config.terminate, config.forward, tasks.clone(), draining),
        config,
        recorder: Rc::new(seat.take()),
        pool: Pool::default(),
        activity: Activity::new(gauge),
        server_first: RefCell::default(),
        metrics_port: Cell::default(),
        handoff,
        tasks,
    });
    let (mut sets, mut books) = (Vec::new(), Vec::new());
    for plan in plans {
        let (listener, purpose) = plan.open(worker.config.endpoints)?;
        if let Purpose::Service(set) = &purpose {
            sets.push((listener.local_addr()?, Rc::clone(set)));
        }
        books.extend(book(&worker, &listener, &purpose));
        worker.spawn(listen(Rc::clone(&worker), listener, purpose, stop.clone()));
    }
    regroup(&sets, &roster.borrow_and_update());
    let mut known = Known::new(books);
    let mut census = census(&worker, &sets);
    let mut ticks = tokio::time::interval(crate::heartbeat::TICK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let metrics = settings
            .borrow_and_update()
            .metrics
            .as_ref()
            .map(|m| m.port);
        worker.metrics_port.set(metrics);
        tokio::select! {
            () = stop.cancelled() => return Ok(()),
            now = ticks.tick() => {
                pulse.bump();
                worker.tick(Instant::from(now));
                known.renew();
                census.publish(sets.iter().map(|(_, set)| set.census()));
            }
            Ok(()) = settings.changed() => {}
            Ok(()) = roster.changed() => regroup(&sets, &roster.borrow_and_update()),
        }
    }
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
            let now = Instant::now();
            set.routing.replace(service.routes.as_ref(), now);
            set.replace(service.endpoints.clone(), now);
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
    })
}
