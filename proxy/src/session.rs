//! The session of a connection pair, whichever protocol it speaks: what `forward::relay` shows
//! bytes to, and asks how many may go on.
//!
//! Made by `connection` from what detection found. It only tells the protocols apart.

use std::borrow::Cow;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use crate::exchange::End;
use crate::http1::reply::Reply;
pub use crate::http1::session::{Hop, Leave, MAX_REFUSALS};
use crate::record::{Book, HttpLedger};
use crate::routes::Branch;
use crate::{http1, http2};

/// The state machine of one connection pair.
pub enum Session {
    Http1(Box<http1::session::Session>),
    Http2(Box<http2::session::Session>),
}

/// An answer in the server's place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    pub bytes: Cow<'static, [u8]>,
    /// How many requests it answers.
    pub requests: usize,
}

impl Session {
    pub fn http1(ledger: HttpLedger) -> Self {
        Self::Http1(Box::new(http1::session::Session::new(ledger)))
    }

    pub fn http2(ledger: HttpLedger) -> Self {
        Self::Http2(Box::new(http2::session::Session::new(ledger)))
    }

    /// Looks at the bytes of a beginning without opening an account. Answers whether
    /// [`Self::request_bytes`] would let any of them go on, or whether they are refused.
    pub fn look(&mut self, bytes: &[u8], now: Instant) -> bool {
        match self {
            Self::Http1(session) => session.look(bytes, now),
            Self::Http2(_) => !bytes.is_empty(),
        }
    }

    /// What follows is counted here, and may go on.
    pub fn settle(&mut self, ledger: HttpLedger) {
        match self {
            Self::Http1(session) => session.settle(ledger),
            Self::Http2(session) => session.settle(ledger),
        }
    }

    /// From the next request on the client is refused, which is counted here. What is under way goes on.
    pub fn deny(&mut self, ledger: HttpLedger) {
        match self {
            Self::Http1(session) => session.deny(ledger),
            Self::Http2(session) => session.deny(ledger),
        }
    }

