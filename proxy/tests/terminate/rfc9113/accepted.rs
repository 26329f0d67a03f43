//! The generic cases of h2spec: what a client may do, and gets its answer.

use super::super::wire::{
    END_HEADERS, END_STREAM, block, data, frame, goaway, headers, reset, settings,
};
use super::*;

const PLAIN: (&str, &str) = (":path", "/plain");

fn begin(flags: u8) -> Vec<u8> {
    headers(1, flags, &[METHOD, SCHEME, PLAIN, AUTHORITY])
}

const OK: Must = Must::Answer(1, 200);

#[tokio::test]
async fn frames_of_messages() {
    let fields = block(&[METHOD, SCHEME, PLAIN, AUTHORITY]);
    let padded = [&[9][..], &fields, &[0; 9]].concat();
    let prioritized = [&[0x80, 0, 0, 0, 255][..], &fields].concat();
    let both = [&[9, 0, 0, 0, 0, 0][..], &fields, &[0; 9]].concat();
    let all = END_HEADERS | END_STREAM;
    let cases = vec![
        case(
            "generic 3.1",
            "DATA",
            vec![begin(0), data(1, END_STREAM, b"test")],
            OK,
        ),
        case(
            "generic 3.1",
            "several of DATA",
            vec![begin(0), data(1, 0, b"te"), data(1, END_STREAM, b"st")],
            OK,
        ),
        case(
            "generic 3.1",
            "padded DATA",
            vec![begin(0), frame(0x0, 0x8 | END_STREAM, 1, b"\x02test\0\0")],
            OK,
        ),
        case("generic 3.2", "HEADERS", vec![begin(END_STREAM)], OK),
        case(
            "generic 3.2",
            "padded HEADERS",
            vec![frame(0x1, all | 0x8, 1, &padded)],
            OK,
        ),
        case(
            "generic 3.2",
            "HEADERS with a priority",
            vec![frame(0x1, all | 0x20, 1, &prioritized)],
            OK,
        ),
        case(
            "generic 3.2",
            "padded HEADERS with a priority",
            vec![frame(0x1, all | 0x28, 1, &both)],
            OK,
        ),
    ];
    run(cases).await;
}

#[tokio::test]
async fn frames_beside_messages() {
    let cases = vec![
        case(
            "generic 3.3",
            "PRIORITY",
            vec![frame(0x2, 0, 1, &[0, 0, 0, 0, 1]), begin(END_STREAM)],
            OK,
        ),
        case(
            "generic 3.3",
            "PRIORITY of the largest weight",
            vec![frame(0x2, 0, 1, &[0, 0, 0, 0, 255]), begin(END_STREAM)],
            OK,
        ),
        case(
            "generic 3.3",
            "PRIORITY that excludes",
            vec![frame(0x2, 0, 3, &[0x80, 0, 0, 1, 9]), begin(END_STREAM)],
            OK,
        ),
        case(
            "generic 3.4",
            "RST_STREAM",
            vec![begin(0), reset(1, 8), ask(3)],
            Must::Answer(3, 200),
        ),
        case(
            "generic 3.5",
            "SETTINGS",
            vec![settings(&[(0x3, 100)]), begin(END_STREAM)],
            OK,
        ),
        case("generic 3.7", "PING", vec![ping(), begin(END_STREAM)], OK),
        case(
            "generic 3.8",
            "GOAWAY",
            vec![begin(0), goaway(0, 0), data(1, END_STREAM, b"")],
            Must::Answer(1, 200),
        ),
    ];
    run(cases).await;
}

