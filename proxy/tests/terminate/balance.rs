//! Which endpoint a request goes to, and what is counted where one refuses.

use std::time::Duration;

use bytes::Bytes;
use futures::future::join_all;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use weir_proxy::worker;

use super::ends::request_of;
use super::peer::{Client, Setup, finish, serving};
use super::proxy::nobody;
use super::routed::below;
use super::routes::{budgeted, retryable, routed};
use super::service::{by_streams, pod, replace, serve, two};
use super::wire::{acknowledgement, goaway, settings};

#[tokio::test]
async fn a_connection_that_was_dialed_for_a_silent_client_is_taken_over_and_counts_once() {
    let setup = Setup {
        listens_first: true,
        ..Setup::default()
    };
    let (a, b) = (serving(setup).await, serving(setup).await);
    let proxy = serve(&[("a", a), ("b", b)], by_streams());
    let stream = proxy.connect().await;
    let dialed = ["peer=\"dst\"", "authority=\"web\"", "dst_pod="];
    proxy.counts("tcp_open_total", &dialed, 1.0).await;
    let mut client = Client::begin_on(stream, Setup::default()).await;
    for _ in 0..10 {
        let answer = client.call("/plain", Bytes::new()).await;
        assert_eq!(answer.expect("an answer").status, 200);
    }
    for name in ["a", "b"] {
        let opened = proxy.sum("tcp_open_total", &[dialed[0], &pod(name)]);
        assert!(opened <= 1.0, "{opened} to {name}");
    }
    let open = proxy.sum("http2_active_connections", &["peer=\"dst\""]);
    assert!(open >= 1.0);
    proxy.counts("tcp_open_connections", &dialed, open).await;
}

#[tokio::test]
async fn the_streams_of_one_connection_spread_over_the_endpoints() {
    let proxy = two(Setup::default(), by_streams()).await;
    let mut client = Client::connect(&proxy, Setup::default()).await;
    let mut open = Vec::new();
    for _ in 0..30 {
        let (response, send) = client.begin("/stream").await;
        open.push((response.await.expect("a head"), send));
    }
    for name in ["a", "b"] {
        let pod = pod(name);
        let request = ["direction=\"outbound\"", "authority=\"web.example\"", &pod];
        proxy.counts("request_total", &request, 15.0).await;
        let dialed = ["peer=\"dst\"", "authority=\"web\"", &pod];
        proxy.counts("tcp_open_connections", &dialed, 1.0).await;
        proxy
            .counts("response_latency_ms_count", &[&pod], 15.0)
            .await;
    }
    for (peer, connections) in [("src", 1.0), ("dst", 2.0)] {
        let peer = format!("peer=\"{peer}\"");
        proxy.counts("http2_active_streams", &[&peer], 30.0).await;
        proxy
            .counts("http2_active_connections", &[&peer], connections)
            .await;
    }
    drop(open);
    drop(client);
    let row = [
        "status_code=\"200\"",
        "classification=\"success\"",
        "error=\"canceled\"",
    ];
    proxy.counts("response_total", &row, 30.0).await;
    proxy.counts("http2_active_streams", &[], 0.0).await;
    proxy
        .counts("http2_active_connections", &["peer=\"src\""], 0.0)
        .await;
    // The connections to the endpoints are there for the next one.
    assert_eq!(proxy.sum("tcp_open_connections", &["peer=\"dst\""]), 2.0);
}

#[tokio::test]
async fn clients_share_the_connections_to_the_endpoints() {
    let mut config = worker::Config::default();
    // Nobody is silent here, however busy the machine is: a connection is dialed for one who is.
    config.detect.silence = Duration::from_secs(60);
    let proxy = two(Setup::default(), config).await;
    for _ in 0..10 {
        let mut client = Client::connect(&proxy, Setup::default()).await;
        for path in ["/plain", "/trailers"] {
            let answer = client.call(path, Bytes::from_static(b"body")).await;
            let answer = answer.expect("an answer");
            assert_eq!((answer.status, &*answer.body), (200, &b"body"[..]));
        }
    }
    proxy.counts("request_total", &[], 20.0).await;
    proxy.counts("response_total", &["error=\"\""], 20.0).await;
    proxy
        .counts("tcp_open_total", &["peer=\"src\""], 10.0)
        .await;
    let dialed = proxy.sum("tcp_open_total", &["peer=\"dst\""]);
    assert!((1.0..=2.0).contains(&dialed), "{dialed}");
}

