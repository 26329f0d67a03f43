//! What one peer sends of a stream, until somebody takes it.
//!
//! What `h2` gives lies in the buffers that its connection was read into, among what came for other streams, and a
//! few bytes keep such a buffer for as long as they wait. So whoever cannot take what comes has it gathered here, in
//! memory of its own: it holds what the stream's window is, and no more. It must not know where it goes.

use std::mem;
use std::task::{Context, Poll};

use bytes::Bytes;
use h2::RecvStream;
use hyper::http::HeaderMap;

pub(super) struct Intake {
    from: RecvStream,
    /// Has come, and is in nobody's hands.
    gathered: Vec<u8>,
}

impl Intake {
    pub(super) fn new(from: RecvStream) -> Self {
        Self {
            from,
            gathered: Vec::new(),
        }
    }

    /// Gathers what comes while nobody takes it. How it ends is told once all of it was taken.
    pub(super) fn gather(&mut self, cx: &mut Context<'_>) {
        while let Poll::Ready(Some(Ok(chunk))) = self.from.poll_data(cx) {
            self.gathered.extend_from_slice(&chunk);
        }
    }

    /// The next of what has come; none at the end. Its window stays used up until it is released.
    pub(super) fn poll_data(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Bytes, h2::Error>>> {
        if self.gathered.is_empty() {
            return self.from.poll_data(cx);
        }
        Poll::Ready(Some(Ok(mem::take(&mut self.gathered).into())))
    }

    pub(super) fn poll_trailers(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Option<HeaderMap>, h2::Error>> {
        self.from.poll_trailers(cx)
    }

    /// Whether nothing comes any more, no trailers either.
    pub(super) fn is_end_stream(&self) -> bool {
        self.gathered.is_empty() && self.from.is_end_stream()
    }

    /// Gives as much of the window back.
    pub(super) fn release(&mut self, taken: usize) {
        // A stream that has ended meanwhile has given its window back by itself.
        let _released = self.from.flow_control().release_capacity(taken);
    }
}
