//! What one admin connection is doing, as its socket and its answers see it, and when that has taken too long.
//! `server` asks it for the next deadline, and which connection can go where others want its place. It knows neither HTTP nor routes.

use super::Limits;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Context, Poll};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Phase {
    /// Between requests: nothing of the next one has arrived.
    Idle,
    /// The first byte of a request has arrived, its head is not complete.
    Head,
    /// A request is being answered.
    Answering,
}

#[derive(Debug)]
struct State {
    phase: Phase,
    since: Instant,
    /// Since when the peer has taken none of the bytes that wait for it.
    blocked: Option<Instant>,
    over: bool,
}

/// Shared by a connection's task, its socket, its answers, and the server's table.
#[derive(Debug)]
pub(super) struct Activity {
    state: Mutex<State>,
    /// Asks the connection to end: at once while it waits for its peer, after the answer under way otherwise.
    pub(super) close: CancellationToken,
}

impl Activity {
    pub(super) fn new(close: CancellationToken) -> Arc<Self> {
        let state = State {
            phase: Phase::Idle,
            since: Instant::now(),
            blocked: None,
            over: false,
        };
        Arc::new(Self {
            state: Mutex::new(state),
            close,
        })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state
            .lock()
            .expect("no code panics while it holds the state of a connection")
    }

    fn enter(&self, phase: Phase) {
        let mut state = self.state();
        state.phase = phase;
        state.since = Instant::now();
    }

    /// Marks the start of an answer; it ends when the returned guard is dropped.
    pub(super) fn answer(self: &Arc<Self>) -> Answering {
        self.enter(Phase::Answering);
        Answering(Arc::clone(self))
    }

    /// When the connection is to be ended unless something happens before.
    pub(super) fn deadline(&self, limits: &Limits) -> Option<Instant> {
        let state = self.state();
        let phase = match state.phase {
            Phase::Idle => Some(state.since + limits.idle_timeout),
            Phase::Head => Some(state.since + limits.head_timeout),
            Phase::Answering => None,
        };
        let blocked = state.blocked.map(|since| since + limits.write_timeout);
        [phase, blocked].into_iter().flatten().min()
    }

    /// Whether, and since when, the connection waits for its peer, for a request or for the rest of one; `None` while it
    /// works. Of several, the least is the one that can go first.
    pub(super) fn waiting(&self) -> Option<(Phase, Instant)> {
        let state = self.state();
        let waits = state.phase != Phase::Answering && state.blocked.is_none();
        waits.then_some((state.phase, state.since))
    }

    pub(super) fn end(&self) {
        self.state().over = true;
    }

    pub(super) fn is_over(&self) -> bool {
        self.state().over
    }

    fn arrived(&self) {
        if self.state().phase == Phase::Idle {
            self.enter(Phase::Head);
        }
    }

    fn wrote(&self, pending: bool) {
        let mut state = self.state();
        state.blocked = match (pending, state.blocked) {
            (false, _) => None,
            (true, None) => Some(Instant::now()),
            (true, since) => since,
        };
    }
}

/// Held by a response body: the answer lasts as long as it.
#[derive(Debug)]
pub(super) struct Answering(Arc<Activity>);

impl Drop for Answering {
    fn drop(&mut self) {
        self.0.enter(Phase::Idle);
    }
}

/// A socket that reports its progress to an [`Activity`].
#[derive(Debug)]
pub(super) struct Observed<T> {
    io: T,
    activity: Arc<Activity>,
}

impl<T> Observed<T> {
    pub(super) fn new(io: T, activity: Arc<Activity>) -> Self {
        Self { io, activity }
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for Observed<T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let polled = Pin::new(&mut self.io).poll_read(cx, buf);
        if buf.filled().len() > before {
            self.activity.arrived();
        }
        polled
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Observed<T> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.io).poll_write(cx, buf);
        self.activity.wrote(polled.is_pending());
        polled
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.io).poll_write_vectored(cx, bufs);
        self.activity.wrote(polled.is_pending());
        polled
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}
