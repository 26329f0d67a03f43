//! Forwarding: dial the destination, then move bytes both ways.
//!
//! `connection` calls it with an endpoint that was already chosen. It must not know how
//! endpoints are found, and never reads an original destination.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use rustix::io::Errno;
use socket2::{SockRef, TcpKeepalive};
use tokio::net::{TcpSocket, TcpStream};

pub mod relay;

/// How the proxy dials.
#[derive(Clone, Copy, Debug)]
pub struct Config {
    /// Longest time for a TCP connection to be accepted. Default: 10 s, long enough for
    /// three retransmitted SYNs; the client sees 504 or a reset after it.
    pub connect_timeout: Duration,
    /// Silence after which a peer is probed (SO_KEEPALIVE), so that a peer that vanished
    /// does not pin a connection for ever. Default: 60 s.
    pub keepalive: Duration,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            connect_timeout: Duration::from_secs(10),
            keepalive: Duration::from_secs(60),
        }
    }
}

/// Why no connection could be made.
#[derive(Debug, thiserror::Error)]
pub enum DialError {
    #[error("connecting to {0}: {1}")]
    Connect(SocketAddr, #[source] io::Error),
    #[error("connecting to {0}: not accepted within {1:?}")]
    Timeout(SocketAddr, Duration),
}

impl DialError {
    /// The `error` label of `*_tcp_errors_total`.
    pub fn class(&self) -> &'static str {
        match self {
            Self::Connect(_, e) if e.kind() == io::ErrorKind::TimedOut => "connect timeout",
            Self::Connect(..) => "connect",
            Self::Timeout(..) => "connect timeout",
        }
    }

    /// Whether the time ran out.
    pub fn is_timeout(&self) -> bool {
        self.class() == "connect timeout"
    }
}

impl From<DialError> for io::Error {
    fn from(error: DialError) -> Self {
        match error {
            DialError::Connect(_, cause) => cause,
            DialError::Timeout(..) => Errno::TIMEDOUT.into(),
        }
    }
}

/// Opens a connection to `to`.
pub async fn dial(to: SocketAddr, config: &Config) -> Result<TcpStream, DialError> {
    let socket = if to.is_ipv4() {
        TcpSocket::new_v4()
    } else {
        TcpSocket::new_v6()
    };
    let connect = async { socket?.connect(to).await };
    match tokio::time::timeout(config.connect_timeout, connect).await {
        Err(_) => Err(DialError::Timeout(to, config.connect_timeout)),
        Ok(Err(e)) => Err(DialError::Connect(to, e)),
        Ok(Ok(stream)) => {
            tune(&stream, config);
            Ok(stream)
        }
    }
}

/// Sets what every socket of the proxy has. A socket that refuses is used as it is:
/// the peer may already be gone, and reading will say so.
pub fn tune(stream: &TcpStream, config: &Config) {
    let socket = SockRef::from(stream);
    let keepalive = TcpKeepalive::new().with_time(config.keepalive);
    if let Err(error) = socket
        .set_tcp_nodelay(true)
        .and_then(|()| socket.set_tcp_keepalive(&keepalive))
    {
        tracing::debug!(%error, "socket options");
    }
}

/// Ends a connection with a reset instead of a close, as its other side was.
pub fn reset(stream: &TcpStream) {
    if let Err(error) = SockRef::from(stream).set_linger(Some(Duration::ZERO)) {
        tracing::debug!(%error, "reset");
    }
}
