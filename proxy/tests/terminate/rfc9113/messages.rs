//! Section 8: what a request is, and what is none.

use super::super::wire::{END_STREAM, data, frame, headers, reset};
use super::*;

const MALFORMED: Must = Must::Reset(1, PROTOCOL);

const DROPPED: &str = "`h2` drops the field, so it goes no further; to see it, every block would \
    have to be decoded twice";
const JUDGED_BY_THE_SERVER: &str = "it goes to the server as it is, as it would without the proxy";
const SENT_ALL_THE_SAME: &str = "applications send such values, and their servers take them: curl, \
    Envoy and HAProxy let them pass, too";

#[tokio::test]
async fn section_8_1_framing() {
    let trailers = |flags, fields: &[(&str, &str)]| headers(1, flags, fields);
    let cases = vec![
        case(
            "8.1",
            "a second head that does not end it",
            vec![open(1), trailers(0, &[("x", "y")])],
            MALFORMED,
        ),
        case(
            "8.1",
            "trailers",
            vec![
                open(1),
                data(1, 0, b"x"),
                trailers(END_STREAM, &[("x", "y")]),
            ],
            Must::Live,
        ),
        case(
            "8.1",
            "a pseudo-header field in trailers",
            vec![open(1), trailers(END_STREAM, &[(":method", "GET")])],
            MALFORMED,
        )
        .stays(Must::Live, DROPPED),
        case(
            "8.1",
            "a field of the connection in trailers",
            vec![open(1), trailers(END_STREAM, &[("connection", "close")])],
            MALFORMED,
        ),
        case(
            "8.1",
            "an answer and its reset",
            vec![ask(1), reset(1, 8), ask(3)],
            Must::Answer(3, 200),
        ),
    ];
    run(cases).await;
}

#[tokio::test]
async fn section_8_1_1_content_length() {
    let five = |flags| with(1, flags, &[("content-length", "5")]);
    let cases = vec![
        case(
            "8.1.1",
            "as long as it says",
            vec![five(0), data(1, END_STREAM, b"12345")],
            Must::Live,
        ),
        case(
            "8.1.1",
            "less",
            vec![five(0), data(1, END_STREAM, b"1234")],
            MALFORMED,
        ),
        case(
            "8.1.1",
            "more",
            vec![five(0), data(1, 0, b"123456")],
            MALFORMED,
        ),
        case(
            "8.1.1",
            "less, in pieces",
            vec![five(0), data(1, 0, b"12"), data(1, END_STREAM, b"34")],
            MALFORMED,
        ),
        case(
            "8.1.1",
            "more, in pieces",
            vec![five(0), data(1, 0, b"123"), data(1, END_STREAM, b"456")],
            MALFORMED,
        ),
        case(
            "8.1.1",
            "less before trailers",
            vec![
                five(0),
                data(1, 0, b"1234"),
                headers(1, END_STREAM, &[("x", "y")]),
            ],
            MALFORMED,
        ),
    ];
    run(cases).await;
}

#[tokio::test]
async fn section_8_1_1_content_length_of_heads() {
    let five = |flags| with(1, flags, &[("content-length", "5")]);
    let cases = vec![
        case("8.1.1", "nothing at all", vec![five(END_STREAM)], MALFORMED),
        case(
            "8.1.1",
            "no number",
            vec![with(1, 0, &[("content-length", "five")])],
            MALFORMED,
        ),
        case(
            "8.1.1",
            "two that differ",
            vec![with(
                1,
                0,
                &[("content-length", "5"), ("content-length", "6")],
            )],
            MALFORMED,
        ),
        case(
            "8.1.1",
            "padding does not count",
            vec![five(0), frame(0x0, 0x8 | END_STREAM, 1, b"\x0212345\0\0")],
            Must::Live,
        ),
    ];
    run(cases).await;
}

#[tokio::test]
async fn section_8_2_fields() {
    let one = |name, field, must| case("8.2", name, vec![with(1, 0, &[field])], must);
    // As `h2` sees it the whole block cannot be read then.
    let unreadable = |name, field| one(name, field, MALFORMED).or(Must::GoAway(PROTOCOL));
    let cases = vec![
        unreadable("a name in upper case", ("X-Upper", "y")),
        unreadable("a blank in a name", ("x y", "y")),
        unreadable("a name with a control character", ("x\u{1}", "y")),
        unreadable("no name", ("", "y")),
        unreadable("a NUL in a value", ("x", "a\0b")),
        unreadable("a line feed in a value", ("x", "a\nb")),
        unreadable("a carriage return in a value", ("x", "a\rb")),
        one("a blank before a value", ("x", " y"), MALFORMED).stays(Must::Live, SENT_ALL_THE_SAME),
        one("a tab after a value", ("x", "y\t"), MALFORMED).stays(Must::Live, SENT_ALL_THE_SAME),
        one("connection", ("connection", "close"), MALFORMED),
        one("keep-alive", ("keep-alive", "timeout=5"), MALFORMED),
        one("proxy-connection", ("proxy-connection", "close"), MALFORMED),
        one(
            "transfer-encoding",
            ("transfer-encoding", "chunked"),
            MALFORMED,
        ),
        one("upgrade", ("upgrade", "websocket"), MALFORMED),
        one(
            "te, trailers and more",
            ("te", "trailers, deflate"),
            MALFORMED,
        ),
        one("te, trailers", ("te", "trailers"), Must::Live),
    ];
    run(cases).await;
}

