//! The metrics endpoint: where it listens, what it answers, and how it follows the settings.

use super::*;
use crate::ports::free;

pub(super) const SERVED: &str = "filters=[] used_only=false\n";

#[tokio::test]
async fn it_serves_exactly_its_path() {
    let mut server = start(config(), echo(), settings(0, "/non-standard-path"));
    let addr = server.serving().await;
    let answer = get(addr, "/non-standard-path?usedonly").await;
    assert_eq!(
        (answer.status, answer.body.as_str()),
        (200, "filters=[] used_only=true\n")
    );
    for path in [
        "/",
        "/metrics",
        "/non-standard-path/x",
        "/non-standard-path2",
        "/live",
        "/ready",
    ] {
        assert_eq!(get(addr, path).await.status, 404, "{path}");
    }
    assert_eq!(ask(addr, "DELETE", "/non-standard-path").await.status, 405);
    assert_eq!(get(server.addr, "/metrics").await.status, 200);
}

#[tokio::test]
async fn a_path_change_takes_effect_on_open_connections() {
    let mut server = start(config(), echo(), settings(0, "/metrics"));
    let addr = server.serving().await;
    let mut scraper = TcpStream::connect(addr).await.unwrap();
    send(&mut scraper, "GET", "/metrics", "").await;
    assert_eq!(read_answer(&mut scraper, "GET").await.body, SERVED);

    server.set(settings(0, "/elsewhere"));
    tokio::time::timeout(DEADLINE, async {
        while get(addr, "/elsewhere").await.status != 200 {}
    })
    .await
    .unwrap();
    send(&mut scraper, "GET", "/metrics", "").await;
    assert_eq!(read_answer(&mut scraper, "GET").await.status, 404);
    send(&mut scraper, "GET", "/elsewhere", "").await;
    assert_eq!(read_answer(&mut scraper, "GET").await.body, SERVED);
}

#[tokio::test]
async fn a_port_change_moves_it_and_off_closes_it() {
    let mut server = start(config(), echo(), settings(free().port(), "/metrics"));
    let old = server.serving().await;
    let mut scraper = TcpStream::connect(old).await.unwrap();
    send(&mut scraper, "GET", "/metrics", "").await;
    read_answer(&mut scraper, "GET").await;

    server.set(settings(free().port(), "/metrics"));
    let moved =
        |status: &EndpointStatus| matches!(status, EndpointStatus::Serving(addr) if *addr != old);
    server.endpoint_when(moved).await;
    let new = server.serving().await;
    assert_eq!(get(new, "/metrics").await.body, SERVED);
    assert!(TcpStream::connect(old).await.is_err());
    assert_eq!(scraper.read(&mut [0; 1]).await.unwrap(), 0);

    server.set(settings_without_metrics());
    server
        .endpoint_when(|status| *status == EndpointStatus::Off)
        .await;
    assert!(TcpStream::connect(new).await.is_err());
}

#[tokio::test]
async fn a_port_of_the_application_stays_closed() {
    let (declared, free) = (free().port(), free().port());
    let config = Config {
        application_ports: vec![declared],
        ..config()
    };
    let mut server = start(config, echo(), settings(declared, "/metrics"));
    let closed = |status: &EndpointStatus| matches!(status, EndpointStatus::Closed(_));
    let EndpointStatus::Closed(reason) = server.endpoint_when(closed).await else {
        unreachable!("it was waited for");
    };
    assert!(
        reason.contains("prometheus.metrics.kuma.io/port"),
        "{reason}"
    );
    server.set(settings(free, "/metrics"));
    server.serving().await;
    server.set(settings(declared, "/metrics"));
    server.endpoint_when(closed).await;
    assert!(
        TcpStream::connect((Ipv4Addr::LOCALHOST, declared))
            .await
            .is_err()
    );
}

#[tokio::test]
async fn the_filter_of_the_settings_comes_before_the_query() {
    let mut first = settings(0, "/metrics");
    let metrics = first.metrics.as_mut().unwrap();
    metrics.filter = Some("tcp_.*".into());
    metrics.used_only = true;
    let mut server = start(config(), echo(), first);
    let addr = server.serving().await;
    let answer = get(addr, "/metrics").await;
    assert_eq!(answer.body, "filters=[\"tcp_.*\"] used_only=true\n");
    let answer = get(addr, "/metrics?filter=open").await;
    assert_eq!(
        answer.body,
        "filters=[\"tcp_.*\", \"open\"] used_only=true\n"
    );
    assert_eq!(get(addr, "/metrics?filter=%28").await.status, 400);
    // 4191 takes nothing from the Mesh.
    assert_eq!(get(server.addr, "/metrics").await.body, SERVED);
}

