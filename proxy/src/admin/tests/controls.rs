//! What is for this pod alone: who is refused, and what is answered to those who are not. Connections are made over
//! loopback; that other peers are refused is `access`'s unit tests, and here by an address of this machine that is not
//! loopback, where it has one.

use super::*;
use serde_json::{Value, json};
use std::net::{IpAddr, UdpSocket};
use weir_crds::settings::OverrideSource;

const CONTROLS: [&str; 4] = ["/", "/config", "/log-level", "/shutdown"];

async fn ask_with(addr: SocketAddr, method: &str, path: &str, rest: &str) -> Answer {
    let mut stream = TcpStream::connect(addr).await.unwrap();
    let head = format!("{method} {path} HTTP/1.1\r\n{rest}");
    stream.write_all(head.as_bytes()).await.unwrap();
    tokio::time::timeout(DEADLINE, read_answer(&mut stream, method))
        .await
        .expect("an answer comes")
}

async fn send_text(addr: SocketAddr, method: &str, path: &str, text: &str) -> Answer {
    let rest = format!(
        "Host: localhost\r\nContent-Length: {}\r\n\r\n{text}",
        text.len()
    );
    ask_with(addr, method, path, &rest).await
}

async fn control(addr: SocketAddr, method: &str, path: &str) -> Answer {
    ask_with(addr, method, path, "Host: localhost:4191\r\n\r\n").await
}

/// An address of this machine that is not loopback; a datagram socket is connected, nothing is sent.
fn outer_address() -> Option<IpAddr> {
    let socket = UdpSocket::bind("0.0.0.0:0").ok()?;
    socket.connect("192.0.2.1:9").ok()?;
    let ip = socket.local_addr().ok()?.ip();
    (!ip.is_loopback() && !ip.is_unspecified()).then_some(ip)
}

#[tokio::test]
async fn other_peers_are_refused_and_told_why() {
    let Some(ip) = outer_address() else {
        return eprintln!("this machine has no address but loopback");
    };
    let mut config = config();
    config.addr = (Ipv4Addr::UNSPECIFIED, 0).into();
    let server = start(config, echo(), settings_without_metrics());
    let addr = SocketAddr::new(ip, server.addr.port());
    for path in CONTROLS {
        for method in ["GET", "POST", "PUT"] {
            let refused = control(addr, method, path).await;
            assert_eq!(refused.status, 403, "{method} {path}");
            assert!(
                refused.body.contains("only for this pod"),
                "{}",
                refused.body
            );
        }
    }
    assert!(!server.drain.is_cancelled());
    for path in ["/metrics", "/live", "/ready"] {
        assert_eq!(get(addr, path).await.status, 200, "{path}");
    }
    assert_eq!(get(addr, "/probe/0").await.status, 404);
}

#[tokio::test]
async fn pages_and_names_of_strangers_are_refused() {
    let server = start_plain();
    for rest in [
        "Host: localhost:4191\r\nOrigin: http://evil.example\r\n\r\n",
        "Host: evil.example\r\n\r\n",
        "Host: localhost\r\nSec-Fetch-Site: cross-site\r\n\r\n",
    ] {
        let refused = ask_with(server.addr, "POST", "/shutdown", rest).await;
        assert_eq!(refused.status, 403, "{rest}");
        assert_eq!(
            ask_with(server.addr, "GET", "/config", rest).await.status,
            403
        );
    }
    assert!(!server.drain.is_cancelled());
}

#[tokio::test]
async fn each_control_has_its_methods() {
    let server = start_plain();
    for (path, method, allow) in [
        ("/", "POST", "allow: get, head\r\n"),
        ("/config", "DELETE", "allow: get, head\r\n"),
        ("/log-level", "DELETE", "allow: get, head, put, post\r\n"),
        ("/shutdown", "GET", "allow: post\r\n"),
    ] {
        let refused = control(server.addr, method, path).await;
        assert_eq!(refused.status, 405, "{method} {path}");
        assert!(
            format!("{}\r\n", refused.head).contains(allow),
            "{}",
            refused.head
        );
    }
    assert!(!server.drain.is_cancelled(), "a GET ends nothing");
}

#[tokio::test]
async fn shutdown_asks_for_the_drain_once() {
    let server = start_plain();
    let answer = control(server.addr, "POST", "/shutdown").await;
    assert_eq!(answer.status, 200);
    assert!(answer.body.starts_with("draining"), "{}", answer.body);
    assert!(server.drain.is_cancelled());
    let again = control(server.addr, "POST", "/shutdown").await;
    assert_eq!(
        (again.status, again.body.as_str()),
        (200, "already draining\n")
    );
}

#[tokio::test]
async fn the_log_level_is_read_and_set() {
    let (levels, subscriber) = Levels::aside("info");
    let server = start_logging(
        config(),
        echo(),
        settings_without_metrics(),
        Some(levels.clone()),
    );
    let answer = control(server.addr, "GET", "/log-level").await;
    assert_eq!((answer.status, answer.body.as_str()), (200, "info\n"));
    for (method, text, told) in [("PUT", "debug", "debug\n"), ("POST", " warn\n", "warn\n")] {
        let answer = send_text(server.addr, method, "/log-level", text).await;
        assert_eq!((answer.status, answer.body.as_str()), (200, told));
        assert_eq!(format!("{}\n", levels.get().unwrap()), told);
    }
    for (text, status, said) in [
        ("debgu", 400, "\"debgu\" is no level"),
        ("", 400, "empty"),
        (&*"x".repeat(5000), 413, "longer than 4096"),
        (&*"x".repeat(100_000), 413, "longer than 4096"),
    ] {
        let answer = send_text(server.addr, "PUT", "/log-level", text).await;
        assert_eq!(answer.status, status);
        assert!(answer.body.contains(said), "{}", answer.body);
        assert!(
            answer.body.contains("info,weir_proxy::admin=debug"),
            "{}",
            answer.body
        );
    }
    assert_eq!(
        levels.get().unwrap(),
        "warn",
        "what is wrong changes nothing"
    );
    drop(subscriber);
    assert_eq!(control(server.addr, "GET", "/log-level").await.status, 500);
}

