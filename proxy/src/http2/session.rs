//! One HTTP/2 connection pair as a state machine without I/O: it is shown the bytes of both
//! directions in order, all of which go on at once, and keeps the accounts of their streams.
//!
//! The relay owns it, behind what it shares with HTTP/1. What cannot be followed ends the measuring
//! of the connection, never its traffic. It must not know sockets, buffers or timers.
//!
//! What a server pushes answers no request: it is decoded, and not counted. It asks no routes: a service that has some
//! when a connection begins is spoken to by `terminate`, because which fields they ask for may change at any time, and
//! those that HPACK did not keep cannot be had again.

use std::time::{Duration, Instant};

use super::call::{Call, Said};
use super::frame::HEAD;
use super::lane::{Event, Lane, Unreadable};
use super::streams::Streams;
use super::{MAX_STREAMS, reason, reply};

mod deny;
use crate::exchange::{End, Exchange};
use crate::record::{Http2Account, HttpLedger};
use crate::routes::Choice;

/// The state machine of one connection pair.
pub struct Session {
    client: Lane,
    server: Lane,
    streams: Streams<Call>,
    /// The last stream that the client has opened.
    last: u32,
    /// What the server's GOAWAY has said: the last stream it will answer, and why.
    goaway: Option<(u32, u32)>,
    server_spoke: bool,
    client_left: bool,
    /// The connection is no longer measured.
    is_stopped: bool,
    /// There were more streams than are measured at a time.
    has_overflowed: bool,
    account: Http2Account,
    /// Time to the first data of the last response, until it is taken.
    latency: Option<Duration>,
    ledger: HttpLedger,
    /// Where the next request is counted that is refused; none while the client may make requests. Boxed, because hardly
    /// any connection has one.
    denied: Option<Box<HttpLedger>>,
    /// The last stream before the first that was refused. Nothing after it goes on.
    cut: Option<u32>,
    /// The client was asked to leave.
    is_asked: bool,
}

impl Session {
    pub fn new(ledger: HttpLedger) -> Self {
        Self {
            client: Lane::of_client(),
            server: Lane::of_server(),
            streams: Streams::default(),
            last: 0,
            goaway: None,
            server_spoke: false,
            client_left: false,
            is_stopped: false,
            has_overflowed: false,
            account: ledger.http2(),
            latency: None,
            ledger,
            denied: None,
            cut: None,
            is_asked: false,
        }
    }

    /// What follows is counted here, and may go on.
    pub fn settle(&mut self, ledger: HttpLedger) {
        self.denied = None;
        if !self.is_refused() {
            self.client.hold_above(None);
            self.ledger = ledger;
        }
    }

    /// How many of the next bytes, of either side, may go by unread.
    pub fn unread(&self) -> u64 {
        if self.is_stopped { u64::MAX } else { 0 }
    }

    /// The time to the first data of a response, once for each.
    pub fn take_latency(&mut self) -> Option<Duration> {
        self.latency.take()
    }

    /// The server's side is connected.
    pub fn dialed(&mut self) {
        self.account.dialed();
    }

    /// Shows the client's bytes; all of them may go, unless the client may make no more requests.
    pub fn request_bytes(&mut self, bytes: &[u8], now: Instant) -> usize {
        let may_request = self.denied.is_none() && !self.is_refused();
        let mut passed = self.is_refused().then_some(0);
        let mut rest = bytes;
        while !self.is_stopped {
            match self.client.next(&mut rest) {
                Ok(Some(event)) => self.client_event(event, now),
                Ok(None) if rest.len() < HEAD => break,
                Ok(None) => {
                    passed = Some(bytes.len() - rest.len());
                    self.refuse();
                }
                Err(why) => self.stop(why, now),
            }
        }
        match passed {
            Some(n) => n,
            None if may_request => bytes.len(),
            None => bytes.len() - rest.len(),
        }
    }

    /// Shows the server's bytes; all of them may go.
    pub fn response_bytes(&mut self, bytes: &[u8], now: Instant) -> usize {
        self.server_spoke |= !bytes.is_empty();
        let mut rest = bytes;
        while !self.is_stopped {
            match self.server.next(&mut rest) {
                Ok(Some(event)) => self.server_event(event, now),
                Ok(None) => break,
                Err(why) => self.stop(why, now),
            }
        }
        bytes.len()
    }

    /// The client has closed its side: it may still read.
    pub fn client_eof(&mut self) {
        self.client_left = true;
        if self.denied.is_some() {
            // It has no more requests: what is held of one never goes on.
            self.refuse();
        }
    }

    /// The server has closed its side: what it has not answered it never will.
    pub fn server_eof(&mut self, now: Instant) {
        let end = match self.client_left {
            true => End::Canceled,
            false => End::Reset,
        };
        self.end_all(now, end);
    }

    /// Bytes of memory that it holds beside itself: bounded whatever the peers send.
    pub fn held(&self) -> usize {
        self.streams.held() + self.client.held() + self.server.held()
    }

    /// Whether a stream is open.
    pub fn is_busy(&self) -> bool {
        !self.streams.is_empty()
    }

    /// Whether the connection is no longer measured.
    pub fn is_opaque(&self) -> bool {
        self.is_stopped
    }

    /// Whether requests wait for a server that has never said anything.
    pub fn owes_first_answer(&self) -> bool {
        !self.server_spoke && self.is_busy()
    }

    /// An answer in the server's place, as frames: to all requests that wait, if the server has
    /// never said anything. Also says how many those are.
    pub fn answer(&self, status: u16, error: &str) -> (Vec<u8>, usize) {
        let streams = self.streams.iter().map(|(stream, _)| stream);
        let streams = streams.filter(|stream| self.cut.is_none_or(|cut| *stream > cut));
        reply::answer(streams, self.last, (status, error))
    }

