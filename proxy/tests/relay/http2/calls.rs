//! Calls that go well.

use bytes::Bytes;
use futures::future::join_all;
use hyper::http::{Method, Request};

use super::both;
use super::peer::{Client, Setup, finish, serving};
use super::wire::message;
use crate::proxy::Proxy;

/// Bytes that repeat late, so that a lost or doubled piece shows.
fn pattern(len: usize) -> Bytes {
    let byte = |i: usize| (i.wrapping_mul(31) ^ (i >> 8) ^ (i >> 16)) as u8;
    (0..len).map(byte).collect()
}

/// A proxy before the client's pod and one before the application's.
async fn chain(setup: Setup) -> (Proxy, Proxy) {
    let inbound = Proxy::inbound(serving(setup).await);
    let outbound = Proxy::outbound(&[inbound.addr]);
    (outbound, inbound)
}

#[tokio::test]
async fn answers_trailers_and_trailers_alone() {
    let (outbound, inbound) = chain(Setup::default()).await;
    let mut client = Client::connect(&outbound, Setup::default()).await;
    both::calls_end_as_their_servers_say(&mut client).await;
    for (proxy, direction) in [(&outbound, "outbound"), (&inbound, "inbound")] {
        let direction = format!("direction=\"{direction}\"");
        both::those_calls_are_counted(proxy, &direction).await;
        for peer in ["src", "dst"] {
            let labels = [&*direction, &format!("peer=\"{peer}\"")];
            proxy.counts("http2_active_connections", &labels, 1.0).await;
            proxy.counts("http2_active_streams", &labels, 0.0).await;
        }
    }
    drop(client.sender);
    inbound.counts("tcp_open_connections", &[], 0.0).await;
    inbound.counts("http2_active_connections", &[], 0.0).await;
    inbound
        .counts("tcp_close_total", &["classification=\"failure\""], 0.0)
        .await;
}

#[tokio::test]
async fn messages_are_counted_while_their_call_is_open() {
    let (outbound, inbound) = chain(Setup::default()).await;
    let mut client = Client::connect(&outbound, Setup::default()).await;
    let grpc = [("content-type", "application/grpc")];
    let (response, mut send) = client.begin_with("/trailers", &grpc).await;
    for n in 1..=3u8 {
        send.send_data(message(1000).into(), false).expect("sent");
        for (proxy, kind) in [(&outbound, "sent"), (&inbound, "received")] {
            let kind = format!("kind=\"{kind}\"");
            let labels = ["authority=\"web.example\"", &kind];
            proxy
                .counts("grpc_messages_total", &labels, f64::from(n))
                .await;
        }
    }
    inbound
        .counts("http2_active_streams", &["peer=\"dst\""], 1.0)
        .await;
    let answer = finish(response, send, Bytes::new())
        .await
        .expect("an answer");
    assert_eq!(answer.body.len(), 3015);
    outbound
        .counts("grpc_messages_total", &["kind=\"received\""], 3.0)
        .await;
    inbound
        .counts("grpc_messages_total", &["kind=\"sent\""], 3.0)
        .await;
}

#[tokio::test]
async fn small_windows_hold_back_what_they_should_and_lose_nothing() {
    let setup = Setup {
        window: 1000,
        ..Setup::default()
    };
    // The window of a connection is never below 65,535; that of each stream is.
    let (outbound, inbound) = chain(setup).await;
    let mut client = Client::connect(&outbound, setup).await;
    let body = pattern(200_000);
    let answer = client.call("/echo", body.clone()).await.expect("an answer");
    assert!(answer.body == body, "{} bytes come back", answer.body.len());
    inbound
        .counts("response_total", &["status_code=\"200\""], 1.0)
        .await;
}

#[tokio::test]
async fn a_hundred_streams_at_a_time_are_told_apart() {
    let (outbound, inbound) = chain(Setup::default()).await;
    let mut client = Client::connect(&outbound, Setup::default()).await;
    let mut open = Vec::new();
    for _ in 0..100 {
        open.push(client.begin("/trailers").await);
    }
    inbound
        .counts("http2_active_streams", &["peer=\"src\""], 100.0)
        .await;
    inbound.counts("request_total", &[], 100.0).await;
    let body = pattern(10_000);
    let answers = open
        .into_iter()
        .map(|(response, send)| finish(response, send, body.clone()));
    for answer in join_all(answers).await {
        assert!(answer.expect("an answer").body == body);
    }
    for proxy in [outbound, inbound] {
        proxy
            .counts("response_total", &["grpc_status_code=\"0\""], 100.0)
            .await;
        proxy.counts("http2_active_streams", &[], 0.0).await;
    }
}

