//! Free ports for programs that have to be told where to listen. The demo looks in the same range; the tests of other
//! crates have this file among theirs. Knows nothing of who listens there.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::ops::Range;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

/// Where free ports are looked for: below those that the system gives out by itself, so that nobody gets one of them
/// between here and the program's start, and below Kubernetes' node ports.
pub(crate) const RANGE: Range<u16> = 10_000..30_000;

/// A port of loopback that was free a moment ago, another one each time: two tests of one process never get the same.
///
/// # Panics
/// When no port of the range is free.
#[allow(
    unreachable_pub,
    reason = "the tests that have this file among them publish nothing"
)]
pub fn free() -> SocketAddr {
    static FIRST: OnceLock<u32> = OnceLock::new();
    static GIVEN: AtomicU32 = AtomicU32::new(0);
    // Another process begins elsewhere.
    let first = *FIRST.get_or_init(|| std::process::id().wrapping_mul(101));
    for _ in RANGE {
        let place = first.wrapping_add(GIVEN.fetch_add(1, Ordering::Relaxed));
        let offset = place % u32::try_from(RANGE.len()).expect("20,000");
        let port = RANGE.start + u16::try_from(offset).expect("within the range");
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port));
        if let Ok(addr) = listener.and_then(|listener| listener.local_addr()) {
            return addr;
        }
    }
    panic!("no port is free from {} to {}", RANGE.start, RANGE.end);
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn a_port_is_given_once() {
        let ports: HashSet<SocketAddr> = (0..200).map(|_| free()).collect();
        assert_eq!(ports.len(), 200);
    }
}
