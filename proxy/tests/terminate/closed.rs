//! HTTP/2 to a closed port of the application: each request is let in or not by itself, each client has a connection of
//! its own, and what passes is what was sent.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use hyper::http::Response;
use tokio::net::TcpStream;
use tokio::sync::Notify;
use weir_proxy::worker;

use super::both;
use super::closing::{Closing, below};
use super::peer::{Client, Setup, finish, serving};
use super::proxy::{DEADLINE, application, nobody, soon};
use super::service::{Asked, answering};

const INBOUND: &str = "direction=\"inbound\"";
const NOT_FOUND: &str = "inbound_http_route_not_found_total";
/// What the peers of these tests ask for.
const ASKED: [&str; 6] = ["/plain", "/trailers", "/only", "/reset", "/break", "/echo"];

/// Counts the requests that it sees.
async fn counting() -> (SocketAddr, Arc<AtomicUsize>) {
    let seen = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&seen);
    let addr = answering(move |(_, mut respond): Asked| {
        counted.fetch_add(1, Ordering::Relaxed);
        async move {
            let _gone = respond.send_response(Response::new(()), true);
        }
    });
    (addr.await, seen)
}

#[tokio::test]
async fn what_there_is_no_route_for_is_answered_as_the_request_asks() {
    let (app, seen) = counting().await;
    let mut patient = worker::Config::default();
    // However late its preface is, nothing is dialed before.
    patient.detect.silence = DEADLINE;
    let closing = Closing::start_with(app, Some(&["/a"]), patient);
    let proxy = &closing.proxy;
    let mut client = Client::connect(proxy, Setup::default()).await;
    let answer = client.call("/b", Bytes::new()).await.expect("an answer");
    assert_eq!((answer.status, answer.grpc_status), (404, None));
    assert_eq!(
        proxy.sum("tcp_open_total", &["peer=\"dst\""]),
        0.0,
        "nothing is dialed for it"
    );
    let answer = client.call("/a/x", Bytes::new()).await.expect("an answer");
    assert_eq!(answer.status, 200);
    let grpc = [("content-type", "application/grpc+proto")];
    let (response, send) = client.begin_with("/b.Echo/Say", &grpc).await;
    let response = soon(response).await.expect("an answer");
    // Trailers-Only: the head is all there is.
    assert!(response.body().is_end_stream());
    assert_eq!(response.headers()["content-type"], "application/grpc");
    assert_eq!(
        (
            response.status().as_u16(),
            &response.headers()["grpc-status"]
        ),
        (200, &"12".parse().expect("a value"))
    );
    drop((response, send));
    let answer = client.call("/a", Bytes::new()).await.expect("an answer");
    assert_eq!(answer.status, 200);
    assert_eq!(seen.load(Ordering::Relaxed), 2);
    let row = "direction=\"inbound\",authority=\"web.example\",srv_group=\"kuma.io\",srv_kind=\"dataplane\",\
               srv_name=\"web\",srv_port=\"80\",tls=\"no_identity\",no_tls_reason=\"no_tls_from_remote\"";
    assert_eq!(proxy.sum(NOT_FOUND, &[row]), 2.0);
    for (row, n) in [
        (["status_code=\"404\"", "grpc_status_code=\"\""], 1.0),
        (["status_code=\"200\"", "grpc_status_code=\"12\""], 1.0),
        (["status_code=\"200\"", "grpc_status_code=\"\""], 2.0),
    ] {
        let row = [
            row[0],
            row[1],
            "web.example",
            "classification=\"success\"",
            "error=\"\"",
        ];
        proxy.counts("response_total", &row, n).await;
    }
    assert_eq!(closing.of("request_total", "web.example"), 4.0);
    proxy.counts("http2_active_streams", &[INBOUND], 0.0).await;
    let routes = proxy.samples().into_iter();
    let routes = routes.filter(|(series, _)| series.starts_with("route_"));
    assert_eq!(routes.count(), 0, "they are of the client's side");
    assert_eq!(proxy.sum("tcp_open_total", &["peer=\"dst\""]), 1.0);
}

