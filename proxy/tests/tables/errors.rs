//! The rows of what the proxy cannot forward: refused and silent applications, malformed requests, connections it
//! must not take.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use weir_proxy::accept::Aim;
use weir_proxy::http1::MAX_HEAD;
use weir_proxy::http1::reply::Reply;
use weir_proxy::http2::reply::answer;

use super::bench::{Bench, DEADLINE, Way, listener};
use super::deaf::deaf;
use super::frames::bytes;
use super::http1::GET;
use super::rows::{Closed, broken, well};
use super::tcp::OPENED;

/// An address where nothing listens.
fn nobody() -> SocketAddr {
    // One that the system gives to nobody by itself.
    crate::ports::free()
}

/// Sends, and reads until the proxy has closed or reset.
async fn send(bench: &Bench, bytes: &[u8]) {
    let mut client = bench.connect().await;
    client.write_all(bytes).await.expect("written");
    let mut answer = Vec::new();
    let read = tokio::time::timeout(DEADLINE, client.read_to_end(&mut answer)).await;
    let _closed_or_reset = read.expect("in time");
}

fn with(series: &[&str], src: Closed) -> Vec<String> {
    let mut all: Vec<String> = series.iter().map(|s| (*s).to_owned()).collect();
    all.extend(src.series("{SRC}"));
    all
}

/// What a client asks, by HTTP/1 and by HTTP/2, and how many requests that is.
fn asked() -> [(Vec<u8>, usize); 2] {
    [(GET.as_bytes().to_vec(), 1), (bytes("hi get get@3"), 2)]
}

/// The length of this answer to so many requests: one of HTTP/1, or two of HTTP/2. The proxy of the application says who
/// it is.
fn answered(bench: &Bench, reply: Reply, requests: usize) -> usize {
    let hop = matches!(bench.way, Way::Inbound).then(|| bench.bound.listeners[0]);
    match requests {
        1 => reply.bytes_at(hop).len(),
        _ => {
            let error = reply.error_at(hop);
            let (frames, _) = answer([1, 3].into_iter(), 3, (reply.status(), &error));
            frames.len()
        }
    }
}

/// The series of so many requests that are answered so, for the one connection that failed with `tcp`.
fn unreached(reply: Reply, requests: usize, tcp: &str) -> Vec<String> {
    let (status, error) = (reply.status(), reply.label().expect("an error of ours"));
    vec![
        format!("request_total{{{{HTTP}}}} {requests}"),
        format!("inbound_http_authz_allow_total{{{{LET_IN}}}} {requests}"),
        format!("response_latency_ms_count{{{{HTTP}},status_code=\"{status}\"}} {requests}"),
        format!(
            "response_total{{{{HTTP}},status_code=\"{status}\",classification=\"failure\",grpc_status_code=\"\",\
             error=\"{error}\"}} {requests}"
        ),
        format!(
            "{{DIR}}_http_errors_total{{direction=\"{{DIR}}\",error=\"{error}\"{{SRV}}}} {requests}"
        ),
        format!(
            "{{DIR}}_tcp_errors_total{{direction=\"{{DIR}}\",peer=\"dst\",error=\"{tcp}\",target_port=\"{{PORT}}\"}} 1"
        ),
    ]
}

#[tokio::test]
async fn an_application_that_refuses_is_connect() {
    for way in Way::BOTH {
        for (request, n) in asked() {
            let bench = Bench::start(way, nobody()).await;
            send(&bench, &request).await;
            let mut expected = unreached(Reply::Connect, n, "connect");
            let told = answered(&bench, Reply::Connect, n);
            expected.extend(well(request.len(), told).series("{SRC}"));
            bench.shows("connect refused", &expected).await;
        }
        let bench = Bench::start(way, nobody()).await;
        send(&bench, b"\x01hello").await;
        let mut expected = unreached(Reply::Connect, 1, "connect").split_off(5);
        expected.extend(broken(6, 0, "ECONNREFUSED").series("{SRC}"));
        expected.push(OPENED.to_owned());
        bench.shows("connect refused, TCP", &expected).await;
    }
}

