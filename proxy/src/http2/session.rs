//! One HTTP/2 connection pair as a state machine without I/O: it is shown the bytes of both
//! directions in order, all of which go on at once, and keeps the accounts of their streams.
//!
//! The relay owns it, behind what it shares with HTTP/1. What cannot be followed ends the measuring
//! of the connection, never its traffic. It must not know sockets, buffers or timers.
//!
//! What a server pushes answers no request: it is decoded, and not counted.

use std::time::{Duration, Instant};

use super::grpc::Messages;
use super::lane::{Event, Lane, Unreadable};
use super::streams::Streams;
use super::{MAX_STREAMS, reason, reply};
use crate::exchange::{End, Exchange};
use crate::record::{GrpcAccount, Http2Account, HttpLedger};

/// One stream that a client has opened.
struct Stream {
    /// The account; none once the response has ended.
    exchange: Option<Exchange>,
    /// The account of its messages, where it is a gRPC call.
    grpc: Option<GrpcAccount>,
    requests: Messages,
    /// None before a head says that the response is gRPC's.
    responses: Option<Messages>,
    is_connect: bool,
    /// A CONNECT that was accepted (RFC 9113 section 8.5, RFC 8441).
    is_tunnel: bool,
    client_ended: bool,
    server_ended: bool,
}

impl Stream {
    fn end(&mut self, now: Instant, end: End) {
        if let Some(exchange) = self.exchange.take() {
            exchange.end(now, end);
        }
    }
}

/// The state machine of one connection pair.
pub struct Session {
    client: Lane,
    server: Lane,
    streams: Streams<Stream>,
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
        }
    }

    /// What follows is counted here. Nothing has been opened yet.
    pub fn settle(&mut self, ledger: HttpLedger) {
        self.ledger = ledger;
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

    /// Shows the client's bytes; all of them may go.
    pub fn request_bytes(&mut self, bytes: &[u8], now: Instant) -> usize {
        let mut rest = bytes;
        while !self.is_stopped {
            match self.client.next(&mut rest) {
                Ok(Some(event)) => self.client_event(event, now),
                Ok(None) => break,
                Err(why) => self.stop(why, now),
            }
        }
        bytes.len()
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
        reply::answer(streams, self.last, (status, error))
    }

    /// Closes every open account: the connection has ended in this way.
    pub fn finish(mut self, now: Instant, end: End) {
        self.end_all(now, end);
    }

    fn client_event(&mut self, event: Event<'_>, now: Instant) {
        match event {
            Event::Headers { stream, ends } => {
                let is_new = stream > self.last && stream % 2 == 1;
                if is_new {
                    self.last = stream;
                    self.open(stream, now);
                }
                if ends {
                    self.client_ended(stream, now);
                }
            }
            Event::Payload { stream, bytes } => {
                let known = self.streams.get_mut(stream);
                if let Some(s) = known
                    && let Some(grpc) = &s.grpc
                {
                    grpc.client_sent(s.requests.feed(bytes));
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
                let exchange = known.and_then(|s| s.exchange.as_mut());
                if let Some(exchange) = exchange.filter(|e| e.has_head())
                    && let Some(latency) = exchange.first_data(now)
                {
                    self.latency = Some(latency);
                }
            }
            Event::Payload { stream, bytes } => {
                let known = self.streams.get_mut(stream);
                if let Some(s) = known
                    && let (Some(grpc), Some(messages)) = (&s.grpc, &mut s.responses)
                {
                    grpc.server_sent(messages.feed(bytes));
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
        let exchange = Exchange::open(self.ledger.series(authority), now);
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
        let opened = Stream {
            exchange: Some(exchange),
            grpc: head.is_grpc.then(|| self.ledger.grpc(authority)),
            requests: Messages::default(),
            responses: None,
            is_connect: head.is_connect,
            is_tunnel: false,
            client_ended: false,
            server_ended: false,
        };
        self.streams.push(stream, opened);
        self.account.stream_opened();
    }

    /// The head of a response, or its trailers.
    fn answered(&mut self, stream: u32, ends: bool, now: Instant) {
        let Some(s) = self.streams.get_mut(stream) else {
            return;
        };
        let Some(exchange) = &mut s.exchange else {
            return;
        };
        let fields = self.server.fields();
        if !exchange.has_head() {
            let Some(status) = fields.status.filter(|status| *status >= 200) else {
                return;
            };
            exchange.head(status);
            s.responses = fields.is_grpc.then(Messages::default);
            if s.is_connect && status < 300 {
                s.is_tunnel = true;
                exchange.first_data(now);
            }
        }
        if ends {
            exchange.grpc_status(fields.grpc_status);
        }
    }

    fn client_ended(&mut self, stream: u32, now: Instant) {
        let Some(s) = self.streams.get_mut(stream) else {
            return;
        };
        s.client_ended = true;
        if s.server_ended {
            self.close(stream, now, End::Complete);
        }
    }

    fn server_ended(&mut self, stream: u32, now: Instant) {
        let Some(s) = self.streams.get_mut(stream) else {
            return;
        };
        s.server_ended = true;
        if let Some(exchange) = s.exchange.as_mut().filter(|e| e.has_head())
            && let Some(latency) = exchange.first_data(now)
        {
            self.latency = Some(latency);
        }
        if s.client_ended {
            self.close(stream, now, End::Complete);
        } else if !s.is_tunnel {
            s.end(now, End::Complete);
        }
    }

    fn reset_by_client(&mut self, stream: u32, code: u32, now: Instant) {
        let end = match self.streams.get_mut(stream) {
            Some(s) if s.is_tunnel => tunnel_end(code),
            Some(_) => End::Canceled,
            None => return,
        };
        self.close(stream, now, end);
    }

    fn reset_by_server(&mut self, stream: u32, code: u32, now: Instant) {
        let end = match self.streams.get_mut(stream) {
            Some(s) if s.is_tunnel => tunnel_end(code),
            Some(_) => End::Broken(reason::label(code)),
            None => return,
        };
        self.close(stream, now, end);
    }

    /// GOAWAY: the streams above its last one are never answered (RFC 9113 section 6.8).
    fn server_leaves(&mut self, last: u32, code: u32, now: Instant) {
        let before = self.goaway.map_or(last, |(before, _)| before);
        self.goaway = Some((last.min(before), code));
        while let Some(mut stream) = self.streams.pop_above(last) {
            stream.end(now, End::Broken(reason::label(code)));
            self.account.stream_closed();
        }
    }

    fn close(&mut self, stream: u32, now: Instant, end: End) {
        if let Some(mut stream) = self.streams.remove(stream) {
            stream.end(now, end);
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

    fn end_all(&mut self, now: Instant, end: End) {
        let end = match (end, self.goaway) {
            (End::Reset, Some((_, code))) if code != reason::NO_ERROR => {
                End::Broken(reason::label(code))
            }
            (end, _) => end,
        };
        while let Some(mut stream) = self.streams.pop_above(0) {
            let end = match end {
                End::Canceled if stream.is_tunnel => End::Reset,
                end => end,
            };
            stream.end(now, end);
            self.account.stream_closed();
        }
    }
}

/// How a tunnel ended that was reset: RST_STREAM is how some close what they no longer need.
fn tunnel_end(code: u32) -> End {
    match code {
        reason::NO_ERROR | reason::CANCEL => End::Complete,
        _ => End::Reset,
    }
}
