//! The rows of what the proxy cannot forward: refused and silent applications, malformed requests, connections it
//! must not take.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use weir_proxy::accept::Aim;
use weir_proxy::http1::MAX_HEAD;
use weir_proxy::http1::reply::Reply;

use super::bench::{Bench, DEADLINE, Way, listener};
use super::deaf::deaf;
use super::http1::GET;
use super::rows::{Closed, broken, well};

/// An address where nothing listens.
async fn nobody() -> SocketAddr {
    listener().await.local_addr().expect("an address")
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

#[tokio::test]
async fn an_application_that_refuses_is_connect() {
    for way in Way::BOTH {
        let bench = Bench::start(way, nobody().await).await;
        send(&bench, GET.as_bytes()).await;
        let http = [
            "request_total{{HTTP}} 1",
            "response_latency_ms_count{{HTTP},status_code=\"502\"} 1",
            "response_total{{HTTP},status_code=\"502\",classification=\"failure\",grpc_status_code=\"\",error=\"connect\"} 1",
            "{DIR}_http_errors_total{direction=\"{DIR}\",error=\"connect\"{SRV}} 1",
            "{DIR}_tcp_errors_total{direction=\"{DIR}\",peer=\"dst\",error=\"connect\",target_port=\"{PORT}\"} 1",
        ];
        let src = well(GET.len(), Reply::Connect.bytes().len());
        bench.shows("connect refused", &with(&http, src)).await;

        let bench = Bench::start(way, nobody().await).await;
        send(&bench, b"\x01hello").await;
        let tcp = [http[4]];
        let src = broken(6, 0, "ECONNREFUSED");
        bench.shows("connect refused, TCP", &with(&tcp, src)).await;
    }
}

#[tokio::test]
async fn an_application_that_does_not_accept_is_a_timeout() {
    for way in Way::BOTH {
        let (addr, _full) = deaf();
        let impatient = |config: &mut weir_proxy::app::Config| {
            config.worker.forward.connect_timeout = Duration::from_millis(100);
        };
        let bench = Bench::start_with(way, addr, impatient).await;
        send(&bench, GET.as_bytes()).await;
        let http = [
            "request_total{{HTTP}} 1",
            "response_latency_ms_count{{HTTP},status_code=\"504\"} 1",
            "response_total{{HTTP},status_code=\"504\",classification=\"failure\",grpc_status_code=\"\",error=\"timeout\"} 1",
            "{DIR}_http_errors_total{direction=\"{DIR}\",error=\"timeout\"{SRV}} 1",
            "{DIR}_tcp_errors_total{direction=\"{DIR}\",peer=\"dst\",error=\"connect timeout\",target_port=\"{PORT}\"} 1",
        ];
        let src = well(GET.len(), Reply::Timeout.bytes().len());
        bench.shows("connect timed out", &with(&http, src)).await;

        let bench = Bench::start_with(way, addr, impatient).await;
        send(&bench, b"\x01hello").await;
        let src = broken(6, 0, "ETIMEDOUT");
        bench
            .shows("connect timed out, TCP", &with(&[http[4]], src))
            .await;
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
            let bench = Bench::start(way, listener().await.local_addr().expect("an address")).await;
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
        let bench =
            Bench::start_with(way, nobody().await, |config| config.listeners[0].1 = aim).await;
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
        let mut expected = with(&[line], well(5, 0));
        expected.extend(well(0, 5).series("{DST}"));
        bench.shows("detection timed out", &expected).await;
    }
}