/// A preface asks for nothing: what a client asks after it is answered, and all it sends is counted.
#[tokio::test]
async fn a_request_that_comes_after_its_preface_is_answered_too() {
    for way in Way::BOTH {
        let bench = Bench::start(way, nobody()).await;
        let mut client = bench.connect().await;
        let (preface, request) = (bytes("hi"), bytes("get"));
        client.write_all(&preface).await.expect("written");
        let read = preface.len() as f64;
        let src = [("peer", "src")];
        bench.counts("tcp_read_bytes_total", &src, read).await;
        client.write_all(&request).await.expect("written");
        let mut frames = Vec::new();
        let answered = client.read_to_end(&mut frames);
        let answered = tokio::time::timeout(DEADLINE, answered).await;
        answered.expect("in time").expect("an answer");
        let mut expected = unreached(Reply::Connect, 1, "connect");
        drop(client);
        let src = well(preface.len() + request.len(), frames.len());
        expected.extend(src.series("{SRC}"));
        bench.shows("asked after the preface", &expected).await;
    }
}

#[tokio::test]
async fn an_application_that_does_not_accept_is_a_timeout() {
    let (addr, _full) = deaf();
    let impatient = |config: &mut weir_proxy::app::Config| {
        config.worker.forward.connect_timeout = Duration::from_millis(100);
        // Nothing is dialed before there is a head.
        config.worker.detect.silence = DEADLINE;
    };
    for way in Way::BOTH {
        for (request, n) in asked() {
            let bench = Bench::start_with(way, addr, impatient).await;
            send(&bench, &request).await;
            let mut expected = unreached(Reply::Timeout, n, "connect timeout");
            let told = answered(&bench, Reply::Timeout, n);
            expected.extend(well(request.len(), told).series("{SRC}"));
            bench.shows("connect timed out", &expected).await;
            // From the head on, what it waits for a connection included.
            let waited = bench.scrape().await.sum("response_latency_ms_sum", &[]);
            assert!(waited >= 100.0 * n as f64, "{waited} ms");
        }
        let bench = Bench::start_with(way, addr, impatient).await;
        send(&bench, b"\x01hello").await;
        let mut expected = unreached(Reply::Timeout, 1, "connect timeout").split_off(5);
        expected.extend(broken(6, 0, "ETIMEDOUT").series("{SRC}"));
        expected.push(OPENED.to_owned());
        bench.shows("connect timed out, TCP", &expected).await;
    }
}

#[tokio::test]
async fn a_malformed_request_is_only_an_error() {
    let too_large = format!("GET / HTTP/1.1\r\nX: {}", "x".repeat(MAX_HEAD));
    for (reply, error, request) in [
        (
            Reply::BadRequest,
            "bad request",
            "POST / HTTP/1.1\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        ),
        (Reply::TooLarge, "too large", &too_large),
    ] {
        for way in Way::BOTH {
            let bench = Bench::start(way, nobody()).await;
            send(&bench, request.as_bytes()).await;
            let line = format!(
                "{{DIR}}_http_errors_total{{direction=\"{{DIR}}\",error=\"{error}\"{{SRV}}}} 1"
            );
            let src = well(request.len(), reply.bytes().len());
            bench.shows(error, &with(&[&line], src)).await;
        }
    }
}

#[tokio::test]
async fn a_connection_that_was_not_redirected_is_unexpected() {
    for (way, aim) in [(Way::Inbound, Aim::Inbound), (Way::Outbound, Aim::Outbound)] {
        let bench = Bench::start_with(way, nobody(), |config| config.listeners[0].1 = aim).await;
        for count in 1..=2 {
            // It may be reset before connect(2) returns.
            let _reset = tokio::net::TcpStream::connect(bench.bound.listeners[0]).await;
            let line = format!(
                "{{DIR}}_tcp_errors_total{{direction=\"{{DIR}}\",peer=\"src\",error=\"unexpected\",target_port=\"{{PORT}}\"}} {count}"
            );
            bench.shows("not redirected", &[line]).await;
        }
    }
}

#[tokio::test]
async fn a_request_line_that_does_not_end_in_time_is_told() {
    for way in Way::BOTH {
        let listener = listener().await;
        let addr = listener.local_addr().expect("an address");
        let impatient = |config: &mut weir_proxy::app::Config| {
            config.worker.detect.timeout = Duration::from_millis(20);
        };
        let bench = Bench::start_with(way, addr, impatient).await;
        let mut client = bench.connect().await;
        client.write_all(b"GET /").await.expect("written");
        let (mut application, _) = listener.accept().await.expect("dialed after the wait");
        let mut bytes = [0; 5];
        application.read_exact(&mut bytes).await.expect("the bytes");
        assert_eq!(&bytes, b"GET /");
        drop(client);
        drop(application);
        let line = "weir_http_detect_timeout_total{direction=\"{DIR}\"} 1";
        let mut expected = with(&[line, OPENED], well(5, 0));
        expected.extend(well(0, 5).series("{DST}"));
        bench.shows("detection timed out", &expected).await;
    }
}
