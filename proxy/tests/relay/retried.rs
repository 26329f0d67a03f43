//! Requests of HTTP/1 that are sent again within a budget, as those of HTTP/2 are: with the bytes that were sent, and so
//! that their client sees one response.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::AsyncWriteExt;
use weir_crds::routes::{RetryBudget, Route, RouteTable};
use weir_proxy::endpoints::{Listed, Service};
use weir_proxy::routes::compile;
use weir_proxy::telemetry::Dst;
use weir_proxy::worker;

use super::proxy::{Proxy, application, nobody, read_all, soon};
use super::routed::{below, table, timed};
use super::talk::{Heard, Talk, echo, echoing, get, post};

fn routed(endpoints: &[SocketAddr], table: &RouteTable) -> Proxy {
    let listed = |addr: &SocketAddr| Listed::plain(*addr, Dst::new([("service", "web")]));
    let service = Service {
        name: "web".to_owned(),
        endpoints: endpoints.iter().map(listed).collect(),
        routes: Some(Arc::new(compile(table).expect("a table"))),
        ..Service::default()
    };
    Proxy::start_service(service, worker::Config::default())
}

fn retryable(route: Route) -> Route {
    Route {
        retryable: true,
        ..route
    }
}

/// The budget: a part of the requests and a number a second, in a window that is longer than any test.
fn budgeted(routes: Vec<Route>, ratio: f32, min_per_second: u32) -> RouteTable {
    RouteTable {
        retry_budget: Some(RetryBudget {
            ratio,
            min_per_second,
            ttl: Duration::from_secs(3600),
        }),
        ..table(routes)
    }
}

/// One route of everything, with as many retries as one wants.
fn generous() -> RouteTable {
    budgeted(vec![retryable(below("/"))], 0.0, 100)
}

fn all(heard: &Heard) -> Vec<Vec<u8>> {
    heard.lock().expect("nobody has panicked").clone()
}

async fn connect(proxy: &Proxy) -> Talk {
    Talk::new(proxy.connect().await)
}

/// The sums of series, each of which has the labels.
fn assert_sums(proxy: &Proxy, rows: &[(&str, &[&str], f64)]) {
    for (family, labels, n) in rows {
        assert_eq!(proxy.sum(family, labels), *n, "{family} {labels:?}");
    }
}

#[tokio::test]
async fn a_request_that_failed_is_sent_again_as_it_was() {
    let (server, heard) = echoing("a", |n| if n < 2 { 503 } else { 200 }).await;
    let proxy = routed(&[server], &generous());
    let mut client = connect(&proxy).await;
    let request = post("/a", &vec![7; 60_000]);
    assert!(client.ask(&request).await == echo("a", 200, &request));
    let heard = all(&heard);
    assert!(heard.iter().all(|one| *one == request), "byte by byte");
    assert_eq!(heard.len(), 3);
    proxy.counts("route_response_total", &[], 1.0).await;
    let (ok, busy) = ("status_code=\"200\"", "status_code=\"503\"");
    assert_sums(
        &proxy,
        &[
            ("request_total", &["authority=\"web\""], 1.0),
            ("response_total", &[ok], 1.0),
            ("response_total", &["authority=\"web\""], 1.0),
            ("route_request_total", &["rt_route=\"below /\""], 1.0),
            ("route_response_total", &[ok], 1.0),
            ("route_actual_request_total", &["rt_route=\"below /\""], 3.0),
            ("route_actual_response_total", &[busy], 2.0),
            ("route_actual_response_total", &[ok], 1.0),
            ("route_actual_response_total", &[], 3.0),
            ("response_latency_ms_count", &[], 1.0),
            ("tcp_open_total", &["peer=\"dst\""], 3.0),
            ("tcp_open_connections", &["peer=\"dst\""], 1.0),
        ],
    );
    // The connection goes on.
    assert!(client.ask(&get("/a")).await == echo("a", 200, &get("/a")));
    drop(client);
    proxy.counts("tcp_open_connections", &[], 0.0).await;
}

#[tokio::test]
async fn a_server_that_breaks_off_before_its_response_is_left_for_another() {
    let (server, heard) = echoing("a", |n| if n < 2 { 0 } else { 200 }).await;
    let proxy = routed(&[server], &generous());
    let mut client = connect(&proxy).await;
    let request = post("/a", b"body");
    assert_eq!(client.ask(&request).await, echo("a", 200, &request));
    assert_eq!(all(&heard), vec![request; 3]);
    let lost = ["status_code=\"502\"", "error=\"reset\""];
    proxy
        .counts("route_actual_response_total", &lost, 2.0)
        .await;
    proxy.counts("route_response_total", &[], 1.0).await;
    assert_sums(
        &proxy,
        &[
            ("response_total", &["status_code=\"200\""], 1.0),
            ("response_total", &lost[..1], 0.0),
            ("outbound_http_errors_total", &[], 0.0),
        ],
    );
}

