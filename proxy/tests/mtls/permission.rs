//! Peers that are known and may not connect: they are told in their own protocol, and nothing is dialed.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use hyper::http::Request;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use weir_crds::permission::Permission;
use weir_crds::settings::{InboundSettings, MtlsMode, Settings};

use crate::mesh::{Pair, settings};
use crate::proxy::{answer_heads, application, read_all, read_until, soon};

const GET: &[u8] = b"GET / HTTP/1.1\r\nHost: web\r\n\r\n";
const OK: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

/// What lets peers of this service in at a port.
fn permit(port: u16, service: &str) -> Arc<Settings> {
    let mut settings = settings(MtlsMode::Strict);
    let source = [("kuma.io/service".to_owned(), service.to_owned())];
    settings.inbounds = Some(vec![InboundSettings {
        port,
        service: "web".into(),
        permission: Some(Permission {
            name: format!("{service}-to-web"),
            sources: vec![source.into()],
        }),
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

#[tokio::test]
async fn who_has_no_permission_is_told_and_the_application_is_not() {
    let (app, count) = counting().await;
    let pair = Pair::start(app);
    let (server, port) = (&pair.server, pair.server.proxy.addr.port());
    server.settings.send_replace(permit(port, "other"));
    // HTTP/1.
    let denied = [
        "srv_name=\"web\"",
        "authority=\"web\"",
        "client_id=\"api.shop",
    ];
    let mut n = 0.0;
    while server.proxy.sum("inbound_http_authz_deny_total", &denied) == 0.0 {
        // Settings take effect at the worker's next turn; until then the peer is let in.
        let mut asks = pair.client.proxy.connect().await;
        asks.write_all(GET).await.expect("written");
        let answer = read_until(&mut asks, b"ok").await;
        n += f64::from(u8::from(!answer.starts_with(b"HTTP/1.1 403 ")));
        assert!(n < 100.0, "it is never denied");
    }
    let let_in = count.load(Ordering::Relaxed);
    let mut asks = pair.client.proxy.connect().await;
    asks.write_all(GET).await.expect("written");
    let answer = read_all(&mut asks).await;
    assert!(
        answer.starts_with(b"HTTP/1.1 403 "),
        "{}",
        String::from_utf8_lossy(&answer)
    );
    let row = [
        "status_code=\"403\"",
        "classification=\"success\"",
        "error=\"\"",
        "tls=\"true\"",
    ];
    server.proxy.counts("response_total", &row, 2.0).await;
    server
        .proxy
        .counts("inbound_http_authz_deny_total", &denied, 2.0)
        .await;
    // HTTP/2; a client of gRPC takes 403 for PERMISSION_DENIED.
    let (mut send, connection) = soon(h2::client::handshake(pair.client.proxy.connect().await))
        .await
        .expect("HTTP/2");
    let driver = tokio::spawn(connection);
    let request = Request::post("http://web/a.B/C")
        .body(())
        .expect("a request");
    let (answer, _) = send.send_request(request, true).expect("room");
    assert_eq!(soon(answer).await.expect("an answer").status(), 403);
    let _ended = soon(driver).await.expect("it ends");
    server
        .proxy
        .counts("inbound_http_authz_deny_total", &denied, 3.0)
        .await;
    // Neither.
    let mut asks = pair.client.proxy.connect().await;
    asks.write_all(b"\0\x01\x02").await.expect("written");
    assert!(soon(asks.read(&mut [0])).await.is_err(), "it is closed on");
    let denied = ["peer=\"src\"", "srv_name=\"web\"", "client_id=\"api.shop"];
    server
        .proxy
        .counts("inbound_tcp_authz_deny_total", &denied, 1.0)
        .await;
    assert_eq!(count.load(Ordering::Relaxed), let_in, "nothing is dialed");
    assert_eq!(server.proxy.sum("inbound_tcp_errors_total", &[]), 0.0);
    // A permission for it.
    server.settings.send_replace(permit(port, "api"));
    let authz =
        "authz_group=\"kuma.io\",authz_kind=\"trafficpermission\",authz_name=\"api-to-web\"";
    let mut tries = 0;
    while server.proxy.sum("request_total", &[authz]) == 0.0 {
        tries += 1;
        assert!(tries < 100, "it is never let in");
        let mut asks = pair.client.proxy.connect().await;
        asks.write_all(GET).await.expect("written");
        read_until(&mut asks, b"ok").await;
    }
    assert_eq!(
        server.proxy.sum("inbound_http_authz_allow_total", &[authz]),
        1.0
    );
    let mut asks = pair.client.proxy.connect().await;
    asks.write_all(b"\0\x01\r\n\r\n").await.expect("written");
    assert_eq!(read_until(&mut asks, b"ok").await, OK);
    server
        .proxy
        .counts("inbound_tcp_authz_allow_total", &[authz], 1.0)
        .await;
}