#[tokio::test]
async fn frames_that_go_on() {
    let fields = block(&[METHOD, SCHEME, PLAIN, AUTHORITY]);
    let cases = vec![
        case(
            "generic 3.9",
            "WINDOW_UPDATE of the connection",
            vec![frame(0x8, 0, 0, &[0, 0, 0, 1]), begin(END_STREAM)],
            OK,
        ),
        case(
            "generic 3.9",
            "WINDOW_UPDATE of a stream",
            vec![
                begin(0),
                frame(0x8, 0, 1, &[0, 0, 0, 1]),
                data(1, END_STREAM, b""),
            ],
            OK,
        ),
        case(
            "generic 3.10",
            "CONTINUATION",
            vec![
                frame(0x1, END_STREAM, 1, &fields[..9]),
                frame(0x9, 0, 1, &fields[9..20]),
                frame(0x9, 0x4, 1, &fields[20..]),
            ],
            OK,
        ),
    ];
    run(cases).await;
}

#[tokio::test]
async fn messages_of_every_kind() {
    let of = |method| {
        vec![headers(
            1,
            END_STREAM,
            &[(":method", method), SCHEME, PLAIN, AUTHORITY],
        )]
    };
    let trailers = headers(1, END_STREAM, &[("x-test", "ok")]);
    let cases = vec![
        case("generic 4", "GET", of("GET"), OK),
        case("generic 4", "HEAD", of("HEAD"), OK),
        case("generic 4", "POST", of("POST"), OK),
        case("generic 4", "OPTIONS", of("OPTIONS"), OK),
        case("generic 4", "a method of one's own", of("BREW"), OK),
        case(
            "generic 4",
            "POST with trailers",
            vec![begin(0), data(1, 0, b"test"), trailers.clone()],
            OK,
        ),
        case(
            "generic 4",
            "POST of trailers alone",
            vec![begin(0), trailers],
            OK,
        ),
        case(
            "generic 4",
            "the asterisk",
            vec![headers(
                1,
                END_STREAM,
                &[(":method", "OPTIONS"), SCHEME, (":path", "*"), AUTHORITY],
            )],
            OK,
        ),
    ];
    run(cases).await;
}

/// RFC 7541 section 6, each form with a field of its own.
#[tokio::test]
async fn header_blocks_of_every_form() {
    let usual = block(&[METHOD, SCHEME, PLAIN, AUTHORITY]);
    let of = |name, before: &[u8], more: &[u8]| {
        let fields = [before, &usual, more].concat();
        let sent = vec![frame(0x1, END_HEADERS | END_STREAM, 1, &fields)];
        case("generic 5", name, sent, OK)
    };
    let text = |prefix: &[u8], texts: &[&str]| {
        let mut bytes = prefix.to_vec();
        for text in texts {
            bytes.push(u8::try_from(text.len()).expect("short"));
            bytes.extend(text.bytes());
        }
        bytes
    };
    // "ok" in the code of appendix B is 00111 1110101, and ones to the end.
    let cases = vec![
        of("indexed", &[], &[0x90]),
        of(
            "indexed, from the dynamic table",
            &[],
            &[text(&[0x40], &["x-a", "b"]), vec![0xbe]].concat(),
        ),
        of(
            "a literal to be indexed, its name indexed",
            &[],
            &text(&[0x7a], &["agent"]),
        ),
        of(
            "a literal to be indexed",
            &[],
            &text(&[0x40], &["x-a", "b"]),
        ),
        of(
            "a literal that is not indexed, its name indexed",
            &[],
            &text(&[0x0f, 0x2b], &["agent"]),
        ),
        of(
            "a literal that is not indexed",
            &[],
            &text(&[0x00], &["x-a", "b"]),
        ),
        of(
            "a literal that is never indexed",
            &[],
            &text(&[0x10], &["x-a", "b"]),
        ),
        of(
            "a literal that is never indexed, its name indexed",
            &[],
            &text(&[0x1f, 0x2b], &["agent"]),
        ),
        of("a size of the table", &[0x3f, 0xe1, 0x1f], &[]),
        of("two sizes of the table", &[0x20, 0x3f, 0xe1, 0x1f], &[]),
        of(
            "a text in Huffman's code",
            &[],
            &[0x00, 0x01, b'x', 0x82, 0x3f, 0x5f],
        ),
    ];
    run(cases).await;
}
