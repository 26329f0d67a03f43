//! Permissions that change under open connections: who loses one is cut, who keeps one is counted under its new name.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use h2::client::SendRequest;
use hyper::http::{Request, Response};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::{Notify, mpsc};
use weir_crds::settings::{MtlsMode, Settings};

use crate::mesh::{Pair, settings};
use crate::permission::{CLIENT_ID, obey, permit};
use crate::proxy::{answer_heads, application, read_all, read_until, soon};

const GET: &[u8] = b"GET / HTTP/1.1\r\nHost: web\r\n\r\n";
const OK: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

/// Lets the client's service in under this name.
fn named(port: u16, name: &str) -> Arc<Settings> {
    let mut settings = (*permit(port, "api")).clone();
    let inbounds = settings.inbounds.as_mut().expect("known");
    inbounds[0].permission.as_mut().expect("one").name = name.to_owned();
    Arc::new(settings)
}

/// One request on a connection that stays, and the beginning of what comes back.
async fn once_more(kept: &mut TcpStream) -> Vec<u8> {
    kept.write_all(GET).await.expect("written");
    let mut answer = vec![0; 12];
    soon(kept.read_exact(&mut answer)).await.expect("an answer");
    if answer.ends_with(b"200") {
        read_until(kept, b"ok").await;
    }
    answer
}

#[tokio::test]
async fn a_request_on_an_open_connection_is_judged_by_what_is_in_force_then() {
    let pair = Pair::start(application(|s| answer_heads(s, OK)).await);
    let (server, port) = (&pair.server.proxy, pair.server.proxy.addr.port());
    obey(&pair, permit(port, "other"), b"403").await;
    obey(&pair, named(port, "first"), b"200").await;
    let mut kept = pair.client.proxy.connect().await;
    assert_eq!(once_more(&mut kept).await, b"HTTP/1.1 200");
    let allowed = |name: &'static str| [name, CLIENT_ID];
    let first = allowed("authz_name=\"first\"");
    server
        .counts("inbound_http_authz_allow_total", &first, 2.0)
        .await;
    // Another permission that allows it: the connection stays, and what follows is counted under its name.
    pair.server.settings.send_replace(named(port, "second"));
    let second = allowed("authz_name=\"second\"");
    let mut asked = 0.0;
    while server.sum("inbound_http_authz_allow_total", &second) < 1.0 {
        assert_eq!(once_more(&mut kept).await, b"HTTP/1.1 200");
        asked += 1.0;
        assert!(asked < 1000.0, "it is never in force");
    }
    assert_eq!(
        server.sum("inbound_http_authz_allow_total", &first),
        1.0 + asked
    );
    server.counts("request_total", &second, 1.0).await;
    // None: its next request is refused, and is the last.
    let denied = server.sum("inbound_http_authz_deny_total", &[CLIENT_ID]);
    obey(&pair, permit(port, "other"), b"403").await;
    assert_eq!(once_more(&mut kept).await, b"HTTP/1.1 403");
    let rest = read_all(&mut kept).await;
    assert!(rest.ends_with(b"connection: close\r\n\r\n"), "it ends");
    server
        .counts("inbound_http_authz_deny_total", &[CLIENT_ID], denied + 2.0)
        .await;
    let refused = ["status_code=\"403\"", "classification=\"success\""];
    server
        .counts("response_total", &refused, denied + 2.0)
        .await;
    // And allowed again, from the next request on.
    obey(&pair, named(port, "first"), b"200").await;
}

#[tokio::test]
async fn a_permission_that_comes_back_in_time_has_never_been_away() {
    let pair = Pair::start(application(|s| answer_heads(s, OK)).await);
    let port = pair.server.proxy.addr.port();
    obey(&pair, permit(port, "other"), b"403").await;
    obey(&pair, permit(port, "api"), b"200").await;
    let mut kept = pair.client.proxy.connect().await;
    assert_eq!(once_more(&mut kept).await, b"HTTP/1.1 200");
    obey(&pair, permit(port, "other"), b"403").await;
    obey(&pair, permit(port, "api"), b"200").await;
    assert_eq!(once_more(&mut kept).await, b"HTTP/1.1 200");
}

/// Reads until the other side is gone, and tells so.
async fn hold(mut stream: TcpStream, gone: mpsc::Sender<()>) {
    let mut bytes = [0; 64];
    while let Ok(n) = stream.read(&mut bytes).await {
        if n == 0 || stream.write_all(&bytes[..n]).await.is_err() {
            break;
        }
    }
    gone.send(()).await.expect("it is awaited");
}

