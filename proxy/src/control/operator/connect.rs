//! One attempt to connect to the operator: its name is resolved, its addresses are tried in a random order, so that
//! proxies spread over its replicas, and the first that speaks HTTP/2 is taken. Called by `keep` alone.

use std::io;
use std::net::SocketAddr;

use bytes::Bytes;
use h2::client::{Builder, Connection, SendRequest};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use super::Config;

/// Bytes that one stream may send ahead of what was read of it.
const STREAM_WINDOW: u32 = 256 * 1024;
/// As much for all of them.
const CONNECTION_WINDOW: u32 = 1024 * 1024;
/// Largest list of header fields that is taken (RFC 9113 section 10.5.1).
const MAX_HEADER_LIST: u32 = 16 * 1024;

/// A connection to an operator: in plain text, or secured.
pub(super) trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<S: AsyncRead + AsyncWrite + Send + Unpin> Stream for S {}

pub(super) type Link = Connection<Box<dyn Stream>, Bytes>;

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub(super) enum ConnectError {
    #[error("{0} has no address: {1}")]
    Name(String, io::Error),
    #[error("connecting to {0}: {1}")]
    Connect(SocketAddr, io::Error),
    #[error("{0} does not speak HTTP/2: {1}")]
    Greeting(SocketAddr, h2::Error),
    #[error("connecting took longer than it may")]
    Timeout,
}

/// Connects to whichever of the operator's addresses takes it first.
///
/// # Errors
/// That of the last address.
pub(super) async fn connect(config: &Config) -> Result<(SendRequest<Bytes>, Link), ConnectError> {
    let target = &config.target;
    let name = (target.host.as_str(), target.port);
    let unknown = |error| ConnectError::Name(target.addr(), error);
    let resolved = timeout(config.connect_timeout, tokio::net::lookup_host(name));
    let resolved = resolved.await.map_err(|_| ConnectError::Timeout)?;
    let mut addrs: Vec<_> = resolved.map_err(unknown)?.collect();
    fastrand::shuffle(&mut addrs);
    let mut last = unknown(io::ErrorKind::NotFound.into());
    for addr in addrs {
        match timeout(config.connect_timeout, connect_to(addr, config)).await {
            Ok(Ok(connected)) => return Ok(connected),
            Ok(Err(error)) => last = error,
            Err(_) => last = ConnectError::Timeout,
        }
    }
    Err(last)
}

async fn connect_to(
    addr: SocketAddr,
    config: &Config,
) -> Result<(SendRequest<Bytes>, Link), ConnectError> {
    let failed = |error| ConnectError::Connect(addr, error);
    let tcp = TcpStream::connect(addr).await.map_err(failed)?;
    tcp.set_nodelay(true).map_err(failed)?;
    let stream: Box<dyn Stream> = match &config.target.tls {
        None => Box::new(tcp),
        Some(tls) => {
            let connector = TlsConnector::from(tls.config.clone());
            let secured = connector.connect(tls.name.clone(), tcp).await;
            Box::new(secured.map_err(failed)?)
        }
    };
    let mut builder = Builder::new();
    builder
        .enable_push(false)
        .initial_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_header_list_size(MAX_HEADER_LIST);
    let greeted = builder.handshake(stream).await;
    greeted.map_err(|error| ConnectError::Greeting(addr, error))
}
