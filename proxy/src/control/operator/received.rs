//! What the operator answers a call, as its stub reads it: a body that gives the window back and closes the account of the
//! call with its end. Made by `client`.

use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Instant;

use bytes::Bytes;
use h2::RecvStream;
use hyper::HeaderMap;
use hyper::body::{Body, Frame};

use super::CallError;
use crate::exchange::{End, Exchange, grpc_code};
use crate::http2::reason;
use crate::record::CallLog;

/// The status of a call, in trailers or in the head of an answer that is nothing else.
pub(super) const GRPC_STATUS: &str = "grpc-status";

/// The body of an answer.
pub struct Received {
    stream: RecvStream,
    /// None once the call has ended.
    call: Option<Exchange<CallLog>>,
    is_past_data: bool,
}

impl Received {
    pub(super) fn new(stream: RecvStream, call: Exchange<CallLog>) -> Self {
        Self {
            stream,
            call: Some(call),
            is_past_data: false,
        }
    }

    /// Of an answer that is a head alone.
    pub(super) fn empty(stream: RecvStream) -> Self {
        Self {
            stream,
            call: None,
            is_past_data: false,
        }
    }

    fn end(&mut self, end: End) {
        if let Some(call) = self.call.take() {
            call.end(Instant::now(), end);
        }
    }

    fn broke(&mut self, error: h2::Error) -> CallError {
        let error = CallError::from(error);
        self.end(end_of(&error));
        error
    }

    fn data(&mut self, data: Bytes) -> Result<Frame<Bytes>, CallError> {
        if let Some(call) = &mut self.call {
            call.first_data(Instant::now());
        }
        let released = self.stream.flow_control().release_capacity(data.len());
        match released {
            Ok(()) => Ok(Frame::data(data)),
            Err(error) => Err(self.broke(error)),
        }
    }

    fn trailers(&mut self, trailers: Option<HeaderMap>) -> Option<Frame<Bytes>> {
        let code = trailers.as_ref().and_then(|t| t.get(GRPC_STATUS));
        if let (Some(call), Some(code)) = (&mut self.call, code) {
            call.grpc_status(Some(grpc_code(code.as_bytes())));
        }
        self.end(End::Complete);
        trailers.map(Frame::trailers)
    }
}

impl Body for Received {
    type Data = Bytes;
    type Error = CallError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, CallError>>> {
        if !self.is_past_data {
            match ready!(self.stream.poll_data(cx)) {
                Some(Ok(data)) => return Poll::Ready(Some(self.data(data))),
                Some(Err(error)) => return Poll::Ready(Some(Err(self.broke(error)))),
                None => self.is_past_data = true,
            }
        }
        Poll::Ready(match ready!(self.stream.poll_trailers(cx)) {
            Ok(trailers) => self.trailers(trailers).map(Ok),
            Err(error) => Some(Err(self.broke(error))),
        })
    }

    fn is_end_stream(&self) -> bool {
        self.call.is_none() && self.stream.is_end_stream()
    }
}

/// How a call ended that broke, or that could not be made.
pub(super) fn end_of(error: &CallError) -> End {
    match error {
        CallError::Broken(error) => match error.reason() {
            Some(code) => End::Broken(reason::label(code.into())),
            None => End::Reset,
        },
        CallError::Disconnected | CallError::Refused(_) => End::Replied(502, "connect"),
        // It was not even tried.
        CallError::Token(..) => End::Canceled,
        CallError::Request(_) => End::Reset,
    }
}
