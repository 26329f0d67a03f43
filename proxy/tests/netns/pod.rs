//! A pod and its network: two namespaces joined by a veth pair, with listeners that say who
//! answered. Used by the tests of redirection and, with the real proxy, of the data path.

use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use socket2::SockRef;

use crate::namespace::Namespace;

/// How long one connection attempt or answer may take.
pub(crate) const ANSWER_TIMEOUT: Duration = Duration::from_secs(2);

pub(crate) const POD_V4: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 77, 0, 2));
pub(crate) const POD_V6: IpAddr = IpAddr::V6(Ipv6Addr::new(0xfd77, 0, 0, 0, 0, 0, 0, 2));
pub(crate) const PEER_V4: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 77, 0, 1));
pub(crate) const PEER_V6: IpAddr = IpAddr::V6(Ipv6Addr::new(0xfd77, 0, 0, 0, 0, 0, 0, 1));
/// Addresses beyond the pod's link, as a Service or the internet has.
pub(crate) const FAR_V4: IpAddr = IpAddr::V4(Ipv4Addr::new(198, 51, 100, 7));
pub(crate) const FAR_V6: IpAddr = IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 7));

/// `inside` is the pod: `eth0` with one address of each family and default routes to `peer`,
/// which is everything else: clients of the pod and servers it calls.
pub(crate) struct Pod {
    pub(crate) inside: Namespace,
    pub(crate) peer: Namespace,
}

impl Pod {
    pub(crate) fn new() -> Self {
        let (inside, peer) = (Namespace::new(), Namespace::new());
        let path = peer.path();
        inside.exec(&format!(
            "ip link add eth0 type veth peer name eth0 netns {path}"
        ));
        let ends = [(&inside, POD_V4, POD_V6), (&peer, PEER_V4, PEER_V6)];
        for (end, v4, v6) in ends {
            end.exec(&format!("ip addr add {v4}/24 dev eth0"));
            end.exec(&format!("ip addr add {v6}/64 dev eth0 nodad"));
            end.exec("ip link set eth0 up");
        }
        peer.exec(&format!("ip addr add {FAR_V4}/32 dev lo"));
        peer.exec(&format!("ip addr add {FAR_V6}/128 dev lo nodad"));
        inside.exec(&format!("ip route add default via {PEER_V4}"));
        inside.exec(&format!("ip -6 route add default via {PEER_V6}"));
        Self { inside, peer }
    }
}

/// Answers every connection to `address` with `<name> <original destination>`, on a thread that
/// ends with the test process. The bound port is returned.
pub(crate) fn greet(namespace: &Namespace, name: &'static str, address: &str) -> u16 {
    let listener = namespace.enter(|| TcpListener::bind(address));
    let listener = listener.unwrap_or_else(|error| panic!("cannot listen on {address}: {error}"));
    let port = listener.local_addr().expect("it is bound").port();
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let origin = original_destination(&stream);
            let greeting = format!("{name} {origin}\n");
            // The client may be gone already.
            let _written = (&stream).write_all(greeting.as_bytes());
        }
    });
    port
}

/// Where the client meant to go; `direct` where nothing redirected it.
fn original_destination(stream: &TcpStream) -> String {
    let socket = SockRef::from(stream);
    let peer = stream.peer_addr().map(|peer| peer.ip().to_canonical());
    let origin = match peer {
        Ok(IpAddr::V4(_)) => socket.original_dst_v4(),
        Ok(IpAddr::V6(_)) => socket.original_dst_v6(),
        Err(error) => return error.to_string(),
    };
    let local = stream.local_addr().map(canonical);
    match (origin.map(|origin| origin.as_socket()), local) {
        (Ok(Some(origin)), Ok(local)) if origin == local => "direct".to_owned(),
        (Ok(Some(origin)), Ok(_)) => origin.to_string(),
        // No connection tracking at all: nothing is redirected in this namespace.
        (Err(error), _) if error.kind() == io::ErrorKind::NotFound => "direct".to_owned(),
        (origin, local) => format!("{origin:?} {local:?}"),
    }
}

fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

/// The greeting of whoever answers at `to`, asked from `namespace`.
pub(crate) fn ask(namespace: &Namespace, to: (IpAddr, u16)) -> io::Result<String> {
    namespace.enter(|| ask_here(to))
}

/// The same from the calling thread's namespace and user.
pub(crate) fn ask_here(to: (IpAddr, u16)) -> io::Result<String> {
    let mut stream = TcpStream::connect_timeout(&to.into(), ANSWER_TIMEOUT)?;
    stream.set_read_timeout(Some(ANSWER_TIMEOUT))?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer.trim_end().to_owned())
}

/// Calls `check` until it is true; panics with `what` once `within` has passed.
pub(crate) fn eventually(what: &str, within: Duration, mut check: impl FnMut() -> bool) {
    let start = Instant::now();
    while !check() {
        assert!(start.elapsed() < within, "not within {within:?}: {what}");
        thread::sleep(Duration::from_millis(20));
    }
}
