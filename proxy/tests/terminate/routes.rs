//! HTTP/2 to a service with routes: counted as on the relay, with timeouts, and sent again within a budget.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use hyper::http::{HeaderMap, Response};
use weir_crds::routes::{RetryBudget, Route, RouteTable};
use weir_proxy::endpoints::{Listed, Service};
use weir_proxy::routes::compile;
use weir_proxy::telemetry::Dst;

use super::peer::{Answer, Client, Setup, finish, serving, write};
use super::proxy::{Proxy, nobody};
use super::routed::{below, classed, expected, series, table, timed, unsent};
use super::service::{Asked, answering, by_streams, server};

/// A service of these endpoints with these routes. One is enough to be terminated.
pub(crate) fn routed(endpoints: &[std::net::SocketAddr], table: &RouteTable) -> Proxy {
    let listed = |addr: &std::net::SocketAddr| Listed::plain(*addr, Dst::new([("service", "web")]));
    let service = Service {
        name: "web".to_owned(),
        endpoints: endpoints.iter().map(listed).collect(),
        routes: Some(Arc::new(compile(table).expect("a table"))),
        ..Service::default()
    };
    Proxy::start_service(service, by_streams())
}

/// Answers with the status that ends the path, and what came as body.
async fn echo((request, mut respond): Asked) {
    let (head, mut body) = request.into_parts();
    let mut bytes = Vec::new();
    while let Some(Ok(chunk)) = body.data().await {
        let _released = body.flow_control().release_capacity(chunk.len());
        bytes.extend(chunk);
    }
    let trailers = body.trailers().await.ok().flatten();
    let status = head.uri.path().rsplit('/').next().unwrap_or_default();
    let response = Response::builder()
        .status(status)
        .body(())
        .expect("a status");
    let Ok(mut send) = respond.send_response(response, false) else {
        return;
    };
    let is_written = write(&mut send, bytes.into()).await;
    if is_written {
        let _sent = match trailers {
            Some(trailers) => send.send_trailers(trailers),
            None => send.send_data(Bytes::new(), true),
        };
    }
}

/// Fails the first so many requests with 503, and echoes the others. Counts all.
async fn failing(first: usize) -> (std::net::SocketAddr, Arc<AtomicUsize>) {
    let seen = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&seen);
    let addr = answering(move |asked: Asked| {
        let n = counted.fetch_add(1, Ordering::Relaxed);
        async move {
            if n >= first {
                return echo(asked).await;
            }
            let (request, mut respond) = asked;
            // All of it has come: what follows is sent by heart.
            let mut body = request.into_body();
            while let Some(Ok(chunk)) = body.data().await {
                let _released = body.flow_control().release_capacity(chunk.len());
            }
            let response = Response::builder().status(503).body(()).expect("a status");
            let _sent = respond.send_response(response, true);
        }
    });
    (addr.await, seen)
}

pub(crate) fn retryable(route: Route) -> Route {
    Route {
        retryable: true,
        ..route
    }
}

/// With so many retries in all: the window is longer than any test.
pub(crate) fn budgeted(routes: Vec<Route>, retries: u32) -> RouteTable {
    RouteTable {
        retry_budget: Some(RetryBudget {
            ratio: 0.0,
            min_per_second: retries,
            ttl: Duration::from_secs(1),
        }),
        ..table(routes)
    }
}

/// As [`budgeted`], by requests: a part of them, in a window that is longer than any test.
fn by_requests(routes: Vec<Route>, ratio: f32) -> RouteTable {
    RouteTable {
        retry_budget: Some(RetryBudget {
            ratio,
            min_per_second: 0,
            ttl: Duration::from_secs(3600),
        }),
        ..table(routes)
    }
}

#[tokio::test]
async fn each_request_is_counted_under_its_route() {
    let routes = vec![timed(classed(below("/a")), 60_000), below("/b")];
    let proxy = routed(&[answering(echo).await], &table(routes));
    let mut client = Client::connect(&proxy, Setup::default()).await;
    for (path, status) in [
        ("/a/200", 200),
        ("/a/404", 404),
        ("/b/404", 404),
        ("/a/500", 500),
        ("/c/500", 500),
    ] {
        let answer = client
            .call(path, Bytes::from_static(b"same"))
            .await
            .expect("an answer");
        assert_eq!(
            (answer.status, &*answer.body),
            (status, &b"same"[..]),
            "{path}"
        );
    }
    proxy
        .counts("response_total", &["authority=\"web.example\""], 5.0)
        .await;
    let rows: [(&str, &[_]); 3] = [
        (
            "below /a",
            &[
                ("success", 200, "", 1.0),
                ("failure", 404, "", 1.0),
                ("success", 500, "", 1.0),
            ],
        ),
        ("below /b", &[("success", 404, "", 1.0)]),
        ("", &[("failure", 500, "", 1.0)]),
    ];
    assert_eq!(series(&proxy), expected(&rows));
}

