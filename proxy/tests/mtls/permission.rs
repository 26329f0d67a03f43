//! Peers that are known and may not connect: they are told in their own protocol, and nothing is dialed.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use hyper::http::Request;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use weir_crds::permission::Permission;
use weir_crds::settings::{InboundSettings, MtlsMode, Settings};

use crate::labels::{ROUTE, SRV, counts_exactly};
use crate::mesh::{CLIENT, Pair, settings};
use crate::proxy::{answer_heads, application, read_until, soon};

const GET: &[u8] = b"GET / HTTP/1.1\r\nHost: web\r\n\r\n";
const OK: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

/// What lets peers of this service in at a port.
pub(crate) fn permit(port: u16, service: &str) -> Arc<Settings> {
    let mut settings = settings(MtlsMode::Strict);
    let source = [("kuma.io/service".to_owned(), service.to_owned())];
    settings.inbounds = Some(vec![InboundSettings {
        port,
        service: "web".into(),
        permission: Some(Permission {
            name: format!("{service}-to-web"),
            sources: vec![source.into()],
        }),
        routes: None,
    }]);
    Arc::new(settings)
}

async fn counting() -> (SocketAddr, Arc<AtomicUsize>) {
    let count = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&count);
    let app = application(move |stream| {
        counted.fetch_add(1, Ordering::Relaxed);
        answer_heads(stream, OK)
    });
    (app.await, count)
}

pub(crate) const CLIENT_ID: &str = "client_id=\"api.shop";

/// One request on a connection of its own; answers everything that comes back.
pub(crate) async fn ask(pair: &Pair) -> Vec<u8> {
    let mut asks = pair.client.proxy.connect().await;
    asks.write_all(GET).await.expect("written");
    read_until(&mut asks, b"ok").await
}

/// Puts other settings in force, and asks until they are; answers how often it has asked.
pub(crate) async fn obey(pair: &Pair, settings: Arc<Settings>, status: &[u8]) -> f64 {
    pair.server.settings.send_replace(settings);
    for n in 1..100 {
        if ask(pair)
            .await
            .starts_with(&[b"HTTP/1.1 ", status].concat())
        {
            return f64::from(n);
        }
    }
    panic!("they are never in force");
}

/// The rule of what no permission lets in.
const DENIED: &str = r#"authz_group="",authz_kind="",authz_name="""#;

/// What is said of a connection to the application: requests and connections, what became of them, and who was let in.
const JUDGED: [&str; 9] = [
    "request_total",
    "response_total",
    "response_latency_ms_count",
    "inbound_http_authz_allow_total",
    "inbound_http_authz_deny_total",
    "inbound_tcp_authz_allow_total",
    "inbound_tcp_authz_deny_total",
    "inbound_http_errors_total",
    "inbound_tcp_errors_total",
];

/// The series of so many requests of the client's, under this permission and with this answer.
fn requests(port: u16, authz: &str, (status, n): (u16, usize)) -> Vec<String> {
    let request = format!(
        r#"direction="inbound",authority="web",target_port="{port}",tls="true",client_id="{CLIENT}",{SRV},{ROUTE},{authz}"#
    );
    let ended =
        format!(r#"status_code="{status}",classification="success",grpc_status_code="",error="""#);
    vec![
        format!("request_total{{{request}}} {n}"),
        format!("response_total{{{request},{ended}}} {n}"),
        format!(r#"response_latency_ms_count{{{request},status_code="{status}"}} {n}"#),
    ]
}

#[tokio::test]
async fn who_has_no_permission_is_told_and_the_application_is_not() {
    let (app, count) = counting().await;
    let pair = Pair::start_told(app, |port| permit(port, "other"));
    let (server, port) = (&pair.server.proxy, pair.server.proxy.addr.port());
    // HTTP/1.
    let answer = ask(&pair).await;
    assert!(
        answer.starts_with(b"HTTP/1.1 403 "),
        "{}",
        String::from_utf8_lossy(&answer)
    );
    // HTTP/2; a client of gRPC takes 403 for PERMISSION_DENIED.
    let connection = soon(h2::client::handshake(pair.client.proxy.connect().await)).await;
    let (mut send, connection) = connection.expect("HTTP/2");
    let driver = tokio::spawn(connection);
    let request = Request::post("http://web/a.B/C").body(());
    let (answer, _) = send
        .send_request(request.expect("a request"), true)
        .expect("room");
    assert_eq!(soon(answer).await.expect("an answer").status(), 403);
    let _ended = soon(driver).await.expect("it ends");
    // Neither.
    let mut asks = pair.client.proxy.connect().await;
    asks.write_all(b"\0\x01\x02").await.expect("written");
    assert!(soon(asks.read(&mut [0])).await.is_err(), "it is closed on");
    // They are no errors, and by no permission.
    let mut expected = requests(port, DENIED, (403, 2));
    let client = format!(r#"tls="true",client_id="{CLIENT}""#);
    expected.extend([
        format!(
            r#"inbound_http_authz_deny_total{{direction="inbound",authority="web",{SRV},{ROUTE},{client}}} 2"#
        ),
        format!(
            r#"inbound_tcp_authz_deny_total{{direction="inbound",peer="src",{SRV},{client}}} 1"#
        ),
    ]);
    counts_exactly(server, &JUDGED, expected).await;
    assert_eq!(count.load(Ordering::Relaxed), 0, "nothing is dialed");
}

#[tokio::test]
async fn who_has_a_permission_is_counted_under_its_name() {
    let (app, _) = counting().await;
    let pair = Pair::start_told(app, |port| permit(port, "api"));
    let (server, port) = (&pair.server.proxy, pair.server.proxy.addr.port());
    assert_eq!(ask(&pair).await, OK);
    let mut asks = pair.client.proxy.connect().await;
    asks.write_all(b"\0\x01\r\n\r\n").await.expect("written");
    assert_eq!(read_until(&mut asks, b"ok").await, OK);
    let authz = r#"authz_group="kuma.io",authz_kind="trafficpermission",authz_name="api-to-web""#;
    let mut expected = requests(port, authz, (200, 1));
    let client = format!(r#"tls="true",client_id="{CLIENT}""#);
    expected.extend([
        format!(
            r#"inbound_http_authz_allow_total{{direction="inbound",authority="web",{SRV},{ROUTE},{authz},{client}}} 1"#
        ),
        format!(
            r#"inbound_tcp_authz_allow_total{{direction="inbound",peer="src",{SRV},{authz},{client}}} 1"#
        ),
    ]);
    counts_exactly(server, &JUDGED, expected).await;
}
