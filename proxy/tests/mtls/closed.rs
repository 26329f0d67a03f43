//! Closed ports in a mesh with TLS: what there is no route for is counted with its client, who may not connect learns of
//! no routes, and a permission that changes holds for streams, too.

use std::sync::Arc;

use bytes::Bytes;
use h2::client::SendRequest;
use hyper::http::{HeaderMap, Request, Response};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::Notify;
use weir_crds::routes::Condition;
use weir_crds::settings::{MtlsMode, Settings};
use weir_proxy::worker;

use crate::mesh::Pair;
use crate::permission::{CLIENT_ID, permit};
use crate::proxy::{DEADLINE, answer_heads, application, soon};

const OK: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
const NOT_FOUND: &str = "inbound_http_route_not_found_total";
const ALLOWED: &str = "inbound_http_authz_allow_total";
const DENIED: &str = "inbound_http_authz_deny_total";

/// Lets peers of that service ask for what is below `/a`, under a permission of this name.
fn closed(port: u16, service: &str, name: &str) -> Arc<Settings> {
    let mut settings = (*permit(port, service)).clone();
    for inbound in settings.inbounds.iter_mut().flatten() {
        inbound.permission.as_mut().expect("one").name = name.to_owned();
        inbound.routes = Some(vec![Condition::PathPrefix("/a".to_owned())]);
    }
    Arc::new(settings)
}

/// However late a client's first byte is, nothing is dialed before: what is, was let in.
fn patient() -> worker::Config {
    let mut served = worker::Config::default();
    served.detect.silence = DEADLINE;
    served
}

/// The status of one request on a connection of its own.
async fn ask(pair: &Pair, (path, host): (&str, &str)) -> String {
    let mut asks = pair.client.proxy.connect().await;
    let request = format!("GET {path} HTTP/1.1\r\nHost: {host}\r\n\r\n");
    asks.write_all(request.as_bytes()).await.expect("written");
    let mut answer = [0; 12];
    let read = soon(asks.read_exact(&mut answer)).await;
    read.map(|_| String::from_utf8_lossy(&answer[9..]).into_owned())
        .unwrap_or_default()
}

/// Puts settings in force in which there is no route for `/c`, and asks for it until that is answered so.
async fn obey(pair: &Pair, settings: Arc<Settings>, status: &str) {
    pair.server.settings.send_replace(settings);
    let start = std::time::Instant::now();
    while ask(pair, ("/c", "probe")).await != status {
        assert!(start.elapsed() < DEADLINE, "they are never in force");
    }
}

/// Answers requests for `/a/slow` when it is told to, and others at once.
async fn answers(stream: TcpStream, go: Arc<Notify>) {
    let Ok(mut connection) = h2::server::handshake(stream).await else {
        return;
    };
    while let Some(Ok((request, mut respond))) = connection.accept().await {
        let go = Arc::clone(&go);
        tokio::spawn(async move {
            if request.uri().path() == "/a/slow" {
                go.notified().await;
            }
            let Ok(mut send) = respond.send_response(Response::new(()), false) else {
                return;
            };
            let mut trailers = HeaderMap::new();
            trailers.insert("grpc-status", "0".parse().expect("a value"));
            let _gone = send.send_trailers(trailers);
        });
    }
}

/// A client of HTTP/2 through both proxies.
async fn connect(pair: &Pair) -> SendRequest<Bytes> {
    let connection = soon(h2::client::handshake(pair.client.proxy.connect().await)).await;
    let (send, connection) = connection.expect("HTTP/2");
    tokio::spawn(connection);
    send
}

fn begin(send: &mut SendRequest<Bytes>, path: &str) -> h2::client::ResponseFuture {
    let request = Request::post(format!("http://web{path}"))
        .header("content-type", "application/grpc")
        .body(());
    let request = request.expect("a request");
    send.send_request(request, true).expect("room").0
}

/// The status of an answer, and its `grpc-status`.
async fn call(send: &mut SendRequest<Bytes>, path: &str) -> (u16, Option<String>) {
    finish(begin(send, path)).await
}

async fn finish(answer: h2::client::ResponseFuture) -> (u16, Option<String>) {
    let mut answer = soon(answer).await.expect("an answer");
    let trailers = soon(answer.body_mut().trailers()).await.expect("an end");
    let trailers = trailers.unwrap_or_else(|| answer.headers().clone());
    let status = trailers.get("grpc-status");
    let status = status.map(|status| status.to_str().expect("text").to_owned());
    (answer.status().as_u16(), status)
}

fn said(status: u16, grpc: &str) -> (u16, Option<String>) {
    (status, Some(grpc.to_owned()))
}

