//! One HTTP/1 connection pair as a state machine without I/O: it is shown the bytes of
//! both directions in order and answers how many of them may go on.
//!
//! `forward::relay` owns it and moves the bytes. Bytes are approved as they came; the
//! only ones held back are an incomplete head, a refused request, and one that waits for
//! another server (`steer`). It must not know sockets, buffers or timers.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use attempt::Attempt;

use super::body::ChunkReader;
use super::reply::Reply;
use super::request::{self, ParsedRequest, RequestHead};
use super::{Framing, MAX_HEAD};
use crate::exchange::{End, Exchange};
use crate::record::{Account, HttpLedger};
use crate::routes::Choice;

mod begin;
mod opaque;
mod refuse;
mod responses;
mod route;
mod steer;
mod unread;
mod unseen;

pub use steer::Leave;
use steer::Steering;
use unseen::Unseen;
pub use unseen::{Hop, MAX_REFUSALS};

/// Requests that may be under way on one connection (pipelining); more wait.
pub const MAX_PIPELINE: usize = 64;

/// Where a direction stands.
#[derive(Debug)]
enum State {
    /// A head comes next.
    Head,
    /// This many bytes of body follow.
    Length(u64),
    Chunked(Box<ChunkReader>),
    /// The body ends with the connection. Of requests: the last one has been read, what may
    /// follow is none.
    UntilClose,
    /// Requests only: an offer to switch protocols is open, nothing may follow it yet.
    Held,
    /// Requests only: refused, nothing more is read.
    Refused(Reply),
    /// Requests only: as refused, but the application has answered already or begun to.
    Cut,
    /// Bytes pass unread until the end.
    Opaque,
}

/// The state machine of one connection pair.
pub struct Session {
    requests: State,
    responses: State,
    exchanges: VecDeque<Exchange<Account>>,
    /// The last request offers to switch protocols, and has not been answered.
    offers: bool,
    /// The last request asks for the connection to end with its response.
    is_last: bool,
    /// The exchange at the front has become a tunnel.
    tunnel: bool,
    /// Responses that have ended on this connection.
    completed: u64,
    /// Time to the first data of the last response, until it is taken.
    latency: Option<Duration>,
    /// The response under way may have another end to its client than to us.
    has_doubtful_end: bool,
    /// Requests were held back and may go on now.
    resumed: bool,
    request_attempt: Attempt,
    response_attempt: Attempt,
    /// The client has closed its side.
    client_ended: bool,
    /// The timeout of the route of the request that waits for a server.
    patience: Option<Duration>,
    /// The client may make no more requests.
    is_denied: bool,
    /// No server is looked for any more, whatever the routes say.
    is_led_nowhere: bool,
    /// What was drawn for the request that comes next.
    lot: Option<u32>,
    /// None while all requests go to one server, once.
    steering: Option<Box<Steering>>,
    unseen: Unseen,
    ledger: HttpLedger,
}

impl Session {
    pub fn new(ledger: HttpLedger) -> Self {
        Self {
            requests: State::Head,
            responses: State::Head,
            exchanges: VecDeque::new(),
            offers: false,
            is_last: false,
            tunnel: false,
            completed: 0,
            latency: None,
            has_doubtful_end: false,
            resumed: false,
            request_attempt: Attempt::default(),
            response_attempt: Attempt::default(),
            client_ended: false,
            patience: None,
            is_denied: false,
            is_led_nowhere: false,
            lot: None,
            steering: None,
            unseen: Unseen::default(),
            ledger,
        }
    }

    /// Shows the client's bytes that have not been approved yet; answers how many may go.
    pub fn request_bytes(&mut self, bytes: &[u8], now: Instant) -> usize {
        let mut at = 0;
        while at < bytes.len() {
            let rest = &bytes[at..];
            let n = match &mut self.requests {
                State::Head => self.request_head(rest, now),
                State::Length(left) => pass(left, rest),
                State::Chunked(reader) => match reader.feed(rest) {
                    Ok(n) => n,
                    Err(_) => self.refuse_body(now),
                },
                State::UntilClose if self.ledger.is_closed() => 0,
                State::Opaque | State::UntilClose => rest.len(),
                State::Held | State::Refused(_) | State::Cut => 0,
            };
            at += n;
            self.keep(&rest[..n]);
            self.end_of_request_body();
            if n == 0 {
                break;
            }
        }
        at
    }

    /// Shows the server's bytes that have not been approved yet; answers how many may go.
    pub fn response_bytes(&mut self, bytes: &[u8], now: Instant) -> usize {
        let mut at = 0;
        while at < bytes.len() && self.leave().is_none() {
            let rest = &bytes[at..];
            let is_body = !matches!(self.responses, State::Head | State::Opaque);
            let n = match &mut self.responses {
                State::Head => self.response_head(rest, now),
                State::Length(left) => pass(left, rest),
                State::Chunked(reader) => match reader.feed(rest) {
                    Ok(n) => n,
                    Err(_) => self.stop_following("response chunk", rest, now),
                },
                _ => rest.len(),
            };
            at += n;
            if is_body {
                self.response_progress(now);
            }
            if n == 0 {
                break;
            }
        }
        at
    }

    /// The time to the first data of a response, once for each.
    pub fn take_latency(&mut self) -> Option<Duration> {
        self.latency.take()
    }

    /// Whether requests that were held back may go on since the last call.
    pub fn take_resumed(&mut self) -> bool {
        std::mem::take(&mut self.resumed)
    }

    /// Whether the client has been refused: nothing of it is read any more.
    pub fn is_refused(&self) -> bool {
        matches!(self.requests, State::Refused(_) | State::Cut)
    }

