//! The original destination of a redirected connection (SO_ORIGINAL_DST, ip(7);
//! IP6T_SO_ORIGINAL_DST), as connection tracking keeps it.

use std::net::SocketAddr;

use socket2::SockRef;
use tokio::net::TcpStream;

use super::Refusal;

/// Where the client was going before it was redirected. IPv4 clients of a dual-stack
/// listener are asked for as IPv4.
pub(super) fn destination(stream: &TcpStream) -> Result<SocketAddr, Refusal> {
    let local = stream.local_addr().map_err(|_| Refusal::Gone)?;
    let socket = SockRef::from(stream);
    let original = match local.ip().to_canonical() {
        std::net::IpAddr::V4(_) => socket.original_dst_v4(),
        std::net::IpAddr::V6(_) => socket.original_dst_v6(),
    };
    original
        .ok()
        .and_then(|a| a.as_socket())
        .map(canonical)
        .ok_or(Refusal::NotRedirected(canonical(local)))
}

/// An IPv4 address that came mapped into IPv6, as IPv4.
pub(super) fn canonical(addr: SocketAddr) -> SocketAddr {
    SocketAddr::new(addr.ip().to_canonical(), addr.port())
}
