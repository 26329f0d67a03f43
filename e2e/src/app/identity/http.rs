//! The shapes of HTTP that must pass unchanged: bodies by length and in chunks, trailers, reuse of a
//! connection, HTTP/2 and gRPC. Used by `identity`.

use anyhow::{Context as _, ensure};
use hyper::body::Incoming;
use hyper::client::conn::{http1, http2};
use hyper::header::{CONTENT_LENGTH, HeaderMap, HeaderValue};
use hyper::{Method, Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo};

use super::super::tcp;
use super::LIMIT;
use super::pattern::{Pattern, verify};

/// How many requests share a connection.
const REUSES: usize = 20;

/// HTTP/2 streams open at the same time.
const STREAMS: usize = 10;

async fn http1_sender(web: &str) -> anyhow::Result<http1::SendRequest<Pattern>> {
    let stream = tcp::dial(web, LIMIT).await?;
    let (sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    tokio::spawn(connection);
    Ok(sender)
}

fn post(web: &str, body: Pattern) -> anyhow::Result<Request<Pattern>> {
    Ok(Request::post("/echo").header("host", web).body(body)?)
}

pub(super) async fn sized_body(web: &str, length: usize) -> anyhow::Result<()> {
    let mut sender = http1_sender(web).await?;
    let response = sender
        .send_request(post(web, Pattern::sized(length))?)
        .await?;
    let declared = response.headers().get(CONTENT_LENGTH);
    let expected = HeaderValue::from(length);
    ensure!(
        declared == Some(&expected),
        "the length is declared as {declared:?}"
    );
    verify(response.into_body(), length).await?;
    Ok(())
}

pub(super) async fn chunked_body(web: &str) -> anyhow::Result<()> {
    let mut sender = http1_sender(web).await?;
    let trailers = HeaderMap::from_iter([("x-sum".parse()?, HeaderValue::from_static("42"))]);
    let mut request = post(web, Pattern::with_trailers(300_000, trailers.clone()))?;
    let headers = request.headers_mut();
    headers.insert("trailer", HeaderValue::from_static("x-sum"));
    headers.insert("te", HeaderValue::from_static("trailers"));
    let response = sender.send_request(request).await?;
    expect_trailers(response, 300_000, &trailers).await
}

pub(super) async fn keep_alive(web: &str) -> anyhow::Result<()> {
    let mut sender = http1_sender(web).await?;
    for length in 0..REUSES {
        sender.ready().await?;
        let request = post(web, Pattern::sized(length * 1000))?;
        let response = sender.send_request(request).await?;
        verify(response.into_body(), length * 1000).await?;
    }
    Ok(())
}

/// HEAD, 204 and 304 end with their head, and the next request on the connection is understood.
pub(super) async fn bodiless(web: &str) -> anyhow::Result<()> {
    let mut sender = http1_sender(web).await?;
    for (method, path, status) in [
        (Method::HEAD, "/bytes/5000", 200),
        (Method::GET, "/status/204", 204),
        (Method::GET, "/status/304", 304),
        (Method::GET, "/bytes/10", 200),
    ] {
        sender.ready().await?;
        let request = Request::builder()
            .method(&method)
            .uri(path)
            .header("host", web);
        let response = sender
            .send_request(request.body(Pattern::sized(0))?)
            .await?;
        ensure!(
            response.status() == status,
            "{path} answers {}",
            response.status()
        );
        let length = if path == "/bytes/10" { 10 } else { 0 };
        verify(response.into_body(), length).await?;
    }
    Ok(())
}

async fn http2_sender(web: &str) -> anyhow::Result<http2::SendRequest<Pattern>> {
    let stream = tcp::dial(web, LIMIT).await?;
    let (sender, connection) = http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await?;
    tokio::spawn(connection);
    Ok(sender)
}

fn post2(web: &str, body: Pattern) -> anyhow::Result<Request<Pattern>> {
    Ok(Request::post(format!("http://{web}/echo")).body(body)?)
}

/// Streams side by side on one connection, each with a body of its own length.
pub(super) async fn http2(web: &str) -> anyhow::Result<()> {
    let sender = http2_sender(web).await?;
    let mut streams = tokio::task::JoinSet::new();
    for stream in 0..STREAMS {
        let (mut sender, length) = (sender.clone(), stream * 100_000);
        let request = post2(web, Pattern::sized(length))?;
        streams.spawn(async move {
            let response = sender.send_request(request).await?;
            verify(response.into_body(), length).await
        });
    }
    while let Some(stream) = streams.join_next().await {
        stream??;
    }
    Ok(())
}

/// A gRPC exchange as HTTP/2 sees it: a message in a body, its status in the trailers.
pub(super) async fn grpc(web: &str) -> anyhow::Result<()> {
    let mut sender = http2_sender(web).await?;
    let trailers = HeaderMap::from_iter([
        ("grpc-status".parse()?, HeaderValue::from_static("0")),
        ("grpc-message".parse()?, HeaderValue::from_static("fine")),
    ]);
    let mut request = post2(web, Pattern::with_trailers(70_000, trailers.clone()))?;
    let headers = request.headers_mut();
    headers.insert("content-type", HeaderValue::from_static("application/grpc"));
    headers.insert("te", HeaderValue::from_static("trailers"));
    let response = sender.send_request(request).await?;
    let kind = response.headers().get("content-type");
    ensure!(
        kind.is_some_and(|kind| kind == "application/grpc"),
        "the content type is {kind:?}"
    );
    expect_trailers(response, 70_000, &trailers).await
}

async fn expect_trailers(
    response: Response<Incoming>,
    length: usize,
    expected: &HeaderMap,
) -> anyhow::Result<()> {
    let trailers = verify(response.into_body(), length)
        .await?
        .context("no trailers came")?;
    ensure!(trailers == *expected, "the trailers are {trailers:?}");
    Ok(())
}
