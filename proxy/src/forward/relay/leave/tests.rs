//! Servers that are left, on sockets of loopback.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::time::timeout;
use weir_crds::routes::{Backend, Condition, RetryBudget, Route, RouteTable};

use super::super::tests::{busy, pair_of, sum};
use super::super::{Pair, relay};
use super::{Idle, Left};
use crate::buffer::Pool;
use crate::record::HttpLedger;
use crate::routes::{Routing, compile};
use crate::session::{Leave, Session};
use crate::telemetry::{self, Telemetry};

const DEADLINE: Duration = Duration::from_secs(20);
const POST: &str = "POST /r HTTP/1.1\r\nhost: web\r\ncontent-length: 4\r\n\r\nbody";
const GET: &str = "GET /b HTTP/1.1\r\nhost: web\r\n\r\n";
const OK: &str = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";

/// A pair whose requests below `/b` have backends of their own, and below `/r` may be sent again; and its peers.
fn steered() -> (Telemetry, Pair, TcpStream, TcpStream) {
    let route = |path: &str| Route {
        name: path.to_owned(),
        condition: Condition::PathPrefix(path.to_owned()),
        classes: Vec::new(),
        timeout_ms: None,
        retryable: path == "/r",
        backends: Vec::new(),
        missing: 0,
    };
    let backend = Backend {
        authority: "b".to_owned(),
        weight: 1,
    };
    let leading = Route {
        backends: vec![backend],
        ..route("/b")
    };
    let table = RouteTable {
        routes: vec![leading, route("/r")],
        retry_budget: Some(RetryBudget::default()),
        ..RouteTable::default()
    };
    let routing = Rc::new(Routing::new(1, fastrand::Rng::with_seed(7)));
    let compiled = Arc::new(compile(&table).expect("a table"));
    routing.replace(Some(&compiled), Instant::now());
    let (telemetry, mut seats) = telemetry::new(telemetry::Config::default(), 1);
    let session = |ledger: HttpLedger| Session::http1(ledger.routed(&routing));
    let (pair, client, server) = pair_of(seats.remove(0), session);
    (telemetry, pair, client, server)
}

async fn left(pair: Pair) -> Left {
    let pool = Pool::default();
    let left = timeout(DEADLINE, relay(pair, &pool, busy())).await;
    *left.expect("in time").expect("the server is left")
}

/// A request and its response, with a request behind it that belongs elsewhere; the first one.
fn answered_before_another(client: &mut TcpStream, server: &mut TcpStream) -> String {
    let first = GET.replace("/b", "/a");
    client
        .write_all(format!("{first}{GET}").as_bytes())
        .expect("written");
    server.write_all(OK.as_bytes()).expect("written");
    first
}

/// A request that may be sent again and whose response is a failure, with one behind it.
fn failed_before_another(client: &mut TcpStream, server: &mut TcpStream) {
    client
        .write_all(format!("{POST}{GET}").as_bytes())
        .expect("written");
    let busy = OK.replace("200 OK", "503 Busy");
    server.write_all(busy.as_bytes()).expect("written");
}

#[tokio::test]
async fn between_two_requests_the_server_is_left_open_and_the_next_request_unread() {
    let (telemetry, pair, mut client, mut server) = steered();
    let first = answered_before_another(&mut client, &mut server);
    let left = left(pair).await;
    assert_eq!(left.session.leave(), Some(Leave::Elsewhere));
    assert_eq!(left.up.pending(), GET.as_bytes());
    assert!(left.up.approved().is_empty());
    let mut got = vec![0; first.len()];
    server.read_exact(&mut got).expect("the first request");
    assert_eq!(got, first.as_bytes());
    let mut got = vec![0; OK.len()];
    client.read_exact(&mut got).expect("its response");
    assert_eq!(got, OK.as_bytes());
    let Some(Idle { stream, .. }) = &left.server else {
        panic!("it could be used again");
    };
    assert!(stream.is_quiet());
    assert_eq!(sum(&telemetry, "tcp_close_total{"), 0);
    assert_eq!(sum(&telemetry, "response_total{"), 1);
}

#[tokio::test]
async fn what_a_server_says_beside_its_response_spoils_it() {
    let (telemetry, pair, mut client, mut server) = steered();
    answered_before_another(&mut client, &mut server);
    server.shutdown(std::net::Shutdown::Write).expect("closed");
    let left = left(pair).await;
    let is_good = left.server.is_some_and(|idle| idle.stream.is_quiet());
    assert!(!is_good, "it has closed");
    assert_eq!(sum(&telemetry, "response_total{"), 1);
}

#[tokio::test]
async fn a_failed_response_ends_with_its_server_and_the_request_is_given_to_the_next() {
    let (telemetry, pair, mut client, mut server) = steered();
    failed_before_another(&mut client, &mut server);
    let mut left = left(pair).await;
    assert_eq!(left.session.leave(), Some(Leave::Again));
    assert!(left.server.is_none());
    assert_eq!(left.up.pending(), GET.as_bytes(), "it is behind it still");
    let mut got = String::new();
    server.read_to_string(&mut got).expect("all of it");
    assert_eq!(got, POST);
    assert_eq!(sum(&telemetry, "tcp_close_total{"), 1);
    // To the next one.
    left.session.set_out(Instant::now());
    assert_eq!(left.session.replay(), POST.as_bytes());
    let (_, mut next, _client, mut other) = steered();
    next.client = left.client;
    next.accepted = left.accepted;
    next.up = left.up;
    next.session = Some(left.session);
    other.write_all(OK.as_bytes()).expect("written");
    let left = self::left(next).await;
    let mut got = vec![0; POST.len()];
    other.read_exact(&mut got).expect("the request");
    assert_eq!(got, POST.as_bytes());
    let mut got = vec![0; OK.len()];
    client.read_exact(&mut got).expect("one response");
    assert_eq!(got, OK.as_bytes());
    assert_eq!(left.session.leave(), Some(Leave::Elsewhere));
}

#[tokio::test]
async fn a_server_that_takes_nothing_loses_nothing_of_what_the_client_has_sent_ahead() {
    let (telemetry, pair, mut client, server) = steered();
    let socket = socket2::SockRef::from(&server);
    socket.set_linger(Some(Duration::ZERO)).expect("an option");
    drop(server);
    client
        .write_all(format!("{POST}{GET}").as_bytes())
        .expect("written");
    let mut left = left(pair).await;
    assert_eq!(left.session.leave(), Some(Leave::Again));
    assert_eq!(left.up.pending(), GET.as_bytes());
    left.session.set_out(Instant::now());
    assert_eq!(left.session.replay(), POST.as_bytes());
    let reset = "tcp_close_total{direction=\"outbound\",peer=\"dst\"";
    assert_eq!(sum(&telemetry, reset), 1);
}

#[tokio::test]
async fn a_server_that_fails_without_reading_is_not_waited_for() {
    let (_telemetry, pair, mut client, mut server) = steered();
    // There is room for nothing.
    let socket = socket2::SockRef::from(pair.server.tcp());
    while socket.send(&[0; 4096]).is_ok() {}
    failed_before_another(&mut client, &mut server);
    let mut left = left(pair).await;
    assert_eq!(left.session.leave(), Some(Leave::Again));
    assert!(left.up.approved().is_empty());
    assert_eq!(left.up.pending(), GET.as_bytes());
    left.session.set_out(Instant::now());
    assert!(left.session.replay() == POST.as_bytes());
}
