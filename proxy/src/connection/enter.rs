//! The first stage of a connection to the application in a mesh with mutual TLS: is it the mesh's TLS, somebody else's,
//! or none? The mesh's is terminated here; in a STRICT mesh nothing else goes on. Nothing is dialed yet, so no byte of a
//! server is written before a client that may still begin TLS has had the time to.

use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::time::{Instant, timeout, timeout_at};
use weir_crds::identity::is_workload_name;
use weir_crds::settings::MtlsMode;

use super::{Routed, Worker, pass};
use crate::buffer::Flow;
use crate::detect::Verdict;
use crate::detect::hello::{Hello, hello};
use crate::detect::learned::{Client, Habit};
use crate::detect::rtt::round_trip;
use crate::detect::wait::Detected;
use crate::forward::{Connected, Destination, Failed, reset};
use crate::identity::{Identity, Peer};
use crate::record::{Book, Standing};
use crate::stream::{HandshakeError, Stream};
use crate::telemetry::{self, Tls};

/// A connection of which it is known whether it is secured.
pub(super) struct Entered {
    pub(super) stream: Stream,
    /// What was read of it, and is not counted yet.
    pub(super) first: Flow,
    /// None where nobody looked, and where it is plaintext.
    pub(super) tls: Option<Tls>,
    /// Who the client is, where it has shown a certificate of the mesh.
    pub(super) peer: Option<Peer>,
    /// It is believed to be plaintext because it has said nothing for so long.
    pub(super) was_silent: bool,
}

