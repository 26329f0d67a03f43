//! The session without sockets: which bytes pass, and what is counted for them.

use std::rc::Rc;
use std::time::{Duration, Instant};

use super::{End, MAX_PIPELINE, Session};
use crate::http1::reply::Reply;
use crate::record::{Book, HttpLedger, Labels, Subject};
use crate::telemetry::{self, Selection, Telemetry};

mod edges;
mod steer;
mod unread;
mod unseen;

struct Bench {
    session: Session,
    telemetry: Telemetry,
    now: Instant,
}

fn bench() -> Bench {
    let (telemetry, seats) = telemetry::new(telemetry::Config::default(), 1);
    let seat = seats.into_iter().next().expect("one seat");
    let labels = Rc::new(Labels::new("all-unauthenticated"));
    let subject = Subject::Inbound {
        server: labels.default_server(80),
    };
    let book = Book {
        recorder: Rc::new(seat.take()),
        labels,
        subject,
        target_port: 80,
        standing: Default::default(),
    };
    Bench {
        session: Session::new(HttpLedger::new(book)),
        telemetry,
        now: Instant::now(),
    }
}

impl Bench {
    fn up(&mut self, text: &str) -> usize {
        self.session.request_bytes(text.as_bytes(), self.now)
    }

    fn down(&mut self, text: &str) -> usize {
        self.session.response_bytes(text.as_bytes(), self.now)
    }

    fn all_up(&mut self, text: &str) {
        assert_eq!(self.up(text), text.len(), "{text:?} passes");
    }

    fn all_down(&mut self, text: &str) {
        assert_eq!(self.down(text), text.len(), "{text:?} passes");
    }

    /// The samples of a family as `(labels, value)`.
    fn samples(&self, name: &str) -> Vec<(String, f64)> {
        let mut body = Vec::new();
        self.telemetry
            .expose(&Selection::default(), &mut body)
            .expect("a vector takes all");
        let body = String::from_utf8(body).expect("text");
        let lines = body
            .lines()
            .filter_map(|line| line.strip_prefix(name)?.strip_prefix('{'));
        lines
            .map(|line| {
                let (labels, value) = line.rsplit_once("} ").expect("a sample");
                (labels.to_owned(), value.parse().expect("a number"))
            })
            .collect()
    }

    fn total(&self, name: &str) -> f64 {
        self.samples(name).iter().map(|(_, v)| v).sum()
    }

    /// The only response, as `status,classification,error`.
    fn response(&self) -> String {
        let samples = self.samples("response_total");
        let [(labels, 1.0)] = samples.as_slice() else {
            panic!("one response: {samples:?}");
        };
        let label = |key: &str| {
            let start = labels.find(&format!(",{key}=\""))? + key.len() + 3;
            Some(
                labels[start..]
                    .split('"')
                    .next()
                    .unwrap_or_default()
                    .to_owned(),
            )
        };
        let status = label("status_code").unwrap_or_else(|| "-".to_owned());
        format!(
            "{status},{},{}",
            label("classification").unwrap_or_default(),
            label("error").unwrap_or_default()
        )
    }
}

const GET: &str = "GET / HTTP/1.1\r\nHost: web\r\n\r\n";
const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

#[test]
fn a_request_is_counted_when_it_begins_and_its_response_when_it_ends() {
    let mut b = bench();
    b.all_up(GET);
    assert_eq!(
        (b.total("request_total"), b.total("response_total")),
        (1.0, 0.0)
    );
    assert!(b.session.is_busy());
    b.all_down("HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\n");
    assert_eq!(b.total("response_latency_ms_count"), 0.0, "no data yet");
    b.now += Duration::from_millis(15);
    b.all_down("ok");
    assert_eq!(b.total("response_latency_ms_count"), 1.0);
    assert_eq!(b.total("response_total"), 0.0);
    b.all_down("ok");
    assert_eq!(b.response(), "200,success,");
    assert_eq!(b.total("response_latency_ms_sum"), 15.0);
    assert!(!b.session.is_busy());
}

