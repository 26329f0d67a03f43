//! Routes with backends of their own: the requests of one connection go to one server after the other, unchanged, and are
//! counted where they went.

use std::net::SocketAddr;
use std::sync::Arc;

use tokio::io::AsyncWriteExt;
use tokio::sync::Notify;
use weir_crds::routes::{Backend, Route, RouteTable};
use weir_proxy::endpoints::{Branch, Listed, Service};
use weir_proxy::routes::compile;
use weir_proxy::telemetry::Dst;
use weir_proxy::worker;

use super::proxy::{Proxy, application, nobody, read_all, soon};
use super::routed::{below, table};
use super::talk::{Talk, echo, echoing, get, post};

fn backend(name: &str) -> Backend {
    Backend {
        authority: format!("{name}:80"),
        weight: 1,
    }
}

/// A route of everything below a path, which leads to the service of this name.
fn leading(path: &str, to: &str) -> Route {
    Route {
        backends: vec![backend(to)],
        ..below(path)
    }
}

fn listed(pod: &str, addr: SocketAddr) -> Listed {
    Listed::plain(addr, Dst::new([("pod", pod)]))
}

/// The service `web`, whose requests below `/<pod>` go to each of these pods, and all others to the first.
fn service(pods: &[(&str, SocketAddr)]) -> Service {
    let routes = pods[1..].iter();
    let routes = routes.map(|(pod, _)| leading(&format!("/{pod}"), pod));
    let table = RouteTable {
        ..table(routes.chain([below("/")]).collect())
    };
    let branches = pods[1..].iter().map(|(pod, addr)| Branch {
        backends: [backend(pod)].into(),
        endpoints: vec![listed(pod, *addr)],
    });
    Service {
        name: "web".to_owned(),
        endpoints: vec![listed(pods[0].0, pods[0].1)],
        branches: branches.collect(),
        routes: Some(Arc::new(compile(&table).expect("a table"))),
    }
}

fn serve(pods: &[(&str, SocketAddr)]) -> Proxy {
    Proxy::start_service(service(pods), worker::Config::default())
}

async fn connect(proxy: &Proxy) -> Talk {
    Talk::new(proxy.connect().await)
}

fn dst(pod: &str) -> String {
    format!("dst_pod=\"{pod}\"")
}

#[tokio::test]
async fn a_connection_goes_from_one_to_the_other_and_back_by_path() {
    let (a, _) = echoing("a", |_| 200).await;
    let (b, _) = echoing("b", |_| 200).await;
    let proxy = serve(&[("a", a), ("b", b)]);
    let mut client = connect(&proxy).await;
    for round in 1..=3 {
        for pod in ["a", "b"] {
            let bare = get(&format!("/{pod}"));
            let full = post(&format!("/{pod}/x"), &vec![round; 100_000]);
            for request in [bare, full] {
                assert!(client.ask(&request).await == echo(pod, 200, &request));
            }
        }
    }
    for pod in ["a", "b"] {
        let dst = dst(pod);
        let ok = ["status_code=\"200\"", "authority=\"web\"", &dst];
        proxy.counts("response_total", &ok, 6.0).await;
        proxy.counts("request_total", &ok[1..], 6.0).await;
        let open = ["peer=\"dst\"", "authority=\"web\"", &dst];
        assert_eq!(proxy.sum("tcp_open_total", &open), 1.0, "it is kept open");
        assert_eq!(proxy.sum("tcp_open_connections", &open), 1.0);
    }
    for (route, n) in [("below /b", 6.0), ("below /", 6.0)] {
        let route = format!("rt_route=\"{route}\"");
        for kind in ["", "actual_"] {
            let family = format!("route_{kind}response_total");
            assert_eq!(proxy.sum(&family, &[&route]), n, "{family}");
        }
    }
    assert_eq!(proxy.sum("tcp_open_total", &["peer=\"src\""]), 1.0);
    drop(client);
    proxy.counts("tcp_open_connections", &[], 0.0).await;
    let failed = ["classification=\"failure\""];
    assert_eq!(proxy.sum("tcp_close_total", &failed), 0.0);
}

#[tokio::test]
async fn what_is_sent_ahead_is_answered_in_its_order() {
    let (a, _) = echoing("a", |_| 200).await;
    let (b, _) = echoing("b", |_| 200).await;
    let proxy = serve(&[("a", a), ("b", b)]);
    let mut client = connect(&proxy).await;
    let pods = ["a", "a", "b", "a", "b", "b"];
    let body = vec![7; 10_000];
    let requests = pods.map(|pod| post(&format!("/{pod}"), &body));
    client.say(&requests.concat()).await;
    client.stream.shutdown().await.expect("half closed");
    for (pod, request) in pods.iter().zip(&requests) {
        let answer = soon(client.hear()).await.expect("an answer");
        assert!(answer == echo(pod, 200, request), "of {pod}");
    }
    assert!(soon(client.hear()).await.is_none());
    let ok = ["status_code=\"200\"", "error=\"\""];
    proxy.counts("response_total", &ok, 6.0).await;
    proxy.counts("tcp_open_connections", &[], 0.0).await;
}