    fn client_event(&mut self, event: Event<'_>, now: Instant) {
        match event {
            Event::Headers { stream, ends } => {
                let is_new = stream > self.last && stream % 2 == 1;
                if is_new {
                    self.last = stream;
                    self.open(stream, now);
                    self.hold_next();
                }
                if ends {
                    self.client_ended(stream, now);
                }
            }
            Event::Payload { .. } if self.is_refused() => {}
            Event::Payload { stream, bytes } => {
                if let Some(call) = self.streams.get_mut(stream) {
                    call.client_sent(bytes);
                }
            }
            Event::DataEnd { stream, ends: true } => self.client_ended(stream, now),
            Event::Reset { stream, code } => self.reset_by_client(stream, code, now),
            Event::Settings { table } => self.server.decoder.announce(table),
            Event::Acknowledged => self.client.decoder.acknowledge(),
            Event::Data { .. } | Event::DataEnd { .. } | Event::GoAway { .. } => {}
        }
    }

    fn server_event(&mut self, event: Event<'_>, now: Instant) {
        match event {
            Event::Headers { stream, ends } => {
                self.answered(stream, ends, now);
                if ends {
                    self.server_ended(stream, now);
                }
            }
            Event::Data { stream } => {
                let known = self.streams.get_mut(stream);
                if let Some(latency) = known.and_then(|call| call.data_begins(now)) {
                    self.latency = Some(latency);
                }
            }
            Event::Payload { stream, bytes } => {
                if let Some(call) = self.streams.get_mut(stream) {
                    call.server_sent(bytes);
                }
            }
            Event::DataEnd { stream, ends: true } => self.server_ended(stream, now),
            Event::DataEnd { .. } => {}
            Event::Reset { stream, code } => self.reset_by_server(stream, code, now),
            Event::GoAway { last, code } => self.server_leaves(last, code, now),
            Event::Settings { table } => self.client.decoder.announce(table),
            Event::Acknowledged => self.server.decoder.acknowledge(),
        }
    }

    /// The head of a request.
    fn open(&mut self, stream: u32, now: Instant) {
        let head = self.client.fields();
        let authority = head.target();
        let account = self.ledger.account(authority, &Choice::Unrouted);
        let exchange = Exchange::open(account, now);
        if self.goaway.is_some_and(|(last, _)| stream > last) {
            return exchange.end(now, End::Reset);
        }
        if self.streams.len() >= MAX_STREAMS {
            if !self.has_overflowed {
                self.has_overflowed = true;
                self.ledger.unparsed("h2 streams");
            }
            return exchange.end(now, End::Unfollowed);
        }
        let grpc = head.is_grpc.then(|| self.ledger.grpc(authority));
        let call = Call::new(exchange, grpc, head.is_connect);
        self.streams.push(stream, call);
        self.account.stream_opened();
    }

    /// The head of a response, or its trailers.
    fn answered(&mut self, stream: u32, ends: bool, now: Instant) {
        let Some(call) = self.streams.get_mut(stream) else {
            return;
        };
        let fields = self.server.fields();
        let said = Said {
            status: fields.status,
            grpc_status: fields.grpc_status,
            is_grpc: fields.is_grpc,
        };
        call.answered(said, ends, now);
    }

    fn client_ended(&mut self, stream: u32, now: Instant) {
        if let Some(call) = self.streams.get_mut(stream) {
            call.client_ended(now);
            if call.is_over() {
                self.forget(stream);
            }
        }
    }

    fn server_ended(&mut self, stream: u32, now: Instant) {
        if let Some(call) = self.streams.get_mut(stream) {
            self.latency = call.server_ended(now).or(self.latency);
            if call.is_over() {
                self.forget(stream);
            }
        }
    }

    fn reset_by_client(&mut self, stream: u32, code: u32, now: Instant) {
        if let Some(call) = self.streams.get_mut(stream) {
            call.reset_by_client(code, now);
            self.forget(stream);
        }
    }

    fn reset_by_server(&mut self, stream: u32, code: u32, now: Instant) {
        if let Some(call) = self.streams.get_mut(stream) {
            call.reset_by_server(code, now);
            self.forget(stream);
        }
    }

    /// GOAWAY: the streams above its last one are never answered (RFC 9113 section 6.8).
    fn server_leaves(&mut self, last: u32, code: u32, now: Instant) {
        let before = self.goaway.map_or(last, |(before, _)| before);
        self.goaway = Some((last.min(before), code));
        while let Some(mut call) = self.streams.pop_above(last) {
            call.end(now, End::Broken(reason::label(code)));
            self.account.stream_closed();
        }
    }

    fn forget(&mut self, stream: u32) {
        if self.streams.remove(stream).is_some() {
            self.account.stream_closed();
        }
    }

    /// Ends the measuring; what was under way stays unknown.
    fn stop(&mut self, why: Unreadable, now: Instant) {
        tracing::debug!(%why, "HTTP/2 goes on unmeasured");
        self.ledger.unparsed(why.reason());
        self.is_stopped = true;
        self.end_all(now, End::Unfollowed);
        (self.client, self.server) = (Lane::of_client(), Lane::of_server());
    }

    /// Closes every open account: what is not answered yet never will be, and ends in this way.
    pub fn end_all(&mut self, now: Instant, end: End) {
        self.end_refused(now);
        let end = match (end, self.goaway) {
            (End::Reset, Some((_, code))) if code != reason::NO_ERROR => {
                End::Broken(reason::label(code))
            }
            (end, _) => end,
        };
        while let Some(mut call) = self.streams.pop_above(0) {
            call.cut(now, end);
            self.account.stream_closed();
        }
    }
}
