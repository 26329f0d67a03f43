//! A body whose every byte is known from its position: made on one side, checked on the other, never
//! held in memory as a whole. Used by the HTTP shapes of `identity`.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};

use anyhow::ensure;
use http_body_util::BodyExt as _;
use hyper::HeaderMap;
use hyper::body::{Body, Bytes, Frame, Incoming, SizeHint};

use super::super::web::byte_at;

/// Bytes of one frame; not a power of two, so that frames and buffers do not line up.
const FRAME: usize = 60_001;

/// A body of known bytes, then trailers where there are any.
pub(super) struct Pattern {
    position: usize,
    length: usize,
    sized: bool,
    trailers: Option<HeaderMap>,
}

impl Pattern {
    /// A body that declares its length.
    pub(super) fn sized(length: usize) -> Self {
        Self {
            position: 0,
            length,
            sized: true,
            trailers: None,
        }
    }

    /// A body of undeclared length that ends with trailers.
    pub(super) fn with_trailers(length: usize, trailers: HeaderMap) -> Self {
        Self {
            sized: false,
            trailers: Some(trailers),
            ..Self::sized(length)
        }
    }
}

impl Body for Pattern {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let end = self.length.min(self.position + FRAME);
        if self.position == end {
            return Poll::Ready(self.trailers.take().map(|map| Ok(Frame::trailers(map))));
        }
        let bytes: Bytes = (self.position..end).map(byte_at).collect();
        self.position = end;
        Poll::Ready(Some(Ok(Frame::data(bytes))))
    }

    fn is_end_stream(&self) -> bool {
        self.position == self.length && self.trailers.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        if self.sized {
            SizeHint::with_exact((self.length - self.position) as u64)
        } else {
            SizeHint::default()
        }
    }
}

/// Reads a body to its end, comparing each byte: its trailers, if it had any.
pub(super) async fn verify(mut body: Incoming, length: usize) -> anyhow::Result<Option<HeaderMap>> {
    let (mut position, mut trailers) = (0, None);
    while let Some(frame) = body.frame().await {
        match frame?.into_data() {
            Ok(bytes) => {
                let differs = (position..)
                    .zip(&bytes)
                    .find(|(at, byte)| byte_at(*at) != **byte);
                ensure!(differs.is_none(), "another byte at position {differs:?}");
                position += bytes.len();
            }
            Err(other) => trailers = other.into_trailers().ok(),
        }
    }
    ensure!(position == length, "{position} bytes instead of {length}");
    Ok(trailers)
}
