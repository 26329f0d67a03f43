//! The account of one stream, whichever way it takes through the proxy: its exchange, its gRPC
//! messages, and which of its two sides have ended.
//!
//! The session of the relay tells it what frames say, the terminating path what messages say. It
//! must not know frames, windows or connections.

use std::time::{Duration, Instant};

use super::grpc::Messages;
use super::reason;
use crate::exchange::{End, Exchange};
use crate::record::{Account, GrpcAccount};

/// What is counted of a response's head, or of its trailers.
#[derive(Clone, Copy, Debug, Default)]
pub struct Said {
    pub status: Option<u16>,
    pub grpc_status: Option<u16>,
    /// The content type is gRPC's.
    pub is_grpc: bool,
}

/// One stream that a client has opened. Dropping it closes its account as canceled.
pub struct Call {
    /// None once the response has ended.
    exchange: Option<Exchange<Account>>,
    /// The account of its messages, where it is a gRPC call.
    grpc: Option<GrpcAccount>,
    requests: Messages,
    /// None before a head says that the response is gRPC's.
    responses: Option<Messages>,
    is_connect: bool,
    /// A CONNECT that was accepted (RFC 9113 section 8.5, RFC 8441).
    is_tunnel: bool,
    is_timed: bool,
    client_ended: bool,
    server_ended: bool,
}

impl Call {
    pub fn new(exchange: Exchange<Account>, grpc: Option<GrpcAccount>, is_connect: bool) -> Self {
        Self {
            exchange: Some(exchange),
            grpc,
            requests: Messages::default(),
            responses: None,
            is_connect,
            is_tunnel: false,
            is_timed: false,
            client_ended: false,
            server_ended: false,
        }
    }

    /// Whether both sides have ended.
    pub fn is_over(&self) -> bool {
        self.client_ended && self.server_ended
    }

    /// Whether it is a tunnel now.
    pub fn is_tunnel(&self) -> bool {
        self.is_tunnel
    }

    /// Whether its time to the first data is known.
    pub fn is_timed(&self) -> bool {
        self.is_timed
    }

    /// Data of the request.
    pub fn client_sent(&mut self, bytes: &[u8]) {
        if let Some(grpc) = &self.grpc {
            grpc.client_sent(self.requests.feed(bytes));
        }
    }

    /// The head of a response, or its trailers.
    pub fn answered(&mut self, said: Said, ends: bool, now: Instant) {
        let Some(exchange) = &mut self.exchange else {
            return;
        };
        if !exchange.has_head() {
            let Some(status) = said.status.filter(|status| *status >= 200) else {
                return;
            };
            exchange.head(status);
            self.responses = said.is_grpc.then(Messages::default);
            if self.is_connect && status < 300 {
                self.is_tunnel = true;
                self.is_timed = true;
                exchange.first_data(now);
            }
        }
        if ends {
            exchange.grpc_status(said.grpc_status);
        }
    }

    /// Whether a response is a failure whose head says this.
    pub fn would_fail(&self, said: Said, ends: bool) -> bool {
        let grpc_status = said.grpc_status.filter(|_| ends);
        let exchange = self.exchange.as_ref();
        let status = said.status.filter(|_| !self.is_connect);
        status.is_some_and(|status| exchange.is_some_and(|e| e.would_fail(status, grpc_status)))
    }

    /// The attempt has come to this, and the request is sent once more.
    pub fn retried(&mut self, status: Option<u16>, error: &str) {
        if let Some(exchange) = &mut self.exchange {
            exchange.retry(status, error);
        }
    }

    /// A frame of the response's data begins. Answers the latency, once.
    pub fn data_begins(&mut self, now: Instant) -> Option<Duration> {
        let exchange = self.exchange.as_mut().filter(|e| e.has_head())?;
        self.is_timed = true;
        exchange.first_data(now)
    }

    /// Data of the response.
    pub fn server_sent(&mut self, bytes: &[u8]) {
        if let (Some(grpc), Some(messages)) = (&self.grpc, &mut self.responses) {
            grpc.server_sent(messages.feed(bytes));
        }
    }

    /// The request is whole.
    pub fn client_ended(&mut self, now: Instant) {
        self.client_ended = true;
        if self.server_ended {
            self.end(now, End::Complete);
        }
    }

    /// The response is whole. Answers the latency where there was no data before.
    pub fn server_ended(&mut self, now: Instant) -> Option<Duration> {
        self.server_ended = true;
        let latency = self.data_begins(now);
        if self.client_ended || !self.is_tunnel {
            self.end(now, End::Complete);
        }
        latency
    }

    /// The client has reset the stream.
    pub fn reset_by_client(&mut self, code: u32, now: Instant) {
        let end = match self.is_tunnel {
            true => tunnel_end(code),
            false => End::Canceled,
        };
        self.end(now, end);
    }

    /// The server has reset the stream.
    pub fn reset_by_server(&mut self, code: u32, now: Instant) {
        let end = match self.is_tunnel {
            true => tunnel_end(code),
            false => End::Broken(reason::label(code)),
        };
        self.end(now, end);
    }

    /// A connection has ended in this way, and the stream with it.
    pub fn cut(&mut self, now: Instant, end: End) {
        let end = match end {
            End::Canceled if self.is_tunnel => End::Reset,
            end => end,
        };
        self.end(now, end);
    }

    /// Closes the account, unless the response has ended before.
    pub fn end(&mut self, now: Instant, end: End) {
        if let Some(exchange) = self.exchange.take() {
            exchange.end(now, end);
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