#[tokio::test]
async fn calls_and_resets_pass_as_on_the_relay() {
    let closing = Closing::start(serving(Setup::default()).await, Some(&ASKED));
    let mut client = Client::connect(&closing.proxy, Setup::default()).await;
    both::calls_end_as_their_servers_say(&mut client).await;
    both::those_calls_are_counted(&closing.proxy, INBOUND).await;
    let closing = Closing::start(serving(Setup::default()).await, Some(&ASKED));
    let mut client = Client::connect(&closing.proxy, Setup::default()).await;
    let body: Bytes = (0..3_000_000u32).map(|i| (i ^ (i >> 8)) as u8).collect();
    let answer = client.call("/echo", body.clone()).await.expect("an answer");
    assert!(answer.body == body, "{} bytes come back", answer.body.len());
    let dst = ["peer=\"dst\"", INBOUND, "no_tls_reason=\"loopback\""];
    for family in ["tcp_read_bytes_total", "tcp_write_bytes_total"] {
        let bytes = closing.proxy.sum(family, &dst);
        assert!(bytes >= body.len() as f64, "{family} {bytes}");
    }
}

#[tokio::test]
async fn a_server_resets_a_stream_and_the_others_live() {
    let closing = Closing::start(serving(Setup::default()).await, Some(&ASKED));
    let mut client = Client::connect(&closing.proxy, Setup::default()).await;
    both::a_server_resets_streams(&closing.proxy, &mut client).await;
}

#[tokio::test]
async fn a_client_has_a_connection_of_its_own_that_ends_with_its_own() {
    let closing = Closing::start(serving(Setup::default()).await, Some(&ASKED));
    let proxy = &closing.proxy;
    let mut clients = Vec::new();
    for n in 1..=3 {
        let mut client = Client::connect(proxy, Setup::default()).await;
        for _ in 0..2 {
            let answer = client.call("/plain", Bytes::new()).await;
            assert_eq!(answer.expect("an answer").status, 200);
        }
        clients.push(client);
        for family in ["tcp_open_connections", "http2_active_connections"] {
            let dst = ["peer=\"dst\"", INBOUND];
            proxy.counts(family, &dst, f64::from(n)).await;
        }
    }
    for (n, client) in clients.into_iter().enumerate() {
        let left = 2.0 - n as f64;
        match n {
            // In peace, and not.
            0 => drop(client.sender),
            _ => client.connection.abort(),
        }
        for (family, peer) in [
            ("tcp_open_connections", "peer=\"dst\""),
            ("http2_active_connections", "peer=\"dst\""),
            ("tcp_open_connections", "peer=\"src\""),
        ] {
            proxy.counts(family, &[peer, INBOUND], left).await;
        }
    }
}

#[tokio::test]
async fn who_has_more_streams_than_the_application_takes_on_a_connection_gets_another() {
    let setup = Setup {
        most_streams: 2,
        ..Setup::default()
    };
    let closing = Closing::start(serving(setup).await, Some(&ASKED));
    let mut client = Client::connect(&closing.proxy, Setup::default()).await;
    let mut open = Vec::new();
    for n in 1..=3 {
        open.push(client.begin("/trailers").await);
        let dst = ["peer=\"dst\"", INBOUND];
        closing
            .proxy
            .counts("http2_active_streams", &dst, f64::from(n))
            .await;
    }
    let answer = client.call("/plain", Bytes::new()).await;
    assert_eq!(answer.expect("an answer").status, 200);
    for (response, send) in open {
        let answer = finish(response, send, Bytes::from_static(b"late")).await;
        assert_eq!(answer.expect("an answer").body, b"late");
    }
    assert_eq!(closing.proxy.sum("tcp_open_total", &["peer=\"dst\""]), 2.0);
    assert!(!client.connection.is_finished());
}

