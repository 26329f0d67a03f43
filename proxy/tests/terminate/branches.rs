//! HTTP/2 to a service whose routes have backends of their own: each stream goes where its route leads.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use hyper::http::Response;
use weir_crds::routes::{Backend, RetryBudget, Route, RouteTable};
use weir_proxy::endpoints::{Branch, Listed, Service};
use weir_proxy::routes::compile;
use weir_proxy::telemetry::Dst;

use super::peer::{Client, Setup, serving};
use super::proxy::{Proxy, nobody};
use super::routed::{below, table};
use super::service::{answering, by_streams, pod};

fn leading(path: &str, to: &str) -> Route {
    let authority = to.to_owned();
    Route {
        backends: vec![Backend {
            authority,
            weight: 1,
        }],
        ..below(path)
    }
}

fn listed(pod: &str, addr: SocketAddr) -> Vec<Listed> {
    vec![Listed::plain(addr, Dst::new([("pod", pod)]))]
}

/// The service `web` of pod `a`, whose routes lead to these pods by the names of their backends.
fn service(a: SocketAddr, table: &RouteTable, pods: &[(&str, SocketAddr)]) -> Service {
    let branches = table.branches().into_iter();
    let branches = branches.map(|backends| {
        let of = |(pod, addr): &(&str, SocketAddr)| {
            let is_it = *pod == backends[0].authority;
            is_it.then(|| listed(pod, *addr))
        };
        Branch {
            backends: backends.into(),
            endpoints: pods.iter().find_map(of).unwrap_or_default(),
        }
    });
    Service {
        name: "web".to_owned(),
        endpoints: listed("a", a),
        branches: branches.collect(),
        routes: Some(Arc::new(compile(table).expect("a table"))),
    }
}

#[tokio::test]
async fn the_streams_of_one_connection_go_where_their_routes_lead() {
    let (a, b) = (
        serving(Setup::default()).await,
        serving(Setup::default()).await,
    );
    let (dead, none) = (leading("/dead", "dead"), leading("/none", "none"));
    let table = table(vec![leading("/plain", "b"), dead, none, below("/")]);
    let pods = [("b", b), ("dead", nobody())];
    let proxy = Proxy::start_service(service(a, &table, &pods), by_streams());
    let mut client = Client::connect(&proxy, Setup::default()).await;
    for (path, status, n) in [
        ("/plain", 200, 5),
        ("/plain?x", 200, 3),
        ("/dead/x", 502, 2),
        ("/none/x", 502, 2),
        ("/stream", 0, 4),
    ] {
        for _ in 0..n {
            match status {
                // What it answers for ever is not waited for.
                0 => {
                    let (response, _send) = client.begin(path).await;
                    assert_eq!(response.await.expect("a head").status(), 200);
                }
                _ => {
                    let answer = client.call(path, Bytes::new()).await.expect("an answer");
                    assert_eq!(answer.status, status, "{path}");
                }
            }
        }
    }
    for (name, n) in [("a", 4.0), ("b", 8.0), ("dead", 2.0)] {
        proxy.counts("request_total", &[&pod(name)], n).await;
        let dialed = ["peer=\"dst\"", &pod(name)];
        let opened = if name == "dead" { 0.0 } else { 1.0 };
        assert_eq!(proxy.sum("tcp_open_total", &dialed), opened, "{name}");
    }
    let row = ["rt_route=\"below /none\"", "error=\"connect\""];
    proxy.counts("route_response_total", &row, 2.0).await;
}

#[tokio::test]
async fn what_is_sent_again_stays_with_the_backends_of_its_route() {
    let seen = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&seen);
    let b = answering(move |(_, mut respond)| {
        let n = counted.fetch_add(1, Ordering::Relaxed);
        async move {
            let status = if n < 3 { 503 } else { 200 };
            let response = Response::builder().status(status).body(());
            let _sent = respond.send_response(response.expect("a status"), true);
        }
    });
    let again = Route {
        retryable: true,
        ..leading("/b", "b")
    };
    let table = RouteTable {
        retry_budget: Some(RetryBudget::default()),
        ..table(vec![again, below("/")])
    };
    let service = service(nobody(), &table, &[("b", b.await)]);
    let proxy = Proxy::start_service(service, by_streams());
    let mut client = Client::connect(&proxy, Setup::default()).await;
    let answer = client.call("/b", Bytes::new()).await.expect("an answer");
    assert_eq!(answer.status, 200);
    assert_eq!(seen.load(Ordering::Relaxed), 4);
    proxy
        .counts("route_actual_response_total", &["below /b"], 4.0)
        .await;
    proxy.counts("response_total", &[&pod("b")], 1.0).await;
}

#[tokio::test]
async fn backends_that_change_are_those_of_the_next_stream() {
    let (a, b) = (
        serving(Setup::default()).await,
        serving(Setup::default()).await,
    );
    let (before, after) = (
        table(vec![leading("/plain", "b"), below("/")]),
        table(vec![below("/plain"), below("/")]),
    );
    let proxy = Proxy::start_service(service(a, &before, &[("b", b)]), by_streams());
    let mut client = Client::connect(&proxy, Setup::default()).await;
    let mut asked = 0.0;
    client.call("/plain", Bytes::new()).await.expect("answered");
    proxy.counts("request_total", &[&pod("b")], 1.0).await;
    let roster = [(proxy.addr, service(a, &after, &[]))].into();
    proxy.roster.send_replace(Arc::new(roster));
    while proxy.sum("request_total", &[&pod("a")]) == 0.0 {
        client.call("/plain", Bytes::new()).await.expect("answered");
        asked += 1.0;
        assert!(asked < 1000.0, "the routes are never used");
    }
}
