//! The round trip of a connection, as the system has measured it at the latest by its three-way handshake: `tcpi_rtt` of
//! TCP_INFO (tcp(7)), asked for by its addresses over netlink (sock_diag(7)), because no safe interface to the socket
//! option is at hand.
//!
//! `connection` asks it for a client that is silent, which few are. Needs no privilege.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use netlink_sys::protocols::NETLINK_SOCK_DIAG;
use netlink_sys::{Socket, SocketAddr as Kernel};
use tokio::net::TcpStream;

/// `SOCK_DIAG_BY_FAMILY` of linux/sock_diag.h.
const BY_FAMILY: u16 = 20;
/// `NLM_F_REQUEST` of linux/netlink.h: one socket, not a dump.
const REQUEST: u16 = 1;
/// `INET_DIAG_INFO` of linux/inet_diag.h, and the bit that asks for it.
const INFO: u16 = 2;
const WANTS_INFO: u8 = 1 << (INFO - 1);
const TCP: u8 = 6;
const INET: u8 = 2;
const INET6: u8 = 10;
/// Lengths of nlmsghdr, and of inet_diag_msg behind it.
const HEADER: usize = 16;
const MESSAGE: usize = 72;
/// Where tcp_info has the round trip, in microseconds.
const RTT: usize = 68;
/// An answer is some 300 bytes.
const ANSWER: usize = 2048;

/// The smoothed round trip; none where the system does not say.
pub fn round_trip(socket: &TcpStream) -> Option<Duration> {
    let (local, peer) = (socket.local_addr().ok()?, socket.peer_addr().ok()?);
    let mut netlink = Socket::new(NETLINK_SOCK_DIAG).ok()?;
    netlink.set_non_blocking(true).ok()?;
    netlink.bind_auto().ok()?;
    netlink.connect(&Kernel::new(0, 0)).ok()?;
    netlink.send(&request(local, peer), 0).ok()?;
    // The system answers before it comes back from the request.
    let mut answer = Vec::with_capacity(ANSWER);
    netlink.recv(&mut answer, 0).ok()?;
    read(&answer)
}

/// nlmsghdr and inet_diag_req_v2.
fn request(local: SocketAddr, peer: SocketAddr) -> Vec<u8> {
    let family = if local.is_ipv4() { INET } else { INET6 };
    let mut bytes = Vec::with_capacity(HEADER + 56);
    bytes.extend(72u32.to_ne_bytes());
    bytes.extend(BY_FAMILY.to_ne_bytes());
    bytes.extend(REQUEST.to_ne_bytes());
    bytes.extend([0; 8]);
    bytes.extend([family, TCP, WANTS_INFO, 0]);
    // Every state.
    bytes.extend(u32::MAX.to_ne_bytes());
    bytes.extend(local.port().to_be_bytes());
    bytes.extend(peer.port().to_be_bytes());
    for addr in [local.ip(), peer.ip()] {
        match addr {
            IpAddr::V4(addr) => {
                bytes.extend(addr.octets());
                bytes.extend([0; 12]);
            }
            IpAddr::V6(addr) => bytes.extend(addr.octets()),
        }
    }
    // Any interface, and no cookie.
    bytes.extend([0; 4]);
    bytes.extend([0xff; 8]);
    bytes
}

/// The round trip in an answer: inet_diag_msg, and the attributes behind it.
fn read(answer: &[u8]) -> Option<Duration> {
    let kind = answer.get(4..6)?;
    if kind != BY_FAMILY.to_ne_bytes() {
        return None;
    }
    let mut attributes = answer.get(HEADER + MESSAGE..)?;
    loop {
        let len = u16::from_ne_bytes(*attributes.first_chunk()?);
        let kind = u16::from_ne_bytes(*attributes.get(2..)?.first_chunk()?);
        let value = attributes.get(4..usize::from(len))?;
        if kind == INFO {
            let micros = u32::from_ne_bytes(*value.get(RTT..)?.first_chunk()?);
            return (micros > 0).then(|| Duration::from_micros(micros.into()));
        }
        attributes = attributes.get(usize::from(len).next_multiple_of(4)..)?;
    }
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::*;

    #[tokio::test]
    async fn a_round_trip_on_loopback_is_short_and_there_is_one() {
        for any in ["127.0.0.1:0", "[::1]:0"] {
            // A host may be without IPv6.
            let Ok(listener) = TcpListener::bind(any).await else {
                assert!(any.starts_with('['));
                continue;
            };
            let addr = listener.local_addr().unwrap();
            let (client, accepted) = tokio::join!(TcpStream::connect(addr), listener.accept());
            let (client, accepted) = (client.unwrap(), accepted.unwrap().0);
            for socket in [&client, &accepted] {
                let rtt = round_trip(socket).expect("measured");
                assert!(rtt < Duration::from_millis(500), "{rtt:?}");
            }
        }
    }

    #[test]
    fn what_is_not_an_answer_has_no_round_trip() {
        for n in 0..400 {
            assert_eq!(read(&vec![0; n]), None);
            assert_eq!(read(&vec![0xff; n]), None);
            let mut error = vec![0; n];
            if let Some(kind) = error.get_mut(4) {
                *kind = 20;
            }
            assert_eq!(read(&error), None);
        }
    }
}
