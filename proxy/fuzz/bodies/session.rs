//! The session: whatever two peers send, in whatever pieces, every byte passes or is refused,
//! and every request that was opened is closed once.
//!
//! The input: steps, each a byte with its kind and what that needs (see `Step::take`). Where the first byte is 255 the
//! client goes to one of several servers: what one of them has not seen, the next one is given whole. Run by the fuzzer,
//! and by `tests/corpora` on what is in `corpus`.

use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Instant;

use weir_proxy::exchange::End;
use weir_proxy::http1::MAX_HEAD;
use weir_proxy::http1::reply::Reply;
use weir_proxy::http1::session::{Hop, Leave, Session};
use weir_proxy::record::{Book, HttpLedger, Subject};
use weir_proxy::routes::Routing;
use weir_proxy::telemetry::Telemetry;

use super::book;

enum Step<'a> {
    Up(&'a [u8]),
    Down(&'a [u8]),
    Request(u8),
    Response(u8),
    ClientEnds,
    ServerEnds,
}

impl<'a> Step<'a> {
    /// Takes a step from the front: of bytes the next byte is their number, of whole messages
    /// which of them it is.
    fn take(data: &mut &'a [u8]) -> Option<Self> {
        let (&kind, rest) = data.split_first()?;
        *data = rest;
        Some(match kind % 6 {
            0 => Self::Up(take_bytes(data)?),
            1 => Self::Down(take_bytes(data)?),
            2 => Self::Request(take_byte(data)?),
            3 => Self::Response(take_byte(data)?),
            4 => Self::ClientEnds,
            _ => Self::ServerEnds,
        })
    }
}

fn take_byte(data: &mut &[u8]) -> Option<u8> {
    let (&byte, rest) = data.split_first()?;
    *data = rest;
    Some(byte)
}

fn take_bytes<'a>(data: &mut &'a [u8]) -> Option<&'a [u8]> {
    let len = usize::from(take_byte(data)?).min(data.len());
    let (bytes, rest) = data.split_at(len);
    *data = rest;
    Some(bytes)
}

/// Whole messages, so that the fuzzer need not find each by itself.
const REQUESTS: [&str; 6] = [
    "GET / HTTP/1.1\r\nHost: a\r\n\r\n",
    "HEAD / HTTP/1.1\r\nHost: a\r\n\r\n",
    "POST / HTTP/1.1\r\nContent-Length: 3\r\n\r\nabc",
    "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n",
    "GET / HTTP/1.1\r\nUpgrade: x\r\n\r\n",
    "CONNECT a:1 HTTP/1.1\r\n\r\n",
];
const RESPONSES: [&str; 7] = [
    "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
    "HTTP/1.1 100 Continue\r\n\r\n",
    "HTTP/1.1 101 Switching Protocols\r\n\r\n",
    "HTTP/1.1 304 Not Modified\r\n\r\n",
    "HTTP/1.1 200 OK\r\n\r\n",
    "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
    "3\r\nabc\r\n0\r\n\r\n",
];

struct Pair {
    session: Session,
    telemetry: Telemetry,
    /// What each direction has sent and the session holds back.
    up: Vec<u8>,
    down: Vec<u8>,
    ended: (bool, bool),
    /// The server, where it is one of several, and what it was given.
    at: Option<SocketAddr>,
    given: Vec<u8>,
}

impl Pair {
    fn new() -> Self {
        let (telemetry, book) = book::inbound();
        Self {
            session: Session::new(HttpLedger::new(book)),
            telemetry,
            up: Vec::new(),
            down: Vec::new(),
            ended: (false, false),
            at: None,
            given: Vec::new(),
        }
    }

    fn to_several() -> Self {
        let (telemetry, book) = book::inbound();
        let subject = Subject::Outbound {
            service: "web".into(),
            dst: book.labels.unknown_destination(),
        };
        let ledger = HttpLedger::new(Book { subject, ..book });
        let routing = Rc::new(Routing::new(1, fastrand::Rng::with_seed(0)));
        let mut pair = Self {
            session: Session::new(ledger.routed(&routing)),
            telemetry,
            ..Self::new()
        };
        pair.meets(1);
        pair
    }

    fn meets(&mut self, port: u16) {
        let addr = SocketAddr::from(([10, 0, 0, 7], port));
        self.at = Some(addr);
        self.session.dialed(Some(Hop {
            addr,
            has_other: true,
        }));
    }

    /// Takes the next server where the session asks for one.
    fn go_on(&mut self) -> bool {
        let Some(at) = self
            .at
            .filter(|_| self.session.leave() == Some(Leave::Again))
        else {
            return false;
        };
        self.session.set_out(Instant::now());
        assert!(self.session.replay() == self.given, "not what it was");
        assert!(self.session.refused().ends_with(&[at]));
        self.down.clear();
        self.ended.1 = false;
        self.meets(at.port() + 1);
        let n = self.session.replay().len();
        // Some of it, and the rest once more of the client has come.
        self.session.replayed(n / 2);
        let n = self.session.request_bytes(&self.up, Instant::now());
        self.given.extend(self.up.drain(..n));
        let n = self.session.replay().len();
        self.session.replayed(n);
        true
    }

    fn step(&mut self, step: Step<'_>) {
        match step {
            Step::Up(bytes) => self.send_up(bytes),
            Step::Request(n) => {
                self.send_up(REQUESTS[usize::from(n) % REQUESTS.len()].as_bytes());
            }
            Step::Down(bytes) => self.send_down(bytes),
            Step::Response(u8::MAX) if self.at.is_some() => {
                self.send_down(&Reply::Connect.bytes_at(self.at));
            }
            Step::Response(n) => {
                self.send_down(RESPONSES[usize::from(n) % RESPONSES.len()].as_bytes());
            }
            Step::ClientEnds => {
                self.ended.0 = true;
                self.session.client_eof();
            }
            Step::ServerEnds => {
                self.ended.1 = true;
                self.session.server_eof(Instant::now());
            }
        }
        self.pass();
    }

    fn send_up(&mut self, bytes: &[u8]) {
        // The relay stops reading where a head is too large to be held.
        let room = MAX_HEAD.saturating_sub(self.up.len());
        if !self.ended.0 {
            self.up.extend(&bytes[..bytes.len().min(room)]);
        }
    }

    fn send_down(&mut self, bytes: &[u8]) {
        if !self.ended.1 {
            self.down.extend(bytes);
        }
    }

    fn pass(&mut self) {
        loop {
            let n = self.session.request_bytes(&self.up, Instant::now());
            self.given.extend(self.up.drain(..n));
            let n = self.session.response_bytes(&self.down, Instant::now());
            self.down.drain(..n);
            assert!(self.down.len() < MAX_HEAD, "a response is held for ever");
            if !(self.go_on() | self.session.take_resumed()) {
                break;
            }
        }
        if self.session.is_opaque() {
            assert!(self.up.is_empty(), "an opaque connection holds bytes");
        }
    }
}

pub(crate) fn run(mut data: &[u8]) {
    let mut pair = match data.split_first() {
        Some((&u8::MAX, steps)) => {
            data = steps;
            Pair::to_several()
        }
        _ => Pair::new(),
    };
    while let Some(step) = Step::take(&mut data) {
        pair.step(step);
    }
    pair.session.end_all(Instant::now(), End::Reset);
    assert_eq!(
        book::total(&pair.telemetry, "request_total{"),
        book::total(&pair.telemetry, "response_total{"),
        "every request is closed once"
    );
}
