//! One connection to an endpoint, and the leases of its streams.
//!
//! `slot` opens and keeps them. A link that may take no more streams lives on until those it has
//! are over. It must not know endpoints, nor why a stream was sent here.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::Instant;

use bytes::Bytes;
use h2::client::{ResponseFuture, SendRequest};
use h2::{Reason, SendStream};
use hyper::http::Request;

use crate::record::Http2Side;

pub(super) struct Link {
    /// None once it takes no more streams.
    sender: RefCell<Option<SendRequest<Bytes>>>,
    account: Http2Side,
    /// Since when it has no stream.
    idle_since: Cell<Instant>,
    /// What the endpoint's GOAWAY has said, once the connection is over.
    left: Cell<Option<Reason>>,
    is_closing: Cell<bool>,
}

impl Link {
    pub(super) fn new(sender: SendRequest<Bytes>, account: Http2Side, now: Instant) -> Rc<Self> {
        Rc::new(Self {
            sender: RefCell::new(Some(sender)),
            account,
            idle_since: Cell::new(now),
            left: Cell::new(None),
            is_closing: Cell::new(false),
        })
    }

    /// Streams that are open on it.
    pub(super) fn streams(&self) -> usize {
        self.account.streams()
    }

    /// Whether it has had no stream since then.
    pub(super) fn is_idle_since(&self, then: Instant) -> bool {
        self.streams() == 0 && self.idle_since.get() <= then
    }

    /// Whether the endpoint lets one more stream begin at once. Closes a link that it has left.
    pub(super) fn has_room(&self) -> bool {
        let mut sender = self.sender.borrow_mut();
        let Some(open) = sender.as_mut() else {
            return false;
        };
        let mut cx = Context::from_waker(Waker::noop());
        if let Poll::Ready(Err(_)) = open.poll_ready(&mut cx) {
            *sender = None;
            return false;
        }
        self.streams() < open.current_max_send_streams()
    }

    pub(super) fn is_open(&self) -> bool {
        self.sender.borrow().is_some()
    }

    /// It takes no more streams, and closes with the last it has.
    pub(super) fn retire(&self) {
        self.sender.borrow_mut().take();
    }

    /// It closes with the last of its streams, at once where it has none.
    pub(super) fn close(&self) {
        self.is_closing.set(true);
        if self.streams() == 0 {
            self.retire();
        }
    }

    /// The connection is over; the code is that of the endpoint's GOAWAY, if it sent one.
    pub(super) fn end(&self, left: Option<Reason>) {
        self.retire();
        self.left.set(left);
    }

    /// The code of the endpoint's GOAWAY, where the connection has ended after one.
    pub(super) fn left(&self) -> Option<Reason> {
        self.left.get()
    }

    /// A place for one stream; none once it takes no more.
    pub(super) fn lease(self: &Rc<Self>) -> Option<Lease> {
        let sender = self.sender.borrow().clone()?;
        self.account.stream_opened();
        let link = Rc::clone(self);
        Some(Lease { link, sender })
    }
}

/// The place of one stream on a link, given back when it is dropped.
pub(super) struct Lease {
    pub(super) link: Rc<Link>,
    sender: SendRequest<Bytes>,
}

impl Lease {
    /// Begins the stream.
    pub(super) fn send(
        &mut self,
        request: Request<()>,
        ends: bool,
    ) -> Result<(ResponseFuture, SendStream<Bytes>), h2::Error> {
        self.sender.send_request(request, ends)
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.link.account.stream_closed();
        if self.link.streams() == 0 {
            self.link.idle_since.set(Instant::now());
            if self.link.is_closing.get() {
                self.link.retire();
            }
        }
    }
}
