//! Bytes that the session need not see: bodies whose end is known by their length, and what is
//! opaque. `forward::relay` moves them past it, and tells it how many there were.

use std::time::Instant;

use super::{Session, State};

impl Session {
    /// How many of the client's next bytes may go on unread.
    pub fn unread_request(&self) -> u64 {
        match self.requests {
            State::Length(left) if !self.is_keeping() => left,
            State::Opaque => u64::MAX,
            _ => 0,
        }
    }

    /// How many of the server's next bytes may go on unread.
    pub fn unread_response(&self) -> u64 {
        match self.responses {
            State::Length(left) => left,
            State::UntilClose | State::Opaque => u64::MAX,
            _ => 0,
        }
    }

    /// This many bytes of the client went on unread, at most [`Self::unread_request`].
    pub fn pass_request(&mut self, n: usize) {
        if let State::Length(left) = &mut self.requests {
            *left = left.saturating_sub(n as u64);
        }
        self.end_of_request_body();
    }

    /// This many bytes of the server went on unread, at most [`Self::unread_response`].
    pub fn pass_response(&mut self, n: usize, now: Instant) {
        if let State::Length(left) = &mut self.responses {
            *left = left.saturating_sub(n as u64);
        }
        if !matches!(self.responses, State::Opaque) {
            self.response_progress(now);
        }
    }
}