#[tokio::test]
async fn without_a_budget_what_comes_is_what_the_client_gets() {
    let (server, heard) = echoing("a", |n| [503, 0][n % 2]).await;
    let proxy = routed(&[server], &table(vec![retryable(below("/"))]));
    let mut client = connect(&proxy).await;
    assert_eq!(client.ask(&get("/")).await, echo("a", 503, &get("/")));
    client.say(&get("/")).await;
    assert_eq!(read_all(&mut client.stream).await, b"", "it worked before");
    assert_eq!(all(&heard).len(), 2);
    let broken = ["status_code=\"502\"", "error=\"reset\""];
    proxy.counts("response_total", &broken, 1.0).await;
    proxy
        .counts("route_actual_response_total", &broken, 1.0)
        .await;
}

#[tokio::test]
async fn the_budget_is_obeyed() {
    let (server, heard) = echoing("a", |_| 503).await;
    let routes = vec![retryable(below("/a")), below("/b")];
    let proxy = routed(&[server], &budgeted(routes, 0.2, 0));
    let mut client = connect(&proxy).await;
    for path in ["/a", "/b"] {
        for _ in 0..100 {
            let request = get(path);
            assert_eq!(client.ask(&request).await, echo("a", 503, &request));
        }
    }
    assert_eq!(all(&heard).len(), 220);
    let a = "rt_route=\"below /a\"";
    proxy.counts("route_response_total", &[a], 100.0).await;
    let b = "rt_route=\"below /b\"";
    proxy.counts("route_response_total", &[b], 100.0).await;
    assert_sums(
        &proxy,
        &[
            ("route_actual_response_total", &[a], 120.0),
            ("route_actual_request_total", &[a], 120.0),
            ("route_actual_request_total", &[b], 100.0),
            ("route_request_total", &[a], 100.0),
            ("response_total", &["authority=\"web\""], 200.0),
        ],
    );
}

#[tokio::test]
async fn what_is_large_is_sent_once_and_nothing_for_ever() {
    let (server, heard) = echoing("a", |_| 503).await;
    let proxy = routed(&[server], &generous());
    let mut client = connect(&proxy).await;
    let large = post("/a", &vec![1; 4 << 20]);
    let mut writing = proxy.connect().await;
    let (mut read, mut write) = client.stream.split();
    let answer = async {
        let mut bytes = Vec::new();
        let expected = echo("a", 503, &large);
        while bytes.len() < expected.len() {
            let n = tokio::io::AsyncReadExt::read_buf(&mut read, &mut bytes).await;
            assert!(n.expect("read") > 0, "all of it comes");
        }
        bytes == expected
    };
    let (is_same, written) = soon(async { tokio::join!(answer, write.write_all(&large)) }).await;
    written.expect("written");
    assert!(is_same, "it passes as it is");
    assert_eq!(all(&heard).len(), 1);
    writing.shutdown().await.expect("closed");
    let small = post("/a", &vec![2; 64 * 1024 - 100]);
    assert!(client.ask(&small).await == echo("a", 503, &small));
    assert_eq!(all(&heard).len(), 11);
    proxy.counts("route_actual_response_total", &[], 11.0).await;
}

#[tokio::test]
async fn what_is_sent_ahead_waits_and_is_not_lost() {
    // A server that does not read: what it was to be given is lost on the way.
    for failing in [503, 0] {
        let (server, heard) = echoing("a", move |n| if n == 0 { failing } else { 200 }).await;
        let proxy = routed(&[server], &generous());
        let mut client = connect(&proxy).await;
        let requests = [post("/a", &vec![7; 50_000]), get("/b"), post("/c", b"last")];
        client.say(&requests.concat()).await;
        for request in &requests {
            let answer = soon(client.hear()).await.expect("an answer");
            assert!(answer == echo("a", 200, request));
        }
        let [first, rest @ ..] = &all(&heard)[..] else {
            panic!("nothing was heard");
        };
        assert!(*first == requests[0]);
        assert!(rest == requests, "each once more, in order");
        proxy.counts("route_response_total", &[], 3.0).await;
        proxy.counts("route_actual_response_total", &[], 4.0).await;
    }
}

