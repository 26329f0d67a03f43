//! Every call to the operator is counted like a request: here by exact series.

use std::net::{Ipv4Addr, SocketAddr};
use std::rc::Rc;
use std::time::Duration;

use tonic::Code;
use weir_crds::grpc::v1::WatchRequest;
use weir_crds::grpc::v1::settings_client::SettingsClient;
use weir_proxy::control::operator;
use weir_proxy::record::{CallSource, Calls};
use weir_proxy::telemetry::{self, Selection};

use crate::connection::web;
use crate::desk::{DEADLINE, connection, following, soon, start, until};
use crate::operator::{Known, Operator};

const LOOPBACK: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 0);

/// The `control_*` lines but those of buckets, without the latencies' sums.
fn lines(telemetry: &telemetry::Telemetry) -> Vec<String> {
    let mut text = Vec::new();
    let printed = telemetry.expose(&Selection::default(), &mut text);
    printed.expect("a Vec takes all");
    let text = String::from_utf8(text).expect("text");
    let mine = |line: &&str| {
        line.starts_with("control_") && !line.contains("_bucket") && !line.contains("_sum")
    };
    text.lines().filter(mine).map(str::to_owned).collect()
}

#[tokio::test]
async fn watches_are_counted_at_their_beginning_their_first_message_and_their_end() {
    let operator = Operator::new(None);
    let serving = operator.serve(LOOPBACK).await;
    web(&operator, "10.96.0.1:80");
    operator.profile("10.96.0.3:80", Known::Refused(Code::InvalidArgument));
    let mut running = start(connection(serving.addr), following());
    let (telemetry, mut seats) = telemetry::new(telemetry::Config::default(), 1);
    let recorder = Rc::new(seats.remove(0).take());
    let events = std::mem::replace(
        &mut running.calls,
        CallSource::new(String::new(), telemetry_tls()).1,
    );
    let mut calls = Calls::new(recorder, events);
    let labels = format!(
        r#"addr="{}",tls="no_identity",no_tls_reason="loopback""#,
        serving.addr
    );
    let request = |n| format!("control_request_total{{{labels}}} {n}");
    let ended = |rest: &str, n| format!("control_response_total{{{labels},{rest}}} {n}");
    let timed =
        |n| format!(r#"control_response_latency_ms_count{{{labels},status_code="200"}} {n}"#);
    assert_eq!(lines(&telemetry), [request(0)]);
    // A service: two watches whose first messages are there, and that go on.
    running.learn("10.96.0.1:80").await;
    assert!(counted(&mut calls, &telemetry, &[request(2), timed(2)]).await);
    // One that the proxy gives up, since there is nothing to follow; and one that is refused.
    running.learn("10.96.0.2:80").await;
    running.learn("10.96.0.3:80").await;
    let given_up =
        r#"status_code="200",classification="success",grpc_status_code="",error="canceled""#;
    let refused = r#"status_code="200",classification="success",grpc_status_code="3",error="""#;
    let expected = [request(4), ended(given_up, 1), ended(refused, 1), timed(4)];
    assert!(counted(&mut calls, &telemetry, &expected).await);
    // The operator dies: two watches are broken off, however well they began.
    drop(serving);
    until("they are broken", || operator.streams().0 == 0).await;
    let broken = r#"status_code="200",classification="failure",grpc_status_code="",error="reset""#;
    let expected = [
        request(4),
        ended(given_up, 1),
        ended(refused, 1),
        ended(broken, 2),
        timed(4),
    ];
    assert!(counted(&mut calls, &telemetry, &expected).await);
}

/// Enters events until the lines are these; says what they are where they are not in time.
async fn counted(calls: &mut Calls, telemetry: &telemetry::Telemetry, expected: &[String]) -> bool {
    let start = std::time::Instant::now();
    let mut expected = expected.to_vec();
    expected.sort();
    loop {
        let _entered = tokio::time::timeout(Duration::from_millis(20), calls.enter()).await;
        let mut now = lines(telemetry);
        now.sort();
        if now == expected {
            return true;
        }
        if start.elapsed() > DEADLINE {
            eprintln!("expected {expected:#?}, found {now:#?}");
            return false;
        }
    }
}

fn telemetry_tls() -> telemetry::Tls {
    telemetry::Tls::NoIdentity(telemetry::NoTlsReason::Loopback)
}

#[tokio::test]
async fn a_call_without_a_connection_has_failed() {
    let config = connection(LOOPBACK);
    let (log, events) = CallSource::new("operator:8086".to_owned(), telemetry_tls());
    // Nobody makes the connection.
    let (client, _connection) = operator::open(config.clone(), log.clone());
    let mut asking = SettingsClient::with_origin(client.clone(), client.origin());
    let asked = soon(asking.watch(WatchRequest { newest_version: 1 })).await;
    assert!(asked.is_err());
    // Nor is there a token.
    let mut config = config;
    config.token = Some("/nonexistent/token".into());
    let (client, _connection) = operator::open(config, log);
    let mut asking = SettingsClient::with_origin(client.clone(), client.origin());
    let asked = soon(asking.watch(WatchRequest { newest_version: 1 })).await;
    assert!(asked.is_err());
    let (telemetry, mut seats) = telemetry::new(telemetry::Config::default(), 1);
    let recorder = Rc::new(seats.remove(0).take());
    let mut calls = Calls::new(recorder, events);
    let labels = r#"addr="operator:8086",tls="no_identity",no_tls_reason="loopback""#;
    let ended = |rest: &str| format!("control_response_total{{{labels},{rest}}} 1");
    let connect =
        r#"status_code="502",classification="failure",grpc_status_code="",error="connect""#;
    let given_up = r#"classification="failure",grpc_status_code="",error="canceled""#;
    let expected = [
        format!("control_request_total{{{labels}}} 2"),
        ended(connect),
        ended(given_up),
        format!(r#"control_response_latency_ms_count{{{labels},status_code="502"}} 1"#),
    ];
    assert!(counted(&mut calls, &telemetry, &expected).await);
}
