//! The pool beside its streams: what it keeps, what it lets go, and when. It is told the time.

use std::future::poll_fn;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::{Duration, Instant};

use tokio::net::TcpListener;
use tokio::task::LocalSet;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::*;
use crate::endpoints::{self, Listed, Service as Described};
use crate::forward;
use crate::mesh::Mesh;
use crate::record::{Labels, Subject};
use crate::telemetry::Dst;
use crate::telemetry::{self, Selection, Telemetry};

mod turns;

/// Longer than anything here takes, however busy the machine is.
const DEADLINE: Duration = Duration::from_secs(10);

struct Bench {
    links: Links,
    set: Rc<EndpointSet>,
    book: Book,
    telemetry: Telemetry,
}

/// An endpoint that takes every request and answers none.
async fn endpoint() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let addr = listener.local_addr().expect("an address");
    tokio::task::spawn_local(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::task::spawn_local(async move {
                let mut connection = h2::server::handshake(stream).await.expect("HTTP/2");
                let mut held = Vec::new();
                while let Some(Ok(asked)) = connection.accept().await {
                    held.push(asked);
                }
            });
        }
    });
    addr
}

fn named(addr: SocketAddr, pod: &str) -> Listed {
    Listed::plain(addr, Dst::new([("pod", pod)]))
}

fn bench(endpoints: Vec<Listed>) -> Bench {
    let (telemetry, mut seats) = telemetry::new(telemetry::Config::default(), 1);
    let labels = Rc::new(Labels::new("all-unauthenticated"));
    let name = "web".to_owned();
    let set = EndpointSet::new(
        Described {
            name,
            endpoints,
            ..Described::default()
        },
        endpoints::Config::default(),
        fastrand::Rng::with_seed(7),
        Instant::now(),
    );
    let book = Book {
        recorder: Rc::new(seats.remove(0).take()),
        subject: Subject::Outbound {
            service: Rc::clone(&set.name),
            dst: labels.unknown_destination(),
        },
        labels,
        target_port: 80,
        standing: Default::default(),
    };
    let links = Links::new(
        Config::default(),
        dialer(),
        TaskTracker::new(),
        CancellationToken::new(),
    );
    Bench {
        links,
        set: Rc::new(set),
        book,
        telemetry,
    }
}

fn dialer() -> Dialer {
    Dialer {
        config: forward::Config::default(),
        mesh: Rc::new(Mesh::new(Vec::new())),
        pool: Rc::default(),
    }
}

impl Bench {
    fn service(&self) -> Rc<Service> {
        self.links.service(&self.set, &self.book)
    }

    /// Connections to endpoints that are open.
    fn open(&self) -> f64 {
        self.sum("tcp_open_connections{")
    }

    /// What the samples that begin like this add up to.
    fn sum(&self, prefix: &str) -> f64 {
        let mut text = Vec::new();
        let exposed = self.telemetry.expose(&Selection::default(), &mut text);
        exposed.expect("a vector takes all");
        let text = String::from_utf8(text).expect("text");
        let lines = text.lines().filter(|line| line.starts_with(prefix));
        let values = lines.filter_map(|line| line.rsplit_once(' ')?.1.parse::<f64>().ok());
        values.sum()
    }