#[tokio::test]
async fn a_timeout_is_of_all_attempts() {
    let (server, heard) = echoing("a", |n| if n == 0 { 503 } else { 1 }).await;
    let routes = vec![timed(retryable(below("/")), 1000)];
    let proxy = routed(&[server], &budgeted(routes, 0.0, 100));
    let mut client = connect(&proxy).await;
    client.say(&get("/")).await;
    let answer = String::from_utf8(read_all(&mut client.stream).await).expect("text");
    assert!(answer.starts_with("HTTP/1.1 504 "), "{answer}");
    drop(client);
    assert_eq!(all(&heard).len(), 2);
    let late = ["status_code=\"504\"", "error=\"timeout\""];
    proxy.counts("route_response_total", &late, 1.0).await;
    proxy
        .counts("route_actual_response_total", &late, 1.0)
        .await;
    proxy.counts("route_actual_request_total", &[], 2.0).await;
    proxy.counts("tcp_open_connections", &[], 0.0).await;
}

#[tokio::test]
async fn a_client_that_leaves_meanwhile_has_canceled() {
    let (server, heard) = echoing("a", |n| if n == 0 { 503 } else { 1 }).await;
    let proxy = routed(&[server], &generous());
    let client = connect(&proxy).await;
    let mut client = client;
    client.say(&get("/")).await;
    let begun = tokio::time::Instant::now();
    while all(&heard).len() < 2 {
        assert!(begun.elapsed() < super::proxy::DEADLINE, "it is sent again");
        tokio::task::yield_now().await;
    }
    let socket = socket2::SockRef::from(&client.stream);
    let lingers = socket.set_linger(Some(Duration::ZERO));
    lingers.expect("a socket option");
    drop(client);
    let gone = ["classification=\"failure\"", "error=\"canceled\""];
    proxy.counts("route_response_total", &gone, 1.0).await;
    proxy
        .counts("route_actual_response_total", &gone, 1.0)
        .await;
    proxy.counts("tcp_open_connections", &[], 0.0).await;
}

#[tokio::test]
async fn a_request_that_nobody_takes_again_is_answered_in_its_place() {
    let (server, heard) = echoing("a", |_| 503).await;
    let proxy = routed(&[server], &generous());
    let mut client = connect(&proxy).await;
    // The service moves to where nobody is, and the connection that is there fails.
    let request = get("/");
    assert_eq!(client.ask(&request).await, echo("a", 503, &request));
    assert_eq!(all(&heard).len(), 10);
    let dead = nobody();
    let service = Service {
        name: "web".to_owned(),
        endpoints: vec![Listed::plain(dead, Dst::new([("pod", "dead")]))],
        routes: Some(Arc::new(compile(&generous()).expect("a table"))),
        ..Service::default()
    };
    proxy
        .roster
        .send_replace(Arc::new([(proxy.addr, service)].into()));
    let mut asked = 0;
    loop {
        client.say(&request).await;
        match soon(client.hear()).await {
            Some(answer) if answer.starts_with(b"HTTP/1.1 503 ") => asked += 1,
            Some(answer) => {
                let answer = String::from_utf8(answer).expect("text");
                assert!(answer.starts_with("HTTP/1.1 502 "), "{answer}");
                break;
            }
            None => panic!("no answer"),
        }
        assert!(asked < 100, "the endpoints are never replaced");
    }
    let refused = ["status_code=\"502\"", "error=\"connect\""];
    proxy.counts("route_response_total", &refused, 1.0).await;
    let errors = ["error=\"connect\""];
    proxy
        .counts("outbound_http_errors_total", &errors, 1.0)
        .await;
    drop(client);
    proxy.counts("tcp_open_connections", &[], 0.0).await;
}

#[tokio::test]
async fn where_a_request_has_failed_it_is_not_sent_again() {
    // Who fails at once looks fast.
    let (failing, _) = echoing("a", |_| 503).await;
    let slow = application(|stream| async move {
        let mut talk = Talk::new(stream);
        while let Some(request) = talk.hear().await {
            tokio::time::sleep(Duration::from_millis(20)).await;
            talk.say(&echo("b", 200, &request)).await;
        }
    });
    let proxy = routed(&[failing, slow.await], &generous());
    for _ in 0..5 {
        let mut client = connect(&proxy).await;
        let answer = client.ask(&get("/")).await;
        assert_eq!(answer, echo("b", 200, &get("/")));
    }
}