    /// Whether nothing more of the client goes on: it has been refused, or has said at a closed port that this was its last.
    pub fn takes_nothing(&self) -> bool {
        let is_last = matches!(self.requests, State::UntilClose);
        self.is_refused() || is_last && self.ledger.is_closed()
    }

    /// Whether the server, too, is to learn that no more requests come.
    pub fn is_cut(&self) -> bool {
        matches!(self.requests, State::Cut)
    }

    /// The proxy's own answer, once every request before the refused one is answered.
    /// The first of them ends the session.
    pub fn refusal(&self) -> Option<Reply> {
        match self.requests {
            State::Refused(reply) if self.exchanges.is_empty() || self.is_late() => Some(reply),
            _ => None,
        }
    }

    /// The server has closed its side.
    pub fn server_eof(&mut self, now: Instant) {
        if matches!(self.responses, State::UntilClose) {
            self.end_front(now, End::Complete);
        }
        self.responses = State::Opaque;
    }

    /// The client has closed its side: what it sent of a head goes on as it is.
    pub fn client_eof(&mut self) {
        self.client_ended = true;
    }

    /// Whether the first answer of this connection never came: the client can be told.
    /// On a connection that worked before, a close is what clients expect and retry.
    pub fn owes_first_answer(&self) -> bool {
        self.completed == 0 && !self.tunnel && self.exchanges.front().is_some_and(|e| !e.has_head())
    }

    /// Whether a tunnel was opened (RFC 9110 sections 7.8 and 9.3.6).
    pub fn is_tunnel(&self) -> bool {
        self.tunnel
    }

    /// Whether a request is under way.
    pub fn is_busy(&self) -> bool {
        !self.exchanges.is_empty() || matches!(self.requests, State::Length(_) | State::Chunked(_))
    }

    /// Whether the connection no longer carries HTTP: a half-closed one may live on.
    pub fn is_opaque(&self) -> bool {
        self.tunnel || matches!(self.requests, State::Opaque)
    }

    /// Closes every open account: what is not answered yet never will be, and ends in this way.
    pub fn end_all(&mut self, now: Instant, end: End) {
        let tunnel = self.tunnel;
        for exchange in self.exchanges.drain(..) {
            let end = match end {
                End::Canceled if tunnel => End::Reset,
                end => end,
            };
            exchange.end(now, end);
        }
    }

    fn request_head(&mut self, bytes: &[u8], now: Instant) -> usize {
        if self.leave().is_some() {
            return 0;
        }
        if self.exchanges.len() >= self.most() {
            return self.wait_behind(bytes, now);
        }
        let is_last = self.client_ended || bytes.len() >= MAX_HEAD;
        if !(is_last || self.request_attempt.is_due(bytes)) {
            return 0;
        }
        match request::parse(bytes) {
            ParsedRequest::Incomplete if bytes.len() >= MAX_HEAD => self.refuse(Reply::TooLarge),
            ParsedRequest::Incomplete if !self.client_ended => {
                self.request_attempt.was_in_vain(bytes);
                0
            }
            ParsedRequest::Ambiguous(_) => self.refuse(Reply::BadRequest),
            ParsedRequest::Head(head) if self.is_denied => self.deny_request(head.authority, now),
            _ if self.is_denied => self.deny_request(b""[..].into(), now),
            ParsedRequest::Incomplete | ParsedRequest::Unparsed(_) if self.ledger.is_closed() => {
                self.refuse(Reply::BadRequest)
            }
            ParsedRequest::Head(head) if self.is_upgraded_past(&head) => {
                self.refuse(Reply::BadRequest)
            }
            ParsedRequest::Incomplete => {
                self.requests = State::Opaque;
                bytes.len()
            }
            ParsedRequest::Unparsed(why) => {
                self.ledger.unparsed(why);
                self.requests = State::Opaque;
                bytes.len()
            }
            ParsedRequest::Head(head) => {
                let choice = self.choose(&head, bytes);
                if !self.is_here(&head, &choice, now) {
                    return 0;
                }
                self.begin_keeping(steer::is_retryable(&head, bytes, &choice), &choice, now);
                self.open_exchange(&head, &choice, now)
            }
        }
    }

    fn open_exchange(&mut self, head: &RequestHead<'_>, choice: &Choice, now: Instant) -> usize {
        self.request_attempt.succeeded();
        self.lot = None;
        let account = self.ledger.account(head.authority, choice);
        let mut exchange = Exchange::open(account, now);
        if let Some(reply) = Reply::nowhere(choice) {
            let label = reply.label().unwrap_or_default();
            exchange.end(now, End::Replied(reply.status(), label));
            return self.refuse(reply);
        }
        exchange.is_head = head.is_head;
        exchange.is_connect = head.is_connect;
        self.exchanges.push_back(exchange);
        self.offers = head.is_connect || head.upgrade;
        self.is_last = head.is_last;
        self.requests = match head.framing {
            Framing::Length(n) => State::Length(n),
            Framing::Chunked => State::Chunked(Box::default()),
            Framing::None | Framing::UntilClose => self.after_request(),
        };
        head.len
    }

    /// What follows the request that has just been read to its end.
    fn after_request(&self) -> State {
        if self.offers {
            State::Held
        } else if self.is_last {
            State::UntilClose
        } else {
            State::Head
        }
    }

    fn end_of_request_body(&mut self) {
        let ended = match &self.requests {
            State::Length(left) => *left == 0,
            State::Chunked(reader) => reader.is_done(),
            _ => false,
        };
        if ended {
            self.requests = self.after_request();
        }
    }
}

/// Passes what remains of a body of known length.
fn pass(left: &mut u64, bytes: &[u8]) -> usize {
    let n = (*left).min(bytes.len() as u64);
    *left -= n;
    usize::try_from(n).expect("at most the length of a slice")
}

mod attempt;
#[cfg(test)]
mod tests;
