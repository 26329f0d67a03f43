//! RFC 9113 section by section, against the terminating path over a raw socket: the generic and
//! the HTTP/2 cases of h2spec, and some more. Each case says what is sent, and what must come.
//! h2spec itself passes, too (`e2e/h2spec/run`), but for its one case of what is no HTTP/2.
//!
//! A row names the reaction that the RFC names for its case. Where another comes that the RFC
//! allows in its place, the row says that too (`Case::or`), and `allows` judges it; what it does
//! not allow has its reason (`Case::stays`).

use std::collections::VecDeque;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use weir_proxy::http2::hpack::{Decoder, Fields};

use super::peer::Setup;
use super::proxy::{Proxy, soon};
use super::service::{by_streams, two};
use super::wire::{END_STREAM, PREFACE, acknowledgement, frame, headers, settings};

mod accepted;
mod connection;
mod flow;
mod frames;
mod messages;
mod streams;

pub(crate) const NO_ERROR: u32 = 0x0;
pub(crate) const PROTOCOL: u32 = 0x1;
pub(crate) const FLOW_CONTROL: u32 = 0x3;
pub(crate) const STREAM_CLOSED: u32 = 0x5;
pub(crate) const FRAME_SIZE: u32 = 0x6;
pub(crate) const REFUSED: u32 = 0x7;
pub(crate) const COMPRESSION: u32 = 0x9;
pub(crate) const CALM: u32 = 0xb;

/// What must come back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Must {
    /// Nothing ends: a PING is answered after it.
    Live,
    /// This status, on this stream, and nothing ends.
    Answer(u32, u16),
    /// RST_STREAM of this stream with this code, and the connection lives.
    Reset(u32, u32),
    /// GOAWAY with this code, and the connection closes.
    GoAway(u32),
}

/// One row.
pub(crate) struct Case {
    section: &'static str,
    name: &'static str,
    sent: Vec<u8>,
    must: Must,
    instead: Option<Instead>,
}

/// What comes instead of what the RFC names.
enum Instead {
    Allowed(Must),
    /// And why it is not mended.
    Stays(Must, &'static str),
}

/// Whether RFC 9113 lets the one come where it names the other. Section 5.4: "a generic error
/// code (such as PROTOCOL_ERROR or INTERNAL_ERROR) can always be used in place of more specific
/// error codes". Section 5.4.1: "an endpoint MAY choose to treat a stream error as a connection
/// error". h2spec takes no less: to it every connection that closes has ended as it must.
fn allows(named: &Must, comes: &Must) -> bool {
    let is_same = match (named, comes) {
        (Must::GoAway(_) | Must::Reset(..), Must::GoAway(_)) => true,
        (Must::Reset(stream, _), Must::Reset(same, _)) => stream == same,
        _ => false,
    };
    let code = |must: &Must| match must {
        Must::GoAway(code) | Must::Reset(_, code) => Some(*code),
        Must::Live | Must::Answer(..) => None,
    };
    is_same && (code(named) == code(comes) || code(comes) == Some(PROTOCOL))
}

#[test]
fn a_wider_error_and_a_generic_code_are_allowed_and_nothing_else() {
    let reset = Must::Reset(1, STREAM_CLOSED);
    let goaway = Must::GoAway(COMPRESSION);
    for (named, comes, is_allowed) in [
        (&reset, Must::Reset(1, PROTOCOL), true),
        (&reset, Must::GoAway(STREAM_CLOSED), true),
        (&reset, Must::GoAway(PROTOCOL), true),
        (&reset, Must::GoAway(CALM), false),
        (&reset, Must::Reset(3, STREAM_CLOSED), false),
        (&reset, Must::Live, false),
        (&goaway, Must::GoAway(PROTOCOL), true),
        (&goaway, Must::GoAway(FRAME_SIZE), false),
        (&goaway, Must::GoAway(NO_ERROR), false),
        (&goaway, Must::Reset(1, PROTOCOL), false),
        (&goaway, Must::Live, false),
        (&Must::Live, Must::GoAway(PROTOCOL), false),
        (&Must::Answer(1, 200), Must::Reset(1, PROTOCOL), false),
    ] {
        assert_eq!(allows(named, &comes), is_allowed, "{named:?}: {comes:?}");
    }
}

/// What follows the client's preface and its SETTINGS.
pub(crate) fn case(
    section: &'static str,
    name: &'static str,
    sent: Vec<Vec<u8>>,
    must: Must,
) -> Case {
    let hello = [PREFACE, &settings(&[]), &acknowledgement()].concat();
    Case {
        section,
        name,
        sent: [hello, sent.concat()].concat(),
        must,
        instead: None,
    }
}

impl Case {
    /// Comes instead of what the RFC names, and it allows that.
    pub(crate) fn or(mut self, comes: Must) -> Self {
        self.instead = Some(Instead::Allowed(comes));
        self
    }

