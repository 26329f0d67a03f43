//! Balanced: which endpoint a connection goes to, and what is counted when one refuses.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use weir_proxy::accept::Aim;
use weir_proxy::endpoints::{Listed, Service};
use weir_proxy::telemetry::Dst;
use weir_proxy::worker;

use super::deaf::deaf;
use super::proxy::{Proxy, answer_heads, application, nobody, read_all, read_until};

const GET: &[u8] = b"GET / HTTP/1.1\r\nHost: web\r\n\r\n";
const OK: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

type Named<'a> = (&'a str, SocketAddr);

fn listed(endpoints: &[Named<'_>]) -> Vec<Listed> {
    let listed = endpoints
        .iter()
        .map(|(pod, addr)| Listed::plain(*addr, Dst::new([("pod", *pod)])));
    listed.collect()
}

/// A proxy of the service `web`, each endpoint with a pod's name.
fn serve(endpoints: &[Named<'_>], config: worker::Config) -> Proxy {
    let aim = Aim::Service {
        name: "web".to_owned(),
        endpoints: listed(endpoints),
    };
    Proxy::start_with(aim, config)
}

/// Nothing but the number of connections decides.
fn by_connections() -> worker::Config {
    let mut config = worker::Config::default();
    config.endpoints.assumed = Duration::from_secs(60);
    config.endpoints.floor = Duration::from_secs(60);
    config
}

/// One request on a connection of its own.
async fn ask(proxy: &Proxy) -> Vec<u8> {
    let mut client = proxy.connect().await;
    client.write_all(GET).await.expect("written");
    read_until(&mut client, b"ok").await
}

#[tokio::test]
async fn who_refuses_is_left_for_another_and_nobody_notices() {
    let good = application(|s| answer_heads(s, OK)).await;
    let endpoints = [
        ("dead-1", nobody()),
        ("good", good),
        ("dead-2", nobody()),
        ("dead-3", nobody()),
    ];
    let proxy = serve(&endpoints, worker::Config::default());
    for _ in 0..40 {
        assert_eq!(ask(&proxy).await, OK);
    }
    let good = ["direction=\"outbound\"", "dst_pod=\"good\""];
    let ok = ["status_code=\"200\"", "error=\"\"", "dst_pod=\"good\""];
    proxy.counts("request_total", &good, 40.0).await;
    proxy.counts("response_total", &ok, 40.0).await;
    proxy.counts("response_latency_ms_count", &good, 40.0).await;
    let dialed = ["peer=\"dst\"", "dst_pod=\"good\""];
    proxy.counts("tcp_open_total", &dialed, 40.0).await;
    for family in [
        "request_total",
        "response_total",
        "response_latency_ms_count",
    ] {
        assert_eq!(proxy.sum(family, &[]), 40.0, "{family} has no other");
    }
    assert_eq!(proxy.sum("tcp_open_total", &["peer=\"dst\""]), 40.0);
    assert_eq!(proxy.sum("outbound_tcp_errors_total", &[]), 0.0);
    assert_eq!(proxy.sum("outbound_http_errors_total", &[]), 0.0);
}

#[tokio::test]
async fn a_server_that_speaks_first_is_found_behind_those_that_refuse() {
    let greet = |mut stream: TcpStream| async move {
        stream.write_all(b"220 ready\r\n").await.expect("written");
        let _held = stream.read(&mut [0]).await;
    };
    let endpoints = [("dead", nobody()), ("good", application(greet).await)];
    let proxy = serve(&endpoints, worker::Config::default());
    for _ in 0..10 {
        let mut client = proxy.connect().await;
        assert_eq!(read_until(&mut client, b"\n").await, b"220 ready\r\n");
    }
    let dialed = ["peer=\"dst\"", "dst_pod=\"good\""];
    proxy.counts("tcp_open_total", &dialed, 10.0).await;
    assert_eq!(proxy.sum("outbound_tcp_errors_total", &[]), 0.0);
}

#[tokio::test]
async fn where_all_refuse_the_client_is_told_and_it_counts_once() {
    let endpoints = [("a", nobody()), ("b", nobody())];
    let proxy = serve(&endpoints, worker::Config::default());
    for round in 1..=3 {
        let mut client = proxy.connect().await;
        client.write_all(GET).await.expect("written");
        let answer = read_all(&mut client).await;
        assert!(answer.starts_with(b"HTTP/1.1 502 "));
        proxy.refused(f64::from(round)).await;
    }
    let mut client = proxy.connect().await;
    client.write_all(b"\x16\x03\x01").await.expect("written");
    let read = client.read(&mut [0]).await;
    let kind = read.expect_err("a reset").kind();
    assert_eq!(kind, std::io::ErrorKind::ConnectionReset);
    proxy.counts("outbound_tcp_errors_total", &[], 4.0).await;
    assert_eq!(proxy.sum("request_total", &[]), 3.0);
    assert_eq!(proxy.sum("tcp_open_total", &["peer=\"dst\""]), 0.0);
}

#[tokio::test]
async fn a_service_without_endpoints_is_502() {
    let proxy = serve(&[], worker::Config::default());
    let mut client = proxy.connect().await;
    client.write_all(GET).await.expect("written");
    let answer = read_all(&mut client).await;
    assert!(answer.starts_with(b"HTTP/1.1 502 "));
    let row = ["status_code=\"502\"", "error=\"connect\""];
    proxy.counts("response_total", &row, 1.0).await;
    proxy.counts("request_total", &[], 1.0).await;
    proxy
        .counts("outbound_tcp_errors_total", &["error=\"connect\""], 1.0)
        .await;
    // It was answered, and both ends have closed.
    drop(client);
    proxy.counts("tcp_close_total", &WELL, 1.0).await;
    assert_eq!(proxy.sum("tcp_open_total", &["peer=\"dst\""]), 0.0);
}

/// Connections of clients that ended well, and others; without an error of the system.
const WELL: [&str; 3] = ["peer=\"src\"", "errno=\"\"", "classification=\"success\""];
const BROKEN: [&str; 3] = ["peer=\"src\"", "errno=\"\"", "classification=\"failure\""];

/// That is no end of its own.
#[tokio::test]
async fn who_cannot_be_answered_is_reset_whether_it_speaks_or_not() {
    let mut config = worker::Config::default();
    config.detect.refused_grace = Duration::from_millis(10);
    let proxy = serve(&[], config);
    for bytes in [&b"\x16\x03\x01"[..], b""] {
        let mut client = proxy.connect().await;
        client.write_all(bytes).await.expect("written");
        let read = client.read(&mut [0]).await;
        let kind = read.expect_err("a reset").kind();
        assert_eq!(kind, std::io::ErrorKind::ConnectionReset);
    }
    proxy.counts("tcp_close_total", &BROKEN, 2.0).await;
    assert_eq!(proxy.sum("tcp_close_total", &WELL), 0.0);
    assert_eq!(proxy.sum("tcp_open_total", &["peer=\"dst\""]), 0.0);
}

#[tokio::test]
async fn a_service_that_is_back_is_found_although_all_were_set_aside() {
    let (one, other) = (nobody(), nobody());
    let mut config = worker::Config::default();
    config.endpoints.rest_min = Duration::from_secs(3600);
    config.endpoints.rest_max = Duration::from_secs(3600);
    let proxy = serve(&[("one", one), ("other", other)], config);
    let mut client = proxy.connect().await;
    client.write_all(GET).await.expect("written");
    assert!(read_all(&mut client).await.starts_with(b"HTTP/1.1 502 "));
    let back = tokio::net::TcpListener::bind(other)
        .await
        .expect("the port");
    tokio::spawn(async move {
        while let Ok((stream, _)) = back.accept().await {
            tokio::spawn(answer_heads(stream, OK));
        }
    });
    for _ in 0..5 {
        assert_eq!(ask(&proxy).await, OK);
    }
    let ok = ["status_code=\"200\"", "dst_pod=\"other\""];
    proxy.counts("response_total", &ok, 5.0).await;
}

#[tokio::test]
async fn who_does_not_answer_a_syn_is_left_in_time() {
    let (full, _held) = deaf();
    let good = application(|s| answer_heads(s, OK)).await;
    let mut config = worker::Config::default();
    config.forward.attempt_timeout = Duration::from_millis(50);
    let proxy = serve(&[("full", full), ("good", good)], config);
    for _ in 0..20 {
        assert_eq!(ask(&proxy).await, OK);
    }
    proxy
        .counts("response_total", &["dst_pod=\"good\""], 20.0)
        .await;
    assert_eq!(proxy.sum("request_total", &[]), 20.0);
    assert_eq!(proxy.sum("outbound_tcp_errors_total", &[]), 0.0);
}

#[tokio::test]
async fn where_nobody_answers_in_time_it_is_504() {
    let ((one, _held), (other, _held_too)) = (deaf(), deaf());
    let mut config = worker::Config::default();
    config.forward.connect_timeout = Duration::from_millis(200);
    config.forward.attempt_timeout = Duration::from_millis(50);
    let proxy = serve(&[("one", one), ("other", other)], config);
    let mut client = proxy.connect().await;
    client.write_all(GET).await.expect("written");
    assert!(read_all(&mut client).await.starts_with(b"HTTP/1.1 504 "));
    let row = ["status_code=\"504\"", "error=\"timeout\""];
    proxy.counts("response_total", &row, 1.0).await;
    let errors = ["error=\"connect timeout\""];
    proxy
        .counts("outbound_tcp_errors_total", &errors, 1.0)
        .await;
    proxy.counts("outbound_tcp_errors_total", &[], 1.0).await;
}

#[tokio::test]
async fn connections_spread_by_how_many_there_are() {
    let endpoints = [
        ("a", application(|s| answer_heads(s, OK)).await),
        ("b", application(|s| answer_heads(s, OK)).await),
    ];
    let proxy = serve(&endpoints, by_connections());
    let mut held = Vec::new();
    for _ in 0..20 {
        let mut client = proxy.connect().await;
        client.write_all(GET).await.expect("written");
        assert_eq!(read_until(&mut client, b"ok").await, OK);
        held.push(client);
    }
    for pod in ["dst_pod=\"a\"", "dst_pod=\"b\""] {
        proxy.counts("tcp_open_connections", &[pod], 10.0).await;
    }
}

/// Answers late.
async fn answer_late(mut stream: TcpStream) {
    while !read_until(&mut stream, b"\r\n\r\n").await.is_empty() {
        tokio::time::sleep(Duration::from_secs(1)).await;
        if stream.write_all(OK).await.is_err() {
            return;
        }
    }
}

#[tokio::test]
async fn a_slow_endpoint_is_left_to_a_few() {
    let endpoints = [
        ("slow", application(answer_late).await),
        ("fast", application(|s| answer_heads(s, OK)).await),
        ("quick", application(|s| answer_heads(s, OK)).await),
    ];
    let proxy = serve(&endpoints, worker::Config::default());
    for _ in 0..60 {
        assert_eq!(ask(&proxy).await, OK);
    }
    proxy.counts("response_total", &[], 60.0).await;
    // The first choice may fall on it; after that only answers of others that took as long
    // could bring it back.
    let slow = proxy.sum("response_total", &["dst_pod=\"slow\""]);
    assert!(slow <= 6.0, "{slow} of 60");
}

#[tokio::test]
async fn new_endpoints_are_used_and_what_is_known_of_the_others_stays() {
    let a = application(|s| answer_heads(s, OK)).await;
    let b = application(|s| answer_heads(s, OK)).await;
    let dead = nobody();
    let mut config = by_connections();
    config.endpoints.rest_min = Duration::from_secs(3600);
    config.endpoints.rest_max = Duration::from_secs(3600);
    let proxy = serve(&[("dead", dead), ("a", a)], config);
    let mut held = Vec::new();
    let mut hold = async |n| {
        for _ in 0..n {
            let mut client = proxy.connect().await;
            client.write_all(GET).await.expect("written");
            assert_eq!(read_until(&mut client, b"ok").await, OK);
            held.push(client);
        }
    };
    hold(10).await;
    // Whoever was set aside is so still, and could be told apart: now it would answer.
    let back = tokio::net::TcpListener::bind(dead).await.expect("the port");
    let next = Service {
        name: "web".to_owned(),
        endpoints: listed(&[("dead", dead), ("a", a), ("b", b)]),
        ..Service::default()
    };
    proxy
        .roster
        .send_replace(Arc::new(BTreeMap::from([(proxy.addr, next)])));
    // The worker takes it over between two connections.
    let mut rest = 10;
    while proxy.sum("tcp_open_total", &["dst_pod=\"b\""]) == 0.0 {
        hold(1).await;
        rest += 1;
        assert!(rest < 1000, "the new endpoint is never used");
    }
    hold(rest - 2).await;
    let [on_a, on_b] = ["dst_pod=\"a\"", "dst_pod=\"b\""];
    let on_a = proxy.sum("tcp_open_connections", &[on_a]);
    let on_b = proxy.sum("tcp_open_connections", &[on_b]);
    assert!(
        (on_a - on_b).abs() <= 1.0,
        "{on_a} of before and {on_b} of since"
    );
    assert_eq!(proxy.sum("tcp_open_total", &["dst_pod=\"dead\""]), 0.0);
    drop(back);
}

#[tokio::test]
async fn endpoints_are_told_by_state() {
    let good = application(|s| answer_heads(s, OK)).await;
    let dead = nobody();
    let mut config = by_connections();
    config.endpoints.rest_min = Duration::from_secs(3600);
    config.endpoints.rest_max = Duration::from_secs(3600);
    let proxy = serve(&[("good", good), ("dead", dead)], config);
    let port = format!("target_port=\"{}\"", proxy.addr.port());
    let states = async |available: f64, set_aside: f64| {
        for (state, expected) in [("available", available), ("set_aside", set_aside)] {
            let state = format!("state=\"{state}\"");
            let labels = ["authority=\"web\"", &port, &state];
            proxy.counts("weir_endpoints", &labels, expected).await;
        }
    };
    states(2.0, 0.0).await;
    for _ in 0..30 {
        assert_eq!(ask(&proxy).await, OK);
    }
    states(1.0, 1.0).await;
    let next = Service {
        name: "web".to_owned(),
        endpoints: listed(&[("good", good)]),
        ..Service::default()
    };
    let next = BTreeMap::from([(proxy.addr, next)]);
    proxy.roster.send_replace(Arc::new(next));
    states(1.0, 0.0).await;
}

/// The series of requests and responses as printed, but for buckets and times.
fn of_requests(proxy: &Proxy) -> BTreeMap<String, f64> {
    let families = [
        "request_total{",
        "response_total{",
        "response_latency_ms_count{",
    ];
    let mut all: BTreeMap<_, _> = proxy.samples().into_iter().collect();
    all.retain(|series, _| families.iter().any(|family| series.starts_with(family)));
    all
}

/// 14 and 15 of `linkerd-metrics.md`, section 7: of an address, and of all that have the label.
#[tokio::test]
async fn an_endpoint_whose_labels_change_is_counted_under_both() {
    for label in ["pod", "service"] {
        let app = application(|s| answer_heads(s, OK)).await;
        let labelled = |value, addr| Listed::plain(addr, Dst::new([(label, value)]));
        let aim = Aim::Service {
            name: "web".to_owned(),
            endpoints: vec![labelled("old", app)],
        };
        let proxy = Proxy::start_with(aim, worker::Config::default());
        assert_eq!(ask(&proxy).await, OK);
        // The second endpoint, which takes no connection, shows when they have been taken over.
        let next = Service {
            name: "web".to_owned(),
            endpoints: vec![labelled("new", app), labelled("new", nobody())],
            ..Service::default()
        };
        let next = BTreeMap::from([(proxy.addr, next)]);
        proxy.roster.send_replace(Arc::new(next));
        let available = ["state=\"available\""];
        proxy.counts("weir_endpoints", &available, 2.0).await;
        assert_eq!(ask(&proxy).await, OK);
        proxy.counts("response_total", &[], 2.0).await;
        let expected = ["old", "new"].into_iter().flat_map(|value| {
            let of = format!(
                "direction=\"outbound\",authority=\"web\",target_port=\"{}\",tls=\"no_identity\",\
                 no_tls_reason=\"not_provided_by_service_discovery\",dst_{label}=\"{value}\"",
                proxy.addr.port()
            );
            let end =
                "status_code=\"200\",classification=\"success\",grpc_status_code=\"\",error=\"\"";
            [
                (format!("request_total{{{of}}}"), 1.0),
                (format!("response_total{{{of},{end}}}"), 1.0),
                (
                    format!("response_latency_ms_count{{{of},status_code=\"200\"}}"),
                    1.0,
                ),
            ]
        });
        assert_eq!(of_requests(&proxy), expected.collect());
    }
}
