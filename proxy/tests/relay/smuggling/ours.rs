//! The boundaries that the session sees, found from outside: it is fed byte by byte, lets a head go in one
//! piece, and everything else as it comes.

use std::time::Instant;

use weir_proxy::exchange::End;
use weir_proxy::http1::body::ChunkReader;
use weir_proxy::http1::reply::Reply;
use weir_proxy::http1::request::{self, ParsedRequest};
use weir_proxy::http1::response::{self, ParsedResponse};
use weir_proxy::http1::session::Session;
use weir_proxy::http1::{Framing, MAX_HEAD};
use weir_proxy::record::HttpLedger;

use crate::book;

const DECLINED: &[u8] = b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n";

/// One message as the session delimits it.
#[derive(Debug)]
pub(crate) struct Message {
    pub(crate) head: Vec<u8>,
    /// Where it begins, interim answers included.
    start: usize,
    /// Its body as it passed.
    body: Vec<u8>,
    framing: Framing,
    chunks: ChunkReader,
}

/// What became of the bytes after the last message.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Rest {
    /// There are none, or more are awaited.
    None,
    Refused(Option<Reply>),
    /// They pass unread.
    Unread,
}

#[derive(Debug)]
pub(crate) struct Seen {
    pub(crate) messages: Vec<Message>,
    pub(crate) rest: Rest,
    /// Where what follows the last message begins.
    next: usize,
}

impl Seen {
    fn new() -> Self {
        Self {
            messages: Vec::new(),
            rest: Rest::None,
            next: 0,
        }
    }

    /// Where each message begins, and where one could that we have not seen.
    pub(crate) fn starts(&self) -> Vec<usize> {
        let mut starts: Vec<usize> = self.messages.iter().map(|m| m.start).collect();
        let is_over = self.messages.last().is_none_or(Message::is_whole);
        if self.rest == Rest::None && is_over {
            starts.push(self.next);
        }
        starts
    }
}

impl Message {
    fn new(head: &[u8], start: usize, framing: Framing) -> Self {
        Self {
            head: head.to_vec(),
            start,
            body: Vec::new(),
            framing,
            chunks: ChunkReader::default(),
        }
    }

    fn is_whole(&self) -> bool {
        match self.framing {
            Framing::None => true,
            Framing::Length(n) => self.body.len() as u64 == n,
            Framing::Chunked => self.chunks.is_done(),
            Framing::UntilClose => false,
        }
    }

    fn append(&mut self, bytes: &[u8]) {
        let _read = self.chunks.feed(bytes);
        self.body.extend(bytes);
    }

    /// The body without its coding; none where it has not ended.
    pub(crate) fn content(&self) -> Option<Vec<u8>> {
        match self.framing {
            Framing::UntilClose => Some(self.body.clone()),
            _ if !self.is_whole() => None,
            Framing::Chunked => Some(decoded(&self.body)),
            _ => Some(self.body.clone()),
        }
    }

    pub(crate) fn is_until_close(&self) -> bool {
        self.framing == Framing::UntilClose
    }
}

/// A chunked body that is known to be well-formed, decoded.
fn decoded(body: &[u8]) -> Vec<u8> {
    let mut content = Vec::new();
    let mut rest = body;
    loop {
        let line = memchr::memchr(b'\n', rest).expect("a size line");
        let digits = rest.iter().take_while(|b| b.is_ascii_hexdigit()).count();
        let size = std::str::from_utf8(&rest[..digits]).expect("digits");
        let size = usize::from_str_radix(size, 16).expect("a size");
        if size == 0 {
            return content;
        }
        content.extend(&rest[line + 1..line + 1 + size]);
        rest = &rest[line + 1 + size + 2..];
    }
}

fn session() -> Session {
    let (_telemetry, book) = book::inbound();
    Session::new(HttpLedger::new(book))
}

/// Shows requests. Offers to switch protocols are declined, everything before them answered.
pub(crate) fn requests(bytes: &[u8]) -> Seen {
    let now = Instant::now();
    let mut session = session();
    let mut seen = Seen::new();
    let (mut passed, mut answered) = (0, 0);
    for shown in 1..=bytes.len() {
        let window = &bytes[passed..shown.min(passed + MAX_HEAD)];
        let n = session.request_bytes(window, now);
        let went = &bytes[passed..passed + n];
        passed += n;
        if session.is_refused() {
            for _ in answered..seen.messages.len() {
                session.response_bytes(DECLINED, now);
            }
            seen.rest = Rest::Refused(session.refusal());
            break;
        }
        if session.is_opaque() {
            seen.rest = Rest::Unread;
            break;
        }
        match request::parse(went) {
            ParsedRequest::Head(head) if n > 1 => {
                let start = seen.next;
                seen.messages.push(Message::new(went, start, head.framing));
                if head.is_connect || head.upgrade {
                    for _ in answered..seen.messages.len() {
                        session.response_bytes(DECLINED, now);
                    }
                    answered = seen.messages.len();
                }
            }
            _ => append(&mut seen, went),
        }
    }
    session.end_all(now, End::Reset);
    seen
}

/// Adds to the last body; what comes after a body that has ended is nothing's.
fn append(seen: &mut Seen, bytes: &[u8]) {
    let Some(last) = seen.messages.last_mut().filter(|_| !bytes.is_empty()) else {
        return;
    };
    match last.is_whole() {
        true => seen.rest = Rest::Unread,
        false => last.append(bytes),
    }
}

/// Shows the answers to three requests: GET, HEAD, GET.
pub(crate) fn responses(bytes: &[u8]) -> Seen {
    let now = Instant::now();
    let mut session = session();
    for method in ["GET", "HEAD", "GET"] {
        let request = format!("{method} / HTTP/1.1\r\nHost: a\r\n\r\n");
        assert_eq!(
            session.request_bytes(request.as_bytes(), now),
            request.len()
        );
    }
    let mut seen = Seen::new();
    let mut passed = 0;
    for shown in 1..=bytes.len() {
        let n = session.response_bytes(&bytes[passed..shown], now);
        let went = &bytes[passed..passed + n];
        passed += n;
        if session.is_opaque() {
            seen.rest = Rest::Unread;
            break;
        }
        match response::parse(went, seen.messages.len() == 1) {
            ParsedResponse::Head(head) if n > 1 && head.status >= 200 => {
                let start = seen.next;
                seen.messages.push(Message::new(went, start, head.framing));
            }
            ParsedResponse::Head(_) if n > 1 => {}
            _ => append(&mut seen, went),
        }
        if n > 0 && seen.messages.last().is_some_and(Message::is_whole) {
            seen.next = passed;
        }
    }
    session.end_all(now, End::Reset);
    seen
}
