//! The relay polled by hand: what one poll may do.

use std::future::{Future, poll_fn};
use std::io::{Read, Write};
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;
use std::time::{Duration, Instant};

use socket2::SockRef;
use weir_crds::routes::{Condition, Route, RouteTable};

use super::{LINGER, Pair, TURNS, relay};
use crate::activity::{Activity, Gauge};
use crate::buffer::{Flow, LARGE, Pool};
use crate::record::{Book, HttpLedger, Labels, Subject};
use crate::routes::{Routing, compile};
use crate::session::Session;
use crate::telemetry::{self, Selection, Telemetry};

/// A socket of the proxy and its peer.
fn sockets() -> (tokio::net::TcpStream, std::net::TcpStream) {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    let addr = listener.local_addr().expect("an address");
    let peer = std::net::TcpStream::connect(addr).expect("it listens");
    let (ours, _) = listener.accept().expect("a connection");
    ours.set_nonblocking(true).expect("a socket option");
    let ours = tokio::net::TcpStream::from_std(ours).expect("a runtime");
    (ours, peer)
}

fn written(telemetry: &Telemetry) -> usize {
    sum(telemetry, "tcp_write_bytes_total{")
}

pub(super) fn sum(telemetry: &Telemetry, family: &str) -> usize {
    let mut body = Vec::new();
    telemetry
        .expose(&Selection::default(), &mut body)
        .expect("a vector takes all");
    let body = String::from_utf8(body).expect("text");
    let samples = body.lines().filter(|line| line.starts_with(family));
    let values = samples.filter_map(|line| line.rsplit_once(' ')?.1.parse::<usize>().ok());
    values.sum()
}

/// A relay of opaque bytes, and the two peers.
fn bench(
    telemetry: &mut (Telemetry, Vec<telemetry::Seat>),
) -> (Pair, std::net::TcpStream, std::net::TcpStream) {
    bench_with(telemetry, |_| None)
}

/// A relay of what the session says, and the two peers.
fn bench_with(
    telemetry: &mut (Telemetry, Vec<telemetry::Seat>),
    session: impl FnOnce(&Book) -> Option<Session>,
) -> (Pair, std::net::TcpStream, std::net::TcpStream) {
    let (pair, _, reader, writer) = bench_of(telemetry, session);
    (pair, reader, writer)
}

/// A relay of opaque bytes, what it is counted under, and the two peers.
pub(super) fn bench_in(
    telemetry: &mut (Telemetry, Vec<telemetry::Seat>),
) -> (Pair, Book, std::net::TcpStream, std::net::TcpStream) {
    bench_of(telemetry, |_| None)
}

fn bench_of(
    telemetry: &mut (Telemetry, Vec<telemetry::Seat>),
    session: impl FnOnce(&Book) -> Option<Session>,
) -> (Pair, Book, std::net::TcpStream, std::net::TcpStream) {
    let labels = Rc::new(Labels::new("all-unauthenticated"));
    let subject = Subject::Inbound {
        server: labels.default_server(80),
    };
    pair_in(book(telemetry.1.remove(0), labels, subject), session)
}

fn book(seat: telemetry::Seat, labels: Rc<Labels>, subject: Subject) -> Book {
    Book {
        recorder: Rc::new(seat.take()),
        subject,
        labels,
        target_port: 80,
        standing: Default::default(),
    }
}

fn pair_in(
    book: Book,
    session: impl FnOnce(&Book) -> Option<Session>,
) -> (Pair, Book, std::net::TcpStream, std::net::TcpStream) {
    let ((client, reader), (server, writer)) = (sockets(), sockets());
    let pair = Pair {
        client: client.into(),
        server: server.into(),
        claim: None,
        accepted: book.accepted(Instant::now()),
        dialed: book.dialed(Instant::now()),
        up: Flow::default(),
        down: Flow::default(),
        session: session(&book),
        direction: book.subject.direction(),
        held: None,
        lost: None,
    };
    (pair, book, reader, writer)
}

/// A relay of what leaves for a service, and the two peers.
pub(super) fn pair_of(
    seat: telemetry::Seat,
    session: impl FnOnce(HttpLedger) -> Session,
) -> (Pair, std::net::TcpStream, std::net::TcpStream) {
    let labels = Rc::new(Labels::new("all-unauthenticated"));
    let subject = Subject::Outbound {
        service: "web".into(),
        dst: labels.unknown_destination(),
    };
    let book = book(seat, labels, subject);
    let session = |book: &Book| Some(session(HttpLedger::new(book.clone())));
    let (pair, _, client, server) = pair_in(book, session);
    (pair, client, server)
}

