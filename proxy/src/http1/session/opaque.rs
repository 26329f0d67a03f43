//! Where HTTP ends on a connection: tunnels, and what cannot be followed any more. From there bytes pass unread. A part of
//! the session.

use std::time::Instant;

use super::{Session, State};
use crate::exchange::End;

impl Session {
    /// From here bytes pass unread. What was sent after the request that opened it, before any
    /// offer was answered, belongs to the tunnel.
    pub(super) fn open_tunnel(&mut self, now: Instant) {
        self.tunnel = true;
        self.resumed = true;
        self.requests = State::Opaque;
        self.responses = State::Opaque;
        for exchange in self.exchanges.drain(1..) {
            exchange.end(now, End::Unfollowed);
        }
    }

    /// Bytes of the server while no request waits: an answer to none (a 408 before a close,
    /// say), or to one that was not parsed. Which answer is whose cannot be told from here.
    pub(super) fn unsolicited(&mut self, bytes: &[u8], now: Instant) -> usize {
        // An empty line too many after a body means nothing (RFC 9112 section 2.2).
        let empty = bytes.iter().take_while(|b| b"\r\n".contains(b)).count();
        if empty > 0 {
            return empty;
        }
        if matches!(self.requests, State::Opaque) {
            self.responses = State::Opaque;
            return bytes.len();
        }
        self.stop_following("unsolicited response", bytes, now)
    }

    /// A request behind as many as there may be. Where its client may have seen the end of a response that has none but
    /// that of the connection to us, what it says goes on, unread.
    pub(super) fn wait_behind(&mut self, bytes: &[u8], now: Instant) -> usize {
        let is_endless = self.has_doubtful_end && matches!(self.responses, State::UntilClose);
        if !is_endless || bytes.iter().all(|b| b"\r\n".contains(b)) {
            return 0;
        }
        if self.is_denied || self.ledger.is_closed() {
            self.requests = State::Cut;
            return 0;
        }
        self.stop_following("request behind an endless response", bytes, now)
    }

    /// Passes the server's bytes unread from here; what was under way stays unknown.
    pub(super) fn stop_following(
        &mut self,
        why: &'static str,
        bytes: &[u8],
        now: Instant,
    ) -> usize {
        self.ledger.unparsed(why);
        self.responses = State::Opaque;
        if !self.takes_nothing() {
            self.requests = State::Opaque;
            self.resumed = true;
        }
        for exchange in self.exchanges.drain(..) {
            exchange.end(now, End::Unfollowed);
        }
        bytes.len()
    }
}