#[tokio::test]
async fn with_one_endpoint_frames_pass_as_they_are() {
    let proxy = serve(&[("a", serving(Setup::default()).await)], by_streams());
    for _ in 0..3 {
        let mut client = Client::connect(&proxy, Setup::default()).await;
        client
            .call("/plain", Bytes::new())
            .await
            .expect("an answer");
    }
    // One connection out for every one in.
    proxy.counts("tcp_open_total", &["peer=\"dst\""], 3.0).await;
}

#[tokio::test]
async fn who_refuses_is_left_for_another_and_nobody_notices() {
    let good = serving(Setup::default()).await;
    let endpoints = [("dead-1", nobody()), ("good", good), ("dead-2", nobody())];
    let proxy = serve(&endpoints, worker::Config::default());
    let mut client = Client::connect(&proxy, Setup::default()).await;
    for _ in 0..40 {
        let answer = client.call("/plain", Bytes::new()).await;
        assert_eq!(answer.expect("an answer").status, 200);
    }
    let good = pod("good");
    proxy.counts("request_total", &[&good], 40.0).await;
    proxy
        .counts("response_total", &[&good, "status_code=\"200\""], 40.0)
        .await;
    for family in ["request_total", "response_total"] {
        assert_eq!(proxy.sum(family, &[]), 40.0, "{family} has no other");
    }
    assert_eq!(proxy.sum("tcp_open_total", &["peer=\"dst\""]), 1.0);
    assert_eq!(proxy.sum("outbound_tcp_errors_total", &[]), 0.0);
    assert_eq!(proxy.sum("outbound_http_errors_total", &[]), 0.0);
}

#[tokio::test]
async fn where_all_refuse_every_stream_is_told_and_counted() {
    let endpoints = [("a", nobody()), ("b", nobody())];
    let proxy = serve(&endpoints, worker::Config::default());
    let mut client = Client::connect(&proxy, Setup::default()).await;
    for round in 1..=3 {
        let answer = client.call("/plain", Bytes::new()).await;
        assert_eq!(answer.expect("an answer").status, 502);
        proxy.refused(f64::from(round)).await;
    }
    assert_eq!(proxy.sum("tcp_open_total", &["peer=\"dst\""]), 0.0);
    proxy.counts("http2_active_streams", &[], 0.0).await;
}

/// A server that is gone with its first request, to which it says this.
async fn going(says: Vec<u8>) -> std::net::SocketAddr {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await;
    let listener = listener.expect("a free port");
    let addr = listener.local_addr().expect("an address");
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.expect("a client");
        drop(listener);
        let hello = [settings(&[]), acknowledgement()].concat();
        stream.write_all(&hello).await.expect("written");
        request_of(&mut stream).await;
        stream.write_all(&says).await.expect("written");
        if !says.is_empty() {
            let _eof = stream.read_to_end(&mut Vec::new()).await;
        }
    });
    addr
}