pub(super) fn busy() -> crate::activity::Busy {
    Activity::new(Gauge::default()).begin()
}

#[tokio::test]
async fn a_busy_connection_leaves_the_others_their_turn() {
    let mut store = telemetry::new(telemetry::Config::default(), 1);
    let (pair, mut reader, mut writer) = bench(&mut store);
    let write = std::thread::spawn(move || while writer.write_all(&[7; 1 << 20]).is_ok() {});
    let read = std::thread::spawn(move || {
        let mut space = vec![0; 1 << 20];
        while reader.read(&mut space).is_ok_and(|n| n > 0) {}
    });
    let pool = Pool::default();
    {
        let mut relaying = pin!(relay(pair, &pool, busy()));
        let (start, mut total) = (Instant::now(), 0);
        while total < 64 << 20 {
            assert!(start.elapsed().as_secs() < 20, "{total} bytes so far");
            poll_fn(|cx| Poll::Ready(relaying.as_mut().poll(cx).is_ready())).await;
            // What the poll before has left in the pipe is written on top of it.
            let read = sum(&store.0, "tcp_read_bytes_total{") - total;
            assert!(read <= TURNS * LARGE, "{read} bytes in one poll");
            total += read;
            tokio::task::yield_now().await;
        }
        assert_eq!(pool.pipes(), 1, "bulk goes through a pipe");
    }
    write.join().expect("a writer");
    read.join().expect("a reader");
}

