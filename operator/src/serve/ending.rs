//! The end of a call: it is counted once, whatever ends it, and a stream that waits ends with
//! UNAVAILABLE when its connection is to end, so that no service has to know of that. Used by
//! `connection`. It knows no service.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::http::{HeaderMap, HeaderValue, Response};
use bytes::Bytes;
use hyper::body::{Body, Frame, SizeHint};
use tokio::sync::Notify;
use tokio::time::timeout;
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};
use tonic::{Code, Status};

use super::streaming::trailers;
use crate::metrics::server::{Method, Open, Server as ServerMetrics};

/// What a stream is told whose connection ends.
const GO: &str = "the operator ends this connection: connect again";

/// The calls of one connection.
pub(super) struct Calls {
    metrics: ServerMetrics,
    closing: CancellationToken,
    open: AtomicUsize,
    changed: Notify,
}

impl Calls {
    pub(super) fn new(metrics: ServerMetrics) -> Self {
        Self {
            metrics,
            closing: CancellationToken::new(),
            open: AtomicUsize::new(0),
            changed: Notify::new(),
        }
    }

    /// A call begins.
    pub(super) fn begin(self: Arc<Self>, method: Method) -> Call {
        self.open.fetch_add(1, Ordering::Relaxed);
        self.changed.notify_one();
        Call {
            method,
            code: None,
            _open: self.metrics.called(method),
            calls: self,
        }
    }

    /// Waits until no call has been open for `limit`. One waits at a time.
    pub(super) async fn idle(&self, limit: Duration) {
        loop {
            // A change before it is waited for is not missed: it is kept for who comes next.
            if self.open.load(Ordering::Relaxed) > 0 {
                self.changed.notified().await;
            } else if timeout(limit, self.changed.notified()).await.is_err() {
                return;
            }
        }
    }

    /// Streams that wait end.
    pub(super) fn close(&self) {
        self.closing.cancel();
    }
}

/// A call under way. Dropped without an end, its client has gone.
pub(super) struct Call {
    method: Method,
    code: Option<Code>,
    calls: Arc<Calls>,
    _open: Open,
}

impl Call {
    /// The response, followed to its end. In a box, so that the task of a call is not larger than what it waits with.
    pub(super) fn answered<B>(mut self, response: Response<B>) -> Response<Box<Ending<B>>> {
        // Without a message the status is among the headers.
        self.code = status(response.headers());
        response.map(|inner| {
            Box::new(Ending {
                inner,
                closing: Box::pin(self.calls.closing.clone().cancelled_owned()),
                call: Some(self),
            })
        })
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        let code = self.code.unwrap_or(Code::Cancelled);
        self.calls.metrics.count_call(self.method, word(code));
        self.calls.open.fetch_sub(1, Ordering::Relaxed);
        self.calls.changed.notify_one();
    }
}

/// A response's body with its end watched.
pub(super) struct Ending<B> {
    inner: B,
    closing: Pin<Box<WaitForCancellationFutureOwned>>,
    /// Gone once the body has ended.
    call: Option<Call>,
}

impl<B: Body<Data = Bytes> + Unpin> Body for Ending<B> {
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        let this = self.get_mut();
        let Some(call) = &mut this.call else {
            return Poll::Ready(None);
        };
        match Pin::new(&mut this.inner).poll_frame(context) {
            Poll::Ready(Some(Ok(frame))) => {
                if let Some(trailers) = frame.trailers_ref() {
                    call.code = status(trailers).or(call.code);
                }
                Poll::Ready(Some(Ok(frame)))
            }
            Poll::Ready(ended) => {
                this.call = None;
                Poll::Ready(ended)
            }
            Poll::Pending => {
                ready!(this.closing.as_mut().poll(context));
                call.code = Some(Code::Unavailable);
                this.call = None;
                let trailers = trailers(&Status::unavailable(GO));
                Poll::Ready(Some(Ok(Frame::trailers(trailers))))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.call.is_none() || self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

fn status(headers: &HeaderMap) -> Option<Code> {
    let value = headers.get("grpc-status").map(HeaderValue::as_bytes)?;
    Some(Code::from_bytes(value))
}

/// The code as gRPC's documentation spells it, in lower case.
fn word(code: Code) -> &'static str {
    match code {
        Code::Ok => "ok",
        Code::Cancelled => "cancelled",
        Code::Unknown => "unknown",
        Code::InvalidArgument => "invalid_argument",
        Code::DeadlineExceeded => "deadline_exceeded",
        Code::NotFound => "not_found",
        Code::AlreadyExists => "already_exists",
        Code::PermissionDenied => "permission_denied",
        Code::ResourceExhausted => "resource_exhausted",
        Code::FailedPrecondition => "failed_precondition",
        Code::Aborted => "aborted",
        Code::OutOfRange => "out_of_range",
        Code::Unimplemented => "unimplemented",
        Code::Internal => "internal",
        Code::Unavailable => "unavailable",
        Code::DataLoss => "data_loss",
        Code::Unauthenticated => "unauthenticated",
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::{Instant, sleep};

    use super::*;

    const LIMIT: Duration = Duration::from_secs(10);

    #[tokio::test(start_paused = true)]
    async fn a_connection_is_idle_some_time_after_its_last_call() {
        let calls = Arc::new(Calls::new(ServerMetrics::default()));
        let begin = || Arc::clone(&calls).begin(Method::of("/a.Service/Call"));
        let (first, second) = (begin(), begin());
        let waiting = Arc::clone(&calls);
        let idle = tokio::spawn(async move { waiting.idle(LIMIT).await });
        drop(first);
        sleep(LIMIT * 2).await;
        assert!(!idle.is_finished(), "a call is open");
        drop(second);
        sleep(LIMIT / 2).await;
        drop(begin());
        let ended = Instant::now();
        idle.await.unwrap();
        assert_eq!(ended.elapsed(), LIMIT);
    }
}
