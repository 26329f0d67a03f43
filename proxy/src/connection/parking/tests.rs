//! Servers that nobody asks for again, on sockets of loopback. The clock is the test's.

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;

use weir_crds::settings::MtlsMode;

use super::*;
use crate::endpoints::{self, Listed};
use crate::record::{Book, Labels, Subject};
use crate::stream::Stream;
use crate::telemetry::{self, Dst, NoTlsReason, Selection, Telemetry};

struct Bench {
    home: Rc<EndpointSet>,
    mesh: Mesh,
    book: Book,
    telemetry: Telemetry,
    listener: TcpListener,
}

fn listed(addr: SocketAddr, identity: Option<&str>) -> Listed {
    Listed {
        identity: identity.map(Arc::from),
        ..Listed::plain(addr, Dst::unknown())
    }
}

/// A service with one endpoint, which has a name in the mesh.
fn bench() -> Bench {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let addr = listener.local_addr().expect("an address");
    let service = endpoints::Service {
        endpoints: vec![listed(addr, Some("a.mesh"))],
        ..endpoints::Service::default()
    };
    let (config, random) = (endpoints::Config::default(), fastrand::Rng::with_seed(7));
    let home = EndpointSet::new(service, config, random, std::time::Instant::now());
    let (telemetry, mut seats) = telemetry::new(telemetry::Config::default(), 1);
    let labels = Rc::new(Labels::new("all-unauthenticated"));
    let book = Book {
        recorder: Rc::new(seats.remove(0).take()),
        subject: Subject::Outbound {
            service: Rc::clone(&home.name),
            dst: labels.unknown_destination(),
        },
        labels,
        target_port: 80,
        standing: Default::default(),
    };
    Bench {
        home: Rc::new(home),
        mesh: Mesh::new(Vec::new()),
        book,
        telemetry,
        listener,
    }
}

impl Bench {
    /// A server that was left in plaintext, and its other end.
    fn server(&self) -> ((Idle, Tls), TcpStream) {
        let addr = self.listener.local_addr().expect("an address");
        let socket = TcpStream::connect(addr).expect("connected");
        let (peer, _) = self.listener.accept().expect("accepted");
        socket.set_nonblocking(true).expect("a socket option");
        let socket = tokio::net::TcpStream::from_std(socket).expect("a socket");
        let now = std::time::Instant::now();
        let idle = Idle {
            stream: Stream::Plain(socket),
            claim: self.home.choose(now),
            dialed: self.book.dialed(now),
        };
        let reason = NoTlsReason::NotProvidedByServiceDiscovery;
        ((idle, Tls::NoIdentity(reason)), peer)
    }

    fn parking(&self) -> Parking<'_> {
        Parking::new((&self.home, &self.mesh), Duration::from_secs(60))
    }

    fn open(&self) -> usize {
        let mut text = Vec::new();
        let exposed = self.telemetry.expose(&Selection::default(), &mut text);
        exposed.expect("a vector takes all");
        let text = String::from_utf8(text).expect("text");
        let mut lines = text.lines();
        let open = lines.find(|line| line.starts_with("tcp_open_connections{"));
        let value = open.and_then(|line| line.rsplit_once(' ')?.1.parse().ok());
        value.expect("a sample")
    }
}

fn seconds(n: u64) -> impl Future<Output = ()> {
    tokio::time::sleep(Duration::from_secs(n))
}

#[tokio::test(start_paused = true)]
async fn one_that_nobody_needs_is_kept_for_a_while() {
    let bench = bench();
    let (server, _peer) = bench.server();
    let mut parking = bench.parking();
    parking.park(None, server);
    parking.watch(seconds(59)).await;
    assert_eq!(bench.open(), 1);
    parking.watch(seconds(7)).await;
    assert_eq!(bench.open(), 0);
    assert!(parking.take(None).is_none());
}

#[tokio::test(start_paused = true)]
async fn one_that_has_closed_is_closed_too_while_its_client_is_served() {
    let bench = bench();
    let ((gone, peer), (good, _peer)) = (bench.server(), bench.server());
    let mut parking = bench.parking();
    parking.park(None, gone);
    parking.park(None, good);
    drop(peer);
    parking.watch(seconds(6)).await;
    assert_eq!(bench.open(), 1);
    assert!(parking.take(None).is_some());
}

#[tokio::test(start_paused = true)]
async fn one_that_has_left_its_service_is_closed() {
    let bench = bench();
    let addr = bench.listener.local_addr().expect("an address");
    let other = ([127, 0, 0, 1], 1).into();
    // The same address under another name is another endpoint.
    for left in [listed(other, None), listed(addr, Some("b.mesh"))] {
        bench
            .home
            .replace(&[listed(addr, Some("a.mesh"))], std::time::Instant::now());
        let (server, _peer) = bench.server();
        let mut parking = bench.parking();
        parking.park(None, server);
        bench.home.replace(&[left], std::time::Instant::now());
        parking.watch(seconds(6)).await;
        assert_eq!(bench.open(), 0);
    }
}

#[tokio::test(start_paused = true)]
async fn one_in_plaintext_is_not_used_once_the_mesh_asks_for_tls() {
    let bench = bench();
    let (server, _peer) = bench.server();
    let mut parking = bench.parking();
    parking.park(None, server);
    bench.mesh.set(MtlsMode::Strict, None);
    assert!(parking.take(None).is_none());
    assert_eq!(bench.open(), 0);
}
