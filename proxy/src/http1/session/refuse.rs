//! Requests that do not go on: what is answered in the application's place. A part of the session.

use std::time::Instant;

use super::{Session, State};
use crate::exchange::End;
use crate::http1::reply::Reply;

impl Session {
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