#[tokio::test]
async fn a_connection_that_is_made_for_nobody_any_more_does_not_stay() {
    let go = Arc::new(Notify::new());
    let told = Arc::clone(&go);
    // It says nothing until it is told to.
    let slow = application(move |stream: TcpStream| {
        let told = Arc::clone(&told);
        async move {
            told.notified().await;
            if let Ok(mut connection) = h2::server::handshake(stream).await {
                while let Some(Ok(_)) = connection.accept().await {}
            }
        }
    });
    let mut served = worker::Config::default();
    served.terminate.handshake_timeout = Duration::from_secs(60);
    let closing = Closing::start_with(slow.await, Some(&["/a"]), served);
    let proxy = &closing.proxy;
    let mut client = Client::connect(proxy, Setup::default()).await;
    let (_response, _send) = client.begin("/a").await;
    proxy.counts("tcp_open_total", &["peer=\"dst\""], 1.0).await;
    client.connection.abort();
    proxy
        .counts("tcp_open_connections", &["peer=\"src\""], 0.0)
        .await;
    go.notify_one();
    proxy
        .counts("tcp_open_connections", &["peer=\"dst\""], 0.0)
        .await;
    let row = ["error=\"canceled\"", "web.example"];
    proxy.counts("response_total", &row, 1.0).await;
}

#[tokio::test]
async fn an_application_that_leaves_takes_its_client_along() {
    let closing = Closing::start(serving(Setup::default()).await, Some(&["/leave"]));
    let proxy = &closing.proxy;
    let mut client = Client::connect(proxy, Setup::default()).await;
    let answer = client.call("/leave", Bytes::from_static(b"body")).await;
    assert_eq!(answer.expect("an answer").body, b"body");
    soon(client.connection)
        .await
        .expect("it ends")
        .expect("in peace");
    proxy.counts("tcp_open_connections", &[], 0.0).await;
}

#[tokio::test]
async fn what_was_dialed_for_a_silent_client_is_used_and_what_refuses_is_told() {
    let closing = Closing::start(serving(Setup::default()).await, Some(&ASKED));
    let proxy = &closing.proxy;
    let silent = proxy.connect().await;
    proxy.counts("tcp_open_total", &["peer=\"dst\""], 1.0).await;
    let mut client = Client::begin_on(silent, Setup::default()).await;
    let answer = client.call("/plain", Bytes::new()).await;
    assert_eq!(answer.expect("an answer").status, 200);
    assert_eq!(proxy.sum("tcp_open_total", &["peer=\"dst\""]), 1.0);
    let closing = Closing::start(nobody(), Some(&["/a"]));
    let mut client = Client::connect(&closing.proxy, Setup::default()).await;
    for (path, status) in [("/b", 404), ("/a", 502), ("/b", 404)] {
        let answer = client.call(path, Bytes::new()).await;
        assert_eq!(answer.expect("an answer").status, status, "{path}");
    }
    let row = ["status_code=\"502\"", "error=\"connect\"", "web.example"];
    assert_eq!(closing.proxy.sum("response_total", &row), 1.0);
}

#[tokio::test]
async fn a_change_holds_for_the_next_stream_of_an_open_connection() {
    let (app, seen) = counting().await;
    let closing = Closing::start(app, Some(&["/a"]));
    let mut client = Client::connect(&closing.proxy, Setup::default()).await;
    let answer = client.call("/b", Bytes::new()).await.expect("an answer");
    assert_eq!(answer.status, 404);
    for (paths, expected) in [
        (None, [200, 200]),
        (Some(&["/b"][..]), [404, 200]),
        (Some(&[]), [404, 404]),
        (None, [200, 200]),
    ] {
        closing.let_in(paths.and_then(below)).await;
        for (path, status) in ["/a", "/b"].into_iter().zip(expected) {
            let answer = client.call(path, Bytes::new()).await.expect("an answer");
            assert_eq!(answer.status, status, "{paths:?} {path}");
        }
    }
    assert_eq!(seen.load(Ordering::Relaxed), 5);
    assert_eq!(closing.of(NOT_FOUND, "web.example"), 4.0);
    let (response, send) = client.begin("/a").await;
    let answer = finish(response, send, Bytes::new()).await;
    assert_eq!(answer.expect("an answer").status, 200);
}
