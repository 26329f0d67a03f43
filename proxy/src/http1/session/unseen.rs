//! A request that nobody has seen: the proxy in front of the server answers that it had nobody to give it to, and it is
//! sent to another server, whatever its route says and whatever its method is. A part of the session; `connection` says
//! where the server is, and finds the next. It must not know endpoints.
//!
//! Such a proxy dials its application once for a connection, before anything of that goes on. So only the first request of
//! a server's connection can be one that nobody has seen, and only that one is kept; and only as long as it is alone:
//! what comes behind it goes on at once, because whoever sends ahead would wait for a round trip otherwise.

use std::net::SocketAddr;

use super::{Session, State};
use crate::http1::fields::HeadFields;
use crate::http1::reply::Reply;
use crate::http1::response::ResponseHead;

/// Most servers that one request may go on from unseen; what the next one answers is the client's. Default: 4. Each is set
/// aside for that, so that few requests meet two; where a whole service is down, none may cost it a connection to each of
/// its endpoints.
pub const MAX_REFUSALS: usize = 4;

/// The server of a connection, where it is one of several.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hop {
    pub addr: SocketAddr,
    /// Whether there is another one that the request under way was not sent to yet.
    pub has_other: bool,
}

/// Which server has not seen what it was sent.
#[derive(Debug, Default)]
pub(super) struct Unseen {
    hop: Option<Hop>,
    /// It has said so, and this was not taken yet.
    is_refused: bool,
}

impl Session {
    /// The server's side is connected: to this one, if it is one of several.
    pub fn dialed(&mut self, hop: Option<Hop>) {
        self.unseen.hop = hop;
    }

    /// Whether the server has no application to give requests to, once for each server that says so.
    pub fn take_refusal(&mut self) -> bool {
        std::mem::take(&mut self.unseen.is_refused)
    }

    /// Whether a request that begins now may turn out to be one that nobody has seen.
    pub(super) fn may_be_unseen(&self) -> bool {
        let has_other = self.unseen.hop.is_some_and(|hop| hop.has_other);
        has_other && self.completed == 0 && self.exchanges.is_empty()
    }

    /// A response begins with these bytes. Answers whether it says that nobody has seen its request, which goes to
    /// another server instead.
    pub(super) fn goes_elsewhere(&mut self, head: &ResponseHead<'_>, bytes: &[u8]) -> bool {
        let Some(hop) = self.unseen.hop.filter(|_| matches!(head.status, 502 | 504)) else {
            return false;
        };
        let value = HeadFields(&bytes[..head.len]).only("proxy-status");
        let by = value.and_then(|value| Reply::unseen_by(head.status, value));
        // What comes later, or from behind the server, was made by somebody else.
        if by != Some(hop.addr) || self.completed > 0 {
            return false;
        }
        self.unseen.is_refused = true;
        let is_followed = !matches!(self.requests, State::Opaque);
        let goes = hop.has_other && is_followed && self.note_refusal(hop.addr);
        if goes {
            self.take_back(head.status, "");
        }
        goes
    }
}
