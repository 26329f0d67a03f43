//! A socket as the `h2` crate sees it: bytes that were read before come first, every byte is
//! counted, what is written is gathered, and what ended it is remembered for its account.
//!
//! `client` and `slot` wrap theirs, and keep a hold of it beside the `h2` connection that reads
//! and writes: after each turn of that they flush it. What it must know of frames its guard does.

use std::cell::{Cell, RefCell};
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf, Bytes};
use h2::Reason;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::guard::Guard;
use super::outbox::Outbox;
use crate::identity::Peer;
use crate::record::Side;
use crate::stream::Stream;

/// Bytes that are read of a client before the others of its worker have their turn, its own streams among them.
pub(super) const TURN: usize = 64 * 1024;
/// The same of an endpoint: its answers go on while the processor's caches have them. Of 256 KiB a request took 17 % more
/// CPU.
const ENDPOINTS_TURN: usize = 16 * 1024;
/// What a client's frame counts as besides its bytes. Until its stream has its turn it takes more than the smallest are.
const FRAME: usize = 128;

/// One socket. Its account closes with the last hold of it.
#[derive(Clone)]
pub(super) struct Socket(Rc<Shared>);

struct Shared {
    stream: RefCell<Stream>,
    /// What detection has read, and counted.
    first: RefCell<Bytes>,
    /// Taken when it is closed.
    side: Option<Side>,
    /// Judges what a client sends.
    guard: Option<RefCell<Guard>>,
    outbox: RefCell<Outbox>,
    /// What this turn has had of what it may have.
    turn: Cell<usize>,
    /// The peer has closed its sending half, or has failed.
    has_ended: Cell<bool>,
    error: RefCell<Option<io::Error>>,
}

impl Socket {
    /// Of a client; `first` was read of it, and counted, before.
    pub(super) fn accepted(stream: Stream, first: Bytes, side: Side) -> Self {
        let guard = Some(RefCell::new(Guard::new()));
        Self::new(stream, first, side, guard)
    }

    /// Of an endpoint; `first` was read of it, and counted, before.
    pub(super) fn dialed(stream: Stream, first: Bytes, side: Side) -> Self {
        Self::new(stream, first, side, None)
    }

    fn new(stream: Stream, first: Bytes, side: Side, guard: Option<RefCell<Guard>>) -> Self {
        Self(Rc::new(Shared {
            stream: RefCell::new(stream),
            first: RefCell::new(first),
            side: Some(side),
            guard,
            outbox: RefCell::default(),
            turn: Cell::new(0),
            has_ended: Cell::new(false),
            error: RefCell::default(),
        }))
    }

    /// The task that reads it has its turn.
    pub(super) fn begin_turn(&self) {
        self.0.turn.set(0);
    }

    /// The error that must end the connection: its client has sent what is not to be taken, and
    /// nothing from there on is read.
    pub(super) fn broken(&self) -> Option<Reason> {
        self.0.guard.as_ref()?.borrow().broken()
    }

    /// Who it is, where it has shown a certificate.
    pub(super) fn peer(&self) -> Option<Peer> {
        self.0.stream.borrow().peer()
    }

    /// The proxy breaks it off: it closes with this error.
    pub(super) fn cut(&self, error: io::ErrorKind) {
        self.0.fail(&error.into());
    }

    /// Whether the client has said its preface.
    pub(super) fn has_preface(&self) -> bool {
        let guard = self.0.guard.as_ref();
        guard.is_none_or(|guard| guard.borrow().has_preface())
    }

    /// Writes what was gathered; ready once all of it is.
    pub(super) fn poll_out(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut outbox = self.0.outbox.borrow_mut();
        let mut stream = self.0.stream.borrow_mut();
        if outbox.is_empty() && !stream.is_unsent() {
            return Poll::Ready(Ok(()));
        }
        let mut written = outbox.poll_empty(cx, &mut *stream, |n| self.0.wrote(n));
        if matches!(written, Poll::Ready(Ok(()))) {
            written = Pin::new(&mut *stream).poll_flush(cx);
        }
        if let Poll::Ready(Err(error)) = &written {
            self.0.fail(error);
        }
        written
    }

    /// Reads and forgets what the peer still sends, for at most this long. A socket that is
    /// closed with unread bytes is reset, and the peer may lose what it was told last.
    pub(super) async fn drain(&self, limit: Duration) {
        let mut sink = [0; 4096];
        let rest = std::future::poll_fn(|cx| {
            self.begin_turn();
            while !self.0.has_ended.get() {
                let mut buf = ReadBuf::new(&mut sink);
                ready!(self.0.poll_read(cx, &mut buf)).ok();
            }
            Poll::Ready(())
        });
        let _late = tokio::time::timeout(limit, rest).await;
    }
}

impl Shared {
    fn poll_read(&self, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let most = match self.guard {
            Some(_) => TURN,
            None => ENDPOINTS_TURN,
        };
        if self.turn.get() >= most {
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        let before = buf.filled().len();
        let read = ready!(Pin::new(&mut *self.stream.borrow_mut()).poll_read(cx, buf));
        let n = buf.filled().len() - before;
        match &read {
            Ok(()) if n == 0 => self.has_ended.set(true),
            Ok(()) => {
                self.spend(n);
                if let Some(side) = &self.side {
                    side.read(n);
                }
            }
            Err(error) => {
                self.has_ended.set(true);
                self.fail(error);
            }
        }
        Poll::Ready(read)
    }

    /// Takes this off what its turn is.
    fn spend(&self, n: usize) {
        self.turn.set(self.turn.get() + n);
    }

    fn wrote(&self, n: usize) {
        if let Some(side) = &self.side {
            side.written(n);
        }
    }

    /// The first error is what ended it.
    fn fail(&self, error: &io::Error) {
        let copy = || match error.raw_os_error() {
            Some(code) => io::Error::from_raw_os_error(code),
            None => error.kind().into(),
        };
        self.error.borrow_mut().get_or_insert_with(copy);
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        if let Some(side) = self.side.take() {
            side.close(self.error.get_mut().as_ref());
        }
    }
}

impl AsyncRead for Socket {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.broken().is_some() {
            return Poll::Pending;
        }
        let before = buf.filled().len();
        let mut first = self.0.first.borrow_mut();
        if first.is_empty() {
            ready!(self.0.poll_read(cx, buf))?;
        } else {
            let n = first.len().min(buf.remaining());
            buf.put_slice(&first[..n]);
            first.advance(n);
        }
        let Some(guard) = &self.0.guard else {
            return Poll::Ready(Ok(()));
        };
        let mut guard = guard.borrow_mut();
        let taken = guard.pass(&buf.filled()[before..]);
        self.0.spend(guard.take_frames() * FRAME);
        let is_end = buf.filled().len() == before;
        buf.set_filled(before + taken);
        if taken == 0 && !is_end {
            return Poll::Pending;
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Socket {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(cx, &[IoSlice::new(bytes)])
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let shared = &*self.0;
        let mut outbox = shared.outbox.borrow_mut();
        let mut stream = shared.stream.borrow_mut();
        let taken = outbox.poll_take(cx, &mut *stream, slices, |n| shared.wrote(n));
        if let Poll::Ready(Err(error)) = &taken {
            shared.fail(error);
        }
        taken
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    /// What is gathered is written at the end of the connection's turn, by [`Self::poll_out`].
    fn poll_flush(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_out(cx))?;
        Pin::new(&mut *self.0.stream.borrow_mut()).poll_shutdown(cx)
    }
}
