//! Scrapers of the mesh: real handshakes, on the metrics endpoint and on 4191.

use super::endpoint::{SERVED, handoff};
use super::*;
use crate::identity::tests::Authority;
use crate::identity::{Identity, Key, Trust, server_name};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use weir_crds::permission::Permission;

const NAME: &str = "web.test";
/// Where a scraper comes from that is not the pod itself.
const AFAR: ([u8; 4], u16) = ([10, 0, 0, 9], 40_000);

/// Of this service.
fn identity(authority: &Authority, service: &str) -> Arc<Identity> {
    let key = Key::generate().unwrap();
    let name = format!("{service}.test");
    let uris = [format!("spiffe://default/{service}")];
    let life = Duration::from_secs(600);
    let certified = authority.sign(&key.request(&name).unwrap(), &uris, life);
    let trust = Arc::new(Trust::from_pem(&authority.bundle()).unwrap());
    Arc::new(Identity::new((&name.as_str().into(), &key), &certified, &trust).unwrap())
}

/// In a STRICT mesh that lets `prometheus` scrape.
fn secured() -> Settings {
    let mut settings = settings(0, "/metrics");
    settings.mtls = MtlsMode::Strict;
    let source = [("kuma.io/service".to_owned(), "prometheus".to_owned())];
    settings.metrics.as_mut().unwrap().permission = Some(Permission {
        name: "scrape".into(),
        sources: vec![source.into()],
    });
    settings
}

async fn shake(stream: TcpStream, client: &Identity) -> std::io::Result<TlsStream<TcpStream>> {
    let connector = TlsConnector::from(Arc::clone(client.client()));
    let name = server_name(NAME).unwrap();
    tokio::time::timeout(DEADLINE, connector.connect(name, stream))
        .await
        .expect("in time")
}

async fn scrape(stream: &mut (impl AsyncRead + AsyncWrite + Unpin)) -> Answer {
    send(stream, "GET", "/metrics", "").await;
    tokio::time::timeout(DEADLINE, read_answer(stream, "GET"))
        .await
        .expect("an answer comes")
}

impl Running {
    /// A connection to the metrics endpoint that comes from afar.
    async fn connect_afar(&self) -> TcpStream {
        let (client, mut handoff) = handoff().await;
        handoff.peer = AFAR.into();
        self.handoffs.send(handoff).await.unwrap();
        client
    }
}

#[tokio::test]
async fn the_endpoint_of_a_mesh_is_for_whom_it_permits() {
    let authority = Authority::new("mesh");
    let mut server = start(config(), echo(), secured());
    let addr = server.serving().await;
    server
        .identity
        .send_replace(Some(identity(&authority, "web")));
    // The pod itself needs nothing.
    assert_eq!(get(addr, "/metrics").await.body, SERVED);
    // Plaintext is told what to do.
    let mut plain = server.connect_afar().await;
    let refused = scrape(&mut plain).await;
    assert_eq!(refused.status, 403);
    assert!(
        refused.body.contains("activeMTLSBackend"),
        "{}",
        refused.body
    );
    // A member of the mesh needs the permission, another's gets nowhere.
    let other = identity(&authority, "other");
    let mut other = shake(server.connect_afar().await, &other).await.unwrap();
    let refused = scrape(&mut other).await;
    assert_eq!(refused.status, 403);
    assert!(
        refused.body.contains("TrafficPermission"),
        "{}",
        refused.body
    );
    let prometheus = identity(&authority, "prometheus");
    let mut scraper = shake(server.connect_afar().await, &prometheus)
        .await
        .unwrap();
    for _ in 0..2 {
        assert_eq!(scrape(&mut scraper).await.body, SERVED);
    }
    let stranger = identity(&Authority::new("mesh"), "prometheus");
    assert!(shake(server.connect_afar().await, &stranger).await.is_err());
    // What changes holds for connections that are open.
    let mut settings = secured();
    settings.metrics.as_mut().unwrap().permission = None;
    server.set(settings);
    let mut asked = 0;
    while scrape(&mut scraper).await.status != 403 {
        asked += 1;
        assert!(asked < 10_000, "it is never in force");
    }
    let mut settings = secured();
    settings.metrics.as_mut().unwrap().tls = MetricsTls::Disabled;
    server.set(settings);
    while scrape(&mut plain).await.status != 200 {
        asked += 1;
        assert!(asked < 10_000, "it is never in force");
    }
    assert_eq!(scrape(&mut scraper).await.body, SERVED);
}

