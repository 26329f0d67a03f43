//! One socket of a relayed pair, with its account and the state of its two halves.
//!
//! The relay polls it. It must not know the other socket.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::AsyncWrite;

use crate::buffer::{Flow, LARGE, PIPE, Pool};
use crate::identity::Peer;
use crate::record::Side;
use crate::stream::Stream;

/// What a read has brought.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Took {
    /// There is nothing to be read now.
    Nothing,
    /// Bytes that wait for a decision, an end or an error.
    Read,
    /// This many bytes, which went by unread.
    Unread(usize),
}

pub(super) struct Half<'a> {
    stream: &'a mut Stream,
    side: &'a Side,
    /// The peer has closed its sending half.
    eof: bool,
    /// Nothing was there to be read since the relay was woken: its waker is told once there is.
    quiet: bool,
    /// Our sending half is closed, or has failed.
    shut: bool,
    /// Somebody has seen that the peer has reset the connection, a write for instance. The system
    /// tells that once, so the next read says only that nothing more comes.
    reset: bool,
    /// The peer has reset the connection, and all that it sent before has been read.
    pub(super) broken: bool,
    /// What ended the socket, if it was an error.
    pub(super) error: Option<io::Error>,
}

impl<'a> Half<'a> {
    pub(super) fn new(stream: &'a mut Stream, side: &'a Side) -> Self {
        Self {
            stream,
            side,
            eof: false,
            quiet: false,
            shut: false,
            reset: false,
            broken: false,
            error: None,
        }
    }

    /// Of a socket whose error somebody has read before: the system tells it once, so the next read says only that
    /// nothing more comes.
    pub(super) fn after(self, error: Option<io::Error>) -> Self {
        Self {
            reset: error.is_some(),
            error,
            ..self
        }
    }

    /// Whether bytes that were taken wait to be sent, to somebody who may still read them.
    pub(super) fn is_unsent(&self) -> bool {
        !self.shut && self.stream.is_unsent()
    }

    /// Who it is, where it has shown a certificate.
    pub(super) fn peer(&self) -> Option<Peer> {
        self.stream.peer()
    }

    pub(super) fn can_read(&self) -> bool {
        !self.eof
    }

    /// The relay was woken, perhaps for what can be read here.
    pub(super) fn awake(&mut self) {
        self.quiet = false;
    }

    /// Whether nothing more will be read: the peer has closed, or has failed.
    pub(super) fn has_ended(&self) -> bool {
        self.eof
    }

    pub(super) fn is_shut(&self) -> bool {
        self.shut
    }

    /// Looks for an error without reading: where nothing is read, nothing else tells that the
    /// peer has reset the connection. Answers whether it has.
    pub(super) fn find_reset(&mut self) -> bool {
        let Ok(Some(error)) = self.stream.tcp().take_error() else {
            return false;
        };
        self.error.get_or_insert(error);
        true
    }

    /// Reads once, unless nothing was there before. Bulk of which this many bytes, or more, need not
    /// be looked at goes through a pipe.
    pub(super) fn read_into(
        &mut self,
        flow: &mut Flow,
        unread: usize,
        pool: &Pool,
        cx: &mut Context<'_>,
    ) -> Took {
        if self.quiet {
            return Took::Nothing;
        }
        let mut is_piped = false;
        let mut read = Poll::Pending;
        if unread >= LARGE
            && flow.is_bulk()
            && let Some(socket) = self.stream.plain()
        {
            read = flow.poll_splice(cx, socket, unread.min(PIPE), pool);
            is_piped = !matches!(read, Poll::Ready(Ok(None)));
        }
        if !is_piped {
            read = flow.poll_read(cx, &mut *self.stream, pool).map_ok(Some);
        }
        match read {
            Poll::Pending => {
                self.quiet = true;
                return Took::Nothing;
            }
            Poll::Ready(Ok(None | Some(0))) => {
                self.eof = true;
                self.broken = self.reset;
            }
            Poll::Ready(Ok(Some(n))) => {
                self.side.read(n);
                if is_piped {
                    return Took::Unread(n);
                }
            }
            Poll::Ready(Err(error)) => {
                self.eof = true;
                self.broken = true;
                self.error.get_or_insert(error);
            }
        }
        Took::Read
    }

    /// Writes what is approved. Bytes for a peer that no longer reads are dropped: its
    /// answer may still be on the way.
    pub(super) fn write_from(&mut self, flow: &mut Flow, cx: &mut Context<'_>) -> bool {
        let mut moved = false;
        while !flow.is_written() {
            if self.shut {
                flow.drop_approved();
                return true;
            }
            let is_copied = !flow.approved().is_empty();
            let written = if is_copied {
                Pin::new(&mut *self.stream).poll_write(cx, flow.approved())
            } else {
                flow.poll_unsplice(cx, self.stream.tcp())
            };
            match written {
                Poll::Pending => break,
                Poll::Ready(Ok(n)) => {
                    self.side.written(n);
                    if is_copied {
                        flow.consume(n);
                    }
                }
                Poll::Ready(Err(error)) => {
                    self.fail(error);
                    flow.drop_approved();
                }
            }
            moved = true;
        }
        if self.is_unsent()
            && let Poll::Ready(Err(error)) = Pin::new(&mut *self.stream).poll_flush(cx)
        {
            self.fail(error);
            moved = true;
        }
        moved
    }

    /// Writes of bytes that no flow holds. Answers how many were taken, or are dropped as [`Self::write_from`] does.
    pub(super) fn write(&mut self, bytes: &[u8], cx: &mut Context<'_>) -> usize {
        if self.shut {
            return bytes.len();
        }
        match Pin::new(&mut *self.stream).poll_write(cx, bytes) {
            Poll::Pending => 0,
            Poll::Ready(Ok(n)) => {
                self.side.written(n);
                n
            }
            Poll::Ready(Err(error)) => {
                self.fail(error);
                bytes.len()
            }
        }
    }

    /// Writing has failed.
    fn fail(&mut self, error: io::Error) {
        self.shut = true;
        // EPIPE is the reset of a peer that had closed as it should before.
        self.reset = error.kind() != io::ErrorKind::BrokenPipe;
        self.error.get_or_insert(error);
    }

    /// Closes our sending half. Answers whether that happened now.
    pub(super) fn shut(&mut self, cx: &mut Context<'_>) -> bool {
        if self.shut {
            return false;
        }
        match Pin::new(&mut *self.stream).poll_shutdown(cx) {
            Poll::Pending => false,
            // A peer that is already gone has nothing left to be told.
            Poll::Ready(_) => {
                self.shut = true;
                true
            }
        }
    }
}
