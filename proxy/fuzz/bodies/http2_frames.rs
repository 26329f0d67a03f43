//! The session of HTTP/2: whatever two peers send, in whatever pieces, every byte passes at once,
//! every request that was opened is closed once, and what is remembered is bounded.
//!
//! The input, as `Arbitrary` makes it of bytes: whether the connection begins as it must, and steps.
//! Run by the fuzzer, and by `tests/corpora` on what is in `corpus`.

use std::time::Instant;

use arbitrary::{Arbitrary, Unstructured};
use weir_proxy::exchange::End;
use weir_proxy::http2::PREFACE;
use weir_proxy::http2::session::Session;
use weir_proxy::record::HttpLedger;
use weir_proxy::telemetry::Telemetry;

use super::book::{self, total};

/// Most that a session may hold: its streams, two blocks, two tables.
const BOUND: usize = 1024 * 1024;

#[derive(Arbitrary, Debug)]
enum Step<'a> {
    Up(&'a [u8]),
    Down(&'a [u8]),
    /// A frame that is whole: from the client or not, type, flags, stream, payload.
    Frame(bool, u8, u8, u8, &'a [u8]),
    /// A head that is whole: from the client or not, stream, end, which.
    Head(bool, u8, bool, u8),
}

/// Blocks, so that the fuzzer need not find each by itself; the last ones use the table.
const BLOCKS: [&[u8]; 8] = [
    b"\x82\x41\x03web",
    b"\x83\x01\x03web\x5f\x10application/grpc",
    b"\x02\x07CONNECT\x01\x01a",
    b"\x88",
    b"\x08\x03103",
    b"\x88\x5f\x10application/grpc",
    b"\x40\x0bgrpc-status\x0214",
    b"\xbe\xbf",
];

struct Pair {
    session: Session,
    telemetry: Telemetry,
}

impl Pair {
    fn new() -> Self {
        let (telemetry, book) = book::inbound();
        let mut session = Session::new(HttpLedger::new(book));
        session.dialed();
        Self { session, telemetry }
    }

    fn show(&mut self, is_up: bool, bytes: &[u8]) {
        let now = Instant::now();
        let n = match is_up {
            true => self.session.request_bytes(bytes, now),
            false => self.session.response_bytes(bytes, now),
        };
        assert_eq!(n, bytes.len(), "nothing is held back");
        assert!(self.session.held() <= BOUND);
    }

    fn frame(&mut self, is_up: bool, [kind, flags, stream]: [u8; 3], payload: &[u8]) {
        let len = (payload.len() as u32).to_be_bytes();
        self.show(
            is_up,
            &[len[1], len[2], len[3], kind, flags, 0, 0, 0, stream],
        );
        self.show(is_up, payload);
    }

    fn step(&mut self, step: &Step<'_>) {
        match *step {
            Step::Up(bytes) => self.show(true, bytes),
            Step::Down(bytes) => self.show(false, bytes),
            Step::Frame(is_up, kind, flags, stream, payload) => {
                self.frame(is_up, [kind % 11, flags, stream], payload);
            }
            Step::Head(is_up, stream, ends, which) => {
                let block = BLOCKS[usize::from(which) % BLOCKS.len()];
                self.frame(is_up, [1, 4 | u8::from(ends), stream % 16], block);
            }
        }
    }
}

pub(crate) fn run(data: &[u8]) {
    let input = <(bool, Vec<Step<'_>>)>::arbitrary_take_rest(Unstructured::new(data));
    let Ok((is_proper, steps)) = input else {
        return;
    };
    let mut pair = Pair::new();
    if is_proper {
        pair.show(true, PREFACE);
        pair.frame(true, [4, 0, 0], &[]);
        pair.frame(false, [4, 0, 0], &[]);
    }
    for step in &steps {
        pair.step(step);
    }
    let Pair {
        mut session,
        telemetry,
    } = pair;
    session.end_all(Instant::now(), End::Reset);
    drop(session);
    let requests = total(&telemetry, "request_total{");
    assert_eq!(
        requests,
        total(&telemetry, "response_total{"),
        "closed once"
    );
    assert_eq!(total(&telemetry, "http2_active"), 0.0, "nothing stays open");
}
