//! What following costs the relay: nanoseconds per request, its bytes already read. Targets: a request of HTTP/2
//! with its answer at most 500 ns, with gRPC's messages and trailers at most 800 ns.

use std::hint::black_box;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use criterion::{Criterion, criterion_group, criterion_main};
use weir_crds::routes::{Condition, Route, RouteTable, Text};
use weir_proxy::record::{Book, HttpLedger, Labels, Subject};
use weir_proxy::routes::{Routing, compile};
use weir_proxy::session::{Hop, Session};
use weir_proxy::telemetry::{self, Telemetry};

fn ledger() -> (Telemetry, HttpLedger) {
    ledger_of(|labels| Subject::Inbound {
        server: labels.default_server(8080),
    })
}

fn ledger_of(subject: impl FnOnce(&Labels) -> Subject) -> (Telemetry, HttpLedger) {
    let (telemetry, mut seats) = telemetry::new(telemetry::Config::default(), 1);
    let labels = Rc::new(Labels::new("all-unauthenticated"));
    let book = Book {
        recorder: Rc::new(seats.remove(0).take()),
        subject: subject(&labels),
        labels,
        target_port: 8080,
        standing: Default::default(),
    };
    (telemetry, HttpLedger::new(book))
}

fn frame(kind: u8, flags: u8, payload: &[u8]) -> Vec<u8> {
    let len = u32::try_from(payload.len()).expect("a short payload");
    let mut bytes = len.to_be_bytes()[1..].to_vec();
    bytes.extend([kind, flags, 0, 0, 0, 1]);
    bytes.extend(payload);
    bytes
}

/// A literal that is indexed, its strings as they are.
fn indexed(name: &str, value: &str) -> Vec<u8> {
    let mut field = vec![0x40];
    for text in [name, value] {
        field.push(u8::try_from(text.len()).expect("a short text"));
        field.extend(text.bytes());
    }
    field
}

/// Frames of one stream, and where its number is in them.
struct Frames {
    bytes: Vec<u8>,
    numbers: Vec<usize>,
}

impl Frames {
    fn new(frames: &[Vec<u8>]) -> Self {
        let (mut bytes, mut numbers) = (Vec::new(), Vec::new());
        for frame in frames {
            numbers.push(bytes.len() + 5);
            bytes.extend(frame);
        }
        Self { bytes, numbers }
    }

    fn of(&mut self, stream: u32) -> &[u8] {
        for at in &self.numbers {
            self.bytes[*at..at + 4].copy_from_slice(&stream.to_be_bytes());
        }
        &self.bytes
    }
}

/// Fields as a client repeats them, from the one that is first in the table.
const FIELDS: [(&str, &str); 6] = [
    ("content-type", "application/grpc"),
    (":authority", "web.shop.svc.cluster.local:8080"),
    ("user-agent", "a client of some length/1.2.3"),
    ("te", "trailers"),
    ("grpc-timeout", "5S"),
    (":path", "/shop.Cart/Add"),
];
const ANSWER: [(&str, &str); 3] = [
    ("content-type", "application/grpc"),
    ("grpc-status", "0"),
    ("date", "Thu, 26 Nov 2026 12:00:00 GMT"),
];

fn block(fields: &[(&str, &str)]) -> Vec<u8> {
    let literals = fields.iter().map(|(name, value)| indexed(name, value));
    literals.flatten().collect()
}

/// A session on which both tables are warm.
fn warm(ledger: HttpLedger) -> Session {
    let mut session = Session::http2(ledger);
    session.dialed(None);
    let now = Instant::now();
    let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
    let settings = [0, 0, 0, 0x4, 0, 0, 0, 0, 0];
    let hello = [
        &preface[..],
        &settings[..],
        &frame(0x1, 0x5, &block(&FIELDS)),
    ]
    .concat();
    session.request_bytes(&hello, now);
    session.response_bytes(&settings, now);
    session.response_bytes(
        &frame(0x1, 0x5, &[&[0x88], &block(&ANSWER)[..]].concat()),
        now,
    );
    assert!(!session.is_opaque() && !session.is_busy());
    session
}

fn run(c: &mut Criterion, name: &str, mut up: Frames, mut down: Frames) {
    let (_telemetry, ledger) = ledger();
    let mut session = warm(ledger);
    let (mut stream, now) = (1, Instant::now());
    c.bench_function(name, |b| {
        b.iter(|| {
            stream += 2;
            session.request_bytes(black_box(up.of(stream)), now);
            session.response_bytes(black_box(down.of(stream)), now);
        });
    });
    assert!(!session.is_opaque() && !session.is_busy());
}

