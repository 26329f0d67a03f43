//! The body of every admin answer: a short text, or an exposition that arrives in chunks while it is written.
//! Made by `routes`, `endpoint` and `exposition`; it knows no route. Dropping it tells the connection's
//! `Activity` that the answer is over.

use super::activity::Answering;
use bytes::Bytes;
use hyper::body::{Body as HttpBody, Frame, SizeHint};
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use tokio::sync::mpsc;

/// One piece of a streamed body. Only `End` makes the body complete: a writer that goes away without it (its
/// deadline, an error) breaks the connection off, so that no scraper takes half an exposition for a whole one.
#[derive(Debug)]
pub(super) enum Piece {
    Data(Bytes),
    End,
}

#[derive(Debug)]
enum Source {
    Text(Option<Bytes>),
    Pieces(mpsc::Receiver<Piece>),
    Done,
}

#[derive(Debug)]
pub(super) struct Body {
    source: Source,
    _answering: Option<Answering>,
}

impl Body {
    /// A body whose length is known and goes into `Content-Length`.
    pub(super) fn text(text: impl Into<Bytes>) -> Self {
        let text = text.into();
        let source = if text.is_empty() {
            Source::Done
        } else {
            Source::Text(Some(text))
        };
        Self {
            source,
            _answering: None,
        }
    }

    /// A chunked body fed through `pieces`.
    pub(super) fn stream(pieces: mpsc::Receiver<Piece>) -> Self {
        Self {
            source: Source::Pieces(pieces),
            _answering: None,
        }
    }

    /// Ties the body to its connection's activity: the answer lasts until the body is dropped.
    pub(super) fn held_by(mut self, answering: Answering) -> Self {
        self._answering = Some(answering);
        self
    }
}

impl HttpBody for Body {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        match &mut self.source {
            Source::Done => Poll::Ready(None),
            Source::Text(text) => Poll::Ready(text.take().map(|text| Ok(Frame::data(text)))),
            Source::Pieces(pieces) => match std::task::ready!(pieces.poll_recv(cx)) {
                Some(Piece::Data(data)) => Poll::Ready(Some(Ok(Frame::data(data)))),
                Some(Piece::End) => {
                    self.source = Source::Done;
                    Poll::Ready(None)
                }
                None => {
                    self.source = Source::Done;
                    let cut = io::Error::other("the exposition was cut short");
                    Poll::Ready(Some(Err(cut)))
                }
            },
        }
    }

    fn is_end_stream(&self) -> bool {
        matches!(self.source, Source::Done | Source::Text(None))
    }

    fn size_hint(&self) -> SizeHint {
        match &self.source {
            Source::Text(Some(text)) => SizeHint::with_exact(text.len() as u64),
            Source::Text(None) | Source::Done => SizeHint::with_exact(0),
            Source::Pieces(_) => SizeHint::default(),
        }
    }
}
