//! The first stage of a connection to the application in a mesh with mutual TLS: is it the mesh's TLS, somebody else's,
//! or none? The mesh's is terminated here; in a STRICT mesh nothing else goes on. Nothing is dialed yet, so no byte of a
//! server is written before a client that may still begin TLS has had the time to.

use std::io;
use std::sync::Arc;

use tokio::net::TcpStream;
use tokio::time::{Instant, timeout, timeout_at};
use weir_crds::identity::is_workload_name;
use weir_crds::settings::MtlsMode;

use super::Worker;
use crate::buffer::Flow;
use crate::detect::hello::{Hello, hello};
use crate::detect::rtt::round_trip;
use crate::forward::reset;
use crate::identity::{Identity, Peer};
use crate::record::Book;
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
    #[error("this is for a proxy of the mesh, which has no certificate yet")]
    NoIdentity,
    #[error(transparent)]
    Handshake(#[from] HandshakeError),
}

impl Stopped {
    /// The `error` label of `inbound_tcp_errors_total`; none for a client that has left.
    fn class(&self) -> Option<&'static str> {
        match self {
            Self::Closed | Self::Failed(_) => None,
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
    /// TLS for another server.
    Foreign(String),
    Plain,
}

impl Entered {
    /// A connection at which nobody has to look.
    pub(super) fn plain(socket: TcpStream) -> Self {
        Self {
            stream: Stream::Plain(socket),
            first: Flow::default(),
            tls: None,
            peer: None,
        }
    }
}

/// Finds out what a connection is. One that does not go on is counted as `book` says, and ended.
pub(super) async fn enter(worker: &Worker, book: &Book, socket: TcpStream) -> Option<Entered> {
    let began = std::time::Instant::now();
    let (mut socket, mut first) = (socket, Flow::default());
    let client = socket.peer_addr().ok();
    let client = client.map(|client| (client.ip(), book.target_port));
    let is_known = client.is_some_and(|client| worker.patience.borrow().contains(client));
    let stopped = match look(worker, (&mut socket, &mut first), is_known).await {
        Ok(Seen::Mesh(identity)) => match secure(worker, (socket, first), &identity).await {
            Ok(entered) => {
                if let Some(client) = client {
                    worker.patience.borrow_mut().learn(client);
                }
                return Some(entered);
            }
            Err(error) => (error, None, 0),
        },
        Ok(Seen::Foreign(sni)) => {
            let tls = Some(Tls::Opaque { sni: sni.into() });
            let plain = Entered::plain(socket);
            return Some(Entered {
                first,
                tls,
                ..plain
            });
        }
        Ok(Seen::Plain) => {
            let plain = Entered::plain(socket);
            return Some(Entered { first, ..plain });
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
    })
}

/// Reads until it is clear what the client speaks, or that it waits for the server.
async fn look(
    worker: &Worker,
    (socket, first): (&mut TcpStream, &mut Flow),
    is_known: bool,
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
            Ok(seen)
        }
    };
    if !is_strict && is_silent(worker, (socket, first), is_known).await? {
        return Ok(Seen::Plain);
    }
    let deadline = Instant::now() + worker.config.detect.timeout;
    loop {
        match hello(first.pending()) {
            Hello::Plain => return unsecured(Seen::Plain),
            Hello::Tls { sni } => {
                return match own(worker, socket, (&sni, deadline)).await? {
                    Some(identity) => Ok(Seen::Mesh(identity)),
                    None => unsecured(Seen::Foreign(sni)),
                };
            }
            Hello::NeedMore => {}
        }
        let read = timeout_at(deadline, first.read(socket, &worker.pool)).await;
        match read.map_err(|_| Stopped::Late)?? {
            0 if is_strict => return Err(Stopped::Closed),
            // The application is to learn of an end, as of everything else.
            0 => return Ok(Seen::Plain),
            _ => {}
        }
    }
}

/// The identity that a ClientHello is for, where it is this proxy's. Discovery tells of a name before its proxy has the
/// certificate: where there is none yet, a name that proxies have, or this one will have, waits for it, because nobody
/// else can answer. It waits for as long as its client does, and none is needed once the mesh has no TLS.
async fn own(
    worker: &Worker,
    socket: &TcpStream,
    (sni, deadline): (&str, Instant),
) -> Result<Option<Arc<Identity>>, Stopped> {
    let mesh = &worker.dialer.mesh;
    let identity = match mesh.identity() {
        None if is_workload_name(sni) || mesh.expects(sni) => {
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

/// Waits for a client's first bytes, for as long as they may take that are sent at once. Answers whether it waits for
/// the server, or has closed.
async fn is_silent(
    worker: &Worker,
    (socket, first): (&mut TcpStream, &mut Flow),
    is_known: bool,
) -> io::Result<bool> {
    let config = &worker.config.detect;
    let began = Instant::now();
    let silence = if is_known {
        config.tls_patience
    } else {
        config.tls_silence
    };
    if let Ok(read) = timeout(silence, first.read(socket, &worker.pool)).await {
        return Ok(read? == 0);
    }
    let rtt = round_trip(socket).unwrap_or(config.assumed_rtt);
    match timeout_at(began + 3 * rtt, first.read(socket, &worker.pool)).await {
        Ok(read) => Ok(read? == 0),
        Err(_silence) => Ok(true),
    }
}