#[tokio::test]
async fn what_wants_tls_that_cannot_be_had_is_not_served_at_all() {
    let port = free().port();
    for (tls, mtls, has_identities) in [
        (MetricsTls::ProvidedTls, MtlsMode::Disabled, true),
        (MetricsTls::ProvidedTls, MtlsMode::Strict, true),
        (MetricsTls::ActiveMtlsBackend, MtlsMode::Permissive, false),
        (MetricsTls::ActiveMtlsBackend, MtlsMode::Strict, false),
    ] {
        let mut secured = settings(port, "/metrics");
        secured.mtls = mtls;
        secured.metrics.as_mut().unwrap().tls = tls;
        let mut server = match has_identities {
            true => start(config(), echo(), secured),
            false => start_alone(config(), echo(), secured),
        };
        let closed = |status: &EndpointStatus| matches!(status, EndpointStatus::Closed(_));
        server.endpoint_when(closed).await;
        let to = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        assert!(TcpStream::connect(to).await.is_err(), "{tls:?} {mtls:?}");

        let (mut client, handoff) = handoff().await;
        server.handoffs.send(handoff).await.unwrap();
        let _ = client
            .write_all(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n")
            .await;
        let mut answer = Vec::new();
        let _ = tokio::time::timeout(DEADLINE, client.read_to_end(&mut answer))
            .await
            .expect("a connection handed over is closed");
        assert!(answer.is_empty(), "{tls:?} {mtls:?}");
    }
}

#[tokio::test]
async fn tls_asked_for_later_closes_what_was_open() {
    let mut server = start(config(), echo(), settings(free().port(), "/metrics"));
    let addr = server.serving().await;
    let mut scraper = TcpStream::connect(addr).await.unwrap();
    send(&mut scraper, "GET", "/metrics", "").await;
    read_answer(&mut scraper, "GET").await;
    let mut secured = settings(addr.port(), "/metrics");
    secured.metrics.as_mut().unwrap().tls = MetricsTls::ProvidedTls;
    server.set(secured.clone());
    let closed = |status: &EndpointStatus| matches!(status, EndpointStatus::Closed(_));
    server.endpoint_when(closed).await;
    assert_eq!(scraper.read(&mut [0; 1]).await.unwrap(), 0);
    assert!(TcpStream::connect(addr).await.is_err());

    // `disabled` is plain whatever the mesh.
    secured.mtls = MtlsMode::Strict;
    secured.metrics.as_mut().unwrap().tls = MetricsTls::Disabled;
    server.set(secured);
    let addr = server.serving().await;
    assert_eq!(get(addr, "/metrics").await.body, SERVED);
}

/// A client and its connection as the acceptor would hand it over.
pub(super) async fn handoff() -> (TcpStream, Handoff) {
    let listener = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let client = TcpStream::connect(listener.local_addr().unwrap())
        .await
        .unwrap();
    let (stream, peer) = listener.accept().unwrap();
    (client, Handoff { stream, peer })
}

#[tokio::test]
async fn a_connection_handed_over_is_served() {
    let mut server = start(config(), echo(), settings(0, "/metrics"));
    server.serving().await;
    let (mut client, handoff) = handoff().await;
    server.handoffs.send(handoff).await.unwrap();
    for _ in 0..2 {
        send(&mut client, "GET", "/metrics", "").await;
        let answer = tokio::time::timeout(DEADLINE, read_answer(&mut client, "GET")).await;
        assert_eq!(answer.unwrap().body, SERVED);
    }
}

#[tokio::test]
async fn a_taken_port_is_reported_and_tried_again() {
    let taken = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let port = taken.local_addr().unwrap().port();
    let mut config = config();
    config.retry = RetryPolicy {
        first: Duration::from_millis(5),
        longest: Duration::from_millis(20),
    };
    let mut server = start(config, echo(), settings(port, "/metrics"));
    let unbound = |status: &EndpointStatus| matches!(status, EndpointStatus::Unbound(_));
    let EndpointStatus::Unbound(reason) = server.endpoint_when(unbound).await else {
        panic!("not unbound");
    };
    assert!(reason.contains(&port.to_string()), "{reason}");
    assert!(
        reason.contains("prometheus.metrics.kuma.io/port"),
        "{reason}"
    );
    // A connection handed over needs no listener.
    let (mut client, handoff) = handoff().await;
    server.handoffs.send(handoff).await.unwrap();
    send(&mut client, "GET", "/metrics", "").await;
    assert_eq!(read_answer(&mut client, "GET").await.body, SERVED);

    drop(taken);
    let addr = server.serving().await;
    assert_eq!(addr.port(), port);
    assert_eq!(get(addr, "/metrics").await.body, SERVED);
}

#[tokio::test]
async fn settings_that_no_longer_come_stay_in_force() {
    let mut server = start(config(), echo(), settings(0, "/metrics"));
    let addr = server.serving().await;
    let (replacement, _) = watch::channel(Arc::new(settings_without_metrics()));
    drop(std::mem::replace(&mut server.settings, replacement));
    assert_eq!(get(addr, "/metrics").await.body, SERVED);
}