#[tokio::test]
async fn a_body_that_does_not_come_is_not_waited_for() {
    let (levels, _subscriber) = Levels::aside("info");
    let server = start_logging(config(), echo(), settings_without_metrics(), Some(levels));
    tokio::time::pause();
    let rest = "Host: localhost\r\nContent-Length: 5\r\n\r\nde";
    let answer = ask_with(server.addr, "PUT", "/log-level", rest);
    assert_eq!(answer.await.status, 408);
}

#[tokio::test]
async fn without_logging_there_is_no_level() {
    let server = start_plain();
    for method in ["GET", "PUT"] {
        let answer = send_text(server.addr, method, "/log-level", "info").await;
        assert_eq!(answer.status, 501, "{method}");
    }
}

async fn report(server: &Running) -> Value {
    let answer = control(server.addr, "GET", "/config").await;
    assert_eq!(answer.status, 200);
    assert!(answer.head.contains("content-type: application/json"));
    assert!(answer.head.contains("cache-control: no-store"));
    serde_json::from_str(&answer.body).unwrap()
}

#[tokio::test]
async fn the_configuration_says_where_every_value_is_from() {
    let mut config = config();
    config.report = vec![
        Entry {
            name: "--drain-time",
            value: json!("7s"),
            source: Source::Variable("KUMA_DATAPLANE_DRAIN_TIME".into()),
        },
        Entry {
            name: "--concurrency",
            value: json!(2),
            source: Source::Flag,
        },
    ];
    let mut first = settings(0, "/mine");
    first.mtls = MtlsMode::Permissive;
    let metrics = first.metrics.as_mut().unwrap();
    metrics.tls = MetricsTls::Disabled;
    metrics.filter = Some("tcp_.*".into());
    first.overridden = BTreeMap::from([
        ("path".into(), OverrideSource::Annotations),
        ("usedOnly".into(), OverrideSource::Dataplane),
    ]);
    let mut server = start(config, echo(), first);
    let addr = server.serving().await;
    let report = report(&server).await;
    let settings = &report["settings"];
    for (name, expected) in [
        (
            "--drain-time",
            json!({"value": "7s", "source": "environment", "variable": "KUMA_DATAPLANE_DRAIN_TIME"}),
        ),
        ("--concurrency", json!({"value": 2, "source": "flag"})),
        ("mesh", json!({"value": "default", "source": "mesh"})),
        ("mtls", json!({"value": "permissive", "source": "mesh"})),
        ("metrics.port", json!({"value": 0, "source": "mesh"})),
        (
            "metrics.path",
            json!({"value": "/mine", "source": "annotation"}),
        ),
        (
            "metrics.tls",
            json!({"value": "disabled", "source": "mesh"}),
        ),
        (
            "metrics.filter",
            json!({"value": "tcp_.*", "source": "mesh"}),
        ),
        (
            "metrics.usedOnly",
            json!({"value": false, "source": "dataplane"}),
        ),
        (
            "metrics.aggregate",
            json!({"value": [], "source": "default"}),
        ),
    ] {
        assert_eq!(settings[name], expected, "{name}");
    }
    let endpoint = json!({"state": "serving", "address": addr.to_string()});
    assert_eq!(report["metricsEndpoint"], endpoint);
}

#[tokio::test]
async fn the_configuration_follows_the_settings() {
    let mut server = start(config(), echo(), settings(0, "/metrics"));
    server.serving().await;
    server.set(settings_without_metrics());
    let off = |status: &EndpointStatus| *status == EndpointStatus::Off;
    server.endpoint_when(off).await;
    let report = report(&server).await;
    let metrics = json!({"value": "off", "source": "mesh"});
    assert_eq!(report["settings"]["metrics"], metrics);
    assert_eq!(report["settings"]["metrics.port"], Value::Null);
    assert_eq!(report["metricsEndpoint"], json!({"state": "off"}));
}

#[tokio::test]
async fn the_configuration_says_whether_the_pod_is_redirected() {
    let server = start_plain();
    for (state, word) in [
        (State::Unknown, "unknown"),
        (State::Redirected, "redirected"),
        (State::Direct, "direct"),
    ] {
        server.redirection.send_replace(state);
        assert_eq!(report(&server).await["redirection"], json!({"state": word}));
    }
    let alone = start_alone(config(), echo(), settings_without_metrics());
    assert_eq!(report(&alone).await["redirection"], Value::Null);
}

#[tokio::test]
async fn the_page_is_one_document_under_a_policy() {
    let server = start_plain();
    let page = control(server.addr, "GET", "/").await;
    assert_eq!(page.status, 200);
    for line in [
        "content-type: text/html; charset=utf-8",
        "content-security-policy: default-src 'none'; connect-src 'self';",
        "x-content-type-options: nosniff",
        "cache-control: no-store",
        "referrer-policy: no-referrer",
    ] {
        assert!(page.head.contains(line), "{line} in {}", page.head);
    }
    assert!(page.body.starts_with("<!doctype html>"));
    assert!(page.body.len() < 20 * 1024, "{} bytes", page.body.len());
}