#[tokio::test]
async fn a_further_attempt_that_finds_nobody_is_counted_as_a_first_one() {
    let refused = ["error=\"connect\"", "peer=\"dst\""];
    // A failed attempt, which its route would have made again.
    let table = budgeted(vec![retryable(below("/"))], 100);
    let proxy = routed(&[going(Vec::new()).await], &table);
    let mut client = Client::connect(&proxy, Setup::default()).await;
    let answer = client.call("/", Bytes::new()).await;
    assert_eq!(answer.expect("an answer").status, 502);
    proxy
        .counts("outbound_tcp_errors_total", &refused, 1.0)
        .await;
    // One that its server has not looked at.
    let leaving = going(goaway(0, h2::Reason::NO_ERROR.into())).await;
    let endpoints = [("a", leaving), ("b", nobody())];
    let proxy = serve(&endpoints, worker::Config::default());
    let mut client = Client::connect(&proxy, Setup::default()).await;
    let error = client.call("/", Bytes::new()).await.err();
    let reason = error.and_then(|error| error.reason());
    assert_eq!(reason, Some(h2::Reason::REFUSED_STREAM));
    proxy
        .counts("outbound_tcp_errors_total", &refused, 1.0)
        .await;
}

#[tokio::test]
async fn where_nobody_says_its_settings_in_time_it_is_504() {
    let silent = || {
        super::proxy::application(|stream| async move {
            let _held = stream;
            std::future::pending().await
        })
    };
    let endpoints = [("a", silent().await), ("b", silent().await)];
    let mut config = worker::Config::default();
    config.forward.connect_timeout = Duration::from_millis(200);
    config.forward.attempt_timeout = Duration::from_millis(50);
    let proxy = serve(&endpoints, config);
    let mut client = Client::connect(&proxy, Setup::default()).await;
    let answer = client.call("/plain", Bytes::new()).await;
    assert_eq!(answer.expect("an answer").status, 504);
    let row = ["status_code=\"504\"", "error=\"timeout\""];
    proxy.counts("response_total", &row, 1.0).await;
    proxy
        .counts(
            "outbound_tcp_errors_total",
            &["error=\"connect timeout\""],
            1.0,
        )
        .await;
}

#[tokio::test]
async fn who_does_not_speak_http2_is_left_for_another() {
    let other = super::proxy::application(|stream| async move {
        super::proxy::answer_heads(stream, b"HTTP/1.1 400 Bad Request\r\n\r\n").await;
    })
    .await;
    let good = serving(Setup::default()).await;
    let proxy = serve(&[("other", other), ("good", good)], by_streams());
    let mut client = Client::connect(&proxy, Setup::default()).await;
    for _ in 0..10 {
        let answer = client.call("/plain", Bytes::new()).await;
        assert_eq!(answer.expect("an answer").status, 200);
    }
    proxy.counts("request_total", &[&pod("good")], 10.0).await;
    assert_eq!(proxy.sum("request_total", &[]), 10.0);
}

#[tokio::test]
async fn a_connection_is_added_when_the_streams_of_the_others_are_used_up() {
    let few = Setup {
        most_streams: 5,
        ..Setup::default()
    };
    let endpoints = [("a", serving(few).await), ("b", serving(few).await)];
    let proxy = serve(&endpoints, by_streams());
    let mut client = Client::connect(&proxy, Setup::default()).await;
    let mut open = Vec::new();
    for _ in 0..30 {
        let (response, send) = client.begin("/stream").await;
        open.push((super::proxy::soon(response).await.expect("a head"), send));
    }
    for name in ["a", "b"] {
        proxy
            .counts("tcp_open_connections", &[&pod(name)], 3.0)
            .await;
        proxy.counts("request_total", &[&pod(name)], 15.0).await;
    }
    proxy
        .counts("http2_active_connections", &["peer=\"dst\""], 6.0)
        .await;
}

#[tokio::test]
async fn streams_wait_where_all_connections_are_full() {
    let few = Setup {
        most_streams: 2,
        ..Setup::default()
    };
    let mut config = by_streams();
    config.terminate.connections = 1;
    let endpoints = [("a", serving(few).await), ("b", serving(few).await)];
    let proxy = serve(&endpoints, config);
    let mut client = Client::connect(&proxy, Setup::default()).await;
    let mut open = Vec::new();
    for _ in 0..20 {
        open.push(client.begin("/plain").await);
    }
    let answers = open
        .into_iter()
        .map(|(response, send)| finish(response, send, Bytes::from_static(b"body")));
    for answer in join_all(answers).await {
        assert_eq!(answer.expect("an answer").body, b"body");
    }
    proxy.counts("response_total", &["error=\"\""], 20.0).await;
    assert_eq!(proxy.sum("tcp_open_total", &["peer=\"dst\""]), 2.0);
}

