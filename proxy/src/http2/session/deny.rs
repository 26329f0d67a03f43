//! A client that may make no more requests: its next one is not passed on, nor anything after it. It is answered in the
//! server's place once those before it are over, because no header block can follow one that the server has not seen:
//! what it adds to the table would be missing (RFC 7541 section 2.2).
//!
//! Asked for by the relay, through what it shares with HTTP/1.

use std::time::Instant;

use super::{Session, reply};
use crate::exchange::End;
use crate::record::HttpLedger;

/// The status of what is refused.
const DENIED: u16 = 403;

impl Session {
    /// From the next request on the client is refused, which is counted here.
    pub fn deny(&mut self, ledger: HttpLedger) {
        if !self.is_refused() {
            self.denied = Some(Box::new(ledger));
            self.hold_next();
        }
    }

    /// Whether a request was refused: nothing of the client is passed on any more.
    pub fn is_refused(&self) -> bool {
        self.cut.is_some()
    }

    /// Whether what was refused may be answered now: requests before it are over, and no frame of the server has begun.
    pub fn may_answer(&self) -> bool {
        let is_over = |cut| self.streams.iter().all(|(stream, _)| stream > cut);
        self.cut.is_some_and(is_over) && self.server.is_between()
    }

    /// What a client without a request is told at the end (RFC 9113 section 6.8).
    pub fn farewell(&self, status: u16, error: &str) -> Vec<u8> {
        match self.server.is_between() {
            true => self.answer(status, error).0,
            false => Vec::new(),
        }
    }

    /// What asks a client to make its next requests on another connection, once and between two frames of the server. No
    /// stream is called unseen by it: the server answers whatever comes before the client has read this.
    pub fn ask_to_leave(&mut self) -> Option<&'static [u8]> {
        let can_be = self.server_spoke && self.server.is_between() && self.goaway.is_none();
        if self.is_asked || self.is_stopped || !can_be {
            return None;
        }
        self.is_asked = true;
        Some(&reply::LEAVE)
    }

    pub(super) fn hold_next(&mut self) {
        if self.denied.is_some() {
            self.client.hold_above(Some(self.last));
        }
    }

    pub(super) fn refuse(&mut self) {
        let Some(ledger) = self.denied.take() else {
            return;
        };
        self.ledger = *ledger;
        self.cut = Some(self.last);
        self.client.hold_above(None);
    }

    pub(super) fn end_refused(&mut self, now: Instant) {
        let Some(cut) = self.cut else { return };
        while let Some(mut call) = self.streams.pop_above(cut) {
            call.end(now, End::Replied(DENIED, ""));
            self.account.stream_closed();
        }
    }
}