#[tokio::test]
async fn a_response_that_is_late_is_answered_in_its_place() {
    // So long, because the head of a stream has to come in it on a machine that is busy.
    let routes = vec![timed(below("/"), 1000)];
    let proxy = routed(&[serving(Setup::default()).await], &table(routes));
    let mut client = Client::connect(&proxy, Setup::default()).await;
    let answer = client.call("/hang", Bytes::new()).await.expect("an answer");
    assert_eq!(answer.status, 504);
    // What has begun may take its time, and the connection lives on.
    let (response, send) = client.begin("/stream").await;
    assert_eq!(response.await.expect("a head").status(), 200);
    drop(send);
    let rows: [(&str, &[_]); 1] = [(
        "below /",
        &[
            ("failure", 504, "timeout", 1.0),
            ("success", 200, "canceled", 1.0),
        ],
    )];
    proxy.counts("route_response_total", &[], 2.0).await;
    assert_eq!(series(&proxy), expected(&rows));
    proxy
        .counts("outbound_http_errors_total", &["error=\"timeout\""], 1.0)
        .await;
}

/// A call of gRPC without a message.
async fn call_grpc(client: &mut Client, path: &str) -> Answer {
    let grpc = [("content-type", "application/grpc")];
    let (response, send) = client.begin_with(path, &grpc).await;
    let answer = finish(response, send, Bytes::new()).await;
    answer.expect("an answer")
}

#[tokio::test]
async fn a_closed_table_answers_as_the_request_asks() {
    let closed = RouteTable {
        closed: true,
        ..table(vec![below("/a")])
    };
    let proxy = routed(&[nobody()], &closed);
    let mut client = Client::connect(&proxy, Setup::default()).await;
    let answer = client.call("/b", Bytes::new()).await.expect("an answer");
    assert_eq!((answer.status, answer.grpc_status), (404, None));
    let answer = call_grpc(&mut client, "/b").await;
    assert_eq!(
        (answer.status, answer.grpc_status.as_deref()),
        (200, Some("12"))
    );
    proxy.counts("route_response_total", &[], 2.0).await;
    let rows: [(&str, &[_]); 1] = [("", &[("success", 404, "", 1.0), ("success", 200, "", 1.0)])];
    assert_eq!(series(&proxy), unsent(&rows));
    let row = [
        "status_code=\"200\"",
        "grpc_status_code=\"12\"",
        "classification=\"success\"",
    ];
    proxy.counts("response_total", &row, 1.0).await;
    assert_eq!(proxy.sum("tcp_open_total", &["peer=\"dst\""]), 0.0);
}

#[tokio::test]
async fn a_route_to_backends_that_are_not_there_answers_as_the_request_asks() {
    let gone = Route {
        missing: 1,
        ..retryable(below("/a"))
    };
    let routes = budgeted(vec![gone, below("/b")], 100);
    let proxy = routed(&[nobody()], &routes);
    let mut client = Client::connect(&proxy, Setup::default()).await;
    let answer = client.call("/a", Bytes::new()).await.expect("an answer");
    assert_eq!((answer.status, answer.grpc_status), (500, None));
    let answer = call_grpc(&mut client, "/a").await;
    assert_eq!(
        (answer.status, answer.grpc_status.as_deref()),
        (200, Some("14"))
    );
    proxy.counts("route_response_total", &[], 2.0).await;
    let rows: [(&str, &[_]); 1] = [(
        "below /a",
        &[
            ("failure", 500, "no backend", 1.0),
            ("failure", 200, "", 1.0),
        ],
    )];
    assert_eq!(series(&proxy), unsent(&rows));
    let label = ["error=\"no backend\""];
    assert_eq!(proxy.sum("outbound_http_errors_total", &label), 2.0);
    assert_eq!(proxy.sum("tcp_open_total", &["peer=\"dst\""]), 0.0);
    // The others of a connection go on.
    let proxy = routed(&[answering(echo).await], &routes);
    let mut client = Client::connect(&proxy, Setup::default()).await;
    for (path, status) in [("/b/200", 200), ("/a", 500), ("/b/200", 200)] {
        let answer = client.call(path, Bytes::new()).await;
        assert_eq!(answer.expect("an answer").status, status, "{path}");
    }
}