    /// Comes instead of what the RFC asks for.
    pub(crate) fn stays(mut self, comes: Must, why: &'static str) -> Self {
        self.instead = Some(Instead::Stays(comes, why));
        self
    }

    fn expected(&self) -> &Must {
        match &self.instead {
            Some(Instead::Allowed(comes) | Instead::Stays(comes, _)) => comes,
            None => &self.must,
        }
    }

    /// What is wrong with how a row says what comes.
    fn misstated(&self) -> Option<&'static str> {
        let is_allowed = |comes| allows(&self.must, comes);
        match &self.instead {
            Some(Instead::Allowed(comes) | Instead::Stays(comes, _)) if *comes == self.must => {
                Some("it is as the RFC names it")
            }
            Some(Instead::Allowed(comes)) if !is_allowed(comes) => {
                Some("the RFC does not allow it")
            }
            Some(Instead::Stays(comes, _)) if is_allowed(comes) => Some("the RFC allows it"),
            Some(Instead::Stays(_, "")) => Some("it has no reason"),
            _ => None,
        }
    }

    /// Says this instead of the usual beginning.
    pub(crate) fn from(mut self, sent: Vec<Vec<u8>>) -> Self {
        self.sent = sent.concat();
        self
    }
}

/// The pseudo-header fields of a request, in the usual order.
pub(crate) const METHOD: (&str, &str) = (":method", "POST");
pub(crate) const SCHEME: (&str, &str) = (":scheme", "http");
pub(crate) const AUTHORITY: (&str, &str) = (":authority", "web.example");
pub(crate) const HANG: (&str, &str) = (":path", "/hang");

/// A request that is answered at once, whatever follows its head.
pub(crate) fn ask(stream: u32) -> Vec<u8> {
    let path = (":path", "/only");
    headers(stream, END_STREAM, &[METHOD, SCHEME, path, AUTHORITY])
}

/// A request that is never answered; its body is open.
pub(crate) fn open(stream: u32) -> Vec<u8> {
    headers(stream, 0, &[METHOD, SCHEME, HANG, AUTHORITY])
}

/// A request that is never answered, and is whole.
pub(crate) fn whole(stream: u32) -> Vec<u8> {
    headers(stream, END_STREAM, &[METHOD, SCHEME, HANG, AUTHORITY])
}

/// One with these fields beside the usual ones.
pub(crate) fn with(stream: u32, flags: u8, more: &[(&str, &str)]) -> Vec<u8> {
    headers(
        stream,
        flags,
        &[&[METHOD, SCHEME, HANG, AUTHORITY], more].concat(),
    )
}

pub(crate) fn ping() -> Vec<u8> {
    frame(0x6, 0, 0, b"a client")
}

/// A frame as it came.
#[derive(Debug)]
pub(crate) struct Frame {
    pub(crate) kind: u8,
    pub(crate) flags: u8,
    pub(crate) stream: u32,
    pub(crate) payload: Vec<u8>,
}

impl Frame {
    fn number(&self, at: usize) -> u32 {
        let bytes = self.payload[at..at + 4].try_into().expect("four bytes");
        u32::from_be_bytes(bytes)
    }
}

/// A client that writes bytes and reads frames.
pub(crate) struct Raw {
    stream: TcpStream,
    decoder: Decoder,
    /// What has come, but for what was waited for.
    pub(crate) seen: VecDeque<Frame>,
}

impl Raw {
    pub(crate) async fn connect(proxy: &Proxy) -> Self {
        Self {
            stream: proxy.connect().await,
            decoder: Decoder::default(),
            seen: VecDeque::new(),
        }
    }

    pub(crate) async fn write(&mut self, bytes: &[u8]) {
        // Who is cut off in the middle finds out when it reads.
        let _cut = soon(self.stream.write_all(bytes)).await;
    }

