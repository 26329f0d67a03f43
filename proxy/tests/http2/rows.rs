//! What may happen to a stream, one by one, and the row that is counted for it.

use weir_proxy::exchange::End;

use crate::pair::Pair;
use crate::wire::{
    END_HEADERS, END_STREAM, acknowledgement, block, data, frame, get, goaway, headers, hello,
    post, reset, settings, status,
};

const LATENCIES: &str = "response_latency_ms_count";

#[test]
fn a_request_is_counted_when_it_begins_and_its_response_when_it_ends() {
    let mut pair = Pair::new();
    pair.up(&get(1));
    assert_eq!((pair.total("request_total"), pair.response()), (1.0, None));
    assert!(pair.session().is_busy());
    pair.wait(7);
    pair.down(&status(1, 0, "200"));
    assert_eq!(pair.total(LATENCIES), 0.0, "no data yet");
    pair.wait(8);
    // The head of a DATA frame is the first of it.
    pair.down(&data(1, 0, b"some")[..9]);
    assert_eq!(pair.total("response_latency_ms_sum"), 15.0);
    pair.wait(100);
    pair.down(b"some");
    pair.down(&data(1, END_STREAM, b""));
    assert_eq!(pair.response().as_deref(), Some("200,success,,"));
    assert_eq!(pair.total(LATENCIES), 1.0);
    assert!(!pair.session().is_busy());
}

/// A frame of stream 1 by a short name: `200` a head, `+7` with a grpc-status, `d` data, `t7`
/// trailers with a grpc-status, `r7` RST_STREAM, `g7` GOAWAY; `.` is END_STREAM.
fn named(name: &str) -> Vec<u8> {
    let (name, flags) = match name.strip_suffix('.') {
        Some(name) => (name, END_STREAM),
        None => (name, 0),
    };
    let (kind, rest) = name.split_at(1);
    match kind {
        "d" => data(1, flags, b"some"),
        "t" => headers(1, END_STREAM, &[("grpc-status", rest)]),
        "r" => reset(1, rest.parse().unwrap()),
        "g" => goaway(1, rest.parse().unwrap()),
        _ => match name.split_once('+') {
            Some((code, grpc)) => headers(1, flags, &[(":status", code), ("grpc-status", grpc)]),
            None => status(1, flags, name),
        },
    }
}