#[tokio::test]
async fn what_there_is_no_route_for_is_counted_with_its_client() {
    let go = Arc::new(Notify::new());
    let http1 = application(|s| answer_heads(s, OK)).await;
    let http2 = application(move |s| answers(s, Arc::clone(&go))).await;
    for (app, is_http2) in [(http1, false), (http2, true)] {
        let pair = Pair::start_with(MtlsMode::Strict, app, patient());
        let (server, port) = (&pair.server.proxy, pair.server.proxy.addr.port());
        obey(&pair, closed(port, "api", "api"), "404").await;
        let opened = |peer: &str, tls: &str| server.sum("tcp_open_total", &[peer, tls]);
        let dialed = || opened("peer=\"dst\"", "no_tls_reason=\"loopback\"");
        let before = dialed();
        if is_http2 {
            let mut send = connect(&pair).await;
            for (path, grpc) in [("/a", "0"), ("/c", "12"), ("/a/x", "0")] {
                assert_eq!(call(&mut send, path).await, said(200, grpc), "{path}");
            }
        } else {
            for (path, status) in [("/a", "200"), ("/c", "404"), ("/a/x", "200")] {
                assert_eq!(ask(&pair, (path, "web")).await, status, "{path}");
            }
        }
        let row = [
            "authority=\"web\"",
            "srv_name=\"web\",srv_port=\"80\",tls=\"true\",",
            CLIENT_ID,
        ];
        server.counts(NOT_FOUND, &row, 1.0).await;
        server
            .counts(ALLOWED, &["authority=\"web\"", CLIENT_ID], 2.0)
            .await;
        server
            .counts("response_total", &["authority=\"web\""], 3.0)
            .await;
        assert_eq!(
            server.sum("request_total", &["authority=\"web\"", CLIENT_ID]),
            3.0
        );
        assert_eq!(server.sum(DENIED, &["authority=\"web\""]), 0.0);
        // What is one connection of the client's is one of the application's, and what is in plain text is inside.
        let asked = if is_http2 { 1.0 } else { 2.0 };
        assert_eq!(dialed() - before, asked);
        assert_eq!(opened("peer=\"src\"", "tls=\"no_identity\""), 0.0);
    }
}

#[tokio::test]
async fn who_may_not_connect_learns_of_no_routes() {
    let pair = Pair::start(application(|s| answer_heads(s, OK)).await);
    let (server, port) = (&pair.server.proxy, pair.server.proxy.addr.port());
    obey(&pair, closed(port, "api", "api"), "404").await;
    obey(&pair, closed(port, "other", "other"), "403").await;
    let before = server.sum(NOT_FOUND, &[]);
    for path in ["/a", "/c"] {
        assert_eq!(ask(&pair, (path, "web")).await, "403", "{path}");
        let mut send = connect(&pair).await;
        assert_eq!(call(&mut send, path).await.0, 403, "{path}");
    }
    let denied = ["authority=\"web\"", CLIENT_ID];
    server.counts(DENIED, &denied, 4.0).await;
    assert_eq!(server.sum(NOT_FOUND, &[]), before);
}

#[tokio::test]
async fn streams_are_held_to_what_is_in_force_when_they_begin() {
    let go = Arc::new(Notify::new());
    let told = Arc::clone(&go);
    let app = application(move |s| answers(s, Arc::clone(&told))).await;
    let pair = Pair::start_with(MtlsMode::Strict, app, patient());
    let (server, port) = (&pair.server.proxy, pair.server.proxy.addr.port());
    obey(&pair, closed(port, "api", "first"), "404").await;
    let before = server.sum("tcp_open_total", &["peer=\"dst\""]);
    let mut send = connect(&pair).await;
    assert_eq!(call(&mut send, "/a").await, said(200, "0"));
    let slow = begin(&mut send, "/a/slow");
    let of = |name: &'static str| ["authority=\"web\"", name, CLIENT_ID];
    let first = of("authz_name=\"first\"");
    server.counts("request_total", &first, 2.0).await;
    obey(&pair, closed(port, "other", "other"), "403").await;
    // Nobody waits for what is under way, and routes say nothing.
    for path in ["/a", "/c"] {
        assert_eq!(call(&mut send, path).await, (403, None), "{path}");
    }
    server
        .counts(DENIED, &["authority=\"web\"", CLIENT_ID], 2.0)
        .await;
    obey(&pair, closed(port, "api", "second"), "404").await;
    assert_eq!(call(&mut send, "/a").await, said(200, "0"));
    assert_eq!(call(&mut send, "/c").await, said(200, "12"));
    go.notify_one();
    assert_eq!(finish(slow).await, said(200, "0"));
    let second = of("authz_name=\"second\"");
    server.counts(ALLOWED, &second, 1.0).await;
    assert_eq!(server.sum(ALLOWED, &first), 2.0);
    server.counts("response_total", &first, 2.0).await;
    assert_eq!(server.sum(NOT_FOUND, &["authority=\"web\""]), 1.0);
    let dialed = server.sum("tcp_open_total", &["peer=\"dst\""]);
    assert_eq!(dialed - before, 1.0);
}
