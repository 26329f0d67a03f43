//! Ends: who went away, what the other side sees, and what is counted for it.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use h2::Reason;
use hyper::http::Response;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use weir_proxy::worker;

use super::both;
use super::peer::{Client, Setup, finish, serving};
use super::proxy::{Proxy, application, nobody, soon};
use super::rfc9113::{PROTOCOL, Raw, ask};
use super::service::{Asked, answering, by_streams, pod, serve, two};
use super::wire::{END_STREAM, PREFACE, acknowledgement, data, goaway, settings, status};

const CANCELED: &str = "error=\"canceled\"";

/// A proxy whose one endpoint is alive: the other one refuses.
async fn one_alive(addr: std::net::SocketAddr) -> Proxy {
    serve(
        &[("alive", addr), ("dead", nobody())],
        worker::Config::default(),
    )
}

#[tokio::test]
async fn a_server_resets_a_stream_and_the_others_live() {
    let proxy = two(Setup::default(), by_streams()).await;
    let mut client = Client::connect(&proxy, Setup::default()).await;
    both::a_server_resets_streams(&proxy, &mut client).await;
}

/// A service whose servers tell how their requests were reset.
async fn telling() -> (Proxy, mpsc::UnboundedReceiver<Reason>) {
    let (tell, told) = mpsc::unbounded_channel();
    let answer = move |(request, mut respond): Asked| {
        let tell = tell.clone();
        async move {
            let reset = if request.uri().path() == "/stream" {
                let mut send = respond
                    .send_response(Response::new(()), false)
                    .expect("sent");
                send.send_data(Bytes::from_static(b"some"), false)
                    .expect("sent");
                std::future::poll_fn(|cx| send.poll_reset(cx)).await
            } else {
                std::future::poll_fn(|cx| respond.poll_reset(cx)).await
            };
            tell.send(reset.expect("a reset"))
                .expect("the test listens");
        }
    };
    let endpoints = [
        ("a", answering(answer.clone()).await),
        ("b", answering(answer).await),
    ];
    (serve(&endpoints, by_streams()), told)
}

#[tokio::test]
async fn a_client_resets_a_stream_and_its_server_learns_the_code() {
    let (proxy, mut told) = telling().await;
    let mut client = Client::connect(&proxy, Setup::default()).await;
    let (_response, mut send) = client.begin("/hang").await;
    proxy.counts("request_total", &[], 1.0).await;
    send.send_reset(Reason::CANCEL);
    assert_eq!(soon(told.recv()).await, Some(Reason::CANCEL));
    let row = [CANCELED, "classification=\"failure\""];
    proxy.counts("response_total", &row, 1.0).await;
    assert_eq!(proxy.sum("response_latency_ms_count", &[]), 0.0);
    let (response, mut send) = client.begin("/stream").await;
    let mut body = soon(response).await.expect("a head").into_body();
    soon(body.data()).await.expect("data").expect("no error");
    send.send_reset(Reason::ENHANCE_YOUR_CALM);
    assert_eq!(soon(told.recv()).await, Some(Reason::ENHANCE_YOUR_CALM));
    let row = [
        CANCELED,
        "classification=\"success\"",
        "status_code=\"200\"",
    ];
    proxy.counts("response_total", &row, 1.0).await;
    proxy.counts("http2_active_streams", &[], 0.0).await;
}

#[tokio::test]
async fn a_client_that_goes_away_cancels_what_it_asked() {
    let (proxy, mut told) = telling().await;
    let mut client = Client::connect(&proxy, Setup::default()).await;
    let (response, _send) = client.begin("/stream").await;
    let mut body = soon(response).await.expect("a head").into_body();
    soon(body.data()).await.expect("data").expect("no error");
    let (_response, _send) = client.begin("/hang").await;
    proxy.counts("request_total", &[], 2.0).await;
    client.connection.abort();
    for _ in 0..2 {
        assert_eq!(soon(told.recv()).await, Some(Reason::CANCEL));
    }
    proxy
        .counts("response_total", &[CANCELED, "status_code=\"200\""], 1.0)
        .await;
    proxy
        .counts(
            "response_total",
            &[CANCELED, "classification=\"failure\""],
            1.0,
        )
        .await;
    proxy.counts("http2_active_streams", &[], 0.0).await;
    proxy
        .counts("tcp_open_connections", &["peer=\"src\""], 0.0)
        .await;
}

