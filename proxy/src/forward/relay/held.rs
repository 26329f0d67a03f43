//! What a relayed connection is held to: a permission that changes under it. The relay asks whenever it has something to
//! do, and is woken where it has not.
//!
//! A client that may not connect any more gets 403 for its next request, and its connection ends. What is under way may
//! go on for [`GRACE`]; then the connection ends however that is. One that carries no HTTP ends at once.
//!
//! A connection of HTTP/2 whose port is closed meanwhile is asked to leave (GOAWAY): the relay has no paths to ask routes
//! for, the next one of its client is terminated. Until it has left, all its requests are let in; who has not left within
//! [`LEAVING`] is cut off, also where the connection cannot be followed any more and nobody could be asked.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::task::Context;
use std::time::Duration;

use tokio::time::{Sleep, sleep};

use super::Relay;
use crate::http1::reply::Reply;
use crate::identity::Peer;
use crate::permission::{Permit, Verdict};
use crate::record::{Book, HttpLedger};
use crate::session::Session;

/// How long requests that are under way may go on once their client may not connect any more, and how long a connection
/// may stay on which there are none. Default: 5 s, so that a permission that is replaced, and is not there in between,
/// ends no connection.
pub const GRACE: Duration = Duration::from_secs(5);

/// How long a client of HTTP/2 may take to leave whose port is closed by now. Default: 60 s: longer than most requests, and
/// not for ever.
const LEAVING: Duration = Duration::from_secs(60);

/// A permission, and what its connection is counted under.
pub struct Held {
    permit: Permit,
    book: Book,
    /// Runs while the client may not connect.
    grace: Option<Pin<Box<Sleep>>>,
    /// The connection has ended because of it.
    pub(super) is_cut: bool,
    /// Its port lets in only what there is a route for.
    is_closed: bool,
    /// Runs while its client is to leave for that.
    leaving: Option<Pin<Box<Sleep>>>,
}

#[cfg(test)]
mod tests;

impl Held {
    pub fn new(permit: Permit, book: Book) -> Self {
        Self {
            is_closed: permit.is_closed(),
            permit,
            book,
            grace: None,
            is_cut: false,
            leaving: None,
        }
    }

    /// Judges the peer by what is in force now.
    fn judge(&mut self, peer: Option<Peer>, session: Option<&mut Session>) {
        let identity = peer.as_ref().map(|peer| &*peer.identity);
        let verdict = self.permit.judge(identity);
        self.book.standing.judge(&verdict);
        self.is_closed = self.permit.is_closed();
        let is_denied = verdict == Verdict::Denied;
        let grace = self.grace.take();
        // A request that was denied is answered, and ends the connection, whatever is allowed since.
        let is_refused = session.as_ref().is_some_and(|session| session.is_refused());
        self.grace = match is_denied {
            true => grace.or_else(|| Some(Box::pin(sleep(GRACE)))),
            false => grace.filter(|_| is_refused),
        };
        let Some(session) = session else { return };
        let ledger = HttpLedger::new(self.book.clone());
        if is_denied {
            session.deny(ledger);
        } else {
            session.settle(ledger.behind(self.permit.ports()));
        }
    }
}

impl Relay<'_> {
    /// Takes over what has changed. Answers whether the connection ends with it at once.
    pub(super) fn obey(&mut self, cx: &mut Context<'_>) -> bool {
        let Some(held) = &mut self.held else {
            return false;
        };
        held.permit.watch(cx);
        if held.permit.is_stale() {
            held.judge(self.client.peer(), self.session.as_mut());
        }
        let Some(grace) = &mut held.grace else {
            self.ask_to_leave();
            return self.has_stayed(cx);
        };
        let is_over = grace.as_mut().poll(cx).is_ready();
        let (is_opaque, is_busy) = (self.is_opaque(), self.is_busy());
        if self.replied {
            return false;
        }
        if is_opaque || is_over && is_busy {
            self.cut(is_opaque);
            return true;
        }
        if is_over {
            self.leave();
        }
        false
    }

    /// Asks a client of HTTP/2 to leave whose port is closed by now, between two frames of the server.
    fn ask_to_leave(&mut self) {
        let is_closed = self.held.as_ref().is_some_and(|held| held.is_closed);
        if is_closed
            && !self.replied
            && self.down.is_empty()
            && let Some(Session::Http2(session)) = &mut self.session
            && let Some(words) = session.ask_to_leave()
        {
            self.down.append(self.pool, words);
        }
    }

    /// Cuts a connection of HTTP/2 off whose client had to leave, and has had the time to. Answers whether it does.
    fn has_stayed(&mut self, cx: &mut Context<'_>) -> bool {
        let is_http2 = matches!(self.session, Some(Session::Http2(_)));
        let Some(held) = &mut self.held else {
            return false;
        };
        if !(held.is_closed && is_http2) || self.replied {
            held.leaving = None;
            return false;
        }
        let begin = || Box::pin(sleep(LEAVING));
        let is_late = held.leaving.get_or_insert_with(begin).as_mut().poll(cx);
        if is_late.is_ready() {
            self.cut(false);
        }
        is_late.is_ready()
    }

    /// Breaks the connection off.
    fn cut(&mut self, is_opaque: bool) {
        if let Some(held) = &mut self.held {
            held.is_cut = true;
            if is_opaque {
                held.book.tcp_judged();
            }
        }
        self.client.error = Some(io::ErrorKind::PermissionDenied.into());
    }

    /// Ends a connection on which nothing is under way.
    fn leave(&mut self) {
        self.up.drop_pending();
        if let Some(session) = &self.session {
            let words = session.farewell(Reply::Denied);
            self.down.append(self.pool, &words);
        }
        self.replied = true;
    }
}