    /// The next frame; none at the end.
    pub(crate) async fn next(&mut self) -> Option<Frame> {
        let mut head = [0; 9];
        soon(self.stream.read_exact(&mut head)).await.ok()?;
        let [a, b, c, kind, flags, stream @ ..] = head;
        let mut payload = vec![0; u32::from_be_bytes([0, a, b, c]) as usize];
        soon(self.stream.read_exact(&mut payload)).await.ok()?;
        Some(Frame {
            kind,
            flags,
            stream: u32::from_be_bytes(stream),
            payload,
        })
    }

    /// Reads to the end; answers the code of the GOAWAY that came last.
    pub(crate) async fn end(&mut self) -> Option<u32> {
        let mut code = None;
        while let Some(frame) = self.next().await {
            if frame.kind == 0x7 {
                code = Some(frame.number(4));
            }
        }
        code
    }

    /// Reads to the head that answers this stream.
    pub(crate) async fn answer(&mut self, stream: u32) -> u16 {
        loop {
            let frame = self.next().await.expect("an answer");
            if (frame.kind, frame.stream) == (0x1, stream) {
                return self.status(&frame).expect("a status");
            }
        }
    }

    /// Answers what ends the connection or a stream, else what answers `stream`, else that it
    /// lives, once two PINGs have come back: what the first one follows is written before the
    /// second.
    async fn outcome(&mut self, stream: Option<u32>) -> Must {
        let marker = |n: u8| frame(0x6, 0, 0, &[n; 8]);
        self.write(&marker(1)).await;
        let mut answer = None;
        let mut is_waited_for = stream.is_some();
        let mut has_ponged = false;
        loop {
            let Some(frame) = self.next().await else {
                panic!("closed without a word: {:?}", self.seen);
            };
            match (frame.kind, frame.payload.first()) {
                // Who has answered may end then.
                (0x7 | 0x3, _) if let Some((stream, status)) = stream.zip(answer) => {
                    return Must::Answer(stream, status);
                }
                (0x7, _) => {
                    let code = frame.number(4);
                    assert!(self.next().await.is_none(), "it closes");
                    return Must::GoAway(code);
                }
                (0x3, _) => return Must::Reset(frame.stream, frame.number(0)),
                (0x1, _) => {
                    let status = self.status(&frame);
                    if Some(frame.stream) == stream {
                        answer = status;
                        is_waited_for = false;
                    }
                }
                (0x6, Some(1)) if frame.flags == 1 => self.write(&marker(2)).await,
                (0x6, Some(2)) if frame.flags == 1 => has_ponged = true,
                _ => {}
            }
            self.seen.push_back(frame);
            if has_ponged && !is_waited_for {
                return match (stream, answer) {
                    (Some(stream), Some(status)) => Must::Answer(stream, status),
                    _ => Must::Live,
                };
            }
        }
    }

    fn status(&mut self, frame: &Frame) -> Option<u16> {
        let mut fields = Fields::default();
        let decoded = self.decoder.decode(&frame.payload, &mut fields);
        decoded.expect("a header block");
        fields.status
    }
}

/// Runs the rows; every one of them must do as it says.
async fn run(cases: Vec<Case>) {
    let mut config = by_streams();
    config.terminate.max_streams = 100;
    config.terminate.linger = Duration::from_millis(100);
    let proxy = two(Setup::default(), config).await;
    let mut wrong = Vec::new();
    for case in cases {
        let expected = case.expected();
        let stream = match expected {
            Must::Answer(stream, _) => Some(*stream),
            _ => None,
        };
        let mut raw = Raw::connect(&proxy).await;
        raw.write(&case.sent).await;
        let outcome = raw.outcome(stream).await;
        if outcome != *expected {
            wrong.push(format!(
                "{} {}: {outcome:?} and not {expected:?}",
                case.section, case.name
            ));
        }
        if let Some(how) = case.misstated() {
            wrong.push(format!("{} {}: {how}", case.section, case.name));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    // Nobody else has suffered.
    let mut raw = Raw::connect(&proxy).await;
    let hello = [PREFACE, &settings(&[]), &acknowledgement(), &ask(1)].concat();
    raw.write(&hello).await;
    assert_eq!(raw.outcome(Some(1)).await, Must::Answer(1, 200));
}
