//! Accepting: the listeners of a worker, and what each accepted connection is meant for.
//!
//! `worker` runs one `listen` per listener. A connection goes on to `connection`, is handed to
//! the metrics listener, answered as the check of the redirection, or refused by the own-port
//! guard. It must not read a byte.

use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::{Duration, Instant};

use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;

use crate::connection::{self, Accepted};
use crate::endpoints::{self, EndpointSet, Listed, Service};
use crate::forward::reset;
use crate::redirection;
use crate::telemetry::{Direction, Peer, Server, TcpErrorLabels};
use crate::worker::Worker;

mod guard;
mod original;

pub use guard::{Guard, Refusal};

/// How long a listener rests when the system has no file descriptor or memory for another
/// connection. Default: 50 ms.
pub const EXHAUSTED_PAUSE: Duration = Duration::from_millis(50);

/// What the connections of a listener are meant for.
#[derive(Clone, Debug)]
pub enum Purpose {
    /// Redirected connections to the application: the original destination, guarded.
    Inbound,
    /// Redirected connections of the application: the original destination, guarded.
    Outbound,
    /// Connections to one port of the application (Universal).
    Application { addr: SocketAddr, server: Server },
    /// Connections of the application to one service (Universal).
    Service(Rc<EndpointSet>),
}

impl Purpose {
    fn direction(&self) -> Direction {
        match self {
            Self::Outbound | Self::Service(_) => Direction::Outbound,
            Self::Inbound | Self::Application { .. } => Direction::Inbound,
        }
    }
}

/// Where one connection is meant to go.
#[derive(Clone, Debug)]
pub enum Target {
    /// The application, and the address that the client has dialed.
    Application {
        addr: SocketAddr,
        hop: SocketAddr,
        server: Option<Server>,
    },
    /// Wherever the application was going.
    Address(SocketAddr),
    /// An endpoint of a service, by the port of its listener.
    Service { set: Rc<EndpointSet>, port: u16 },
}

impl Target {
    /// The address that a client of the application has dialed.
    pub fn hop(&self) -> Option<SocketAddr> {
        match self {
            Self::Application { hop, .. } => Some(*hop),
            Self::Address(_) | Self::Service { .. } => None,
        }
    }
}

/// A connection for the metrics endpoint of this process: its original destination is the
/// metrics port in force.
#[derive(Debug)]
pub struct Handoff {
    pub stream: std::net::TcpStream,
    /// The scraper's real address.
    pub peer: SocketAddr,
}

/// A bound listener on its way to a worker's thread, with the purpose of its connections.
#[derive(Debug)]
pub struct Plan {
    pub listener: std::net::TcpListener,
    pub aim: Aim,
}

/// A [`Purpose`] that can still move between threads.
#[derive(Clone, Debug)]
pub enum Aim {
    Inbound,
    Outbound,
    Application {
        addr: SocketAddr,
        server: Server,
    },
    Service {
        name: String,
        endpoints: Vec<Listed>,
    },
}

impl std::fmt::Display for Aim {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Inbound => f.write_str("redirected connections to the pod"),
            Self::Outbound => f.write_str("redirected connections of the pod"),
            Self::Application { addr, .. } => write!(f, "connections to the application at {addr}"),
            Self::Service { name, endpoints } => {
                write!(f, "connections to {name} ({} endpoints)", endpoints.len())
            }
        }
    }
}

impl Plan {
    /// Becomes a listener of this thread's runtime, its endpoints weighed as `config` says.
    pub fn open(self, config: endpoints::Config) -> io::Result<(TcpListener, Purpose)> {
        let purpose = match self.aim {
            Aim::Inbound => Purpose::Inbound,
            Aim::Outbound => Purpose::Outbound,
            Aim::Application { addr, server } => Purpose::Application { addr, server },
            Aim::Service { name, endpoints } => {
                let service = Service {
                    name,
                    endpoints,
                    ..Service::default()
                };
                let set = EndpointSet::new(service, config, fastrand::Rng::new(), Instant::now());
                Purpose::Service(Rc::new(set))
            }
        };
        Ok((TcpListener::from_std(self.listener)?, purpose))
    }
}