/// What the server says, then the client, then how the connection ends, if it does; what is
/// counted as `status,classification,grpc_status_code,error`, and how many latencies.
type Row = (&'static str, &'static str, Option<End>, &'static str, f64);

const CANCELED: Option<End> = Some(End::Canceled);
const RESET: Option<End> = Some(End::Reset);

#[rustfmt::skip]
const ROWS: [Row; 26] = [
    // Normal ends.
    ("404.", "", None, "404,success,,", 1.0),
    ("200 d.", "", None, "200,success,,", 1.0),
    ("503.", "", None, "503,failure,,", 1.0),
    ("200 d t0", "", None, "200,success,0,", 1.0),
    ("200 t14", "", None, "200,failure,14,", 1.0),
    ("503 t0", "", None, "503,success,0,", 1.0),
    ("200 tx", "", None, "200,failure,2,", 1.0),
    // Trailers only; a grpc-status in a head that is not the end means nothing.
    ("200+7.", "", None, "200,failure,7,", 1.0),
    ("200+7 d.", "", None, "200,success,,", 1.0),
    // Trailers of the request are no request.
    ("", "t0", CANCELED, "-,failure,,canceled", 0.0),
    ("200 d.", "t0", None, "200,success,,", 1.0),
    // Interim heads.
    ("100 103 204.", "", None, "204,success,,", 1.0),
    // Data without a head is no answer.
    ("d", "r8", None, "-,failure,,canceled", 0.0),
    // The client is gone.
    ("", "r8", None, "-,failure,,canceled", 0.0),
    ("200", "r8", None, "200,success,,canceled", 1.0),
    ("", "", CANCELED, "-,failure,,canceled", 0.0),
    ("200", "", CANCELED, "200,success,,canceled", 1.0),
    ("500", "", CANCELED, "500,failure,,canceled", 1.0),
    // The server is gone.
    ("r7", "", None, "502,failure,,reset", 1.0),
    ("200 r2", "", None, "200,failure,,h2(INTERNAL_ERROR)", 1.0),
    ("200 r255", "", None, "200,failure,,h2(UNKNOWN)", 1.0),
    ("", "", RESET, "502,failure,,reset", 1.0),
    ("200 d", "", RESET, "200,failure,,reset", 1.0),
    ("200 g0", "", RESET, "200,failure,,reset", 1.0),
    ("200 g11", "", RESET, "200,failure,,h2(ENHANCE_YOUR_CALM)", 1.0),
    // The proxy's own.
    ("", "", Some(End::Replied(504, "timeout")), "504,failure,,timeout", 1.0),
];

#[test]
fn every_end_has_its_row() {
    for row in ROWS {
        let (down, up, end, response, latencies) = row;
        let mut pair = Pair::new();
        pair.up(&post(1));
        down.split_whitespace().for_each(|n| pair.down(&named(n)));
        up.split_whitespace().for_each(|n| pair.up(&named(n)));
        if let Some(end) = end {
            pair.finish(end);
        }
        assert_eq!(pair.response().as_deref(), Some(response), "{row:?}");
        assert_eq!(pair.total(LATENCIES), latencies, "{row:?}");
        assert_eq!(pair.total("request_total"), 1.0);
        drop(pair.session.take());
        for gauge in ["http2_active_streams", "http2_active_connections"] {
            assert_eq!(pair.total(gauge), 0.0, "{row:?}");
        }
    }
}

#[test]
fn an_answer_before_the_end_of_the_request_is_counted_once() {
    let mut pair = Pair::new();
    pair.up(&post(1));
    pair.down(&status(1, END_STREAM, "413"));
    assert_eq!(pair.response().as_deref(), Some("413,success,,"));
    assert!(pair.session().is_busy(), "the client still sends");
    pair.down(&reset(1, 0));
    assert!(!pair.session().is_busy());
    pair.up(&data(1, END_STREAM, b"late"));
    assert_eq!(pair.responses().values().sum::<f64>(), 1.0);
}

#[test]
fn a_goaway_ends_the_streams_that_it_leaves_out() {
    let mut pair = Pair::new();
    for stream in [1, 3, 5] {
        pair.up(&get(stream));
    }
    pair.down(&goaway(0x7fff_ffff, 0));
    assert_eq!(pair.total("http2_active_streams"), 6.0);
    pair.down(&goaway(3, 0));
    assert_eq!(pair.response().as_deref(), Some("502,failure,,reset"));
    // On the way when the server said so.
    pair.up(&get(7));
    assert_eq!(pair.responses()["502,failure,,reset"], 2.0);
    pair.down(&[status(1, END_STREAM, "200"), status(3, END_STREAM, "200")].concat());
    assert_eq!(pair.responses()["200,success,,"], 2.0);
    assert_eq!(pair.total("request_total"), 4.0);
    assert!(!pair.session().is_busy());
}

#[test]
fn a_server_that_closes_ends_what_it_has_not_answered_at_once() {
    for (client_first, response) in [(false, "502,failure,,reset"), (true, "-,failure,,canceled")] {
        let mut pair = Pair::new();
        pair.up(&get(1));
        let (session, now) = (pair.session.as_mut().unwrap(), pair.now);
        if client_first {
            session.client_eof();
        }
        assert!(session.is_busy());
        session.server_eof(now);
        assert!(!session.is_busy());
        assert_eq!(pair.response().as_deref(), Some(response));
        pair.finish(End::Canceled);
        assert_eq!(pair.responses().len(), 1);
    }
}

#[test]
fn what_a_server_pushes_is_decoded_and_not_counted() {
    let mut pair = Pair::new();
    pair.up(&get(1));
    let promised = block(&[(":method", "GET"), (":authority", "pushed")]);
    let promise = [&2u32.to_be_bytes()[..], &promised].concat();
    pair.down(&frame(0x5, END_HEADERS, 1, &promise));
    pair.down(&status(2, 0, "200"));
    pair.down(&data(2, END_STREAM, b"pushed"));
    pair.down(&status(1, END_STREAM, "200"));
    assert_eq!(pair.total("request_total"), 1.0);
    assert_eq!(pair.response().as_deref(), Some("200,success,,"));
}

#[test]
fn a_connect_that_is_accepted_ends_with_its_tunnel() {
    let connect = [
        (":method", "CONNECT"),
        (":protocol", "websocket"),
        (":authority", "web"),
    ];
    let (no_error, cancel, broken) = (0, 8, 10);
    for (ends, response) in [
        (
            vec![
                (true, data(1, END_STREAM, b"")),
                (false, data(1, END_STREAM, b"")),
            ],
            "200,success,,",
        ),
        (
            vec![
                (false, data(1, END_STREAM, b"")),
                (true, data(1, END_STREAM, b"")),
            ],
            "200,success,,",
        ),
        (vec![(true, reset(1, cancel))], "200,success,,"),
        (vec![(false, reset(1, no_error))], "200,success,,"),
        (vec![(false, reset(1, broken))], "200,failure,,reset"),
        (vec![(true, reset(1, broken))], "200,failure,,reset"),
    ] {
        let mut pair = Pair::new();
        pair.up(&headers(1, 0, &connect));
        pair.wait(5);
        pair.down(&status(1, 0, "200"));
        assert_eq!(pair.total("response_latency_ms_sum"), 5.0, "at the 200");
        for (up, bytes) in ends {
            assert_eq!(pair.response(), None);
            if up {
                pair.up(&bytes)
            } else {
                pair.down(&bytes)
            }
        }
        assert_eq!(pair.response().as_deref(), Some(response));
        assert!(!pair.session().is_busy());
    }
    let mut pair = Pair::new();
    pair.up(&headers(1, 0, &connect));
    pair.down(&status(1, 0, "200"));
    pair.finish(End::Canceled);
    assert_eq!(pair.response().as_deref(), Some("200,failure,,reset"));
}

#[test]
fn a_block_in_many_fragments_is_one_request() {
    let long = "x".repeat(20_000);
    let block = block(&[(":method", "GET"), ("x-long", &long), (":authority", "web")]);
    for size in [1, 100, 16_384] {
        let mut pair = Pair::new();
        let mut fragments = block.chunks(size).peekable();
        pair.up(&frame(0x1, END_STREAM, 1, fragments.next().unwrap()));
        while let Some(fragment) = fragments.next() {
            let flags = if fragments.peek().is_some() {
                0
            } else {
                END_HEADERS
            };
            pair.up(&frame(0x9, flags, 1, fragment));
        }
        assert_eq!(pair.sum("request_total", &["authority=\"web\""]), 1.0);
        assert_eq!(pair.total("weir_http_unparsed_total"), 0.0);
    }
}

/// What the client and the server say, and the reason for not following it.
fn unreadable() -> Vec<(Vec<u8>, Vec<u8>, &'static str)> {
    let open = || [hello(), get(1)].concat();
    let answer = |frame: Vec<u8>| [settings(&[]), frame].concat();
    let resized = [&[0x3f, 0xe2, 0x1f][..], &block(&[(":status", "200")])].concat();
    let large = vec![0; 16_384];
    let mut flood = frame(0x1, 0, 3, &large);
    (0..4).for_each(|_| flood.extend(frame(0x9, 0, 3, &large)));
    let http1 = b"HTTP/1.1 400 Bad Request\r\n\r\n".to_vec();
    vec![
        (hello(), http1, "h2 preface"),
        (hello(), acknowledgement(), "h2 preface"),
        (open(), answer(frame(0x3, 0, 1, b"abc")), "h2 frame"),
        (open(), answer(frame(0x0, 0, 0, b"x")), "h2 frame"),
        (open(), answer(frame(0x9, 0, 1, b"x")), "h2 frame"),
        (open(), answer(frame(0x4, 0, 0, b"x")), "h2 frame"),
        (
            open(),
            answer(frame(0x1, 0x4, 1, b"\x80")),
            "h2 header block",
        ),
        (
            open(),
            answer(frame(0x1, 0x4, 1, &resized)),
            "h2 header table size",
        ),
        ([open(), flood].concat(), vec![], "h2 header block size"),
    ]
}

#[test]
fn what_cannot_be_followed_is_said_and_passes() {
    for (up, down, reason) in unreadable() {
        let mut pair = Pair::silent(false);
        pair.up(&up);
        let requests = pair.total("request_total");
        pair.down(&down);
        let label = format!("reason=\"{reason}\"");
        let labels = ["direction=\"outbound\"", &label];
        let unparsed = pair.sum("weir_http_unparsed_total", &labels);
        assert_eq!(unparsed, 1.0, "{reason}: {:#?}", pair.samples());
        assert!(pair.session().is_opaque());
        assert_eq!(pair.responses().values().sum::<f64>(), requests);
        assert_eq!(pair.total("http2_active_streams"), 0.0);
        assert_eq!(pair.total("http2_active_connections"), 2.0);
        // Anything passes from here, and nothing more is counted.
        pair.up(&get(5));
        pair.down(b"anything");
        assert_eq!(pair.total("request_total"), requests);
    }
}

#[test]
fn a_larger_table_is_used_once_it_was_announced() {
    let mut pair = Pair::silent(true);
    pair.up(&hello());
    pair.down(&settings(&[(0x1, 8192), (0x3, 100)]));
    let update = [
        &[0x3f, 0xe1, 0x3f][..],
        &block(&[(":method", "GET"), (":authority", "web")]),
    ];
    pair.up(&acknowledgement());
    pair.up(&frame(0x1, END_STREAM | END_HEADERS, 1, &update.concat()));
    assert_eq!(pair.total("request_total"), 1.0);
    assert_eq!(pair.total("weir_http_unparsed_total"), 0.0);
}

#[test]
fn open_connections_and_streams_are_counted_on_both_sides() {
    let mut pair = Pair::new();
    pair.up(&get(1));
    pair.up(&get(3));
    for peer in ["src", "dst"] {
        let labels = ["direction=\"inbound\"", &format!("peer=\"{peer}\"")];
        assert_eq!(pair.sum("http2_active_connections", &labels), 1.0);
        assert_eq!(pair.sum("http2_active_streams", &labels), 2.0);
    }
    pair.finish(End::Canceled);
    assert_eq!(pair.total("http2_active_connections"), 0.0);
    assert_eq!(pair.total("http2_active_streams"), 0.0);
}

#[test]
fn a_server_that_never_spoke_owes_an_answer() {
    let mut pair = Pair::silent(true);
    pair.up(&hello());
    assert!(!pair.session().owes_first_answer());
    pair.up(&get(1));
    assert!(pair.session().owes_first_answer());
    assert_eq!(pair.session().answer(502, "connection_refused").1, 1);
    pair.down(&settings(&[]));
    assert!(!pair.session().owes_first_answer());
}