/// Why a connection does not go on.
#[derive(Debug, thiserror::Error)]
enum Stopped {
    #[error("the client has closed")]
    Closed,
    #[error("the client has failed: {0}")]
    Failed(#[from] io::Error),
    #[error("a ClientHello did not come in time, or not all of it")]
    Late,
    #[error("the mesh is STRICT, and this is not its TLS")]
    NotSecured,
    #[error("this is for a proxy of the mesh, which has no certificate")]
    NoIdentity,
    #[error(transparent)]
    Handshake(#[from] HandshakeError),
}

impl Stopped {
    /// The `error` label of `inbound_tcp_errors_total`; none for a client that has left.
    fn class(&self) -> Option<&'static str> {
        match self {
            Self::Closed | Self::Failed(_) | Self::Handshake(HandshakeError::Broken(_)) => None,
            Self::Late => Some("tls detection timeout"),
            Self::NotSecured | Self::NoIdentity => Some("identity required"),
            Self::Handshake(error) => Some(error.class()),
        }
    }
}

/// What a client's first bytes showed.
enum Seen {
    /// The mesh's TLS, for this proxy.
    Mesh(Arc<Identity>),
    Unsecured(Unsecured),
}

/// What no proxy of the mesh has secured.
enum Unsecured {
    /// TLS for another server.
    Foreign(String),
    Plain,
    /// Nothing, for as long as the client is waited for.
    Silence,
}

impl Entered {
    /// A connection at which nobody has to look.
    pub(super) fn plain(socket: TcpStream) -> Self {
        Self {
            stream: Stream::Plain(socket),
            first: Flow::default(),
            tls: None,
            peer: None,
            was_silent: false,
        }
    }
}

/// Finds out what a connection is. One that does not go on is counted as `book` says, and ended.
pub(super) async fn enter(
    worker: &Worker,
    book: &Book,
    (mut socket, mut first): (TcpStream, Flow),
) -> Option<Entered> {
    let began = std::time::Instant::now();
    let client = socket.peer_addr().ok();
    let client = client.map(|client| (client.ip(), book.target_port));
    let silence = silence(worker, client);
    let stopped = match look(worker, (&mut socket, &mut first), silence).await {
        Ok(Seen::Mesh(identity)) => match secure(worker, (socket, first), &identity).await {
            Ok(entered) => {
                if let Some(client) = client {
                    worker.habits.borrow_mut().has_secured(client);
                }
                return Some(entered);
            }
            Err(error) => (error, None, 0),
        },
        Ok(Seen::Unsecured(what)) => {
            let (tls, was_silent) = match what {
                Unsecured::Foreign(sni) => (Some(Tls::Opaque { sni: sni.into() }), false),
                Unsecured::Plain => (None, false),
                Unsecured::Silence => (None, true),
            };
            if let Some(client) = client.filter(|_| was_silent) {
                worker.habits.borrow_mut().has_waited(client);
            }
            let plain = Entered::plain(socket);
            return Some(Entered {
                first,
                tls,
                was_silent,
                ..plain
            });
        }
        Err(stopped) => {
            let read = first.pending().len();
            first.clear();
            first.release(&worker.pool);
            (stopped, Some(socket), read)
        }
    };
    let (stopped, socket, read) = stopped;
    tracing::debug!(error = %stopped, "a connection is not let in");
    let accepted = book.accepted(began);
    accepted.read(read);
    if let Some(class) = stopped.class() {
        book.tcp_error(telemetry::Peer::Src, class);
        if let Some(socket) = &socket {
            reset(socket);
        }
    }
    let error = match stopped {
        Stopped::Closed => None,
        Stopped::Failed(error) | Stopped::Handshake(HandshakeError::Broken(error)) => Some(error),
        refused => Some(io::Error::other(refused)),
    };
    accepted.close(error.as_ref());
    None
}

/// Terminates the mesh's TLS.
async fn secure(
    worker: &Worker,
    from: (TcpStream, Flow),
    identity: &Identity,
) -> Result<Entered, Stopped> {
    let accepted = Stream::accept(from, identity, &worker.pool);
    let accepted = timeout(worker.config.detect.timeout, accepted).await;
    let (stream, peer) = accepted.map_err(|_| Stopped::Late)??;
    Ok(Entered {
        stream,
        first: Flow::default(),
        tls: Some(Tls::Mutual {
            id: Arc::clone(&peer.name),
        }),
        peer: Some(peer),
        was_silent: false,
    })
}

/// Reads until it is clear what the client speaks, or that it waits for the server.
async fn look(
    worker: &Worker,
    (socket, first): (&mut TcpStream, &mut Flow),
    silence: Duration,
) -> Result<Seen, Stopped> {
    let mesh = &worker.dialer.mesh;
    let is_strict = mesh.mode() == MtlsMode::Strict;
    if is_strict && mesh.identity().is_none() {
        return Err(Stopped::NoIdentity);
    }
    let unsecured = |seen| {
        if is_strict {
            Err(Stopped::NotSecured)
        } else {
            Ok(Seen::Unsecured(seen))
        }
    };
    if !is_strict && first.is_empty() {
        match listen(worker, (socket, first), silence).await? {
            None => return Ok(Seen::Unsecured(Unsecured::Silence)),
            // The application is to learn of an end, as of everything else.
            Some(0) => return Ok(Seen::Unsecured(Unsecured::Plain)),
            Some(_) => {}
        }
    }
    let deadline = Instant::now() + worker.config.detect.timeout;
    loop {
        match hello(first.pending()) {
            Hello::Plain => return unsecured(Unsecured::Plain),
            Hello::Tls { sni } => {
                return match own(worker, socket, (&sni, deadline)).await? {
                    Some(identity) => Ok(Seen::Mesh(identity)),
                    None => unsecured(Unsecured::Foreign(sni)),
                };
            }
            Hello::NeedMore => {}
        }
        let read = timeout_at(deadline, first.read(socket, &worker.pool)).await;
        match read.map_err(|_| Stopped::Late)?? {
            0 if is_strict => return Err(Stopped::Closed),
            0 => return Ok(Seen::Unsecured(Unsecured::Plain)),
            _ => {}
        }
    }
}

/// The identity that a ClientHello is for, where it is this proxy's. Discovery tells of a name before its proxy has the
/// certificate: where there has been none yet, a name that proxies have, or this one will have, waits for it, because
/// nobody else can answer. It waits for as long as its client does, and none is needed once the mesh has no TLS.
async fn own(
    worker: &Worker,
    socket: &TcpStream,
    (sni, deadline): (&str, Instant),
) -> Result<Option<Arc<Identity>>, Stopped> {
    let mesh = &worker.dialer.mesh;
    let identity = match mesh.identity() {
        None if is_workload_name(sni) || mesh.expects(sni) => {
            if !mesh.awaits_first() {
                return Err(Stopped::NoIdentity);
            }
            let certified = timeout_at(deadline, mesh.certified());
            tokio::select! {
                certified = certified => certified.map_err(|_| Stopped::NoIdentity)?,
                () = left(socket) => return Err(Stopped::Closed),
            }
        }
        known => known,
    };
    Ok(identity.filter(|identity| *sni == *identity.name))
}

/// Waits until a client has left that has nothing more to say.
async fn left(socket: &TcpStream) {
    match socket.peek(&mut [0]).await {
        Ok(0) | Err(_) => {}
        Ok(_) => std::future::pending().await,
    }
}

/// How long a client may be silent: a stranger, or one whose habits are known.
fn silence(worker: &Worker, client: Option<Client>) -> Duration {
    let config = &worker.config.detect;
    match client.and_then(|client| worker.habits.borrow().of(client)) {
        None => config.stranger_silence,
        Some(Habit::Waits) => config.plain_silence,
        Some(Habit::Secures) => config.tls_patience,
    }
}

/// Waits for a client's first bytes, for as long as they may take that are sent at once. Answers how many there are; none
/// where it waits for the server.
async fn listen(
    worker: &Worker,
    (socket, first): (&mut TcpStream, &mut Flow),
    silence: Duration,
) -> io::Result<Option<usize>> {
    let began = Instant::now();
    if let Ok(read) = timeout(silence, first.read(socket, &worker.pool)).await {
        return read.map(Some);
    }
    let rtt = round_trip(socket).unwrap_or(worker.config.detect.assumed_rtt);
    let read = timeout_at(began + 3 * rtt, first.read(socket, &worker.pool));
    read.await.ok().transpose()
}

/// Whether a client that was believed to wait for its server begins the mesh's TLS, and has not heard a byte of a server.
pub(super) fn is_mesh_hello(worker: &Worker, detected: &Detected) -> bool {
    if detected.server_first || detected.verdict != Verdict::Opaque {
        return false;
    }
    let Hello::Tls { sni } = hello(detected.up.pending()) else {
        return false;
    };
    let mesh = &worker.dialer.mesh;
    mesh.identity().is_some_and(|own| sni == *own.name) || mesh.expects(&sni)
}

/// Takes such a client for what it is. What was counted of it is a connection of its own, to the application as well: that
/// one has heard nothing, and is ended.
pub(super) async fn enter_late(worker: Rc<Worker>, routed: Box<Routed>, detected: Box<Detected>) {
    let hop = routed.hop;
    let (stream, to, book) = retract(*routed, detected.server);
    let Stream::Plain(socket) = stream else {
        return;
    };
    if let Some(entered) = enter(&worker, &book, (socket, detected.up)).await {
        pass(worker, entered, (to, book, hop)).await;
    }
}

/// Closes the accounts of a connection that begins anew.
fn retract(
    routed: Routed,
    server: Option<Result<Connected, Failed>>,
) -> (Stream, Destination, Book) {
    if let Some(Ok(connected)) = server {
        reset(connected.stream.tcp());
    }
    for side in [routed.dialed, Some(routed.accepted)].into_iter().flatten() {
        side.close(None);
    }
    let book = Book {
        standing: Standing::default(),
        ..routed.book
    };
    (routed.stream, routed.to, book)
}
