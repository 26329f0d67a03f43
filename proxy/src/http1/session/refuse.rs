//! Requests that the application never sees: those that cannot be taken, and those of a client that may make none any
//! more. Each is answered in the application's place, once the requests before it are.

use std::time::Instant;

use super::{Session, State};
use crate::exchange::{End, Exchange};
use crate::http1::reply::Reply;
use crate::http1::request::RequestHead;
use crate::record::{Authority, HttpLedger};

impl Session {
    /// From the next request on the client is refused, which is counted here.
    pub fn deny(&mut self, ledger: HttpLedger) {
        self.is_denied = true;
        self.ledger = ledger;
    }

    /// A request of a client that may make none: it was received, and is answered.
    pub(super) fn deny_request(&mut self, authority: Authority<'_>, now: Instant) -> usize {
        let exchange = Exchange::open(self.ledger.series(authority), now);
        exchange.end(now, End::Replied(Reply::Denied.status(), ""));
        self.refuse(Reply::Denied)
    }

    /// Whether what follows a request could not be held to the routes of its port: requests of HTTP/2 on its connection.
    pub(super) fn is_upgraded_past(&self, head: &RequestHead<'_>) -> bool {
        head.offers_http2 && self.ledger.is_closed()
    }

    pub(super) fn refuse(&mut self, reply: Reply) -> usize {
        if let Some(label) = reply.label() {
            self.ledger.error(label);
        }
        self.requests = State::Refused(reply);
        0
    }

    /// The request's own body is malformed: it is answered in the application's place,
    /// unless the application has begun to answer.
    pub(super) fn refuse_body(&mut self, now: Instant) -> usize {
        let reply = Reply::BadRequest;
        if self.exchanges.back().is_some_and(|e| !e.has_head())
            && let Some(exchange) = self.exchanges.pop_back()
        {
            exchange.end(now, End::Replied(reply.status(), ""));
            return self.refuse(reply);
        }
        self.ledger.unparsed("request chunk");
        self.requests = State::Cut;
        0
    }
}
