//! A server that is left for another one while its client stays: where the session says so, and once what it has approved
//! is written. What is kept of a request is given to the next server first. A part of the relay.

use std::io;
use std::net::SocketAddr;
use std::task::Context;

use super::Relay;
use crate::activity::Busy;
use crate::buffer::Flow;
use crate::endpoints::Claim;
use crate::record::Side;
use crate::session::{Leave, Session};
use crate::stream::Stream;

/// A client whose server was left.
pub struct Left {
    pub client: Stream,
    pub accepted: Side,
    /// What was read of it, and is for the next server.
    pub up: Flow,
    pub session: Session,
    pub busy: Busy,
    /// The server, where it could be used again.
    pub server: Option<Idle>,
    /// The endpoint that it was.
    pub at: Option<SocketAddr>,
}

/// A server that owes nothing.
pub struct Idle {
    pub stream: Stream,
    pub claim: Option<Claim>,
    pub dialed: Side,
}

/// What the relay had beside its sockets.
pub(super) struct Leaving {
    up: Flow,
    session: Session,
    busy: Busy,
    claim: Option<Claim>,
    is_reusable: bool,
    error: Option<io::Error>,
}

impl Relay<'_> {
    /// Whether the server is to be left.
    pub(super) fn is_leaving(&self) -> bool {
        self.session.as_ref().is_some_and(|s| s.leave().is_some())
    }

    /// Whether it can be left now. What a request that is sent again has not been given of is kept: it need not take it.
    pub(super) fn may_leave(&self) -> bool {
        let leave = self.session.as_ref().and_then(Session::leave);
        let is_given = match leave {
            None => false,
            Some(Leave::Elsewhere) => self.up.is_written(),
            Some(Leave::Again) => true,
        };
        is_given && self.down.is_written() && self.client.error.is_none()
    }

    /// Gives the server what it is to have next.
    pub(super) fn give(&mut self, cx: &mut Context<'_>) -> bool {
        let Some(session) = &mut self.session else {
            return self.server.write_from(&mut self.up, cx);
        };
        let kept = session.replay();
        let mut moved = false;
        if !kept.is_empty() {
            let n = self.server.write(kept, cx);
            session.replayed(n);
            moved = n > 0;
        }
        if session.replay().is_empty() {
            moved |= self.server.write_from(&mut self.up, cx);
        }
        if self.server.is_shut() && !session.is_kept() {
            self.up.drop_pending();
        }
        moved
    }

    /// Whether the server has all that was approved.
    pub(super) fn is_given(&self) -> bool {
        let is_replayed = |session: &Session| session.replay().is_empty();
        self.up.is_empty() && self.session.as_ref().is_none_or(is_replayed)
    }

    /// Leaves the server; none where nothing says so.
    pub(super) fn part(mut self) -> Option<Leaving> {
        let session = self.session?;
        let owes_nothing = session.leave()? == Leave::Elsewhere && self.down.is_empty();
        let is_open = !(self.server.has_ended() || self.server.is_shut());
        self.up.drop_approved();
        self.down.clear();
        self.down.release(self.pool);
        Some(Leaving {
            is_reusable: owes_nothing && is_open,
            up: self.up,
            session,
            busy: self.busy,
            claim: self.claim,
            error: self.server.error,
        })
    }
}

impl Leaving {
    /// With the sockets and their accounts. A server that cannot be used again is closed.
    pub(super) fn of(self, client: (Stream, Side), server: (Stream, Side)) -> Box<Left> {
        let (stream, dialed) = server;
        let at = self.claim.as_ref().map(|claim| claim.addr);
        let server = if self.is_reusable {
            let claim = self.claim;
            Some(Idle {
                stream,
                claim,
                dialed,
            })
        } else {
            dialed.close(self.error.as_ref());
            None
        };
        Box::new(Left {
            client: client.0,
            accepted: client.1,
            up: self.up,
            session: self.session,
            busy: self.busy,
            server,
            at,
        })
    }
}

#[cfg(test)]
mod tests;
