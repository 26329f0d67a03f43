//! One connection of the server: handshake, then HTTP/2 until either side ends it, it is idle, or
//! it is old. Spawned by `serve`. It knows no service.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::http::{Request, Response};
use hyper::body::Incoming;
use hyper::rt::Executor;
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower::ServiceExt;

use super::ending::{Call, Calls, Ending};
use super::{Limits, Security};
use crate::metrics::server::{Handshake, Method, Server as ServerMetrics};

/// Flow-control window of one call; messages are small.
const STREAM_WINDOW: u32 = 64 * 1024;
/// Flow-control window of all calls of one connection.
const CONNECTION_WINDOW: u32 = 256 * 1024;
/// What a call may hold for a client that does not read, in bytes, beside the message that is next.
const SEND_BUFFER: usize = 64 * 1024;

/// What all connections share.
pub(super) struct Shared {
    pub(super) services: Router,
    pub(super) security: Security,
    pub(super) limits: Limits,
    pub(super) metrics: ServerMetrics,
    pub(super) tasks: TaskTracker,
}

/// Why a connection ended that should not have.
#[derive(Debug, thiserror::Error)]
pub(super) enum ConnectionError {
    #[error("no TLS handshake within {} s", .0.as_secs_f32())]
    Silent(Duration),
    #[error("the TLS handshake failed: {0}")]
    Handshake(std::io::Error),
    #[error(transparent)]
    Http(#[from] hyper::Error),
    #[error("calls did not end within {} s", .0.as_secs_f32())]
    Grace(Duration),
}

/// Spawns the calls of a connection as tasks that the server waits for.
#[derive(Clone)]
struct Tracked(TaskTracker);

impl<F> Executor<F> for Tracked
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    fn execute(&self, call: F) {
        self.0.spawn(call);
    }
}

/// Serves one connection to its end, which `ending` asks for.
pub(super) async fn serve(
    stream: TcpStream,
    shared: &Shared,
    ending: &CancellationToken,
) -> Result<(), ConnectionError> {
    // Messages are small and each is awaited; where it cannot be set, they are only later.
    let _ = stream.set_nodelay(true);
    match &shared.security {
        Security::Plaintext => talk(stream, shared, ending).await,
        Security::Tls(config) => {
            let acceptor = TlsAcceptor::from(config.clone());
            // In a box of its own, which is gone once it is over.
            let stream = Box::pin(shake_hands(stream, acceptor, shared)).await?;
            talk(stream, shared, ending).await
        }
    }
}

async fn shake_hands(
    stream: TcpStream,
    acceptor: TlsAcceptor,
    shared: &Shared,
) -> Result<TlsStream<TcpStream>, ConnectionError> {
    let limit = shared.limits.handshake;
    let (reason, error) = match timeout(limit, acceptor.accept(stream)).await {
        Ok(Ok(stream)) => return Ok(stream),
        Ok(Err(error)) => (reason(&error), ConnectionError::Handshake(error)),
        Err(_) => (Handshake::Timeout, ConnectionError::Silent(limit)),
    };
    shared.metrics.count_failure(reason);
    Err(error)
}

/// rustls reports its own errors as invalid data; the rest is the network's.
fn reason(error: &std::io::Error) -> Handshake {
    match error.kind() {
        std::io::ErrorKind::InvalidData => Handshake::Tls,
        _ => Handshake::Io,
    }
}

/// Speaks HTTP/2. What is held of a connection is one box, made here: a future would have the room for it twice, as
/// what it is given and as what it made of that.
fn talk<S>(
    stream: S,
    shared: &Shared,
    ending: &CancellationToken,
) -> impl Future<Output = Result<(), ConnectionError>>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let open = shared.metrics.connected();
    let calls = Arc::new(Calls::new(shared.metrics.clone()));
    let begun = calls.clone();
    let service = service_fn(move |request: Request<Incoming>| {
        let call = begun.clone().begin(Method::of(request.uri().path()));
        // In a box of its own, which is gone once the response has begun.
        Box::pin(answer(shared.services.clone(), request, call))
    });
    let connection = http2(shared).serve_connection(TokioIo::new(stream), service);
    let mut connection = Box::pin(connection);
    async move {
        let (_open, limits) = (open, &shared.limits);
        tokio::select! {
            ended = connection.as_mut() => return Ok(ended?),
            () = ending.cancelled() => {}
            () = tokio::time::sleep(jittered(limits.age)) => {}
            () = calls.idle(limits.idle) => {}
        }
        connection.as_mut().graceful_shutdown();
        calls.close();
        match timeout(limits.grace, connection).await {
            Ok(ended) => Ok(ended?),
            Err(_) => Err(ConnectionError::Grace(limits.grace)),
        }
    }
}

fn http2(shared: &Shared) -> http2::Builder<Tracked> {
    let limits = &shared.limits;
    let mut builder = http2::Builder::new(Tracked(shared.tasks.clone()));
    builder
        .timer(TokioTimer::new())
        .max_concurrent_streams(limits.streams)
        .max_header_list_size(limits.headers)
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_send_buf_size(SEND_BUFFER)
        .keep_alive_interval(limits.ping)
        .keep_alive_timeout(limits.ping_answer);
    builder
}

async fn answer(
    services: Router,
    request: Request<Incoming>,
    call: Call,
) -> Result<Response<Box<Ending<Body>>>, std::convert::Infallible> {
    let response = services.oneshot(request.map(Body::new)).await?;
    Ok(call.answered(response))
}

/// Within a tenth of `age`.
fn jittered(age: Duration) -> Duration {
    age.mul_f64(0.9 + 0.2 * fastrand::f64())
}
