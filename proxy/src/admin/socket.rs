//! A client's connection to an admin port: plain, or with the mesh's TLS, which is known by its first byte. Made by
//! `server`; what is served there sees who the client is. It knows no HTTP.

use super::Limits;
use crate::identity::{self, Identity, IdentityError};
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_util::either::Either;

/// The first byte of a TLS record with a handshake (RFC 8446 section 5.1), and of no request.
const HANDSHAKE: u8 = 22;

/// The identity in force; `None` where nobody keeps one, and TLS is not spoken.
pub(super) type Identities = Option<watch::Receiver<Option<Arc<Identity>>>>;

/// Who asks.
#[derive(Debug, Clone)]
pub(super) struct Client {
    pub(super) addr: SocketAddr,
    /// What its certificate says, where it came by the mesh's TLS.
    pub(super) peer: Option<identity::Peer>,
}

/// Why a connection is not served.
#[derive(Debug, thiserror::Error)]
pub(super) enum EnterError {
    #[error("it has said nothing, or not finished its TLS handshake, in time")]
    Late,
    #[error("it begins TLS, and the proxy has no certificate")]
    NoIdentity,
    #[error("TLS handshake: {0}")]
    Handshake(#[source] io::Error),
    #[error(transparent)]
    Identity(#[from] IdentityError),
    #[error(transparent)]
    Broken(#[from] io::Error),
}

/// Plain, or with the mesh's TLS. The data path's own stream is one worker's alone; this one moves with its task, and is
/// too seldom used for its buffers to matter.
pub(super) type Socket = Either<TcpStream, Box<TlsStream<TcpStream>>>;

/// Looks at the first byte, and terminates TLS where it begins that.
///
/// # Errors
/// When the client says nothing, or is nobody of the mesh.
pub(super) async fn enter(
    (stream, addr): (TcpStream, SocketAddr),
    identities: &Identities,
    limits: &Limits,
) -> Result<(Socket, Client), EnterError> {
    let mut first = [0];
    let peeked = timeout(limits.idle_timeout, stream.peek(&mut first)).await;
    let n = peeked.map_err(|_| EnterError::Late)??;
    if n == 0 || first != [HANDSHAKE] {
        return Ok((Either::Left(stream), Client { addr, peer: None }));
    }
    let identity = identities.as_ref().and_then(|kept| kept.borrow().clone());
    let identity = identity.ok_or(EnterError::NoIdentity)?;
    let accepting = TlsAcceptor::from(Arc::clone(identity.server())).accept(stream);
    let accepted = timeout(limits.head_timeout, accepting).await;
    let secured = accepted.map_err(|_| EnterError::Late)?;
    let secured = secured.map_err(EnterError::Handshake)?;
    let peer = Some(identity.client_of(secured.get_ref().1)?);
    Ok((Either::Right(Box::new(secured)), Client { addr, peer }))
}
