//! The connections of one worker to one endpoint: opened on demand, one at a time, and shared by
//! the streams that wait for them.
//!
//! `pool` keeps one for each endpoint. It must not know which endpoint is the best.

use std::cell::{Cell, RefCell};
use std::future::{Future, poll_fn};
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use h2::client::{Connection, SendRequest};
use tokio::sync::watch;
use tokio::time::{Instant, timeout, timeout_at};

use super::LARGEST_WINDOW;
use super::link::{Lease, Link};
use super::pool::Setup;
use super::socket::Socket;
use crate::endpoints::Endpoint;
use crate::forward::DialError;
use crate::record::{Book, HttpLedger};
use crate::telemetry::{Dst, Peer, Tls};

/// Why no connection could be made; all that waited for it are told.
pub(super) type Refused = Rc<DialError>;

type Outcome = Option<Result<(), Refused>>;

pub(super) struct Slot {
    addr: SocketAddr,
    /// The name that its certificate must have.
    identity: Option<Arc<str>>,
    setup: Rc<Setup>,
    book: Book,
    /// The label of its connections, by the way that they are dialed.
    tls: Tls,
    /// The series of its requests; it remembers them without keeping them.
    pub(super) ledger: RefCell<HttpLedger>,
    links: RefCell<Vec<Rc<Link>>>,
    /// The connection that is being made.
    dialing: RefCell<Option<watch::Receiver<Outcome>>>,
    /// Every connection closes once its streams are over.
    is_retired: Cell<bool>,
}

impl Slot {
    /// Of this endpoint, dialed in the way that has this label.
    pub(super) fn new(endpoint: &Endpoint, (book, tls): (Book, Tls), setup: Rc<Setup>) -> Rc<Self> {
        Rc::new(Self {
            addr: endpoint.addr,
            identity: endpoint.identity.clone(),
            setup,
            ledger: RefCell::new(HttpLedger::new(book.clone())),
            book,
            tls,
            links: RefCell::default(),
            dialing: RefCell::default(),
            is_retired: Cell::new(false),
        })
    }

    /// Whether it is dialed as the mesh asks for now.
    pub(super) fn is_current(&self) -> bool {
        let mesh = &self.setup.dialer.mesh;
        let is_secured = matches!(self.tls, Tls::Mutual { .. });
        mesh.secures(self.addr, self.identity.as_ref()) == is_secured
    }

    /// The label of its connections.
    pub(super) fn tls(&self) -> Tls {
        self.tls.clone()
    }

    /// Its requests are counted as `book` says from now on.
    pub(super) fn recount(&self, book: Book) {
        self.ledger.replace(HttpLedger::new(book));
    }

    /// Whether it is this endpoint, by name too.
    pub(super) fn is_of(&self, endpoint: &Endpoint) -> bool {
        self.identity == endpoint.identity
    }

    /// The labels that it is counted under.
    pub(super) fn dst(&self) -> Option<&Dst> {
        self.book.subject.dst()
    }

    /// A place for one stream, on a connection that is made for it where none has room.
    ///
    /// # Errors
    /// When there is no connection at all, and none could be made by then.
    pub(super) async fn lease(self: &Rc<Self>, deadline: Instant) -> Result<Lease, Refused> {
        loop {
            if let Some(lease) = self.find(Link::has_room) {
                return Ok(lease);
            }
            if self.open_links() >= self.setup.config.connections
                && let Some(lease) = self.find(Link::is_open)
            {
                return Ok(lease);
            }
            let begun = Instant::now();
            let refused = match timeout_at(deadline, self.connect(None)).await {
                Ok(Ok(())) => continue,
                Ok(Err(refused)) => refused,
                Err(_late) => Rc::new(DialError::Timeout(self.addr, deadline - begun)),
            };
            return self.find(Link::is_open).ok_or(refused);
        }
    }

    fn open_links(&self) -> usize {
        let links = self.links.borrow();
        links.iter().filter(|link| link.is_open()).count()
    }

    /// The link with the fewest streams among those that are `fit`.
    pub(super) fn find(&self, fit: impl Fn(&Link) -> bool) -> Option<Lease> {
        let links = self.links.borrow();
        let fitting = links.iter().filter(|link| fit(link));
        let best = fitting.min_by_key(|link| link.streams())?;
        best.lease()
    }

    /// Takes over a connection that is open already, unless there are others.
    pub(super) fn adopt(self: &Rc<Self>, socket: Socket) {
        if self.is_unused() {
            drop(self.connect(Some(socket)));
        }
    }

    /// Waits for the connection that is being made, or begins one.
    fn connect(
        self: &Rc<Self>,
        open: Option<Socket>,
    ) -> impl Future<Output = Result<(), Refused>> + use<> {
        let begin = || {
            if self.links.borrow().iter().any(|link| !link.is_open()) {
                self.has_left();
            }
            let (done, outcome) = watch::channel(None);
            let slot = Rc::clone(self);
            self.setup.tasks.spawn_local(slot.open(open, done));
            outcome
        };
        let mut outcome = self.dialing.borrow_mut().get_or_insert_with(begin).clone();
        let gone = DialError::Timeout(self.addr, self.setup.dialer.config.connect_timeout);
        async move {
            match outcome.wait_for(Option::is_some).await.as_deref() {
                Ok(Some(outcome)) => outcome.clone(),
                Ok(None) | Err(_) => Err(Rc::new(gone)),
            }
        }
    }