#[test]
fn every_end_has_its_row() {
    let head = "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\n";
    let rows: [(&str, End, &str, f64); 8] = [
        ("", End::Canceled, "-,failure,canceled", 0.0),
        (head, End::Canceled, "200,success,canceled", 1.0),
        ("", End::Reset, "502,failure,reset", 1.0),
        (head, End::Reset, "200,failure,reset", 1.0),
        ("", End::Replied(502, "connect"), "502,failure,connect", 1.0),
        ("", End::Replied(504, "timeout"), "504,failure,timeout", 1.0),
        (
            "HTTP/1.1 100 Continue\r\n\r\n",
            End::Reset,
            "502,failure,reset",
            1.0,
        ),
        (
            "HTTP/1.1 101 Switching\r\n\r\nxyz",
            End::Complete,
            "101,success,",
            1.0,
        ),
    ];
    for (sent, end, response, latencies) in rows {
        let mut b = bench();
        b.all_up(GET);
        b.all_down(sent);
        b.session.end_all(b.now, end);
        assert_eq!(b.response(), response, "{sent:?} then {end:?}");
        assert_eq!(
            b.total("response_latency_ms_count"),
            latencies,
            "{sent:?} then {end:?}"
        );
        assert_eq!(b.total("request_total"), 1.0);
    }
}

#[test]
fn a_body_until_the_close_ends_well() {
    let mut b = bench();
    b.all_up(GET);
    b.all_down("HTTP/1.0 200 OK\r\n\r\nsome");
    b.session.server_eof(b.now);
    assert_eq!(b.response(), "200,success,");
}

#[test]
fn pipelined_requests_are_told_apart() {
    let mut b = bench();
    b.all_up(&format!("{GET}HEAD / HTTP/1.1\r\nHost: web\r\n\r\n{GET}"));
    assert_eq!(b.total("request_total"), 3.0);
    b.all_down(&format!(
        "{OK}HTTP/1.1 404 No\r\nContent-Length: 9\r\n\r\n{OK}"
    ));
    assert_eq!(b.total("response_total"), 3.0);
    assert!(!b.session.is_busy());
}

#[test]
fn a_long_pipeline_waits() {
    let mut b = bench();
    let many = GET.repeat(MAX_PIPELINE + 1);
    assert_eq!(b.up(&many), GET.len() * MAX_PIPELINE);
    assert!(!b.session.take_resumed());
    b.all_down(OK);
    assert!(b.session.take_resumed());
    assert_eq!(b.up(GET), GET.len());
}

#[test]
fn bodies_pass_in_any_pieces() {
    let mut b = bench();
    for piece in [
        "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n5",
        "\r\nhel",
        "lo\r\n0\r",
        "\n\r\n",
        GET,
    ] {
        b.all_up(piece);
    }
    assert_eq!(b.total("request_total"), 2.0);
}

#[test]
fn a_partial_head_waits_and_the_end_of_the_client_frees_it() {
    let mut b = bench();
    assert_eq!(b.up("GET / HTTP/1.1\r\nHo"), 0);
    b.session.client_eof();
    b.all_up("GET / HTTP/1.1\r\nHo");
    assert_eq!(b.total("request_total"), 0.0);
}

#[test]
fn ambiguous_requests_are_refused_after_the_answers_before_them() {
    let mut b = bench();
    let bad = "POST / HTTP/1.1\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n";
    assert_eq!(b.up(&format!("{GET}{bad}")), GET.len());
    assert_eq!(b.session.refusal(), None);
    b.all_down(OK);
    assert_eq!(b.session.refusal(), Some(Reply::BadRequest));
    assert_eq!(
        (
            b.total("request_total"),
            b.total("inbound_http_errors_total")
        ),
        (1.0, 1.0)
    );
}

#[test]
fn a_bad_chunk_is_refused_in_the_middle_of_a_body() {
    let mut b = bench();
    b.all_up("POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n");
    assert_eq!(b.up("zz\r\n"), 0);
    assert_eq!(b.session.refusal(), Some(Reply::BadRequest));
    assert_eq!(b.response(), "400,success,");
}