#[tokio::test]
async fn large_heads_pass_in_their_fragments() {
    let (outbound, inbound) = chain(Setup::default()).await;
    let mut client = Client::connect(&outbound, Setup::default()).await;
    // Above the size of a frame, and incompressible by a table.
    for n in 0..5 {
        let large: String = pattern(40_000)
            .iter()
            .map(|b| char::from(b'!' + (b ^ n) % 90))
            .collect();
        let (response, send) = client.begin_with("/plain", &[("x-large", &large)]).await;
        finish(response, send, Bytes::new())
            .await
            .expect("an answer");
    }
    inbound
        .counts("response_total", &["status_code=\"200\""], 5.0)
        .await;
    assert_eq!(inbound.sum("weir_http_unparsed_total", &[]), 0.0);
}

#[tokio::test]
async fn an_extended_connect_is_a_tunnel_until_both_have_ended_it() {
    let (outbound, inbound) = chain(Setup::default()).await;
    let mut client = Client::connect(&outbound, Setup::default()).await;
    // The setting that allows it has come with the first answer.
    client
        .call("/plain", Bytes::new())
        .await
        .expect("an answer");
    let mut request = Request::builder()
        .method(Method::CONNECT)
        .uri("http://web.example/tunnel");
    request = request.extension(h2::ext::Protocol::from_static("websocket"));
    let request = request.body(()).expect("a request");
    let (response, mut send) = client.sender.send_request(request, false).expect("sent");
    send.send_data(Bytes::from_static(b"hello"), false)
        .expect("sent");
    let mut back = response.await.expect("an answer").into_body();
    assert_eq!(back.data().await.expect("data").expect("no error"), "hello");
    // Its latency is that of the 200; its end is yet to come.
    inbound.counts("response_latency_ms_count", &[], 2.0).await;
    assert_eq!(inbound.sum("response_total", &[]), 1.0);
    send.send_data(Bytes::new(), true).expect("sent");
    inbound
        .counts(
            "response_total",
            &["status_code=\"200\"", "error=\"\""],
            2.0,
        )
        .await;
}

#[tokio::test]
async fn only_open_streams_keep_the_proxy() {
    let proxy = Proxy::inbound(serving(Setup::default()).await);
    let mut client = Client::connect(&proxy, Setup::default()).await;
    client
        .call("/plain", Bytes::new())
        .await
        .expect("an answer");
    let busy = |expected: usize| {
        let gauge = &proxy.gauge;
        async move {
            let wait = async {
                while gauge.get() != expected {
                    tokio::time::sleep(std::time::Duration::from_millis(2)).await;
                }
            };
            tokio::time::timeout(crate::proxy::DEADLINE, wait)
                .await
                .expect("in time");
        }
    };
    busy(0).await;
    let (response, send) = client.begin("/plain").await;
    busy(1).await;
    finish(response, send, Bytes::new())
        .await
        .expect("an answer");
    busy(0).await;
}

#[tokio::test]
async fn a_client_that_hesitates_is_measured_although_its_server_greets() {
    let proxy = Proxy::inbound(serving(Setup::default()).await);
    for round in 1..=2 {
        let stream = proxy.connect().await;
        // The application is dialed meanwhile, and says its SETTINGS.
        let dialed = ["peer=\"dst\""];
        proxy
            .counts("tcp_open_total", &["peer=\"src\""], f64::from(round))
            .await;
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        let (sender, connection) = h2::client::handshake(stream).await.expect("a handshake");
        let connection = tokio::spawn(connection);
        let mut client = Client { sender, connection };
        let answer = client.call("/trailers", Bytes::from_static(b"body")).await;
        assert_eq!(answer.expect("an answer").body, b"body");
        let row = ["grpc_status_code=\"0\"", "error=\"\""];
        proxy.counts("response_total", &row, f64::from(round)).await;
        proxy
            .counts("tcp_open_total", &dialed, f64::from(round))
            .await;
    }
    assert_eq!(proxy.sum("weir_http_unparsed_total", &[]), 0.0);
}