    /// Makes one connection, tells those that wait for it, and serves it to its end.
    async fn open(self: Rc<Self>, open: Option<Socket>, done: watch::Sender<Outcome>) {
        let dialer = &self.setup.dialer;
        let dialed = match open {
            Some(socket) => Ok(socket),
            None => {
                let to = (self.addr, self.identity.as_ref());
                let (_, dialed) = dialer.dial(to, dialer.config.connect_timeout).await;
                let account = || self.book.dialed(std::time::Instant::now());
                dialed.map(|stream| Socket::dialed(stream, Bytes::new(), account()))
            }
        };
        let greeted = match dialed {
            Ok(socket) => self.greet(socket).await,
            Err(error) => Err(error),
        };
        self.dialing.borrow_mut().take();
        let (sender, driver) = match greeted {
            Ok(greeted) => greeted,
            Err(error) => {
                done.send_replace(Some(Err(Rc::new(error))));
                return;
            }
        };
        let account = self.book.http2(Peer::Dst);
        let link = Link::new(sender, account, std::time::Instant::now());
        self.links.borrow_mut().push(Rc::clone(&link));
        done.send_replace(Some(Ok(())));
        drop(done);
        if self.is_retired.get() {
            // Who has waited for it has its streams by then.
            tokio::task::yield_now().await;
            link.close();
        }
        let ended = driver.await;
        tracing::debug!(addr = %self.addr, ?ended, "a connection to an endpoint is over");
        let left = ended.err().filter(|e| e.is_go_away() && e.is_remote());
        link.end(left.and_then(|error| error.reason()));
        self.links.borrow_mut().retain(|l| !Rc::ptr_eq(l, &link));
        self.has_left();
    }

    /// The endpoint takes no more streams on a connection. The client that has it for its own learns that.
    fn has_left(&self) {
        if self.setup.is_own {
            self.setup.draining.cancel();
        }
    }

    /// Exchanges the first frames: an endpoint that does not speak HTTP/2 takes no connections.
    async fn greet(&self, socket: Socket) -> Result<(SendRequest<Bytes>, Driver), DialError> {
        let config = &self.setup.config;
        let greeting = async {
            let handshake = self.builder().handshake(socket.clone());
            let (sender, connection) = handshake.await?;
            let mut driver = Driver { connection, socket };
            poll_fn(|cx| match Pin::new(&mut driver).poll(cx) {
                Poll::Ready(Ok(())) => Poll::Ready(Err(h2::Reason::NO_ERROR.into())),
                Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
                // Its SETTINGS are there: before them nothing may be sent.
                Poll::Pending if sender.current_max_send_streams() > 0 => Poll::Ready(Ok(())),
                Poll::Pending => Poll::Pending,
            })
            .await?;
            Ok::<_, h2::Error>((sender, driver))
        };
        match timeout(config.handshake_timeout, greeting).await {
            Ok(Ok(greeted)) => Ok(greeted),
            Ok(Err(error)) => Err(DialError::Connect(self.addr, cause(error))),
            Err(_late) => Err(DialError::Timeout(self.addr, config.handshake_timeout)),
        }
    }

    fn builder(&self) -> h2::client::Builder {
        let config = &self.setup.config;
        let mut builder = h2::client::Builder::new();
        builder
            .enable_push(false)
            .initial_max_send_streams(0)
            .initial_window_size(config.window)
            // What it holds is bounded by the windows of its streams.
            .initial_connection_window_size(LARGEST_WINDOW)
            .max_header_list_size(config.max_header_list)
            .max_send_buffer_size(config.send_buffer)
            .max_concurrent_reset_streams(config.reset_memory)
            .max_local_error_reset_streams(None)
            .data_frame_budget(super::SMALL_FRAMES);
        builder
    }

    /// Closes what has had no stream since then.
    pub(super) fn sweep(&self, idle_since: std::time::Instant) {
        for link in self.links.borrow().iter() {
            if link.is_idle_since(idle_since) {
                link.retire();
            }
        }
    }

    /// Closes every connection once its streams are over, also that which is being made.
    pub(super) fn retire(&self) {
        self.is_retired.set(true);
        self.links.borrow().iter().for_each(|link| link.retire());
    }

    /// Whether there is no connection, nor one being made.
    pub(super) fn is_unused(&self) -> bool {
        self.links.borrow().is_empty() && self.dialing.borrow().is_none()
    }
}

/// A connection whose every turn ends with what it has written on its way.
struct Driver {
    connection: Connection<Socket, Bytes>,
    socket: Socket,
}

impl Future for Driver {
    type Output = Result<(), h2::Error>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        self.socket.begin_turn();
        let ended = Pin::new(&mut self.connection).poll(cx);
        if ended.is_pending()
            && let Poll::Ready(Err(_)) = self.socket.poll_out(cx)
        {
            // Its streams learn it when the connection is dropped; its account knows why.
            return Poll::Ready(Ok(()));
        }
        ended
    }
}

/// The error of a connection that was accepted and then did not speak HTTP/2.
fn cause(error: h2::Error) -> io::Error {
    let text = error.to_string();
    let other = io::Error::new(io::ErrorKind::InvalidData, text);
    error.into_io().unwrap_or(other)
}