/// Polls until so many bytes were written, or for a deadline.
async fn run_until<T>(
    relaying: &mut Pin<&mut impl Future<Output = T>>,
    store: &Telemetry,
    total: usize,
) {
    let start = Instant::now();
    while written(store) < total {
        assert!(
            start.elapsed().as_secs() < 20,
            "{} bytes so far",
            written(store)
        );
        poll_fn(|cx| Poll::Ready(relaying.as_mut().poll(cx).is_ready())).await;
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_connection_that_has_become_idle_holds_no_pipe() {
    const BULK: usize = 8 << 20;
    let mut store = telemetry::new(telemetry::Config::default(), 1);
    let (pair, mut reader, mut writer) = bench(&mut store);
    let pool = Pool::default();
    let mut relaying = pin!(relay(pair, &pool, busy()));
    let write = std::thread::spawn(move || {
        writer.write_all(&vec![7; BULK]).expect("written");
        writer
    });
    let read = std::thread::spawn(move || {
        let mut space = vec![0; BULK];
        reader.read_exact(&mut space).expect("read");
        reader
    });
    run_until(&mut relaying, &store.0, BULK).await;
    assert_eq!(pool.pipes(), 1, "bulk goes through a pipe");
    // Once more, to find that nothing is left to be moved.
    poll_fn(|cx| Poll::Ready(relaying.as_mut().poll(cx).is_ready())).await;
    pool.tick();
    pool.tick();
    assert_eq!(pool.pipes(), 0);
    drop((
        write.join().expect("a writer"),
        read.join().expect("a reader"),
    ));
}

#[tokio::test]
async fn small_messages_never_use_a_pipe() {
    let mut store = telemetry::new(telemetry::Config::default(), 1);
    let (pair, mut reader, mut writer) = bench(&mut store);
    let pool = Pool::default();
    let mut relaying = pin!(relay(pair, &pool, busy()));
    for round in 1..=500 {
        writer.write_all(&[7; 10_000]).expect("written");
        run_until(&mut relaying, &store.0, round * 10_000).await;
        reader.read_exact(&mut [0; 10_000]).expect("read");
    }
    assert_eq!(pool.pipes(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_response_is_waited_for_as_long_as_its_route_says() {
    let hour = Duration::from_secs(3600);
    let mut store = telemetry::new(telemetry::Config::default(), 1);
    let (pair, mut client, _server) = bench_timed(&mut store, &[("/", 3_600_000)]);
    let request = b"GET / HTTP/1.1\r\nhost: web\r\n\r\n";
    client.write_all(request).expect("written");
    let begun = tokio::time::Instant::now();
    relay(pair, &Pool::default(), busy()).await;
    // Until the client has had the time to close.
    let took = begun.elapsed();
    assert!(took >= hour, "{took:?}");
    assert!(took < hour + LINGER + Duration::from_secs(60), "{took:?}");
    let mut answer = String::new();
    client.read_to_string(&mut answer).expect("an answer");
    assert!(answer.starts_with("HTTP/1.1 504 "), "{answer}");
    let late = "route_response_total{direction=\"inbound\",dst=\":80\",rt_route=\"/\",status_code=\"504\",classification=\"failure\",error=\"timeout\"}";
    assert_eq!(sum(&store.0, late), 1);
}

/// A relay of requests that are answered within these milliseconds, by the beginning of their paths, and the two peers.
fn bench_timed(
    telemetry: &mut (Telemetry, Vec<telemetry::Seat>),
    routes: &[(&str, u64)],
) -> (Pair, std::net::TcpStream, std::net::TcpStream) {
    let routes = routes.iter().map(|(path, ms)| Route {
        name: (*path).to_owned(),
        condition: Condition::PathPrefix((*path).to_owned()),
        classes: Vec::new(),
        timeout_ms: Some(*ms),
        retryable: false,
        backends: Vec::new(),
        missing: 0,
    });
    let table = RouteTable {
        routes: routes.collect(),
        ..RouteTable::default()
    };
    let compiled = Arc::new(compile(&table).expect("a table"));
    let routing = Rc::new(Routing::new(1, fastrand::Rng::with_seed(7)));
    routing.replace(Some(&compiled), Instant::now());
    bench_with(telemetry, |book| {
        let ledger = HttpLedger::new(book.clone()).routed(&routing);
        Some(Session::http1(ledger))
    })
}

/// Polls once; answers whether the relay has ended.
async fn step<T>(relaying: &mut Pin<&mut impl Future<Output = T>>) -> bool {
    let is_over = poll_fn(|cx| Poll::Ready(relaying.as_mut().poll(cx).is_ready())).await;
    tokio::task::yield_now().await;
    is_over
}

/// Polls until `done`, or for a deadline.
async fn poll_until<T>(
    relaying: &mut Pin<&mut impl Future<Output = T>>,
    mut done: impl FnMut() -> bool,
) {
    let start = Instant::now();
    while !done() {
        assert!(start.elapsed().as_secs() < 20, "it never comes");
        assert!(!step(relaying).await, "the relay has ended");
    }
}

/// What has come from a peer so far, and whether it has ended.
fn take(from: &mut std::net::TcpStream, all: &mut Vec<u8>) -> bool {
    let mut space = [0; 4096];
    match from.read(&mut space) {
        Ok(0) => true,
        Ok(n) => {
            all.extend_from_slice(&space[..n]);
            false
        }
        Err(error) => {
            assert_eq!(error.kind(), std::io::ErrorKind::WouldBlock);
            false
        }
    }
}

/// Polls until what has come to a peer ends so.
async fn arrived<T>(
    relaying: &mut Pin<&mut impl Future<Output = T>>,
    peer: &mut std::net::TcpStream,
    end: &[u8],
) {
    let mut all = Vec::new();
    poll_until(relaying, || {
        take(peer, &mut all);
        all.ends_with(end)
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_request_has_its_own_time_and_not_that_of_one_before() {
    let mut store = telemetry::new(telemetry::Config::default(), 1);
    let (pair, mut client, mut server) =
        bench_timed(&mut store, &[("/slow", 3_600_000), ("/fast", 1000)]);
    for peer in [&client, &server] {
        peer.set_nonblocking(true).expect("a socket option");
    }
    let pool = Pool::default();
    let mut relaying = pin!(relay(pair, &pool, busy()));
    client
        .write_all(b"GET /slow HTTP/1.1\r\nhost: web\r\n\r\n")
        .expect("written");
    arrived(&mut relaying, &mut server, b"\r\n\r\n").await;
    // Until there is nothing to be done but to wait for the server.
    for _ in 0..10 {
        assert!(!step(&mut relaying).await);
    }
    server
        .write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok")
        .expect("written");
    arrived(&mut relaying, &mut client, b"ok").await;
    client
        .write_all(b"GET /fast HTTP/1.1\r\nhost: web\r\n\r\n")
        .expect("written");
    let begun = tokio::time::Instant::now();
    relaying.await;
    let took = begun.elapsed();
    let most = Duration::from_secs(1) + LINGER + Duration::from_secs(60);
    assert!(took < most, "{took:?}");
    let mut answer = Vec::new();
    while !take(&mut client, &mut answer) {}
    assert!(answer.starts_with(b"HTTP/1.1 504 "));
}

/// The client still reads the answer before, so that the server was not read when the time was up.
#[tokio::test(start_paused = true)]
async fn a_server_that_answers_after_the_proxy_is_not_heard() {
    const BODY: usize = 48 << 10;
    let mut store = telemetry::new(telemetry::Config::default(), 1);
    let (pair, mut client, mut server) = bench_timed(&mut store, &[("/", 1000)]);
    let sizes = SockRef::from(pair.client.tcp()).set_send_buffer_size(4 << 10);
    sizes
        .and_then(|()| SockRef::from(&client).set_recv_buffer_size(4 << 10))
        .expect("socket options");
    for peer in [&client, &server] {
        peer.set_nonblocking(true).expect("a socket option");
    }
    let pool = Pool::default();
    let mut relaying = pin!(relay(pair, &pool, busy()));
    let request = b"GET / HTTP/1.1\r\nhost: web\r\n\r\n";
    client.write_all(&request.repeat(2)).expect("written");
    arrived(&mut relaying, &mut server, &request.repeat(2)).await;
    let mut first = format!("HTTP/1.1 200 OK\r\ncontent-length: {BODY}\r\n\r\n").into_bytes();
    first.resize(first.len() + BODY, b'x');
    server.write_all(&first).expect("written");
    let whole = "response_total{";
    poll_until(&mut relaying, || sum(&store.0, whole) == 1).await;
    tokio::time::advance(Duration::from_secs(2)).await;
    poll_until(&mut relaying, || sum(&store.0, whole) == 2).await;
    server
        .write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok")
        .expect("written");
    let mut answers = Vec::new();
    let mut is_over = false;
    let start = Instant::now();
    while !take(&mut client, &mut answers) {
        assert!(start.elapsed().as_secs() < 20, "it never ends");
        is_over = is_over || step(&mut relaying).await;
    }
    let second = answers.get(first.len()..).unwrap_or_default();
    let second = String::from_utf8_lossy(second);
    assert!(
        answers.starts_with(&first) && second.starts_with("HTTP/1.1 504 "),
        "{second}"
    );
    assert_eq!(sum(&store.0, "weir_http_unparsed_total{"), 0);
}

#[tokio::test]
async fn what_a_slow_reader_has_still_to_get_keeps_the_proxy_busy() {
    const BODY: usize = 1 << 20;
    let mut store = telemetry::new(telemetry::Config::default(), 1);
    let (pair, mut client, mut server) = bench_with(&mut store, |book| {
        Some(Session::http1(HttpLedger::new(book.clone())))
    });
    // Little is with the system, so that the end is with the relay.
    let sizes = SockRef::from(pair.client.tcp()).set_send_buffer_size(16 << 10);
    sizes
        .and_then(|()| SockRef::from(&client).set_recv_buffer_size(16 << 10))
        .expect("socket options");
    let request = b"GET / HTTP/1.1\r\nhost: web\r\n\r\n";
    client.write_all(request).expect("written");
    client.set_nonblocking(true).expect("a socket option");
    let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {BODY}\r\n\r\n");
    let total = request.len() + head.len() + BODY;
    let write = std::thread::spawn(move || {
        server
            .read_exact(&mut vec![0; request.len()])
            .expect("the request");
        server.write_all(head.as_bytes()).expect("written");
        server.write_all(&vec![7; BODY]).expect("written");
        server
    });
    let (pool, gauge) = (Pool::default(), Gauge::default());
    let busy = Activity::new(gauge.clone()).begin();
    let mut relaying = pin!(relay(pair, &pool, busy));
    let (start, mut space) = (Instant::now(), [0; 4096]);
    let mut was_behind = false;
    while written(&store.0) < total {
        assert!(start.elapsed().as_secs() < 20, "{}", written(&store.0));
        poll_fn(|cx| Poll::Ready(relaying.as_mut().poll(cx).is_ready())).await;
        let read = sum(&store.0, "tcp_read_bytes_total{");
        if read == total && written(&store.0) < total {
            was_behind = true;
            assert_eq!(gauge.get(), 1, "{} of {total} written", written(&store.0));
        }
        let _none_yet = client.read(&mut space);
        tokio::task::yield_now().await;
    }
    assert!(was_behind, "the relay never held the end of the response");
    poll_fn(|cx| Poll::Ready(relaying.as_mut().poll(cx).is_ready())).await;
    assert_eq!(gauge.get(), 0, "the rest is with the system");
    drop(write.join().expect("a writer"));
}