#[tokio::test]
async fn a_client_that_leaves_while_it_waits_for_an_endpoint_is_counted() {
    let silent = application(|stream| async move {
        let _held = stream;
        std::future::pending().await
    });
    let proxy = one_alive(silent.await).await;
    let mut client = Client::connect(&proxy, Setup::default()).await;
    let (_response, mut send) = client.begin("/").await;
    proxy
        .counts("http2_active_streams", &["peer=\"src\""], 1.0)
        .await;
    send.send_reset(Reason::CANCEL);
    let row = [CANCELED, "classification=\"failure\""];
    proxy.counts("response_total", &row, 1.0).await;
    proxy.counts("request_total", &[], 1.0).await;
    proxy.counts("http2_active_streams", &[], 0.0).await;
}

#[tokio::test]
async fn a_server_that_goes_before_it_answers_is_502() {
    let fails = application(|mut stream: TcpStream| async move {
        stream.write_all(&settings(&[])).await.expect("written");
        request_of(&mut stream).await;
    });
    let proxy = one_alive(fails.await).await;
    let mut client = Client::connect(&proxy, Setup::default()).await;
    let answer = client.call("/", Bytes::new()).await;
    assert_eq!(answer.expect("an answer").status, 502);
    let row = [
        "status_code=\"502\"",
        "error=\"reset\"",
        "classification=\"failure\"",
    ];
    proxy.counts("response_total", &row, 1.0).await;
    assert_eq!(proxy.sum("outbound_http_errors_total", &[]), 0.0);
    proxy
        .counts("tcp_open_connections", &["peer=\"dst\""], 0.0)
        .await;
}

#[tokio::test]
async fn a_server_that_fails_says_why_to_the_metrics_too() {
    let proxy = one_alive(serving(Setup::default()).await).await;
    let mut client = Client::connect(&proxy, Setup::default()).await;
    let (response, _send) = client.begin("/stream").await;
    let mut body = soon(response).await.expect("a head").into_body();
    soon(body.data()).await.expect("data").expect("no error");
    let failed = client.call("/fail", Bytes::new()).await;
    assert_eq!(failed.expect("an answer").status, 502);
    let error = soon(body.data()).await.expect("an end");
    assert_eq!(
        error.expect_err("a reset").reason(),
        Some(Reason::INTERNAL_ERROR)
    );
    let row = [
        "status_code=\"200\"",
        "error=\"h2(INTERNAL_ERROR)\"",
        "classification=\"failure\"",
    ];
    proxy.counts("response_total", &row, 1.0).await;
    let row = [
        "status_code=\"502\"",
        "error=\"reset\"",
        "classification=\"failure\"",
    ];
    proxy.counts("response_total", &row, 1.0).await;
    proxy
        .counts("http2_active_connections", &["peer=\"dst\""], 0.0)
        .await;
    // The client's connection is none of it.
    let answer = client.call("/plain", Bytes::new()).await;
    assert_eq!(answer.expect("an answer").status, 200);
}

/// Reads what a client says before its first request, and that; answers the number of its
/// stream.
pub(crate) async fn request_of(stream: &mut TcpStream) -> u32 {
    let mut preface = [0; 24];
    stream.read_exact(&mut preface).await.expect("a preface");
    stream_of(stream, 0x1).await
}

/// Reads up to a frame of this kind; answers its stream.
async fn stream_of(stream: &mut TcpStream, kind: u8) -> u32 {
    loop {
        let mut head = [0; 9];
        stream.read_exact(&mut head).await.expect("a frame");
        let [_, a, b, c, ..] = [0, head[0], head[1], head[2]];
        let mut payload = vec![0; u32::from_be_bytes([0, a, b, c]) as usize];
        stream.read_exact(&mut payload).await.expect("a payload");
        if head[3] == kind {
            return u32::from_be_bytes([head[5], head[6], head[7], head[8]]);
        }
    }
}