#[tokio::test]
async fn a_request_that_failed_is_sent_again_with_all_that_it_had() {
    let (server, seen) = failing(2).await;
    let proxy = routed(&[server], &budgeted(vec![retryable(below("/a"))], 100));
    let mut client = Client::connect(&proxy, Setup::default()).await;
    let body = Bytes::from(vec![7; 60_000]);
    let (response, mut send) = client.begin("/a/200").await;
    assert!(write(&mut send, body.clone()).await);
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", "0".parse().expect("a value"));
    send.send_trailers(trailers).expect("sent");
    let mut response = response.await.expect("a head");
    let mut echoed = Vec::new();
    while let Some(chunk) = response.body_mut().data().await {
        let chunk = chunk.expect("data");
        let _released = response
            .body_mut()
            .flow_control()
            .release_capacity(chunk.len());
        echoed.extend(chunk);
    }
    let trailers = response.body_mut().trailers().await.expect("an end");
    assert_eq!(response.status(), 200);
    assert!(echoed == body, "{} bytes came back", echoed.len());
    assert!(trailers.expect("trailers").contains_key("grpc-status"));
    assert_eq!(seen.load(Ordering::Relaxed), 3);
    proxy.counts("route_response_total", &[], 1.0).await;
    for (family, labels, n) in [
        ("request_total", "authority=\"web.example\"", 1.0),
        ("response_total", "status_code=\"200\"", 1.0),
        ("response_total", "authority=\"web.example\"", 1.0),
        ("route_request_total", "rt_route=\"below /a\"", 1.0),
        ("route_response_total", "status_code=\"200\"", 1.0),
        ("route_actual_request_total", "rt_route=\"below /a\"", 3.0),
        ("route_actual_response_total", "status_code=\"503\"", 2.0),
        ("route_actual_response_total", "status_code=\"200\"", 1.0),
    ] {
        assert_eq!(proxy.sum(family, &[labels]), n, "{family} {labels}");
    }
}

#[tokio::test]
async fn where_a_request_has_failed_it_is_not_sent_again() {
    // Who fails at once looks fast.
    let (bad, _) = failing(usize::MAX).await;
    let slow = answering(|asked| async move {
        tokio::time::sleep(Duration::from_millis(20)).await;
        echo(asked).await;
    });
    let endpoints = [bad, slow.await];
    let proxy = routed(&endpoints, &budgeted(vec![retryable(below("/"))], 100));
    let mut client = Client::connect(&proxy, Setup::default()).await;
    for _ in 0..5 {
        let answer = client.call("/200", Bytes::from_static(b"same")).await;
        assert_eq!(answer.expect("an answer").status, 200);
    }
}

#[tokio::test]
async fn a_connection_that_is_lost_before_its_response_is_a_failed_attempt() {
    let seen = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&seen);
    let losing = server(move |mut connection| {
        let counted = Arc::clone(&counted);
        async move {
            while let Some(Ok(asked)) = connection.accept().await {
                if counted.fetch_add(1, Ordering::Relaxed) < 2 {
                    // Without a word.
                    return;
                }
                tokio::spawn(echo(asked));
            }
        }
    });
    let losing = losing.await;
    let proxy = routed(&[losing], &budgeted(vec![retryable(below("/"))], 100));
    let mut client = Client::connect(&proxy, Setup::default()).await;
    let answer = client.call("/200", Bytes::from_static(b"same")).await;
    let answer = answer.expect("an answer");
    assert_eq!((answer.status, &*answer.body), (200, &b"same"[..]));
    assert_eq!(seen.load(Ordering::Relaxed), 3);
    let lost = ["status_code=\"502\"", "error=\"reset\""];
    proxy
        .counts("route_actual_response_total", &lost, 2.0)
        .await;
    proxy.counts("route_response_total", &[], 1.0).await;
    proxy
        .counts("response_total", &["status_code=\"200\""], 1.0)
        .await;
}

#[tokio::test]
async fn the_budget_is_obeyed() {
    let (server, seen) = failing(usize::MAX).await;
    let routes = vec![retryable(below("/a")), below("/b")];
    let proxy = routed(&[server], &by_requests(routes, 0.2));
    let mut client = Client::connect(&proxy, Setup::default()).await;
    for path in ["/a/200", "/b/200"] {
        for _ in 0..100 {
            let answer = client.call(path, Bytes::new()).await.expect("an answer");
            assert_eq!(answer.status, 503);
        }
    }
    assert_eq!(seen.load(Ordering::Relaxed), 220);
    proxy
        .counts("route_actual_response_total", &["below /a"], 120.0)
        .await;
    proxy
        .counts("route_actual_request_total", &["below /b"], 100.0)
        .await;
    proxy
        .counts("route_request_total", &["below /a"], 100.0)
        .await;
    proxy
        .counts("route_response_total", &["status_code=\"503\""], 200.0)
        .await;
}

#[tokio::test]
async fn what_is_large_is_sent_once_and_nothing_for_ever() {
    let (server, seen) = failing(usize::MAX).await;
    let proxy = routed(&[server], &budgeted(vec![retryable(below("/"))], 1000));
    let mut client = Client::connect(&proxy, Setup::default()).await;
    let large = Bytes::from(vec![0; 64 * 1024 + 1]);
    assert_eq!(
        client.call("/200", large).await.expect("an answer").status,
        503
    );
    assert_eq!(seen.swap(0, Ordering::Relaxed), 1);
    let small = Bytes::from(vec![0; 64 * 1024]);
    assert_eq!(
        client.call("/200", small).await.expect("an answer").status,
        503
    );
    assert_eq!(seen.load(Ordering::Relaxed), 10);
}
