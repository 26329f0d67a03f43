//! Binds and accepts for the admin server's two listeners; used by `admin` and `endpoint`, which know what is
//! served there.

use socket2::{Domain, Protocol, Socket, Type};
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::time::sleep;
use tracing::warn;

/// Connections the kernel may hold while they wait to be accepted.
const BACKLOG: i32 = 128;
/// Pause after a failed accept (no descriptors left, mostly), so that the loop does not spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Listens at `address`. `[::]` means both families, and IPv4 alone where the host has no IPv6.
pub(super) fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    let bound = bind_one(address);
    if address.is_ipv6() && address.ip().is_unspecified() {
        return bound.or_else(|error| match error.raw_os_error() {
            Some(code) if lacks_ipv6(code) => {
                bind_one((Ipv4Addr::UNSPECIFIED, address.port()).into())
            }
            _ => Err(error),
        });
    }
    bound
}

/// EADDRNOTAVAIL and EAFNOSUPPORT of Linux.
fn lacks_ipv6(code: i32) -> bool {
    matches!(code, 97 | 99)
}

fn bind_one(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(
        Domain::for_address(address),
        Type::STREAM.nonblocking().cloexec(),
        Some(Protocol::TCP),
    )?;
    socket.set_reuse_address(true)?;
    if address.is_ipv6() {
        socket.set_only_v6(!address.ip().is_unspecified())?;
    }
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    TcpListener::from_std(socket.into())
}

/// The next connection; its peer's address is IPv4 where IPv4 was spoken.
pub(super) async fn accept(listener: &TcpListener) -> (TcpStream, SocketAddr) {
    loop {
        match listener.accept().await {
            Ok((stream, peer)) => {
                return (
                    stream,
                    SocketAddr::new(peer.ip().to_canonical(), peer.port()),
                );
            }
            Err(error) => {
                warn!(%error, "cannot accept an admin connection");
                sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}