#[tokio::test]
async fn the_admin_port_speaks_both() {
    let authority = Authority::new("mesh");
    let server = start(config(), echo(), settings_without_metrics());
    let scraper = identity(&authority, "prometheus");
    let connect = async || TcpStream::connect(server.addr).await.unwrap();
    assert!(
        shake(connect().await, &scraper).await.is_err(),
        "without a certificate there is no TLS"
    );
    assert_eq!(get(server.addr, "/metrics").await.body, SERVED);
    server
        .identity
        .send_replace(Some(identity(&authority, "web")));
    let mut secured = shake(connect().await, &scraper).await.unwrap();
    for path in ["/metrics", "/live", "/ready"] {
        send(&mut secured, "GET", path, "").await;
        assert_eq!(read_answer(&mut secured, "GET").await.status, 200, "{path}");
    }
    assert_eq!(get(server.addr, "/metrics").await.body, SERVED);
    // A session that is resumed is as good.
    let mut again = shake(connect().await, &scraper).await.unwrap();
    let kind = again.get_ref().1.handshake_kind();
    assert_eq!(kind, Some(rustls::HandshakeKind::Resumed));
    assert_eq!(scrape(&mut again).await.body, SERVED);
}

#[tokio::test]
async fn only_in_a_strict_mesh_a_pod_that_is_known_not_to_be_redirected_is_not_ready() {
    let in_mode = |mtls| Settings {
        mtls,
        ..settings_without_metrics()
    };
    let server = start(config(), echo(), in_mode(MtlsMode::Strict));
    let certified = identity(&Authority::new("mesh"), "web");
    server.identity.send_replace(Some(certified));
    assert_eq!(get(server.addr, "/ready").await.status, 200, "not known");
    server.redirection.send_replace(State::Direct);
    let refused = get(server.addr, "/ready").await;
    assert_eq!(refused.status, 503);
    let reason = "the Mesh is STRICT, and this pod is not redirected";
    assert!(refused.body.starts_with(reason), "{}", refused.body);
    assert!(refused.body.contains("kuma-init"), "{}", refused.body);
    assert_eq!(get(server.addr, "/live").await.status, 200);
    server.redirection.send_replace(State::Redirected);
    assert_eq!(get(server.addr, "/ready").await.status, 200);
    server.redirection.send_replace(State::Direct);
    for mtls in [MtlsMode::Permissive, MtlsMode::Disabled] {
        server.set(in_mode(mtls));
        assert_eq!(get(server.addr, "/ready").await.status, 200, "{mtls:?}");
    }
}

#[tokio::test]
async fn in_a_strict_mesh_a_proxy_is_ready_once_it_is_certified() {
    let strict = || Settings {
        mtls: MtlsMode::Strict,
        ..settings_without_metrics()
    };
    let server = start(config(), echo(), strict());
    let waits = get(server.addr, "/ready").await;
    assert_eq!(waits.status, 503);
    assert!(waits.body.contains("no certificate yet"), "{}", waits.body);
    assert_eq!(get(server.addr, "/live").await.status, 200);
    let certified = identity(&Authority::new("mesh"), "web");
    server.identity.send_replace(Some(certified));
    assert_eq!(get(server.addr, "/ready").await.status, 200);
    // Where nobody brings one there is nothing to wait for.
    let alone = start_alone(config(), echo(), strict());
    assert_eq!(get(alone.addr, "/ready").await.status, 200);
}

#[tokio::test(start_paused = true)]
async fn a_handshake_that_does_not_end_is_cut_off() {
    let authority = Authority::new("mesh");
    let server = start(config(), echo(), settings_without_metrics());
    server
        .identity
        .send_replace(Some(identity(&authority, "web")));
    let mut stream = TcpStream::connect(server.addr).await.unwrap();
    stream.write_all(b"\x16\x03\x01").await.unwrap();
    let begin = tokio::time::Instant::now();
    let mut rest = Vec::new();
    let _reset = stream.read_to_end(&mut rest).await;
    let limit = Limits::default().head_timeout;
    assert!(begin.elapsed() >= limit && begin.elapsed() < limit * 2);
}
