//! Forwarding: connect to the destination, then move bytes both ways.
//!
//! `connection` calls it with an address or a set of endpoints. It must not know how
//! endpoints are found, and never reads an original destination.

use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use rustix::io::Errno;
use socket2::{SockRef, TcpKeepalive};
use tokio::net::{TcpSocket, TcpStream};

use crate::http1::reply::Reply;
use crate::stream::HandshakeError;

mod connect;
mod dialer;
pub mod relay;

pub use connect::{Connected, Destination, Failed, connect, search};
pub use dialer::Dialer;

/// How the proxy dials.
#[derive(Clone, Copy, Debug)]
pub struct Config {
    /// Longest time for a TCP connection to be accepted. Default: 10 s, long enough for
    /// three retransmitted SYNs; the client sees 504 or a reset after it.
    pub connect_timeout: Duration,
    /// Longest time for one endpoint to accept while there are others to try; all of them
    /// share `connect_timeout`, and the last has what remains of it. Default: 1 s, the time
    /// after which a lost SYN is sent again.
    pub attempt_timeout: Duration,
    /// Silence after which a peer is probed (SO_KEEPALIVE), so that a peer that vanished
    /// does not pin a connection for ever. Default: 60 s.
    pub keepalive: Duration,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            connect_timeout: Duration::from_secs(10),
            attempt_timeout: Duration::from_secs(1),
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
    #[error("no endpoint of {0:?} is known")]
    NoEndpoint(Rc<str>),
    #[error("no socket: {0}")]
    Socket(#[source] io::Error),
    #[error("{0}: {1}")]
    Handshake(SocketAddr, #[source] HandshakeError),
    #[error("{0} is to be reached with mesh TLS, and the proxy has no certificate yet")]
    NoIdentity(SocketAddr),
}

impl DialError {
    /// The `error` label of `*_tcp_errors_total`.
    pub fn class(&self) -> &'static str {
        match self {
            Self::Connect(_, e) if e.kind() == io::ErrorKind::TimedOut => "connect timeout",
            Self::Socket(error) if is_want(error) => "loadshed",
            Self::Connect(..) | Self::NoEndpoint(_) | Self::Socket(_) => "connect",
            Self::Timeout(..) => "connect timeout",
            Self::Handshake(_, error) => error.class(),
            Self::NoIdentity(_) => "identity required",
        }
    }

    /// Whether the time ran out.
    pub fn is_timeout(&self) -> bool {
        self.class() == "connect timeout"
    }

    /// What a client of HTTP is told.
    pub fn reply(&self) -> Reply {
        match self.class() {
            "connect timeout" => Reply::Timeout,
            "loadshed" => Reply::Overloaded,
            _ => Reply::Connect,
        }
    }

    /// Whether the endpoint is to blame, and not the want of ports or descriptors on our side.
    pub fn is_of_endpoint(&self) -> bool {
        match self {
            Self::Connect(_, cause) => !matches!(
                cause.kind(),
                io::ErrorKind::AddrNotAvailable
                    | io::ErrorKind::OutOfMemory
                    | io::ErrorKind::PermissionDenied
            ),
            Self::Timeout(..) | Self::Handshake(..) => true,
            Self::NoEndpoint(_) | Self::Socket(_) | Self::NoIdentity(_) => false,
        }
    }
}

/// Whether the system has no room for another socket.
fn is_want(error: &io::Error) -> bool {
    let wants = [Errno::MFILE, Errno::NFILE, Errno::NOBUFS, Errno::NOMEM];
    Errno::from_io_error(error).is_some_and(|errno| wants.contains(&errno))
}

impl From<DialError> for io::Error {
    fn from(error: DialError) -> Self {
        match error {
            DialError::Connect(_, cause) | DialError::Socket(cause) => cause,
            DialError::Timeout(..) => Errno::TIMEDOUT.into(),
            DialError::NoEndpoint(_) => io::ErrorKind::AddrNotAvailable.into(),
            DialError::Handshake(_, HandshakeError::Broken(cause)) => cause,
            DialError::Handshake(..) | DialError::NoIdentity(_) => Errno::CONNREFUSED.into(),
        }
    }
}

/// Opens a connection to `to`, within this time.
pub async fn dial(
    to: SocketAddr,
    limit: Duration,
    config: &Config,
) -> Result<TcpStream, DialError> {
    let socket = if to.is_ipv4() {
        TcpSocket::new_v4()
    } else {
        TcpSocket::new_v6()
    };
    let socket = socket.map_err(DialError::Socket)?;
    match tokio::time::timeout(limit, socket.connect(to)).await {
        Err(_) => Err(DialError::Timeout(to, limit)),
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_want_of_descriptors_is_no_fault_of_the_endpoint() {
        for (errno, class, reply) in [
            (Errno::MFILE, "loadshed", Reply::Overloaded),
            (Errno::NFILE, "loadshed", Reply::Overloaded),
            (Errno::NOBUFS, "loadshed", Reply::Overloaded),
            (Errno::NOMEM, "loadshed", Reply::Overloaded),
            // There is no IPv6 on this machine.
            (Errno::AFNOSUPPORT, "connect", Reply::Connect),
        ] {
            let error = DialError::Socket(errno.into());
            assert_eq!(
                (error.class(), error.reply(), error.is_of_endpoint()),
                (class, reply, false),
                "{error}"
            );
        }
    }
}
