//! The HTTP server of the stories: each path shows one thing that a proxy has to let pass unchanged.
//! Serves HTTP/1.1 and HTTP/2 with prior knowledge on one port. Called by `app`; keeps no state.

use std::convert::Infallible;
use std::time::Duration;

use anyhow::Context as _;
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt as _, Empty, Full};
use hyper::body::{Bytes, Incoming};
use hyper::header::{
    CONNECTION, CONTENT_LENGTH, CONTENT_TYPE, EXPECT, HeaderValue, TRAILER, UPGRADE,
};
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use tokio::net::{TcpListener, TcpStream};

type Body = BoxBody<Bytes, hyper::Error>;

/// What `/metrics` answers: an application's own exposition.
const EXPOSITION: &str =
    "# HELP app_visits_total Visits.\n# TYPE app_visits_total counter\napp_visits_total 7\n";

/// The byte at a position of what `/bytes/N` answers.
pub(super) fn byte_at(position: usize) -> u8 {
    // A period that is no power of two, so that shifted or doubled buffers are seen.
    u8::try_from(position % 251).expect("a remainder of 251 fits a byte")
}

/// Accepts connections for ever.
pub(super) async fn serve(listener: TcpListener) -> anyhow::Result<()> {
    loop {
        let (stream, _) = listener.accept().await.context("cannot accept")?;
        tokio::spawn(converse(stream));
    }
}

/// One connection to its end; one that breaks concerns its client only.
async fn converse(stream: TcpStream) {
    if stream.set_nodelay(true).is_err() {
        return; // the peer is gone already
    }
    let service = service_fn(|request| async { Ok::<_, Infallible>(answer(request).await) });
    let connection = auto::Builder::new(TokioExecutor::new());
    if let Err(error) = connection
        .serve_connection_with_upgrades(TokioIo::new(stream), service)
        .await
    {
        eprintln!("connection: {error}");
    }
}

async fn answer(request: Request<Incoming>) -> Response<Body> {
    let path = request.uri().path().to_owned();
    println!("{} {path}", request.method()); // so that a story can tell what never arrived
    let mut parts = path.trim_start_matches('/').splitn(2, '/');
    let (name, argument) = (parts.next().unwrap_or_default(), parts.next());
    let number = argument.and_then(|text| text.parse::<usize>().ok());
    match (name, number) {
        ("ok", _) => full(StatusCode::OK, "ok\n"),
        ("status", Some(code)) => match u16::try_from(code).map(StatusCode::from_u16) {
            Ok(Ok(status)) => full(status, "as asked\n"),
            _ => full(StatusCode::BAD_REQUEST, "no such status\n"),
        },
        ("bytes", Some(count)) => full(StatusCode::OK, (0..count).map(byte_at).collect::<Vec<_>>()),
        ("slow", Some(milliseconds)) => {
            tokio::time::sleep(Duration::from_millis(milliseconds as u64)).await;
            full(StatusCode::OK, "at last\n")
        }
        ("echo", _) if request.headers().contains_key(EXPECT) => echo_whole(request).await,
        ("echo", _) => echo(request),
        ("upgrade", _) => upgrade(request),
        ("metrics", _) => exposition(argument),
        _ => full(StatusCode::NOT_FOUND, "no such path\n"),
    }
}

/// The application's own exposition, or one sample of the family that is named.
fn exposition(family: Option<&str>) -> Response<Body> {
    let text = family.map_or_else(
        || EXPOSITION.to_owned(),
        |family| format!("# TYPE {family} counter\n{family} 7\n"),
    );
    let mut response = full(StatusCode::OK, text);
    let text_format = HeaderValue::from_static("text/plain; version=0.0.4");
    response.headers_mut().insert(CONTENT_TYPE, text_format);
    response
}

fn full(status: StatusCode, body: impl Into<Bytes>) -> Response<Body> {
    let mut response = Response::new(
        Full::new(body.into())
            .map_err(|never| match never {})
            .boxed(),
    );
    *response.status_mut() = status;
    response
}

/// Streams the request's body back, trailers included. The length, where the client gave one, is kept.
fn echo(request: Request<Incoming>) -> Response<Body> {
    let (head, body) = request.into_parts();
    let mut response = Response::new(body.boxed());
    for name in [CONTENT_LENGTH, TRAILER, CONTENT_TYPE] {
        if let Some(value) = head.headers.get(&name) {
            response.headers_mut().insert(name, value.clone());
        }
    }
    response
}

/// Answers once the body is there: reading it is what makes hyper send the client its 100.
async fn echo_whole(request: Request<Incoming>) -> Response<Body> {
    match request.into_body().collect().await {
        Ok(body) => full(StatusCode::OK, body.to_bytes()),
        Err(error) => full(StatusCode::BAD_REQUEST, error.to_string()),
    }
}

/// Changes to the protocol the client names, which here is: everything is sent back.
fn upgrade(mut request: Request<Incoming>) -> Response<Body> {
    let Some(protocol) = request.headers().get(UPGRADE).cloned() else {
        return full(StatusCode::UPGRADE_REQUIRED, "name a protocol\n");
    };
    let upgraded = hyper::upgrade::on(&mut request);
    tokio::spawn(async move {
        if let Ok(connection) = upgraded.await {
            let (mut read, mut write) = tokio::io::split(TokioIo::new(connection));
            let _ = tokio::io::copy(&mut read, &mut write).await; // the client's end ends it
            let _ = tokio::io::AsyncWriteExt::shutdown(&mut write).await;
        }
    });
    let mut response = Response::new(Empty::new().map_err(|never| match never {}).boxed());
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    response.headers_mut().insert(UPGRADE, protocol);
    response.headers_mut().insert(CONNECTION, UPGRADE.into());
    response
}
