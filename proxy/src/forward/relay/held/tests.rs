//! What becomes of a connection while its permission is away; the clock is paused.

use std::io::{Read, Write};
use std::rc::Rc;
use std::time::Duration;

use tokio::time::{Instant, sleep, timeout};
use weir_crds::settings::{InboundSettings, MtlsMode, Settings};

use super::super::tests::{bench_in, busy, sum};
use super::{GRACE, Held, LEAVING};
use crate::buffer::Pool;
use crate::forward::relay::relay;
use crate::permission::{Gate, Permissions};
use crate::record::HttpLedger;
use crate::routes::Closed;
use crate::session::Session;
use crate::telemetry::{self, Telemetry};

const GET: &[u8] = b"GET / HTTP/1.1\r\nHost: web\r\n\r\n";
const OK: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n";

/// A plaintext connection that is relayed, and the two peers.
struct Bench {
    gate: Rc<Gate>,
    telemetry: Telemetry,
    client: std::net::TcpStream,
    server: std::net::TcpStream,
    relayed: tokio::task::JoinHandle<()>,
}

fn mode(gate: &Gate, mode: MtlsMode) {
    gate.set(Permissions::of(&Settings::without_metrics("default"), mode));
}

fn start(is_http: bool) -> Bench {
    start_of(|ledger| is_http.then(|| Session::http1(ledger)))
}

fn start_of(session: impl FnOnce(HttpLedger) -> Option<Session>) -> Bench {
    let mut store = telemetry::new(telemetry::Config::default(), 1);
    let (mut pair, book, client, server) = bench_in(&mut store);
    let gate = Rc::new(Gate::default());
    let mut permit = gate.permit(80);
    let _allowed = permit.judge(None);
    pair.session = session(HttpLedger::new(book.clone()));
    pair.held = Some(Box::new(Held::new(permit, book)));
    let relayed = tokio::task::spawn_local(async move {
        relay(pair, &Pool::default(), busy()).await;
    });
    for peer in [&client, &server] {
        peer.set_nonblocking(true).expect("a socket option");
    }
    Bench {
        gate,
        telemetry: store.0,
        client,
        server,
        relayed,
    }
}

/// Reads as much as there is to come; none once the peer has gone.
async fn read(stream: &mut std::net::TcpStream, n: usize) -> std::io::Result<Vec<u8>> {
    let mut bytes = vec![0; n];
    loop {
        match stream.read(&mut bytes) {
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {
                sleep(Duration::from_millis(1)).await;
            }
            Err(error) => return Err(error),
            Ok(n) => {
                bytes.truncate(n);
                return Ok(bytes);
            }
        }
    }
}

impl Bench {
    async fn ask(&mut self) {
        self.client.write_all(GET).expect("written");
        assert_eq!(read(&mut self.server, 100).await.expect("a request"), GET);
    }