#[tokio::test]
async fn the_first_request_of_a_client_that_was_silent_is_led_too() {
    let (a, _) = echoing("a", |_| 200).await;
    let (b, _) = echoing("b", |_| 200).await;
    let proxy = serve(&[("a", a), ("b", b)]);
    let mut client = connect(&proxy).await;
    // It is dialed meanwhile.
    let dialed = ["peer=\"dst\"", &dst("a")];
    proxy.counts("tcp_open_total", &dialed, 1.0).await;
    for pod in ["b", "a"] {
        let request = get(&format!("/{pod}"));
        assert_eq!(client.ask(&request).await, echo(pod, 200, &request));
    }
    assert_eq!(proxy.sum("tcp_open_total", &dialed), 1.0);
    proxy.counts("request_total", &[&dst("b")], 1.0).await;
    proxy.counts("request_total", &[&dst("a")], 1.0).await;
}

#[tokio::test]
async fn a_server_that_has_closed_since_is_dialed_again() {
    let (closing, mut closed) = tokio::sync::mpsc::unbounded_channel();
    let leave = Arc::new(Notify::new());
    let leaves = Arc::clone(&leave);
    let a = application(move |stream| {
        let (closing, leave) = (closing.clone(), Arc::clone(&leaves));
        async move {
            let mut talk = Talk::new(stream);
            if let Some(request) = talk.hear().await {
                talk.say(&echo("a", 200, &request)).await;
                // What follows is asked of somebody else.
                leave.notified().await;
            }
            drop(talk);
            let _sent = closing.send(());
        }
    });
    let (b, _) = echoing("b", |_| 200).await;
    let proxy = serve(&[("a", a.await), ("b", b)]);
    let mut client = connect(&proxy).await;
    for _ in 0..3 {
        for pod in ["a", "b"] {
            let request = get(&format!("/{pod}"));
            assert_eq!(client.ask(&request).await, echo(pod, 200, &request));
        }
        leave.notify_one();
        soon(closed.recv()).await.expect("it closes");
    }
    let (a, b) = (dst("a"), dst("b"));
    assert_eq!(proxy.sum("tcp_open_total", &["peer=\"dst\"", &a]), 3.0);
    assert_eq!(proxy.sum("tcp_open_total", &["peer=\"dst\"", &b]), 1.0);
    proxy.counts("response_total", &["error=\"\""], 6.0).await;
}

#[tokio::test]
async fn few_servers_are_kept_open_for_one_client() {
    const PODS: [&str; 8] = ["a", "b", "c", "d", "e", "f", "g", "h"];
    let mut pods = Vec::new();
    for pod in PODS {
        pods.push((pod, echoing(pod, |_| 200).await.0));
    }
    let proxy = serve(&pods);
    let mut client = connect(&proxy).await;
    for pod in PODS.iter().chain(&PODS) {
        let request = get(&format!("/{pod}"));
        assert_eq!(client.ask(&request).await, echo(pod, 200, &request));
        let open = proxy.sum("tcp_open_connections", &["peer=\"dst\""]);
        assert!(open <= 5.0, "{open} are open");
    }
    assert_eq!(proxy.sum("tcp_open_total", &["peer=\"dst\""]), 16.0);
    for pod in ["h", "g", "f", "e", "d"] {
        client.ask(&get(&format!("/{pod}"))).await;
    }
    assert_eq!(proxy.sum("tcp_open_total", &["peer=\"dst\""]), 16.0);
}

#[tokio::test]
async fn where_a_route_leads_to_nobody_its_requests_alone_fail() {
    let (a, _) = echoing("a", |_| 200).await;
    let mut led = service(&[("a", a), ("b", nobody()), ("c", nobody())]);
    led.branches[1].endpoints.clear();
    let proxy = Proxy::start_service(led, worker::Config::default());
    for (path, pod) in [("/b", dst("b")), ("/c", "dst_pod=\"\"".to_owned())] {
        for is_first in [true, false] {
            let mut client = connect(&proxy).await;
            if !is_first {
                assert_eq!(client.ask(&get("/a")).await, echo("a", 200, &get("/a")));
            }
            client.say(&get(path)).await;
            let answer = read_all(&mut client.stream).await;
            let answer = String::from_utf8(answer).expect("text");
            assert!(answer.starts_with("HTTP/1.1 502 "), "{path}: {answer}");
        }
        let _ = pod;
        let route = format!("rt_route=\"below {path}\"");
        let row = [&*route, "status_code=\"502\"", "error=\"connect\""];
        proxy.counts("route_response_total", &row, 2.0).await;
    }
    proxy.counts("response_total", &[&dst("a")], 2.0).await;
    proxy.counts("response_total", &[&dst("b")], 2.0).await;
    proxy.counts("tcp_open_connections", &[], 0.0).await;
}

#[tokio::test]
async fn backends_that_change_lead_the_next_request_of_an_open_connection() {
    let (a, _) = echoing("a", |_| 200).await;
    let (b, _) = echoing("b", |_| 200).await;
    let proxy = Proxy::start_service(
        Service {
            branches: Vec::new(),
            routes: None,
            ..service(&[("a", a), ("b", b)])
        },
        worker::Config::default(),
    );
    let mut client = connect(&proxy).await;
    let request = get("/b");
    assert_eq!(client.ask(&request).await, echo("a", 200, &request));
    let roster = [(proxy.addr, service(&[("a", a), ("b", b)]))].into();
    proxy.roster.send_replace(Arc::new(roster));
    let mut asked = 0;
    while client.ask(&request).await != echo("b", 200, &request) {
        asked += 1;
        assert!(asked < 1000, "the routes are never used");
    }
    assert_eq!(proxy.sum("tcp_open_total", &["peer=\"src\""]), 1.0);
}
