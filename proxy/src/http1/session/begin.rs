//! The beginning of a session: its first head is judged before it is known which server it
//! goes to, and under which labels it is counted. Called by `connection`.

use std::time::Instant;

use super::{MAX_HEAD, Session};
use crate::http1::request::{self, ParsedRequest};
use crate::record::HttpLedger;

impl Session {
    /// Looks at the bytes of the first head without opening its account. Answers whether
    /// [`Self::request_bytes`] would let any of them go on, or whether they are refused.
    pub fn look(&mut self, bytes: &[u8], now: Instant) -> bool {
        let is_last = self.client_ended || bytes.len() >= MAX_HEAD;
        if !(is_last || self.request_attempt.is_due(bytes)) {
            return false;
        }
        match request::parse(bytes) {
            ParsedRequest::Incomplete if bytes.len() < MAX_HEAD && !self.client_ended => {
                self.request_attempt.was_in_vain(bytes);
                false
            }
            ParsedRequest::Head(head) => {
                if self.is_upgraded_past(&head) || self.foresee(&head, bytes) {
                    self.request_bytes(bytes, now);
                }
                true
            }
            ParsedRequest::Unparsed(_) if !self.ledger.is_closed() => true,
            ParsedRequest::Incomplete
            | ParsedRequest::Ambiguous(_)
            | ParsedRequest::Unparsed(_) => {
                self.request_bytes(bytes, now);
                true
            }
        }
    }

    /// What follows is counted here, and may go on.
    pub fn settle(&mut self, ledger: HttpLedger) {
        self.is_denied = false;
        self.ledger = ledger;
    }
}