    async fn wait_for(&self, expected: f64) {
        let start = Instant::now();
        while self.open() != expected {
            assert!(start.elapsed() < DEADLINE, "{} are open", self.open());
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }
}

async fn found(service: &Rc<Service>) -> Found {
    match service.find(None).await {
        Ok(found) => found,
        Err(Failed { error, .. }) => panic!("{error}"),
    }
}

#[tokio::test]
async fn a_connection_without_streams_is_closed_in_time_and_not_before() {
    let test = async {
        let bench = bench(vec![named(endpoint().await, "a")]);
        let service = bench.service();
        let held = found(&service).await;
        bench.wait_for(1.0).await;
        let idle = Config::default().idle;
        // However long a stream takes.
        bench.links.sweep(Instant::now() + 10 * idle);
        assert!(held.lease.link.is_open());
        drop(held);
        let now = Instant::now();
        bench.links.sweep(now + idle - Duration::from_secs(1));
        drop(found(&service).await);
        assert_eq!(bench.open(), 1.0, "it is kept, and used again");
        bench.links.sweep(Instant::now() + idle);
        bench.wait_for(0.0).await;
        // The next one opens another.
        let again = found(&service).await;
        assert!(again.lease.link.is_open());
        bench.wait_for(1.0).await;
    };
    LocalSet::new().run_until(test).await;
}

#[tokio::test]
async fn the_connections_of_an_endpoint_that_has_left_end_with_their_streams() {
    let test = async {
        let (a, b) = (endpoint().await, endpoint().await);
        let bench = bench(vec![named(a, "a")]);
        let service = bench.service();
        let mut held = found(&service).await;
        let request = hyper::http::Request::get("http://web/");
        let request = request.body(()).expect("a request");
        let sent = held.lease.send(request, true).expect("sent");
        bench.set.replace(&[named(b, "b")], Instant::now());
        bench.links.sweep(Instant::now());
        let other = found(&service).await;
        assert_eq!(other.claim.addr, b);
        bench.wait_for(2.0).await;
        drop((sent, held));
        bench.wait_for(1.0).await;
        // The same address under other labels is another endpoint.
        drop(other);
        bench.set.replace(&[named(b, "c")], Instant::now());
        bench.links.sweep(Instant::now());
        bench.wait_for(0.0).await;
        assert_eq!(service.slots.borrow().len(), 0);
    };
    LocalSet::new().run_until(test).await;
}

#[tokio::test]
async fn streams_that_wait_for_the_same_endpoint_share_its_connection() {
    let test = async {
        let bench = bench(vec![named(endpoint().await, "a")]);
        let service = bench.service();
        let mut finding: Vec<_> = (0..50).map(|_| Box::pin(found(&service))).collect();
        let mut leases = Vec::new();
        poll_fn(|cx| {
            finding.retain_mut(|find| match find.as_mut().poll(cx) {
                std::task::Poll::Ready(found) => {
                    leases.push(found);
                    false
                }
                std::task::Poll::Pending => true,
            });
            match finding.is_empty() {
                true => std::task::Poll::Ready(()),
                false => std::task::Poll::Pending,
            }
        })
        .await;
        assert_eq!(bench.open(), 1.0);
        let link = Rc::clone(&leases[0].lease.link);
        assert_eq!(link.streams(), 50);
        drop(leases);
        assert_eq!(link.streams(), 0);
    };
    LocalSet::new().run_until(test).await;
}

#[tokio::test]
async fn a_pool_pins_no_series_of_requests() {
    let test = async {
        let bench = bench(vec![named(endpoint().await, "a")]);
        let service = bench.service();
        let held = found(&service).await;
        let connections = bench.telemetry.label_sets();
        for n in 0..100 {
            let authority = format!("web-{n}");
            let mut ledger = held.slot.ledger.borrow_mut();
            ledger.series(authority.as_bytes().into()).request();
        }
        assert_eq!(bench.telemetry.label_sets(), connections + 100);
        let mut now = Instant::now();
        for _ in 0..1500 {
            now += Duration::from_secs(1);
            bench.book.recorder.tick(now);
            let mut sink = std::io::sink();
            let exposed = bench.telemetry.expose(&Selection::default(), &mut sink);
            exposed.expect("a sink takes all");
            bench.telemetry.sweep(now);
        }
        assert_eq!(bench.telemetry.label_sets(), connections);
    };
    LocalSet::new().run_until(test).await;
}

#[tokio::test]
async fn a_service_that_nobody_has_any_more_is_forgotten_with_its_last_connection() {
    LocalSet::new()
        .run_until(async {
            let bench = bench(vec![named(endpoint().await, "a")]);
            let service = bench.service();
            let found = found(&service).await;
            bench.wait_for(1.0).await;
            let Bench {
                links, set, book, ..
            } = &bench;
            let kept = |now| {
                links.sweep(now);
                links.services.borrow().len()
            };
            let now = Instant::now();
            let idle = now + 2 * service.setup.config.idle;
            drop((found, service));
            assert_eq!(kept(idle), 1, "its connection is not closed yet");
            bench.wait_for(0.0).await;
            assert_eq!(kept(idle), 1, "somebody has the set");
            let other = Rc::new(EndpointSet::new(
                Described {
                    name: "other".to_owned(),
                    endpoints: Vec::new(),
                    ..Described::default()
                },
                endpoints::Config::default(),
                fastrand::Rng::with_seed(7),
                now,
            ));
            links.service(&other, book);
            assert_eq!(links.services.borrow().len(), 2);
            drop(other);
            assert_eq!(kept(idle), 1, "nobody has the set");
            assert!(Rc::ptr_eq(&links.services.borrow()[0].set, set));
        })
        .await;
}

/// A service, and a branch of it that has a place for a stream.
async fn branched() -> (Bench, Rc<Service>, Rc<Service>, Found) {
    let bench = bench(Vec::new());
    let routed = steered(&[named(endpoint().await, "a")]);
    bench.set.update(&routed, Instant::now());
    let service = bench.service();
    let request = Request::get("http://web/b").body(()).expect("a request");
    let branch = service.branch(&service.choose(&request, Instant::now()));
    let found = found(&branch).await;
    (bench, service, branch, found)
}

#[tokio::test]
async fn a_service_that_has_used_a_branch_is_forgotten_as_well() {
    LocalSet::new()
        .run_until(async {
            let (bench, service, branch, found) = branched().await;
            bench.wait_for(1.0).await;
            let Bench { links, set, .. } = bench;
            let kept = |now| {
                links.sweep(now);
                links.services.borrow().len()
            };
            let idle = Instant::now() + 2 * service.setup.config.idle;
            drop(set);
            drop(service);
            assert_eq!(kept(idle), 1, "its branch has a stream");
            drop((found, branch));
            let start = Instant::now();
            while kept(idle) > 0 {
                assert!(start.elapsed() < DEADLINE, "it is never forgotten");
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        })
        .await;
}

#[tokio::test]
async fn a_branch_is_kept_while_there_are_routes_to_it_or_connections() {
    LocalSet::new()
        .run_until(async {
            let (bench, service, branch, found) = branched().await;
            let kept = || {
                bench.links.sweep(Instant::now());
                service.branches.borrow().len()
            };
            drop(branch);
            assert_eq!(kept(), 1);
            bench.set.update(&Described::default(), Instant::now());
            assert_eq!(kept(), 1, "it has a stream");
            drop(found);
            bench
                .links
                .sweep(Instant::now() + 2 * service.setup.config.idle);
            bench.wait_for(0.0).await;
            let start = Instant::now();
            while kept() > 0 {
                assert!(start.elapsed() < DEADLINE, "it is never forgotten");
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        })
        .await;
}

/// A service whose requests below `/b` go to these.
fn steered(endpoints: &[Listed]) -> Described {
    use weir_crds::routes::{Backend, Condition, Route, RouteTable};

    let backend = Backend {
        authority: "other".to_owned(),
        weight: 1,
    };
    let route = |path: &str, backends| Route {
        name: path.to_owned(),
        condition: Condition::PathPrefix(path.to_owned()),
        classes: Vec::new(),
        timeout_ms: None,
        retryable: false,
        backends,
        missing: 0,
    };
    let table = RouteTable {
        routes: vec![route("/b", vec![backend]), route("/", Vec::new())],
        ..RouteTable::default()
    };
    let routes = crate::routes::compile(&table).expect("a table");
    let branch = endpoints::Branch {
        backends: routes.branches()[0].into(),
        endpoints: endpoints.to_vec(),
    };
    Described {
        branches: vec![branch],
        routes: Some(routes.into()),
        ..Described::default()
    }
}