/// Accepts until told to stop.
pub async fn listen(
    worker: Rc<Worker>,
    listener: TcpListener,
    purpose: Purpose,
    stop: CancellationToken,
) {
    let mut rested = false;
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = stop.cancelled() => return,
        };
        match accepted {
            Ok((stream, peer)) => {
                rested = false;
                admit(&worker, stream, peer, &purpose);
            }
            // The client gave up while it was queued: accept(2) says to go on.
            Err(error) if is_transient(&error) => {}
            Err(error) => {
                if !std::mem::replace(&mut rested, true) {
                    tracing::warn!(%error, "accepting rests: the system has no room for another connection");
                }
                shed(&worker, &listener, &purpose);
                tokio::time::sleep(EXHAUSTED_PAUSE).await;
            }
        }
    }
}

/// Counts a rest. Where the connections that wait were going is known of a listener that has only one answer to it.
fn shed(worker: &Worker, listener: &TcpListener, purpose: &Purpose) {
    let target_port = match purpose {
        Purpose::Inbound | Purpose::Outbound => 0,
        Purpose::Application { .. } | Purpose::Service(_) => {
            listener.local_addr().map_or(0, |addr| addr.port())
        }
    };
    worker.recorder.tcp_error(&TcpErrorLabels {
        direction: purpose.direction(),
        peer: Peer::Src,
        error: "loadshed",
        target_port,
    });
}

fn is_transient(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::Interrupted
    )
}

fn admit(worker: &Rc<Worker>, stream: TcpStream, peer: SocketAddr, purpose: &Purpose) {
    let target = match purpose {
        Purpose::Application { addr, server } => {
            let local = stream.local_addr().map(original::canonical);
            Target::Application {
                addr: *addr,
                hop: local.unwrap_or(*addr),
                server: Some(server.clone()),
            }
        }
        Purpose::Service(set) => {
            let port = stream.local_addr().map_or(0, |a| a.port());
            Target::Service {
                set: Rc::clone(set),
                port,
            }
        }
        Purpose::Inbound | Purpose::Outbound => match redirected(worker, &stream, purpose) {
            Ok(Meant::Forward(target)) => target,
            Ok(Meant::Metrics) => return hand_off(worker, stream, peer),
            Ok(Meant::Check) => return redirection::answer(&stream),
            Err(refusal) => return refuse(worker, &stream, purpose, refusal),
        },
    };
    let serving = Rc::clone(worker);
    match target {
        Target::Address(to) => worker.spawn(lead(serving, stream, to)),
        target => worker.spawn(connection::serve(serving, Accepted { stream, target })),
    }
}

/// Serves a connection of the application, which may be meant for a service of the cluster.
async fn lead(worker: Rc<Worker>, stream: TcpStream, to: SocketAddr) {
    let found = worker.destinations.find(to).await;
    let target = match found.set {
        None => Target::Address(to),
        Some(set) => Target::Service {
            set,
            port: to.port(),
        },
    };
    connection::serve(worker, Accepted { stream, target }).await;
    drop(found.held);
}

/// Whose a redirected connection is.
enum Meant {
    Forward(Target),
    /// The metrics listener's.
    Metrics,
    /// The proxy's own, which looks whether there is a redirection.
    Check,
}

fn redirected(worker: &Worker, stream: &TcpStream, purpose: &Purpose) -> Result<Meant, Refusal> {
    let original = original::destination(stream)?;
    let guard = &worker.config.guard;
    if matches!(purpose, Purpose::Outbound) {
        if redirection::is_check(original) {
            return Ok(Meant::Check);
        }
        let addr = guard.outbound(original)?;
        return Ok(Meant::Forward(Target::Address(addr)));
    }
    let addr = guard.inbound(original)?;
    if Some(addr.port()) == worker.metrics_port.get() {
        return Ok(Meant::Metrics);
    }
    Ok(Meant::Forward(Target::Application {
        addr,
        hop: original,
        server: None,
    }))
}

fn hand_off(worker: &Worker, stream: TcpStream, peer: SocketAddr) {
    let handed = stream
        .into_std()
        .map(|stream| worker.handoff.try_send(Handoff { stream, peer }));
    if !matches!(handed, Ok(Ok(()))) {
        tracing::warn!(%peer, "the metrics listener has no room for another connection");
    }
}

fn refuse(worker: &Worker, stream: &TcpStream, purpose: &Purpose, refusal: Refusal) {
    tracing::debug!(%refusal, "refused");
    worker.recorder.tcp_error(&TcpErrorLabels {
        direction: purpose.direction(),
        peer: Peer::Src,
        error: "unexpected",
        target_port: refusal.port(),
    });
    reset(stream);
}