#[tokio::test]
async fn opaque_connections_are_cut_on_both_sides_whether_anybody_speaks_or_not() {
    let (tell, mut gone) = mpsc::channel(2);
    let pair = Pair::start(application(move |s| hold(s, tell.clone())).await);
    let (server, port) = (&pair.server.proxy, pair.server.proxy.addr.port());
    pair.server.settings.send_replace(permit(port, "api"));
    let mut spoken = pair.client.proxy.connect().await;
    spoken.write_all(b"\0\x01\x02").await.expect("written");
    soon(spoken.read_exact(&mut [0; 3])).await.expect("an echo");
    // Neither side says anything on this one: it is still looked at.
    let mut silent = pair.client.proxy.connect().await;
    let open = ["peer=\"dst\"", "direction=\"inbound\""];
    server.counts("tcp_open_connections", &open, 2.0).await;
    pair.server.settings.send_replace(permit(port, "other"));
    for (name, kept) in [("spoken", &mut spoken), ("silent", &mut silent)] {
        let end = soon(kept.read(&mut [0])).await;
        assert!(!matches!(end, Ok(1..)), "{name}");
        soon(gone.recv()).await.expect("it has ended");
    }
    for peer in ["src", "dst"] {
        let closed = [&format!("peer=\"{peer}\""), "classification=\"failure\""];
        server.counts("tcp_close_total", &closed, 2.0).await;
    }
    let denied = ["peer=\"src\"", "srv_name=\"web\"", CLIENT_ID];
    server
        .counts("inbound_tcp_authz_deny_total", &denied, 2.0)
        .await;
}

#[tokio::test]
async fn plaintext_is_cut_when_the_mesh_becomes_strict() {
    let (tell, mut gone) = mpsc::channel(2);
    let app = application(move |s| hold(s, tell.clone())).await;
    let pair = Pair::start_in(MtlsMode::Permissive, app);
    let mut secured = pair.client.proxy.connect().await;
    let mut plain = pair.server.proxy.connect().await;
    for stream in [&mut secured, &mut plain] {
        stream.write_all(b"\0\x01\x02").await.expect("written");
        soon(stream.read_exact(&mut [0; 3])).await.expect("an echo");
    }
    let strict = Arc::new(settings(MtlsMode::Strict));
    pair.server.settings.send_replace(strict);
    assert!(soon(plain.read(&mut [0])).await.is_err(), "it is reset");
    soon(gone.recv()).await.expect("it has ended");
    secured.write_all(b"\0\x01\x02").await.expect("written");
    soon(secured.read_exact(&mut [0; 3]))
        .await
        .expect("an echo");
}

/// Answers requests for `/slow` when it is told to, and others at once.
async fn answers(stream: TcpStream, go: Arc<Notify>) {
    let Ok(mut connection) = h2::server::handshake(stream).await else {
        return;
    };
    while let Some(Ok((request, mut respond))) = connection.accept().await {
        let go = Arc::clone(&go);
        tokio::spawn(async move {
            if request.uri().path() == "/slow" {
                go.notified().await;
            }
            let _gone = respond.send_response(Response::new(()), true);
        });
    }
}

fn begin(send: &mut SendRequest<Bytes>, path: &str) -> h2::client::ResponseFuture {
    let request = Request::get(format!("http://web{path}")).body(());
    let request = request.expect("a request");
    send.send_request(request, true).expect("room").0
}

#[tokio::test]
async fn a_stream_that_is_refused_waits_for_those_before_it_and_is_the_last() {
    let go = Arc::new(Notify::new());
    let told = Arc::clone(&go);
    let pair = Pair::start(application(move |s| answers(s, Arc::clone(&told))).await);
    let (server, port) = (&pair.server.proxy, pair.server.proxy.addr.port());
    pair.server.settings.send_replace(permit(port, "api"));
    let connection = soon(h2::client::handshake(pair.client.proxy.connect().await)).await;
    let (mut send, connection) = connection.expect("HTTP/2");
    let driver = tokio::spawn(connection);
    let quick = begin(&mut send, "/");
    assert_eq!(soon(quick).await.expect("an answer").status(), 200);
    let slow = begin(&mut send, "/slow");
    let row = ["authz_name=\"api-to-web\"", CLIENT_ID];
    server.counts("request_total", &row, 2.0).await;
    pair.server.settings.send_replace(permit(port, "other"));
    // It is known to be in force once a new connection is refused.
    let mut denied = 0.0;
    while denied == 0.0 {
        let mut fresh = pair.client.proxy.connect().await;
        fresh.write_all(GET).await.expect("written");
        read_all(&mut fresh).await;
        denied = server.sum("inbound_http_authz_deny_total", &[CLIENT_ID]);
    }
    let refused = [begin(&mut send, "/"), begin(&mut send, "/")];
    server
        .counts("inbound_http_authz_deny_total", &[CLIENT_ID], denied + 2.0)
        .await;
    go.notify_one();
    assert_eq!(soon(slow).await.expect("an answer").status(), 200);
    for refused in refused {
        assert_eq!(soon(refused).await.expect("an answer").status(), 403);
    }
    let _ended = soon(driver).await.expect("it ends");
    let row = ["status_code=\"200\"", CLIENT_ID];
    server.counts("response_total", &row, 2.0).await;
    let row = ["status_code=\"403\"", "authority=\"web\"", CLIENT_ID];
    server.counts("response_total", &row, denied + 2.0).await;
    tokio::time::timeout(Duration::from_secs(20), async {
        while server.sum("http2_active_connections", &[]) > 0.0 {
            tokio::task::yield_now().await;
        }
    })
    .await
    .expect("it is over");
}