    /// What a client is told whose connection ends without a request.
    pub fn farewell(&self, reply: Reply) -> Cow<'static, [u8]> {
        match self {
            Self::Http1(_) => Cow::Borrowed(&[]),
            Self::Http2(session) => {
                Cow::Owned(session.farewell(reply.status(), reply.error_type()))
            }
        }
    }

    /// The server's side is connected: to this one, if it is one of several.
    pub fn dialed(&mut self, hop: Option<Hop>) {
        match self {
            Self::Http1(session) => session.dialed(hop),
            Self::Http2(session) => session.dialed(),
        }
    }

    /// Whether the server has no application to give requests to, once for each server that says so. Of HTTP/2 it is not
    /// asked: where there are several servers that is terminated.
    pub fn take_refusal(&mut self) -> bool {
        match self {
            Self::Http1(session) => session.take_refusal(),
            Self::Http2(_) => false,
        }
    }

    /// The servers that have not seen the request that is sent again.
    pub fn refused(&self) -> &[SocketAddr] {
        match self {
            Self::Http1(session) => session.refused(),
            Self::Http2(_) => &[],
        }
    }

    /// Shows the client's bytes that have not been approved yet; answers how many may go.
    pub fn request_bytes(&mut self, bytes: &[u8], now: Instant) -> usize {
        match self {
            Self::Http1(session) => session.request_bytes(bytes, now),
            Self::Http2(session) => session.request_bytes(bytes, now),
        }
    }

    /// Shows the server's bytes that have not been approved yet; answers how many may go.
    pub fn response_bytes(&mut self, bytes: &[u8], now: Instant) -> usize {
        match self {
            Self::Http1(session) => session.response_bytes(bytes, now),
            Self::Http2(session) => session.response_bytes(bytes, now),
        }
    }

    /// How many of the client's next bytes may go on unread.
    pub fn unread_request(&self) -> u64 {
        match self {
            Self::Http1(session) => session.unread_request(),
            Self::Http2(session) => session.unread(),
        }
    }

    /// How many of the server's next bytes may go on unread.
    pub fn unread_response(&self) -> u64 {
        match self {
            Self::Http1(session) => session.unread_response(),
            Self::Http2(session) => session.unread(),
        }
    }

    /// This many bytes of the client went on unread, at most [`Self::unread_request`].
    pub fn pass_request(&mut self, n: usize) {
        match self {
            Self::Http1(session) => session.pass_request(n),
            Self::Http2(_) => {}
        }
    }

    /// This many bytes of the server went on unread, at most [`Self::unread_response`].
    pub fn pass_response(&mut self, n: usize, now: Instant) {
        match self {
            Self::Http1(session) => session.pass_response(n, now),
            Self::Http2(_) => {}
        }
    }

    /// The time to the first data of a response, once for each.
    pub fn take_latency(&mut self) -> Option<Duration> {
        match self {
            Self::Http1(session) => session.take_latency(),
            Self::Http2(session) => session.take_latency(),
        }
    }

    /// Whether requests that were held back may go on since the last call.
    pub fn take_resumed(&mut self) -> bool {
        match self {
            Self::Http1(session) => session.take_resumed(),
            Self::Http2(_) => false,
        }
    }

    /// Whether the client has been refused: nothing of it is read any more.
    pub fn is_refused(&self) -> bool {
        match self {
            Self::Http1(session) => session.is_refused(),
            Self::Http2(session) => session.is_refused(),
        }
    }

    /// No server is found: what the client has asked is answered in its place.
    pub fn lead_nowhere(&mut self) {
        match self {
            Self::Http1(session) => session.lead_nowhere(),
            Self::Http2(_) => {}
        }
    }

    /// Whether nothing more of the client goes on.
    pub fn takes_nothing(&self) -> bool {
        match self {
            Self::Http1(session) => session.takes_nothing(),
            Self::Http2(session) => session.is_refused(),
        }
    }

    /// Whether the server, too, is to learn that no more requests come.
    pub fn is_cut(&self) -> bool {
        match self {
            Self::Http1(session) => session.is_cut(),
            Self::Http2(_) => false,
        }
    }

    /// The proxy's own answer, once every request before the refused one is answered.
    pub fn refusal(&self) -> Option<Reply> {
        match self {
            Self::Http1(session) => session.refusal(),
            Self::Http2(session) => session.may_answer().then_some(Reply::Denied),
        }
    }

    /// This reply, in the session's protocol.
    pub fn answer(&self, reply: Reply) -> Answer {
        self.answer_at(reply, None)
    }

    /// The same, at this hop ([`Reply::error_at`]).
    pub fn answer_at(&self, reply: Reply, hop: Option<SocketAddr>) -> Answer {
        let (bytes, requests) = match self {
            Self::Http1(_) => (reply.bytes_at(hop), 1),
            Self::Http2(session) => {
                let (bytes, requests) = session.answer(reply.status(), &reply.error_at(hop));
                (Cow::Owned(bytes), requests)
            }
        };
        Answer { bytes, requests }
    }

    /// What requests are counted under now.
    pub fn book(&self) -> Option<&Book> {
        match self {
            Self::Http1(session) => Some(session.book()),
            Self::Http2(_) => None,
        }
    }

    /// Why the server is to be left for another one, once what was approved is written. Of HTTP/2 it never is.
    pub fn leave(&self) -> Option<Leave> {
        match self {
            Self::Http1(session) => session.leave(),
            Self::Http2(_) => None,
        }
    }

    /// A server is looked for: answers of which backends it is to be.
    pub fn set_out(&mut self, now: Instant) -> Option<Branch> {
        match self {
            Self::Http1(session) => session.set_out(now),
            Self::Http2(_) => None,
        }
    }

    /// The server that was found has answered before.
    pub fn met_before(&mut self) {
        match self {
            Self::Http1(session) => session.met_before(),
            Self::Http2(_) => {}
        }
    }

    /// Of which backends the server is, where routes have their own.
    pub fn here(&self) -> Option<&Branch> {
        match self {
            Self::Http1(session) => session.here(),
            Self::Http2(_) => None,
        }
    }

    /// When the request began that another server is looked for.
    pub fn since(&self) -> Option<Instant> {
        match self {
            Self::Http1(session) => session.since(),
            Self::Http2(_) => None,
        }
    }

    /// What the server is to be given before anything else of the client.
    pub fn replay(&self) -> &[u8] {
        match self {
            Self::Http1(session) => session.replay(),
            Self::Http2(_) => &[],
        }
    }

    /// It was given that much.
    pub fn replayed(&mut self, n: usize) {
        match self {
            Self::Http1(session) => session.replayed(n),
            Self::Http2(_) => {}
        }
    }

    /// Whether what the client has sent ahead is needed although the server takes no more.
    pub fn is_kept(&self) -> bool {
        match self {
            Self::Http1(session) => session.is_kept(),
            Self::Http2(_) => false,
        }
    }

    /// The server has ended. Answers whether it is left for another one.
    pub fn server_lost(&mut self, now: Instant) -> bool {
        match self {
            Self::Http1(session) => session.server_lost(now),
            Self::Http2(_) => false,
        }
    }

    /// How long the request that waits for a server may take from its head on.
    pub fn patience(&self) -> Option<Duration> {
        match self {
            Self::Http1(session) => session.patience(),
            Self::Http2(_) => None,
        }
    }

    /// By when the response that comes next must have begun. Services with such times have their
    /// HTTP/2 terminated.
    pub fn deadline(&self) -> Option<Instant> {
        match self {
            Self::Http1(session) => session.deadline(),
            Self::Http2(_) => None,
        }
    }

    /// The time of [`Self::deadline`] is up: [`Self::refusal`] says what is answered.
    pub fn expire(&mut self, now: Instant) {
        match self {
            Self::Http1(session) => session.expire(now),
            Self::Http2(_) => {}
        }
    }

    /// Whether the server was waited for in vain.
    pub fn is_late(&self) -> bool {
        match self {
            Self::Http1(session) => session.is_late(),
            Self::Http2(_) => false,
        }
    }

    /// The server has closed its side.
    pub fn server_eof(&mut self, now: Instant) {
        match self {
            Self::Http1(session) => session.server_eof(now),
            Self::Http2(session) => session.server_eof(now),
        }
    }

    /// The client has closed its side.
    pub fn client_eof(&mut self) {
        match self {
            Self::Http1(session) => session.client_eof(),
            Self::Http2(session) => session.client_eof(),
        }
    }

    /// Whether the first answer of this connection never came: the client can be told.
    pub fn owes_first_answer(&self) -> bool {
        match self {
            Self::Http1(session) => session.owes_first_answer(),
            Self::Http2(session) => session.owes_first_answer(),
        }
    }

    /// Whether the connection has become a tunnel.
    pub fn is_tunnel(&self) -> bool {
        match self {
            Self::Http1(session) => session.is_tunnel(),
            Self::Http2(_) => false,
        }
    }

    /// Whether a request is under way.
    pub fn is_busy(&self) -> bool {
        match self {
            Self::Http1(session) => session.is_busy(),
            Self::Http2(session) => session.is_busy(),
        }
    }

    /// Whether the connection no longer carries HTTP that is followed.
    pub fn is_opaque(&self) -> bool {
        match self {
            Self::Http1(session) => session.is_opaque(),
            Self::Http2(session) => session.is_opaque(),
        }
    }

    /// Closes every open account: what is not answered yet never will be, and ends in this way.
    pub fn end_all(&mut self, now: Instant, end: End) {
        match self {
            Self::Http1(session) => session.end_all(now, end),
            Self::Http2(session) => session.end_all(now, end),
        }
    }
}
