//! The end of a call: it is counted once, whatever ends it, and a stream that waits ends with
//! UNAVAILABLE when its connection is to end, so that no service has to know of that. Used by
//! `connection`. It knows no service.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use axum::http::{HeaderMap, HeaderValue, Response};
use bytes::Bytes;
use hyper::body::{Body, Frame, SizeHint};
use tokio::sync::watch;
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};
use tonic::{Code, Status};

use crate::metrics::server::{Method, Open, Server as ServerMetrics};

/// What a stream is told whose connection ends.
const GO: &str = "the operator ends this connection: connect again";

/// A call under way. Dropped without an end, its client has gone.
pub(super) struct Call {
    method: Method,
    code: Option<Code>,
    metrics: ServerMetrics,
    busy: watch::Sender<usize>,
    _open: Open,
}

impl Call {
    /// `busy` counts the calls of the connection.
    pub(super) fn begin(
        method: Method,
        metrics: &ServerMetrics,
        busy: watch::Sender<usize>,
    ) -> Self {
        busy.send_modify(|calls| *calls += 1);
        Self {
            method,
            code: None,
            metrics: metrics.clone(),
            busy,
            _open: metrics.called(method),
        }
    }

    /// The response, followed to its end.
    pub(super) fn answered<B>(
        mut self,
        response: Response<B>,
        closing: CancellationToken,
    ) -> Response<Ending<B>> {
        // Without a message the status is among the headers.
        self.code = status(response.headers());
        response.map(|inner| Ending {
            inner,
            closing: Box::pin(closing.cancelled_owned()),
            call: Some(self),
        })
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        let code = self.code.unwrap_or(Code::Cancelled);
        self.metrics.count_call(self.method, word(code));
        self.busy.send_modify(|calls| *calls -= 1);
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
                let mut trailers = HeaderMap::new();
                // Never fails for a text that a header can hold.
                let _ = Status::unavailable(GO).add_header(&mut trailers);
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
