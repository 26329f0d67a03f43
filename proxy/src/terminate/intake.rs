//! What one peer sends of a stream, until somebody takes it.
//!
//! What `h2` gives lies in the buffers that its connection was read into, among what came for other streams, and a
//! few bytes keep such a buffer for as long as they wait. So small pieces are gathered here, in memory of their own, and
//! so is whatever comes while nobody can take it: that holds what the stream's window is, and no more. It must not know
//! where it goes.

use std::collections::VecDeque;
use std::mem;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use h2::RecvStream;
use hyper::http::HeaderMap;

/// Bytes that are gathered in one piece.
const BLOCK: usize = 16 * 1024;
/// Pieces below this size, in bytes, are copied.
const SMALL: usize = 4 * 1024;

pub(super) struct Intake {
    from: RecvStream,
    /// Blocks that have come and are in nobody's hands, each full.
    blocks: VecDeque<Vec<u8>>,
    /// What has come behind them.
    rest: Vec<u8>,
}

impl Intake {
    pub(super) fn new(from: RecvStream) -> Self {
        Self {
            from,
            blocks: VecDeque::new(),
            rest: Vec::new(),
        }
    }

    /// Gathers what comes while nobody takes it. How it ends is told once all of it was taken.
    pub(super) fn gather(&mut self, cx: &mut Context<'_>) {
        while let Poll::Ready(Some(Ok(chunk))) = self.from.poll_data(cx) {
            self.keep(&chunk);
        }
    }

    fn keep(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let (now, later) = bytes.split_at(bytes.len().min(BLOCK - self.rest.len()));
            self.rest.extend_from_slice(now);
            if self.rest.len() == BLOCK {
                self.blocks.push_back(mem::take(&mut self.rest));
            }
            bytes = later;
        }
    }

    fn is_empty(&self) -> bool {
        self.rest.is_empty() && self.blocks.is_empty()
    }

    /// The next of what has come; none at the end. Its window stays used up until it is released.
    pub(super) fn poll_data(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Bytes, h2::Error>>> {
        if self.is_empty() {
            match ready!(self.from.poll_data(cx)) {
                Some(Ok(chunk)) if (1..SMALL).contains(&chunk.len()) => {
                    self.keep(&chunk);
                    if !self.from.is_end_stream() {
                        self.gather(cx);
                    }
                }
                other => return Poll::Ready(other),
            }
        }
        let block = self.blocks.pop_front();
        let block = block.unwrap_or_else(|| mem::take(&mut self.rest));
        Poll::Ready(Some(Ok(block.into())))
    }

    pub(super) fn poll_trailers(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Option<HeaderMap>, h2::Error>> {
        self.from.poll_trailers(cx)
    }

    /// Whether nothing comes any more, no trailers either.
    pub(super) fn is_end_stream(&self) -> bool {
        self.is_empty() && self.from.is_end_stream()
    }

    /// Gives as much of the window back.
    pub(super) fn release(&mut self, taken: usize) {
        // A stream that has ended meanwhile has given its window back by itself.
        let _released = self.from.flow_control().release_capacity(taken);
    }
}
