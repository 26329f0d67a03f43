//! Requests of HTTP/2 that no application has seen: each goes to another endpoint by itself, and its client sees nothing of
//! that. The proxy of an application that is gone answers for it where the port is closed; elsewhere it takes no
//! connection.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures::future::{join, join_all};
use hyper::http::Response;
use weir_proxy::worker;

use super::closing::Closing;
use super::peer::{Client, Setup, finish, serving, write};
use super::proxy::{Proxy, nobody, soon};
use super::service::{Asked, Named, answering, by_streams, pod, serve};

/// One that is set aside is for so long.
fn resting(rest: Duration) -> worker::Config {
    let mut config = by_streams();
    (config.endpoints.rest_min, config.endpoints.rest_max) = (rest, rest);
    config
}

/// In front of an application that is gone, at a port where each request is judged by itself.
async fn gone() -> Closing {
    Closing::start(nobody(), Some(&["/"]))
}

fn service(dead: &Closing, good: SocketAddr, rest: Duration) -> Proxy {
    let endpoints: [Named<'_>; 2] = [("dead", dead.proxy.addr), ("good", good)];
    serve(&endpoints, resting(rest))
}

/// A client that keeps a stream to the endpoint that answers: the next one is for the other.
async fn keeping(proxy: &Proxy) -> (Client, impl Sized) {
    let mut client = Client::connect(proxy, Setup::default()).await;
    let (response, send) = client.begin("/stream").await;
    let response = soon(response).await.expect("an answer");
    assert_eq!(response.status(), 200);
    (client, (response, send))
}

/// Requests that the proxy of an application that is gone has answered.
async fn answered(dead: &Closing, n: f64) {
    let row = [
        "direction=\"inbound\"",
        "status_code=\"502\"",
        "error=\"connect\"",
    ];
    dead.proxy.counts("response_total", &row, n).await;
}

#[tokio::test]
async fn each_goes_to_an_application_that_is_there_with_all_that_it_had() {
    let dead = gone().await;
    let proxy = service(&dead, serving(Setup::default()).await, Duration::ZERO);
    let (mut client, _kept) = keeping(&proxy).await;
    let before = dead.of("request_total", "web.example");
    let body: Bytes = (0..60_000u32).map(|i| (i ^ (i >> 8)) as u8).collect();
    for body in [Bytes::new(), Bytes::from_static(b"body"), body] {
        let answer = client.call("/echo", body.clone()).await.expect("an answer");
        assert_eq!(answer.status, 200);
        assert!(answer.body == body, "{} bytes", answer.body.len());
    }
    answered(&dead, before + 3.0).await;
    let out = "direction=\"outbound\"";
    for (family, labels, n) in [
        ("request_total", &[out][..], 4.0),
        (
            "response_total",
            &[out, "status_code=\"200\"", "error=\"\""],
            3.0,
        ),
        ("response_total", &[out], 3.0),
        ("outbound_http_errors_total", &[], 0.0),
        ("outbound_tcp_errors_total", &[], 0.0),
    ] {
        proxy.counts(family, labels, n).await;
    }
}

#[tokio::test]
async fn who_has_no_application_is_set_aside_for_all() {
    let dead = gone().await;
    let long = Duration::from_secs(600);
    let proxy = service(&dead, serving(Setup::default()).await, long);
    let (mut client, _kept) = keeping(&proxy).await;
    // Those that are under way together have been sent before anybody knew.
    let mut open = Vec::new();
    for _ in 0..5 {
        let (response, send) = client.begin("/echo").await;
        open.push(finish(response, send, Bytes::from_static(b"same")));
    }
    for answer in soon(join_all(open)).await {
        let answer = answer.expect("an answer");
        assert_eq!((answer.status, &*answer.body), (200, &b"same"[..]));
    }
    let seen = dead.of("request_total", "web.example");
    assert!(seen >= 1.0, "the good one has had more streams");
    for _ in 0..10 {
        let answer = client.call("/echo", Bytes::new()).await.expect("an answer");
        assert_eq!(answer.status, 200);
    }
    assert_eq!(dead.of("request_total", "web.example"), seen);
}

#[tokio::test]
async fn what_is_still_on_its_way_follows() {
    let dead = gone().await;
    let proxy = service(&dead, serving(Setup::default()).await, Duration::ZERO);
    let (mut client, _kept) = keeping(&proxy).await;
    let before = dead.of("request_total", "web.example");
    for first in [0, 1000] {
        let (response, mut send) = client.begin("/echo").await;
        let body = Bytes::from(vec![7; 300_000]);
        assert!(write(&mut send, body.slice(..first)).await);
        let n = if first == 0 { 1.0 } else { 2.0 };
        answered(&dead, before + n).await;
        let answer = soon(finish(response, send, body.slice(first..))).await;
        let answer = answer.expect("an answer");
        assert_eq!(answer.status, 200);
        assert!(answer.body == body, "{} bytes", answer.body.len());
    }
}

/// A proxy that has nobody to give requests to, and says so once it has heard all of one.
async fn hearing_out() -> SocketAddr {
    let known = Arc::new(OnceLock::new());
    let hop = Arc::clone(&known);
    let addr = answering(move |(request, mut respond): Asked| {
        let hop: SocketAddr = *hop.get().expect("it is known by now");
        async move {
            let mut body = request.into_body();
            while let Some(Ok(chunk)) = body.data().await {
                let _released = body.flow_control().release_capacity(chunk.len());
            }
            let value = format!("weir; error=connection_refused; next-hop=\"{hop}\"");
            let response = Response::builder()
                .status(502)
                .header("proxy-status", value);
            let response = response.body(()).expect("a response");
            let _gone = respond.send_response(response, true);
        }
    });
    let addr = addr.await;
    known.set(addr).expect("it is set once");
    addr
}

#[tokio::test]
async fn what_is_too_large_to_be_kept_is_answered_and_the_next_goes_elsewhere() {
    let (dead, good) = (hearing_out().await, serving(Setup::default()).await);
    let long = resting(Duration::from_secs(600));
    let proxy = serve(&[("dead", dead), ("good", good)], long);
    let mut client = Client::connect(&proxy, Setup::default()).await;
    let (mut statuses, mut kept) = (Vec::new(), Vec::new());
    // The first of all may find the good one, which keeps it.
    for _ in 0..2 {
        let (response, mut send) = client.begin("/stream").await;
        let large = Bytes::from(vec![0; 64 * 1024 + 1]);
        let all = async {
            let _taken = write(&mut send, large).await;
            let _ended = send.send_data(Bytes::new(), true);
        };
        let (response, ()) = soon(join(response, all)).await;
        let response = response.expect("an answer");
        statuses.push(response.status().as_u16());
        kept.push((response, send));
        if statuses.last() == Some(&502) {
            break;
        }
    }
    assert!(matches!(statuses[..], [502] | [200, 502]), "{statuses:?}");
    for _ in 0..5 {
        let answer = client.call("/echo", Bytes::new()).await.expect("an answer");
        assert_eq!(answer.status, 200);
    }
    proxy.counts("request_total", &[&pod("dead")], 1.0).await;
}

#[tokio::test]
async fn where_all_are_gone_the_last_ones_answer_is_shown() {
    let (a, b) = (gone().await, gone().await);
    let endpoints = [("a", a.proxy.addr), ("b", b.proxy.addr)];
    let proxy = serve(&endpoints, resting(Duration::ZERO));
    let mut client = Client::connect(&proxy, Setup::default()).await;
    for n in 1..=3 {
        let (response, send) = client.begin("/echo").await;
        drop(send);
        let response = soon(response).await.expect("an answer");
        assert_eq!(response.status(), 502);
        let said = response.headers()["proxy-status"].to_str().expect("text");
        let of = |dead: &Closing| {
            let addr = dead.proxy.addr;
            format!("weir; error=connection_refused; next-hop=\"{addr}\"")
        };
        assert!(said == of(&a) || said == of(&b), "{said}");
        answered(&a, f64::from(n)).await;
        answered(&b, f64::from(n)).await;
    }
}

#[tokio::test]
async fn what_an_application_passes_on_from_behind_it_is_passed_on() {
    let seen = Arc::new(AtomicUsize::new(0));
    for value in [
        "weir; error=connection_refused; next-hop=\"10.0.0.7:8080\"",
        "weir; error=connection_refused; next-hop=10.0.0.7:8080",
        "weir; error=connection_refused",
    ] {
        let counted = Arc::clone(&seen);
        let passing = move |(_, mut respond): Asked| {
            counted.fetch_add(1, Ordering::Relaxed);
            let response = Response::builder()
                .status(502)
                .header("proxy-status", value);
            let response = response.body(()).expect("a response");
            async move {
                let _gone = respond.send_response(response, true);
            }
        };
        let (a, b) = (answering(passing.clone()).await, answering(passing).await);
        let proxy = serve(&[("a", a), ("b", b)], resting(Duration::ZERO));
        let mut client = Client::connect(&proxy, Setup::default()).await;
        let (response, send) = client.begin("/").await;
        drop(send);
        let response = soon(response).await.expect("an answer");
        assert_eq!(response.status(), 502);
        assert_eq!(response.headers()["proxy-status"], value);
        assert_eq!(seen.swap(0, Ordering::Relaxed), 1, "{value}");
    }
}

#[tokio::test]
async fn where_frames_pass_as_they_are_who_has_no_application_takes_no_connection() {
    let dead = Proxy::inbound(nobody());
    let endpoints = [
        ("dead", dead.addr),
        ("good", serving(Setup::default()).await),
    ];
    let proxy = serve(&endpoints, resting(Duration::from_secs(600)));
    let begun = Instant::now();
    let (mut client, _kept) = keeping(&proxy).await;
    let answer = client.call("/echo", Bytes::from_static(b"same")).await;
    assert_eq!(answer.expect("an answer").status, 200);
    assert!(
        begun.elapsed() < Duration::from_secs(10),
        "{:?}",
        begun.elapsed()
    );
    proxy.counts("request_total", &[&pod("good")], 2.0).await;
    assert_eq!(dead.sum("request_total", &[]), 0.0);
    assert_eq!(proxy.sum("outbound_http_errors_total", &[]), 0.0);
}
