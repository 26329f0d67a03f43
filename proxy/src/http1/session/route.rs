//! What the routes of a service have to do with its requests: which of them one is of, how long it may take, and that
//! none is answered 404. A part of the session; the relay keeps the time.

use std::time::{Duration, Instant};

use super::{Session, State};
use crate::exchange::End;
use crate::http1::fields::HeadFields;
use crate::http1::reply::Reply;
use crate::http1::request::RequestHead;
use crate::routes::{Choice, Request};

impl Session {
    /// The route of a request whose head these bytes begin with.
    pub(super) fn choose(&mut self, head: &RequestHead<'_>, bytes: &[u8]) -> Choice {
        if !self.ledger.has_routes() {
            return Choice::Unrouted;
        }
        let fields = HeadFields(&bytes[..head.len]);
        let request = Request::new(head.method, head.target, &fields);
        let choice = self.ledger.choose(&request);
        let Self { lot, ledger, .. } = self;
        choice.drawn(|| {
            *lot = lot.or_else(|| ledger.lot());
            *lot
        })
    }

    /// Remembers what routes say about the first request, before it is known which server it goes to. Answers whether
    /// it goes to none.
    pub(super) fn foresee(&mut self, head: &RequestHead<'_>, bytes: &[u8]) -> bool {
        let choice = self.choose(head, bytes);
        self.patience = choice.route().and_then(|route| route.timeout());
        self.head_for(&choice);
        choice.is_nowhere()
    }

    /// How long the request that waits for a server may take from its head on.
    pub fn patience(&self) -> Option<Duration> {
        self.patience
    }

    /// By when the response that comes next must have begun.
    pub fn deadline(&self) -> Option<Instant> {
        let front = self.exchanges.front().filter(|e| !e.has_head())?;
        let timeout = front.tally().timeout()?;
        front.started().checked_add(timeout)
    }

    /// The time of [`Self::deadline`] is up: it is answered in the server's place, and the connection ends.
    pub fn expire(&mut self, now: Instant) {
        let reply = Reply::Late;
        self.stay();
        if let Some(front) = self.exchanges.pop_front() {
            front.end(now, End::Replied(reply.status(), "timeout"));
            self.refuse(reply);
        }
    }

    /// Whether it is the server that was waited for in vain: what is behind that request is never answered.
    pub fn is_late(&self) -> bool {
        matches!(self.requests, State::Refused(Reply::Late))
    }
}