#[tokio::test]
async fn an_endpoint_that_leaves_keeps_its_streams_and_gets_no_more() {
    let [a, b, c] = [
        serving(Setup::default()).await,
        serving(Setup::default()).await,
        serving(Setup::default()).await,
    ];
    let proxy = serve(&[("a", a), ("b", b)], by_streams());
    let mut client = Client::connect(&proxy, Setup::default()).await;
    let mut held = Vec::new();
    for _ in 0..2 {
        let (response, send) = client.begin("/stream").await;
        held.push((response.await.expect("a head"), send));
    }
    proxy
        .counts("tcp_open_connections", &[&pod("a")], 1.0)
        .await;
    replace(&proxy, &[("b", b), ("c", c)]);
    let mut asked = 0;
    while proxy.sum("request_total", &[&pod("c")]) < 5.0 {
        client
            .call("/plain", Bytes::new())
            .await
            .expect("an answer");
        asked += 1;
        assert!(asked < 1000, "the new endpoint is never used");
    }
    assert_eq!(proxy.sum("tcp_open_connections", &[&pod("a")]), 1.0);
    drop(held);
    proxy
        .counts("tcp_open_connections", &[&pod("a")], 0.0)
        .await;
    proxy
        .counts(
            "tcp_close_total",
            &[&pod("a"), "classification=\"success\""],
            1.0,
        )
        .await;
}

#[tokio::test]
async fn a_client_that_hesitates_is_balanced_although_its_server_greets() {
    let proxy = two(Setup::default(), by_streams()).await;
    for round in 1..=3 {
        let stream = proxy.connect().await;
        // The server is dialed meanwhile, and says its SETTINGS.
        proxy
            .counts("tcp_open_total", &["peer=\"src\""], f64::from(round))
            .await;
        tokio::time::sleep(Duration::from_millis(50)).await;
        let (sender, connection) = h2::client::handshake(stream).await.expect("a handshake");
        let connection = tokio::spawn(connection);
        let mut client = Client { sender, connection };
        for _ in 0..2 {
            let answer = client.call("/plain", Bytes::new()).await;
            assert_eq!(answer.expect("an answer").status, 200);
        }
        let count = f64::from(2 * round);
        proxy.counts("response_total", &["error=\"\""], count).await;
        client.connection.abort();
    }
    proxy.counts("request_total", &["dst_pod"], 6.0).await;
    proxy
        .counts("http2_active_connections", &["peer=\"src\""], 0.0)
        .await;
}

#[tokio::test]
async fn a_slow_endpoint_is_left_to_a_few_streams() {
    let answer = |wait: Duration| {
        super::service::answering(move |(_request, mut respond)| async move {
            tokio::time::sleep(wait).await;
            let _gone = respond.send_response(hyper::http::Response::new(()), true);
        })
    };
    let endpoints = [
        ("slow", answer(Duration::from_secs(1)).await),
        ("fast", answer(Duration::ZERO).await),
        ("quick", answer(Duration::ZERO).await),
    ];
    let proxy = serve(&endpoints, worker::Config::default());
    let mut client = Client::connect(&proxy, Setup::default()).await;
    for _ in 0..60 {
        let answer = client.call("/", Bytes::new()).await;
        assert_eq!(answer.expect("an answer").status, 200);
    }
    proxy.counts("response_total", &[], 60.0).await;
    // The first choice may fall on it; after that only answers of others that took as long
    // could bring it back.
    let slow = proxy.sum("response_total", &[&pod("slow")]);
    assert!(slow <= 6.0, "{slow} of 60");
}