    async fn answer(&mut self) {
        self.server.write_all(OK).expect("written");
        assert_eq!(read(&mut self.client, 100).await.expect("an answer"), OK);
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_under_way_has_its_time_and_no_more() {
    let local = tokio::task::LocalSet::new();
    let test = async {
        let mut bench = start(true);
        bench.ask().await;
        let start = Instant::now();
        mode(&bench.gate, MtlsMode::Strict);
        sleep(GRACE / 2).await;
        assert!(!bench.relayed.is_finished());
        timeout(GRACE, &mut bench.relayed)
            .await
            .expect("it is cut")
            .expect("it runs");
        assert!(start.elapsed() >= GRACE);
        assert!(read(&mut bench.client, 1).await.is_err(), "it is reset");
        assert!(read(&mut bench.server, 1).await.is_err(), "it is reset");
        let canceled = "response_total{direction=\"inbound\"";
        assert_eq!(sum(&bench.telemetry, canceled), 1);
        assert_eq!(sum(&bench.telemetry, "inbound_tcp_authz_deny_total{"), 0);
    };
    local.run_until(test).await;
}

#[tokio::test(start_paused = true)]
async fn a_refused_request_ends_the_connection_although_its_client_may_connect_again() {
    let local = tokio::task::LocalSet::new();
    let test = async {
        let mut bench = start(true);
        bench.ask().await;
        mode(&bench.gate, MtlsMode::Strict);
        // It waits for the answer to the first, which never comes.
        bench.client.write_all(GET).expect("written");
        sleep(GRACE / 10).await;
        mode(&bench.gate, MtlsMode::Permissive);
        timeout(2 * GRACE, &mut bench.relayed)
            .await
            .expect("it is cut")
            .expect("it runs");
    };
    local.run_until(test).await;
}

#[tokio::test(start_paused = true)]
async fn a_change_that_denies_nobody_hurries_nobody() {
    let local = tokio::task::LocalSet::new();
    let test = async {
        let mut bench = start(true);
        bench.ask().await;
        // Refused for what it is: it waits for the answer to the first.
        let two_hosts = b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n";
        bench.client.write_all(two_hosts).expect("written");
        sleep(GRACE / 10).await;
        mode(&bench.gate, MtlsMode::Permissive);
        sleep(2 * GRACE).await;
        assert!(!bench.relayed.is_finished());
        bench.server.write_all(OK).expect("written");
        let mut answers = Vec::new();
        while answers.len() <= OK.len() {
            let more = read(&mut bench.client, 300).await.expect("an answer");
            assert!(!more.is_empty(), "it has ended");
            answers.extend(more);
        }
        let refused = answers.strip_prefix(OK).expect("the first answer");
        assert!(refused.starts_with(b"HTTP/1.1 400 "));
    };
    local.run_until(test).await;
}

#[tokio::test(start_paused = true)]
async fn one_without_a_request_is_closed_and_not_reset() {
    let local = tokio::task::LocalSet::new();
    let test = async {
        let mut bench = start(true);
        bench.ask().await;
        bench.answer().await;
        mode(&bench.gate, MtlsMode::Strict);
        sleep(GRACE / 2).await;
        // It comes back in time, and goes again.
        mode(&bench.gate, MtlsMode::Permissive);
        sleep(GRACE * 2).await;
        bench.ask().await;
        bench.answer().await;
        let start = Instant::now();
        mode(&bench.gate, MtlsMode::Strict);
        assert_eq!(read(&mut bench.client, 1).await.expect("a close"), b"");
        assert_eq!(read(&mut bench.server, 1).await.expect("a close"), b"");
        assert!(start.elapsed() >= GRACE);
        drop(bench.client);
        bench.relayed.await.expect("it runs");
        assert_eq!(sum(&bench.telemetry, "inbound_http_authz_deny_total{"), 0);
    };
    local.run_until(test).await;
}

#[tokio::test(start_paused = true)]
async fn bytes_that_are_no_http_end_at_once() {
    let local = tokio::task::LocalSet::new();
    let test = async {
        let mut bench = start(false);
        bench.client.write_all(b"hello").expect("written");
        assert_eq!(read(&mut bench.server, 5).await.expect("bytes"), b"hello");
        let start = Instant::now();
        mode(&bench.gate, MtlsMode::Strict);
        timeout(GRACE / 10, &mut bench.relayed)
            .await
            .expect("it is cut")
            .expect("it runs");
        assert!(start.elapsed() < GRACE / 10);
        assert!(read(&mut bench.client, 1).await.is_err(), "it is reset");
        assert!(read(&mut bench.server, 1).await.is_err(), "it is reset");
        assert_eq!(sum(&bench.telemetry, "inbound_tcp_authz_deny_total{"), 1);
    };
    local.run_until(test).await;
}

#[tokio::test(start_paused = true)]
async fn a_client_of_http2_that_does_not_leave_a_closed_port_is_cut_off() {
    const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
    const SETTINGS: &[u8] = b"\0\0\0\x04\0\0\0\0\0";
    let inbound = InboundSettings {
        port: 80,
        service: "web".to_owned(),
        permission: None,
        routes: Some(Vec::new()),
    };
    let settings = Settings {
        inbounds: Some(vec![inbound]),
        ..Settings::without_metrics("default")
    };
    let (closed, _) = Closed::of(&settings, &Closed::default());
    let local = tokio::task::LocalSet::new();
    let test = async {
        // The second cannot be followed.
        for said in [SETTINGS, b"\0\0\x01\x04\0\0\0\0\0\0"] {
            let mut bench = start_of(|ledger| Some(Session::http2(ledger)));
            let says = [PREFACE, said].concat();
            bench.client.write_all(&says).expect("written");
            let got = read(&mut bench.server, 100).await.expect("bytes");
            assert_eq!(got, says);
            bench.gate.close(&closed);
            sleep(LEAVING * 9 / 10).await;
            assert!(!bench.relayed.is_finished());
            // It may stay where the port is open again.
            bench.gate.close(&Closed::default());
            sleep(LEAVING).await;
            assert!(!bench.relayed.is_finished());
            bench.gate.close(&closed);
            timeout(2 * LEAVING, &mut bench.relayed)
                .await
                .expect("it is cut")
                .expect("it runs");
        }
    };
    local.run_until(test).await;
}
