//! From a socket to one with mesh TLS whose peer is known. A resumed session's chain is judged again, as if it had been
//! shown now: its dates, and by the authorities that are trusted now.

use std::future::poll_fn;
use std::rc::Rc;
use std::sync::Arc;

use rustls::HandshakeKind;
use rustls::client::UnbufferedClientConnection;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::UnbufferedServerConnection;
use tokio::net::TcpStream;

use super::HandshakeError;
use super::records::Records;
use super::secured::{Failure, Secured};
use crate::buffer::{Flow, Pool};
use crate::identity::{Identity, Peer};

pub(super) async fn accept(
    from: (TcpStream, Flow),
    identity: &Identity,
    pool: &Rc<Pool>,
) -> Result<(Secured, Peer), HandshakeError> {
    let server = UnbufferedServerConnection::new(Arc::clone(identity.server()))?;
    let secured = shake(Secured::new(from, Records::Server(server), pool)).await?;
    let peer = identity.client_of(secured.records().state())?;
    Ok((secured, peer))
}

/// Who the other side of an open connection is.
pub(super) fn peer(secured: &Secured) -> Result<Peer, HandshakeError> {
    Ok(Peer::of(&chain(secured)?[0])?)
}

pub(super) async fn connect(
    socket: TcpStream,
    (identity, name): (&Identity, ServerName<'static>),
    pool: &Rc<Pool>,
) -> Result<Secured, HandshakeError> {
    let client = UnbufferedClientConnection::new(Arc::clone(identity.client()), name.clone())?;
    let records = Records::Client(client);
    let secured = shake(Secured::new((socket, Flow::default()), records, pool)).await?;
    let chain = chain(&secured)?;
    if is_resumed(&secured) {
        let trust = identity.trust();
        trust.judge_server(chain, &name, UnixTime::now())?;
    }
    Ok(secured)
}

async fn shake(mut secured: Secured) -> Result<Secured, HandshakeError> {
    let shaken = poll_fn(|cx| secured.poll_handshake(cx)).await;
    shaken.map_err(|failure| match failure {
        Failure::Tls(error) => HandshakeError::Refused(error),
        Failure::Io(error) => HandshakeError::Broken(error),
    })?;
    Ok(secured)
}

fn is_resumed(secured: &Secured) -> bool {
    secured.records().state().handshake_kind() == Some(HandshakeKind::Resumed)
}

/// The peer's chain, which is never empty.
fn chain(secured: &Secured) -> Result<&[CertificateDer<'static>], rustls::Error> {
    let chain = secured.records().state().peer_certificates();
    let chain = chain.filter(|chain| !chain.is_empty());
    chain.ok_or(rustls::Error::NoCertificatesPresented)
}