#[test]
fn a_head_beyond_the_limit_is_too_large() {
    let mut b = bench();
    let head = format!(
        "GET / HTTP/1.1\r\na: {}",
        "x".repeat(crate::http1::MAX_HEAD)
    );
    assert_eq!(b.up(&head), 0);
    assert_eq!(b.session.refusal(), Some(Reply::TooLarge));
}

#[test]
fn odd_requests_pass_and_are_counted_as_unparsed() {
    let mut b = bench();
    b.all_up("GET / HTTP/1.1\r\nHost: a\r\n folded\r\n\r\nanything");
    b.all_down("anything");
    let samples = b.samples("weir_http_unparsed_total");
    assert_eq!(samples.iter().map(|s| s.1).sum::<f64>(), 1.0, "{samples:?}");
    assert!(b.session.is_opaque());
}

#[test]
fn an_offer_to_upgrade_holds_the_next_bytes_until_it_is_answered() {
    let mut b = bench();
    let upgrade = "GET / HTTP/1.1\r\nUpgrade: websocket\r\n\r\n";
    assert_eq!(b.up(&format!("{upgrade}{GET}")), upgrade.len());
    b.all_down(OK);
    assert!(b.session.take_resumed());
    b.all_up(GET);
    assert_eq!(b.total("request_total"), 2.0);
}

#[test]
fn a_connect_that_is_accepted_becomes_a_tunnel() {
    let mut b = bench();
    b.all_up("CONNECT db:5432 HTTP/1.1\r\nHost: db:5432\r\n\r\n");
    assert_eq!(b.up("bytes"), 0);
    b.all_down("HTTP/1.1 200 OK\r\n\r\n");
    b.all_up("bytes");
    assert!(b.session.is_tunnel());
    assert_eq!(b.total("response_latency_ms_count"), 1.0);
    assert_eq!(b.total("response_total"), 0.0);
}

#[test]
fn a_response_that_cannot_be_followed_passes() {
    let mut b = bench();
    b.all_up(GET);
    b.all_down("ICY 200 OK\r\n\r\nbytes");
    assert_eq!(b.response(), "-,success,");
    b.all_up("more");
}

#[test]
fn a_grpc_status_decides_the_class() {
    let mut b = bench();
    b.all_up(GET);
    b.all_down("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\ngrpc-status: 14\r\n\r\n");
    assert_eq!(b.response(), "200,failure,");
    let (labels, _) = b.samples("response_total").remove(0);
    assert!(labels.contains("grpc_status_code=\"14\""), "{labels}");
}

#[test]
fn only_a_connection_that_never_answered_owes_an_answer() {
    let mut b = bench();
    b.all_up(GET);
    assert!(b.session.owes_first_answer());
    b.all_down(OK);
    b.all_up(GET);
    assert!(!b.session.owes_first_answer());
}

proptest::proptest! {
    /// However the bytes are cut, the same ones pass and the same things are counted.
    #[test]
    fn cuts_do_not_matter(cuts in proptest::collection::vec(1usize..40, 1..40)) {
        let up = format!("{GET}POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n5;x\r\nhello\r\n0\r\nt: v\r\n\r\nPUT / HTTP/1.1\r\nContent-Length: 3\r\n\r\nabc{GET}");
        let down = format!("{OK}HTTP/1.1 100 Continue\r\n\r\n{OK}HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n0\r\n\r\n{OK}");
        let mut b = bench();
        let mut cuts = cuts.iter().cycle();
        for (text, is_up) in [(&up, true), (&down, false)] {
            let (mut passed, mut shown) = (0, 0);
            while passed < text.len() {
                shown = (shown + cuts.next().expect("a cycle")).min(text.len());
                let n = if is_up { b.up(&text[passed..shown]) } else { b.down(&text[passed..shown]) };
                proptest::prop_assert!(n > 0 || shown < text.len());
                passed += n;
            }
        }
        proptest::prop_assert_eq!(b.total("request_total"), 4.0);
        proptest::prop_assert_eq!(b.total("response_total"), 4.0);
    }
}