#[tokio::test]
async fn section_8_3_pseudo_header_fields() {
    let of =
        |name, fields: &[(&str, &str)], must| case("8.3", name, vec![headers(1, 0, fields)], must);
    let cases = vec![
        of(
            "an unknown one",
            &[METHOD, SCHEME, HANG, (":test", "x")],
            MALFORMED,
        )
        .or(Must::GoAway(PROTOCOL)),
        of(
            "one of responses",
            &[METHOD, SCHEME, HANG, (":status", "200")],
            MALFORMED,
        ),
        of(
            "one after a field",
            &[METHOD, SCHEME, ("x", "y"), HANG],
            MALFORMED,
        ),
        of("no method", &[SCHEME, HANG, AUTHORITY], MALFORMED),
        of("no scheme", &[METHOD, HANG, AUTHORITY], MALFORMED),
        of("no path", &[METHOD, SCHEME, AUTHORITY], MALFORMED),
        of(
            "an empty path",
            &[METHOD, SCHEME, (":path", ""), AUTHORITY],
            MALFORMED,
        ),
        of("two methods", &[METHOD, METHOD, SCHEME, HANG], MALFORMED),
        of("two schemes", &[METHOD, SCHEME, SCHEME, HANG], MALFORMED),
        of("two paths", &[METHOD, SCHEME, HANG, HANG], MALFORMED),
        of(
            "two authorities",
            &[METHOD, SCHEME, HANG, AUTHORITY, AUTHORITY],
            MALFORMED,
        ),
        of(
            "a path that does not begin with a slash",
            &[METHOD, SCHEME, (":path", "hang"), AUTHORITY],
            MALFORMED,
        ),
    ];
    run(cases).await;
}

#[tokio::test]
async fn section_8_3_1_whom_a_request_is_for() {
    let of = |name, fields: &[(&str, &str)], must| {
        case("8.3.1", name, vec![headers(1, 0, fields)], must)
    };
    let cases = vec![
        of(
            "no authority, and no host",
            &[METHOD, SCHEME, HANG],
            Must::Live,
        ),
        of(
            "a host for an authority",
            &[METHOD, SCHEME, HANG, ("host", "web")],
            Must::Live,
        ),
        of(
            "an authority with a user",
            &[METHOD, SCHEME, HANG, (":authority", "me@web.example")],
            MALFORMED,
        )
        .stays(Must::Live, JUDGED_BY_THE_SERVER),
        // That it is malformed is a SHOULD, of servers; the endpoint sees both.
        of(
            "a host that is not the authority",
            &[METHOD, SCHEME, HANG, AUTHORITY, ("host", "other")],
            Must::Live,
        ),
        of(
            "an authority that is none",
            &[METHOD, SCHEME, HANG, (":authority", "a b")],
            MALFORMED,
        ),
    ];
    run(cases).await;
}

#[tokio::test]
async fn section_8_5_connect() {
    let connect = (":method", "CONNECT");
    let of =
        |name, fields: &[(&str, &str)], must| case("8.5", name, vec![headers(1, 0, fields)], must);
    let websocket = (":protocol", "websocket");
    let cases = vec![
        of(
            "to an authority",
            &[connect, (":authority", "web:443")],
            Must::Answer(1, 200),
        ),
        of("to nowhere", &[connect], MALFORMED),
        of("with a scheme", &[connect, SCHEME, AUTHORITY], MALFORMED),
        of("with a path", &[connect, HANG, AUTHORITY], MALFORMED),
        // RFC 8441.
        of(
            "extended",
            &[connect, websocket, SCHEME, (":path", "/x"), AUTHORITY],
            Must::Answer(1, 200),
        ),
        of(
            "extended, without a scheme",
            &[connect, websocket, HANG, AUTHORITY],
            MALFORMED,
        ),
        of(
            "extended, without a path",
            &[connect, websocket, SCHEME, AUTHORITY],
            MALFORMED,
        ),
        of(
            "extended, to nowhere",
            &[connect, websocket, SCHEME, HANG],
            MALFORMED,
        ),
        of(
            "a protocol of another method",
            &[METHOD, websocket, SCHEME, HANG, AUTHORITY],
            MALFORMED,
        ),
    ];
    run(cases).await;
}

#[tokio::test]
async fn section_10_5_1_large_heads() {
    let large = |len: usize| {
        let fields =
            super::super::wire::block(&[METHOD, SCHEME, HANG, AUTHORITY, ("x", &"l".repeat(len))]);
        let mut pieces = fields.chunks(16_384).enumerate().peekable();
        let mut frames = Vec::new();
        while let Some((n, piece)) = pieces.next() {
            let kind = if n == 0 { 0x1 } else { 0x9 };
            let flags = if pieces.peek().is_none() { 0x4 } else { 0 };
            frames.push(frame(kind, flags, 1, piece));
        }
        frames
    };
    let cases = vec![
        case("10.5.1", "as large as announced", large(60_000), Must::Live),
        case("10.5.1", "larger", large(70_000), Must::Answer(1, 431)),
        case("10.5.1", "much larger", large(300_000), Must::GoAway(CALM)),
    ];
    run(cases).await;
}
