//! Turns the store's `Write`-shaped exposition into a streamed body: `routes` and `endpoint` ask for it. The
//! writer runs on a thread of its own behind a short channel, so neither memory nor the other admin connections
//! feel how long an exposition is or how slowly its reader takes it; and it makes room for the workers as it goes.

use super::Limits;
use super::body::{Body, Piece};
use super::gzip::Gzip;
use crate::telemetry::{Selection, Telemetry};
use bytes::{Bytes, BytesMut};
use std::future::Future;
use std::io::{self, Write};
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::thread::Thread;
use std::time::Instant;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::time::timeout;
use tokio_util::task::TaskTracker;
use tracing::debug;

/// Size of a piece of the body, in bytes, and how many may wait for the reader: with the state of a compression
/// (300 KiB) all the memory that the sending of one exposition takes.
const PIECE_SIZE: usize = 16 * 1024;
const PIECES_WAITING: usize = 4;

/// After so many bytes, which take some 10 microseconds (50 compressed), the writer lets others have its CPU: a worker
/// that shares it waits no longer than that, and not for the end of a time slice.
const BURST: usize = 64 * 1024;

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

/// Why an exposition was not begun.
#[derive(Debug, thiserror::Error)]
pub(super) enum Refused {
    /// Every place was taken by expositions under way for as long as a scrape waits for one.
    #[error("too many scrapes are under way; at most {0} are served at once")]
    Busy(usize),
    #[error("no thread for the exposition could be started: {0}")]
    Thread(io::Error),
}

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
    pub(super) async fn start(&self, selection: Selection, gzip: bool) -> Result<Body, Refused> {
        let place = self.place().await?;
        let (pieces, body) = mpsc::channel(PIECES_WAITING);
        let writer = PieceWriter {
            buffer: BytesMut::with_capacity(PIECE_SIZE),
            pieces,
            deadline: Instant::now() + self.limits.exposition_timeout,
        };
        let coding = if gzip {
            Coding::Gzip(Box::new(Gzip::new(writer)))
        } else {
            Coding::Identity(writer)
        };
        let source = Arc::clone(&self.source);
        let tracked = self.tracker.token();
        let writing = move || {
            let _until_the_end = (place, tracked);
            let mut out = Paced {
                out: coding,
                burst: 0,
            };
            let written = source.expose(&selection, &mut out);
            if let Err(error) = written.and_then(|()| out.out.finish()) {
                debug!(%error, "exposition ended early");
            }
        };
        std::thread::Builder::new()
            .name("exposition".to_owned())
            .spawn(writing)
            .map_err(Refused::Thread)?;
        Ok(Body::stream(body))
    }

    async fn place(&self) -> Result<OwnedSemaphorePermit, Refused> {
        let place = Arc::clone(&self.places).acquire_owned();
        let place = timeout(self.limits.exposition_wait, place).await;
        let place = place.map_err(|_| Refused::Busy(self.limits.expositions))?;
        Ok(place.expect("the semaphore is never closed"))
    }
}

/// How the body is coded.
enum Coding {
    Identity(PieceWriter),
    Gzip(Box<Gzip<PieceWriter>>),
}

impl Coding {
    fn finish(self) -> io::Result<()> {
        match self {
            Self::Identity(writer) => writer.finish(),
            Self::Gzip(gzip) => gzip.finish()?.finish(),
        }
    }
}

/// Lets others have the CPU after every burst.
struct Paced {
    out: Coding,
    /// Bytes since the last pause.
    burst: usize,
}

impl Write for Paced {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.burst >= BURST {
            self.burst = 0;
            std::thread::yield_now();
        }
        let bytes = &bytes[..bytes.len().min(BURST)];
        let written = match &mut self.out {
            Coding::Identity(writer) => writer.write(bytes),
            Coding::Gzip(gzip) => gzip.write(bytes),
        }?;
        self.burst += written;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Cuts what is written into pieces and hands them to the body, waiting for its reader.
struct PieceWriter {
    buffer: BytesMut,
    pieces: mpsc::Sender<Piece>,
    deadline: Instant,
}

impl PieceWriter {
    /// Waits for the reader, until the deadline. Needs no runtime, which may end before this thread does.
    fn send(&self, piece: Piece) -> io::Result<()> {
        let waker = Waker::from(Arc::new(Unpark(std::thread::current())));
        let mut cx = Context::from_waker(&waker);
        let mut sending = pin!(self.pieces.send(piece));
        loop {
            if let Poll::Ready(sent) = sending.as_mut().poll(&mut cx) {
                return sent.map_err(|_| {
                    io::Error::new(io::ErrorKind::BrokenPipe, "the scraper has left")
                });
            }
            let left = self.deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(io::Error::new(
                    io::ErrorKind::TimedOut,
                    "the scraper was too slow",
                ));
            }
            std::thread::park_timeout(left);
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

impl Write for PieceWriter {
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

/// Wakes a thread that waits in `send`.
struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}
