//! Turns the store's `Write`-shaped exposition into a streamed body: `routes` and `endpoint` ask for it. The
//! writer runs on a thread of its own behind a short channel, so neither memory nor the other admin connections
//! feel how long an exposition is or how slowly its reader takes it.

use super::Limits;
use super::body::{Body, Piece};
use crate::telemetry::{Selection, Telemetry};
use bytes::{Bytes, BytesMut};
use std::io;
use std::sync::Arc;
use tokio::runtime::Handle;
use tokio::sync::{Semaphore, mpsc};
use tokio::time::{Instant, timeout, timeout_at};
use tokio_util::task::TaskTracker;
use tracing::debug;

/// Size of a piece of the body, in bytes, and how many may wait for the reader: together all the memory one
/// exposition takes.
const PIECE_SIZE: usize = 16 * 1024;
const PIECES_WAITING: usize = 4;

/// What can be exposed; the store of `telemetry`, in tests also something slow or endless.
pub trait Exposition: Send + Sync + 'static {
    /// Writes the selected families to `out`; stops with the error that `out` gives.
    fn expose(&self, selection: &Selection, out: &mut dyn io::Write) -> io::Result<()>;
}

impl Exposition for Telemetry {
    fn expose(&self, selection: &Selection, out: &mut dyn io::Write) -> io::Result<()> {
        Telemetry::expose(self, selection, out)
    }
}

/// Every place was taken by expositions under way for as long as a scrape waits for one.
#[derive(Debug, thiserror::Error)]
#[error("too many scrapes are under way; at most {0} are served at once")]
pub(super) struct Busy(usize);

/// Starts expositions, at most so many at once.
#[derive(Clone)]
pub(super) struct Exposer {
    source: Arc<dyn Exposition>,
    places: Arc<Semaphore>,
    limits: Limits,
    tracker: TaskTracker,
}

impl Exposer {
    pub(super) fn new(source: Arc<dyn Exposition>, limits: Limits, tracker: TaskTracker) -> Self {
        Self {
            source,
            places: Arc::new(Semaphore::new(limits.expositions)),
            limits,
            tracker,
        }
    }

    /// Starts one exposition and gives the body it fills. It ends early, and the body breaks off, when the
    /// reader leaves or has not taken all of it within `exposition_timeout`.
    pub(super) async fn start(&self, selection: Selection) -> Result<Body, Busy> {
        let place = timeout(
            self.limits.exposition_wait,
            Arc::clone(&self.places).acquire_owned(),
        )
        .await
        .map_err(|_| Busy(self.limits.expositions))?
        .expect("the semaphore is never closed");
        let (pieces, body) = mpsc::channel(PIECES_WAITING);
        let mut writer = PieceWriter {
            buffer: BytesMut::with_capacity(PIECE_SIZE),
            pieces,
            runtime: Handle::current(),
            deadline: Instant::now() + self.limits.exposition_timeout,
        };
        let source = Arc::clone(&self.source);
        self.tracker.spawn_blocking(move || {
            let _place = place;
            let written = source
                .expose(&selection, &mut writer)
                .and_then(|()| writer.finish());
            if let Err(error) = written {
                debug!(%error, "exposition ended early");
            }
        });
        Ok(Body::stream(body))
    }
}

/// Cuts what is written into pieces and hands them to the body, waiting for its reader.
struct PieceWriter {
    buffer: BytesMut,
    pieces: mpsc::Sender<Piece>,
    runtime: Handle,
    deadline: Instant,
}

impl PieceWriter {
    fn send(&self, piece: Piece) -> io::Result<()> {
        let sending = self.pieces.send(piece);
        match self
            .runtime
            .block_on(async { timeout_at(self.deadline, sending).await })
        {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) => Err(io::Error::new(
                io::ErrorKind::BrokenPipe,
                "the scraper has left",
            )),
            Err(_) => Err(io::Error::new(
                io::ErrorKind::TimedOut,
                "the scraper was too slow",
            )),
        }
    }

    fn send_buffer(&mut self) -> io::Result<()> {
        if self.buffer.is_empty() {
            return Ok(());
        }
        let data: Bytes = self.buffer.split().freeze();
        self.buffer.reserve(PIECE_SIZE);
        self.send(Piece::Data(data))
    }

    fn finish(mut self) -> io::Result<()> {
        self.send_buffer()?;
        self.send(Piece::End)
    }
}

impl io::Write for PieceWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let taken = bytes.len().min(PIECE_SIZE - self.buffer.len());
        self.buffer.extend_from_slice(&bytes[..taken]);
        if self.buffer.len() == PIECE_SIZE {
            self.send_buffer()?;
        }
        Ok(taken)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