/// A server whose first connection says GOAWAY to its first request, or to its data, and whose
/// others answer.
async fn leaving(code: u32, at_data: bool) -> std::net::SocketAddr {
    let connections = Arc::new(AtomicUsize::new(0));
    application(move |mut stream: TcpStream| {
        let nth = connections.fetch_add(1, Ordering::Relaxed);
        async move {
            let hello = [settings(&[]), acknowledgement()].concat();
            stream.write_all(&hello).await.expect("written");
            let id = request_of(&mut stream).await;
            if nth == 0 {
                if at_data {
                    stream_of(&mut stream, 0x0).await;
                }
                stream.write_all(&goaway(0, code)).await.expect("written");
            } else {
                let answer = [status(id, 0, "200"), data(id, END_STREAM, b"ok")];
                stream.write_all(&answer.concat()).await.expect("written");
            }
            let mut rest = Vec::new();
            let _eof = stream.read_to_end(&mut rest).await;
        }
    })
    .await
}

#[tokio::test]
async fn what_a_leaving_server_has_not_seen_is_sent_once_more() {
    for code in [Reason::NO_ERROR, Reason::INTERNAL_ERROR] {
        let proxy = one_alive(leaving(code.into(), false).await).await;
        let mut client = Client::connect(&proxy, Setup::default()).await;
        let (response, send) = client.begin("/").await;
        let answer = finish(response, send, Bytes::new()).await;
        assert_eq!(answer.expect("an answer").body, b"ok");
        proxy
            .counts(
                "response_total",
                &["status_code=\"200\"", "error=\"\""],
                1.0,
            )
            .await;
        assert_eq!(proxy.sum("request_total", &[]), 1.0);
        proxy.counts("tcp_open_total", &[&pod("alive")], 2.0).await;
        proxy.counts("http2_active_streams", &[], 0.0).await;
    }
}

#[tokio::test]
async fn what_a_leaving_server_has_taken_of_a_body_is_not_had_again() {
    for (code, expected) in [
        (Reason::NO_ERROR, Reason::REFUSED_STREAM),
        (Reason::INTERNAL_ERROR, Reason::INTERNAL_ERROR),
    ] {
        let proxy = one_alive(leaving(code.into(), true).await).await;
        let mut client = Client::connect(&proxy, Setup::default()).await;
        let (response, mut send) = client.begin("/").await;
        send.send_data(Bytes::from_static(b"some"), false)
            .expect("sent");
        let error = soon(response).await.expect_err("a reset");
        assert_eq!(error.reason(), Some(expected));
        let row = ["status_code=\"502\"", "error=\"reset\""];
        proxy.counts("response_total", &row, 1.0).await;
    }
}

#[tokio::test]
async fn a_server_that_leaves_in_peace_answers_what_it_has_and_gets_no_more() {
    let proxy = one_alive(serving(Setup::default()).await).await;
    let mut client = Client::connect(&proxy, Setup::default()).await;
    let (open, send) = client.begin("/trailers").await;
    proxy.counts("request_total", &[], 1.0).await;
    for round in 1..=3 {
        let answer = client.call("/leave", Bytes::from_static(b"body")).await;
        assert_eq!(answer.expect("an answer").body, b"body");
        let answer = client.call("/plain", Bytes::new()).await;
        assert_eq!(answer.expect("an answer").status, 200);
        let count = f64::from(2 * round);
        proxy.counts("response_total", &["error=\"\""], count).await;
    }
    let answer = finish(open, send, Bytes::from_static(b"late")).await;
    assert_eq!(answer.expect("an answer").body, b"late");
    let dialed = proxy.sum("tcp_open_total", &["peer=\"dst\""]);
    assert!(dialed >= 3.0, "{dialed}");
    proxy
        .counts("tcp_open_connections", &["peer=\"dst\""], 1.0)
        .await;
}

