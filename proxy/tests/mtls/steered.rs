//! Routes of HTTP/1 where servers are secured: who is left is come back to without another handshake, and a request that
//! failed is sent again.

use std::sync::Arc;
use std::time::Duration;

use weir_crds::routes::{Backend, Condition, RetryBudget, Route, RouteTable};
use weir_crds::settings::MtlsMode;
use weir_proxy::endpoints::{Branch, Listed, Service};
use weir_proxy::routes::compile;
use weir_proxy::telemetry::Dst;

use crate::authority::Authority;
use crate::mesh::{CLIENT, LIFE, Party, SERVER, identity, settings};
use crate::talk::{Talk, echo, echoing, get, post};

/// Below `/b` requests go to `b` and may be sent again.
fn routed(a: &Party, b: &Party) -> Service {
    let backend = Backend {
        authority: "b".to_owned(),
        weight: 1,
    };
    let route = |path: &str, backends: &[Backend]| Route {
        name: path.to_owned(),
        condition: Condition::PathPrefix(path.to_owned()),
        classes: Vec::new(),
        timeout_ms: None,
        retryable: !backends.is_empty(),
        backends: backends.to_vec(),
        missing: 0,
    };
    let backends = [backend];
    let table = RouteTable {
        routes: vec![route("/b", &backends), route("/", &[])],
        retry_budget: Some(RetryBudget {
            ratio: 0.0,
            min_per_second: 100,
            ttl: Duration::from_secs(3600),
        }),
        ..RouteTable::default()
    };
    let listed = |pod: &str, party: &Party| Listed {
        identity: Some(SERVER.into()),
        ..Listed::plain(party.proxy.addr, Dst::new([("pod", pod)]))
    };
    Service {
        name: "web".to_owned(),
        endpoints: vec![listed("a", a)],
        branches: vec![Branch {
            backends: backends.into(),
            endpoints: vec![listed("b", b)],
        }],
        routes: Some(Arc::new(compile(&table).expect("a table"))),
    }
}

#[tokio::test]
async fn a_connection_goes_from_one_to_the_other_by_one_handshake_each() {
    let authority = Authority::new("mesh");
    let of = |name| {
        let identity = identity(&authority, name, LIFE);
        (settings(MtlsMode::Strict), Some(identity))
    };
    let (a, _) = echoing("a", |_| 200).await;
    let (b, heard) = echoing("b", |n| if n == 40 { 503 } else { 200 }).await;
    let (a, b) = (Party::server(of(SERVER), a), Party::server(of(SERVER), b));
    let party = Party::client(of(CLIENT), a.proxy.addr, Some(SERVER));
    let proxy = &party.proxy;
    let roster = [(proxy.addr, routed(&a, &b))].into();
    proxy.roster.send_replace(Arc::new(roster));
    let mut client = Talk::new(proxy.connect().await);
    let mut asked = 0;
    while client.ask(&get("/b")).await != echo("b", 200, &get("/b")) {
        asked += 1;
        assert!(asked < 1000, "the routes are never used");
    }
    for n in 0..20 {
        for pod in ["a", "b"] {
            let request = post(&format!("/{pod}"), &vec![n; 3_000]);
            assert!(client.ask(&request).await == echo(pod, 200, &request));
        }
    }
    let secured = |pod: &str| format!("dst_pod=\"{pod}\"");
    for pod in ["a", "b"] {
        let open = ["peer=\"dst\"", "tls=\"true\"", "server_id", &secured(pod)];
        assert_eq!(proxy.sum("tcp_open_total", &open), 1.0, "{pod}");
        let request = ["tls=\"true\"", "server_id", &secured(pod)];
        assert!(proxy.sum("request_total", &request) >= 20.0, "{pod}");
    }
    // The 41st request of `b` fails, and its connection is another one from there.
    while heard.lock().expect("nobody has panicked").len() < 42 {
        assert_eq!(client.ask(&get("/b")).await, echo("b", 200, &get("/b")));
    }
    let open = ["peer=\"dst\"", "tls=\"true\"", &secured("b")];
    assert_eq!(proxy.sum("tcp_open_total", &open), 2.0);
    proxy
        .counts("route_actual_response_total", &["status_code=\"503\""], 1.0)
        .await;
    drop(client);
    proxy.counts("tcp_open_connections", &[], 0.0).await;
    let failed = ["classification=\"failure\""];
    assert_eq!(proxy.sum("tcp_close_total", &failed), 0.0);
}
