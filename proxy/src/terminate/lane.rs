//! One direction of a stream: what one peer sends, and the window of the other that takes it.
//!
//! `stream` has one for the request and one for the response. A chunk is given out of the
//! receiving side's window only once the sending side has room for it, so a slow
//! reader slows its writer. It must not know heads, nor what is counted.

use std::task::{Context, Poll, ready};

use bytes::Bytes;
use h2::SendStream;
use hyper::http::HeaderMap;

use super::intake::Intake;

/// What passes, shown before it goes on.
pub(super) enum Passing<'a> {
    Data(&'a [u8]),
    Trailers(&'a HeaderMap),
}

/// What was kept of a request that is sent again.
pub(super) struct Replay {
    pub(super) body: Bytes,
    pub(super) trailers: Option<HeaderMap>,
    /// Nothing comes behind it.
    pub(super) is_whole: bool,
}

impl Replay {
    /// Whether the request ends with its head.
    pub(super) fn ends(&self) -> bool {
        self.is_whole && self.body.is_empty() && self.trailers.is_none()
    }
}

/// Why a lane has ended before its time.
#[derive(Debug)]
pub(super) enum Broken {
    /// What should have come will not.
    From(h2::Error),
    /// What comes will not be taken: the peer there has reset its stream, or is gone.
    To,
}

pub(super) struct Lane {
    pub(super) from: Intake,
    pub(super) to: SendStream<Bytes>,
    /// A chunk, or what is left of one, that waits for room.
    held: Bytes,
    /// Nothing comes after it.
    is_last: bool,
    is_done: bool,
    /// Some of the data was taken.
    has_moved: bool,
    /// What is held was kept, and is out of nobody's window.
    is_replay: bool,
    /// Of what was kept: nothing comes behind it.
    is_whole: bool,
    trailers: Option<HeaderMap>,
}

impl Lane {
    pub(super) fn new(from: Intake, to: SendStream<Bytes>, is_done: bool) -> Self {
        Self {
            from,
            to,
            held: Bytes::new(),
            is_last: false,
            is_done,
            has_moved: false,
            is_replay: false,
            is_whole: false,
            trailers: None,
        }
    }

    /// Of a request that is sent again: what was kept of it, then what comes.
    pub(super) fn replay(from: Intake, to: SendStream<Bytes>, kept: Replay) -> Self {
        let is_done = kept.ends();
        let Replay {
            body,
            trailers,
            is_whole,
        } = kept;
        Self {
            held: body,
            is_last: is_whole && trailers.is_none(),
            has_moved: true,
            is_replay: true,
            is_whole,
            trailers,
            ..Self::new(from, to, is_done)
        }
    }

    /// What comes, for another lane, and whether nothing does: what was taken of it has to be kept.
    pub(super) fn give_back(mut self) -> (Intake, bool) {
        if !self.is_replay && !self.held.is_empty() {
            self.from.release(self.held.len());
        }
        (self.from, self.is_whole || self.is_last || self.is_done)
    }

    /// Whether everything has passed, the end included.
    pub(super) fn is_done(&self) -> bool {
        self.is_done
    }

    /// Whether anything was taken off the sender that could not be had again.
    pub(super) fn has_moved(&self) -> bool {
        self.has_moved
    }

    /// Moves what can be moved; ready at the end.
    pub(super) fn poll(
        &mut self,
        cx: &mut Context<'_>,
        mut show: impl FnMut(Passing<'_>),
    ) -> Poll<Result<(), Broken>> {
        while !self.is_done {
            if !self.held.is_empty() {
                let written = self.poll_write(cx)?;
                if written.is_pending() {
                    self.from.gather(cx);
                    return Poll::Pending;
                }
                continue;
            }
            if self.is_whole {
                let trailers = self.trailers.take();
                self.end(trailers)?;
                continue;
            }
            self.is_replay = false;
            match ready!(self.from.poll_data(cx)) {
                Some(Ok(chunk)) => {
                    show(Passing::Data(&chunk));
                    self.has_moved |= !chunk.is_empty();
                    self.is_last = self.from.is_end_stream();
                    self.held = chunk;
                    if self.held.is_empty() && self.is_last {
                        self.end(None)?;
                    }
                }
                Some(Err(error)) => return Poll::Ready(Err(Broken::From(error))),
                None => {
                    let trailers = ready!(self.from.poll_trailers(cx));
                    let trailers = trailers.map_err(Broken::From)?;
                    if let Some(trailers) = &trailers {
                        self.has_moved = true;
                        show(Passing::Trailers(trailers));
                    }
                    self.end(trailers)?;
                }
            }
        }
        Poll::Ready(Ok(()))
    }

    /// Writes what is held as the window opens.
    fn poll_write(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Broken>> {
        self.to.reserve_capacity(self.held.len());
        let mut room = self.to.capacity();
        if room == 0 {
            room = match ready!(self.to.poll_capacity(cx)) {
                Some(Ok(room)) => room,
                Some(Err(_)) | None => return Poll::Ready(Err(Broken::To)),
            };
        }
        let n = room.min(self.held.len());
        let piece = self.held.split_to(n);
        let ends = self.is_last && self.held.is_empty();
        let sent = self.to.send_data(piece, ends);
        if !self.is_replay {
            self.from.release(n);
        }
        sent.map_err(|_| Broken::To)?;
        self.is_done = ends;
        Poll::Ready(Ok(()))
    }

    fn end(&mut self, trailers: Option<HeaderMap>) -> Result<(), Broken> {
        self.is_done = true;
        let ended = match trailers {
            Some(trailers) => self.to.send_trailers(trailers),
            None => self.to.send_data(Bytes::new(), true),
        };
        ended.map_err(|_| Broken::To)
    }
}