#[tokio::test]
async fn a_draining_proxy_lets_its_clients_finish_and_sends_them_away() {
    let proxy = two(Setup::default(), by_streams()).await;
    let mut client = Client::connect(&proxy, Setup::default()).await;
    let mut idle = Client::connect(&proxy, Setup::default()).await;
    idle.call("/plain", Bytes::new()).await.expect("an answer");
    let (response, send) = client.begin("/trailers").await;
    let busy = |expected: usize| {
        let gauge = &proxy.gauge;
        soon(async move {
            while gauge.get() != expected {
                tokio::time::sleep(std::time::Duration::from_millis(2)).await;
            }
        })
    };
    busy(1).await;
    proxy.draining.cancel();
    soon(idle.connection)
        .await
        .expect("it ends")
        .expect("in peace");
    let answer = finish(response, send, Bytes::from_static(b"late")).await;
    assert_eq!(answer.expect("an answer").body, b"late");
    soon(client.connection)
        .await
        .expect("it ends")
        .expect("in peace");
    busy(0).await;
    // Whoever comes now has nowhere else to go.
    let mut late = Client::connect(&proxy, Setup::default()).await;
    let answer = late.call("/plain", Bytes::new()).await;
    assert_eq!(answer.expect("an answer").status, 200);
    proxy.counts("response_total", &["error=\"\""], 3.0).await;
}

/// The preface ends with SETTINGS (RFC 9113 section 3.4).
#[tokio::test]
async fn a_client_that_does_not_end_its_preface_is_sent_away() {
    let mut config = by_streams();
    config.terminate.handshake_timeout = Duration::from_millis(300);
    let proxy = two(Setup::default(), config).await;
    let mut proper = Raw::connect(&proxy).await;
    proper.write(&[PREFACE, &settings(&[])].concat()).await;
    for begun in [&[][..], &settings(&[(0x4, 1)])[..8]] {
        let mut late = Raw::connect(&proxy).await;
        late.write(&[PREFACE, begun].concat()).await;
        assert_eq!(late.end().await, Some(PROTOCOL), "{begun:?}");
    }
    proper.write(&ask(1)).await;
    assert_eq!(proper.answer(1).await, 200);
    drop(proper);
    proxy
        .counts("tcp_open_connections", &["peer=\"src\""], 0.0)
        .await;
}

#[tokio::test]
async fn a_client_that_is_reset_closes_with_its_errno() {
    let proxy = two(Setup::default(), by_streams()).await;
    let mut client = proxy.connect().await;
    client
        .write_all(&super::wire::hello())
        .await
        .expect("written");
    client.read_exact(&mut [0; 9]).await.expect("settings");
    client.set_zero_linger().expect("a socket option");
    drop(client);
    let row = [
        "peer=\"src\"",
        "classification=\"failure\"",
        "errno=\"ECONNRESET\"",
    ];
    proxy.counts("tcp_close_total", &row, 1.0).await;
}

#[tokio::test]
async fn a_server_that_is_reset_closes_with_its_errno() {
    let resets = application(|mut stream: TcpStream| async move {
        stream.write_all(&settings(&[])).await.expect("written");
        let id = request_of(&mut stream).await;
        let some = [status(id, 0, "200"), data(id, 0, b"some")].concat();
        stream.write_all(&some).await.expect("written");
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        stream.set_zero_linger().expect("a socket option");
    });
    let proxy = one_alive(resets.await).await;
    let mut client = Client::connect(&proxy, Setup::default()).await;
    let (response, _send) = client.begin("/").await;
    let mut body = soon(response).await.expect("a head").into_body();
    soon(body.data()).await.expect("data").expect("no error");
    let error = soon(body.data()).await.expect("an end");
    assert_eq!(
        error.expect_err("a reset").reason(),
        Some(Reason::INTERNAL_ERROR)
    );
    let row = [
        "peer=\"dst\"",
        "classification=\"failure\"",
        "errno=\"ECONNRESET\"",
    ];
    proxy.counts("tcp_close_total", &row, 1.0).await;
    let row = ["status_code=\"200\"", "error=\"reset\""];
    proxy.counts("response_total", &row, 1.0).await;
}