fn http2(c: &mut Criterion) {
    // The six fields of the client are entries 62 to 67, those of the server 62 to 64.
    let get = frame(0x1, 0x5, &[0x82, 0x86, 0x84, 0xc2, 0xc1]);
    let ok = frame(0x1, 0x4, &[0x88, 0xbe]);
    let body = frame(0x0, 0x1, &[b'x'; 1024]);
    let (up, down) = (Frames::new(&[get]), Frames::new(&[ok, body]));
    run(c, "HTTP/2: HEADERS, then HEADERS and DATA", up, down);

    let call = frame(0x1, 0x4, &[0x83, 0x86, 0xbe, 0xbf, 0xc0, 0xc1, 0xc2, 0xc3]);
    let message = |flags| frame(0x0, flags, &[&[0, 0, 0, 0, 100][..], &[b'm'; 100]].concat());
    let head = frame(0x1, 0x4, &[0x88, 0xc0, 0xbe]);
    let trailers = frame(0x1, 0x5, &[0xbf]);
    let (up, down) = (
        Frames::new(&[call, message(1)]),
        Frames::new(&[head, message(0), trailers]),
    );
    run(
        c,
        "HTTP/2: a gRPC call, a message each way, trailers",
        up,
        down,
    );

    let unknown = [
        &[0x83, 0x86, 0xc2, 0xc1][..],
        &literal("/orders/4711?page=3"),
    ]
    .concat();
    let (up, down) = (
        Frames::new(&[frame(0x1, 0x5, &unknown)]),
        Frames::new(&[frame(0x1, 0x5, &[0x88])]),
    );
    run(c, "HTTP/2: a path that enters the table", up, down);
}

/// A `:path` in Huffman's code, indexed: all its symbols are decoded for their length. Digits and
/// most letters have five or six bits; here every symbol is `0`, of five.
fn literal(path: &str) -> Vec<u8> {
    let bits = path.len() * 5;
    let mut field = vec![
        0x44,
        0x80 | u8::try_from(bits.div_ceil(8)).expect("a short path"),
    ];
    let mut octets = vec![0; bits.div_ceil(8)];
    if !bits.is_multiple_of(8) {
        *octets.last_mut().expect("not empty") = 0xff >> (bits % 8);
    }
    field.extend(octets);
    field
}

/// Ten routes, of which the last is a request's.
fn routing() -> Rc<Routing> {
    let route = |n: usize| Route {
        name: n.to_string(),
        condition: Condition::Path(match n {
            9 => Text::Regex("/orders/[^/]*".to_owned()),
            n => Text::Exact(format!("/orders/{n}")),
        }),
        classes: Vec::new(),
        timeout_ms: None,
        retryable: false,
        backends: Vec::new(),
        missing: 0,
    };
    let table = RouteTable {
        routes: (0..10).map(route).collect(),
        ..RouteTable::default()
    };
    let compiled = Arc::new(compile(&table).expect("a table"));
    let routing = Rc::new(Routing::new(1, fastrand::Rng::with_seed(7)));
    routing.replace(Some(&compiled), Instant::now());
    routing
}

fn http1(c: &mut Criterion) {
    let (_telemetry, plain) = ledger();
    run_http1(c, "HTTP/1: a head, then a head and a body", plain);
    let (_telemetry, plain) = ledger();
    let name = "HTTP/1: the same, of the last of ten routes";
    run_http1(c, name, plain.routed(&routing()));
    let (_telemetry, outbound) = ledger_of(|labels| Subject::Outbound {
        service: "web".into(),
        dst: labels.unknown_destination(),
    });
    let unrouted = Rc::new(Routing::new(1, fastrand::Rng::with_seed(7)));
    let mut session = Session::http1(outbound.routed(&unrouted));
    session.dialed(Some(Hop {
        addr: ([10, 0, 0, 7], 8080).into(),
        has_other: true,
    }));
    let name = "HTTP/1: the same, at one of several servers";
    run_session(c, name, session);
}

fn run_http1(c: &mut Criterion, name: &str, ledger: HttpLedger) {
    run_session(c, name, Session::http1(ledger));
}

fn run_session(c: &mut Criterion, name: &str, mut session: Session) {
    let now = Instant::now();
    let request = b"GET /orders/4711 HTTP/1.1\r\nHost: web.shop.svc.cluster.local:8080\r\nUser-Agent: a client of some length/1.2.3\r\nAccept: */*\r\n\r\n";
    let head =
        b"HTTP/1.1 200 OK\r\nContent-Length: 1024\r\nDate: Thu, 26 Nov 2026 12:00:00 GMT\r\n\r\n";
    let answer = [&head[..], &[b'x'; 1024]].concat();
    c.bench_function(name, |b| {
        b.iter(|| {
            session.request_bytes(black_box(request), now);
            session.response_bytes(black_box(&answer), now);
        });
    });
}

criterion_group!(benches, http2, http1);
criterion_main!(benches);
