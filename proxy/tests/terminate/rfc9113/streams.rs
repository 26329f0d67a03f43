//! Sections 5.1 to 5.4: what may come in which state of a stream, and how errors end.

use super::super::wire::{END_STREAM, data, frame, reset};
use super::*;

fn continuation(stream: u32) -> Vec<u8> {
    frame(0x9, 0x4, stream, &[0x82])
}

fn window_update(stream: u32, by: u32) -> Vec<u8> {
    frame(0x8, 0, stream, &by.to_be_bytes())
}

#[tokio::test]
async fn section_5_1_idle_streams() {
    let cases = vec![
        case(
            "5.1",
            "idle: DATA",
            vec![data(1, END_STREAM, b"x")],
            Must::GoAway(PROTOCOL),
        ),
        case(
            "5.1",
            "idle: RST_STREAM",
            vec![reset(1, 8)],
            Must::GoAway(PROTOCOL),
        ),
        case(
            "5.1",
            "idle: WINDOW_UPDATE",
            vec![window_update(1, 100)],
            Must::GoAway(PROTOCOL),
        ),
        case(
            "5.1",
            "idle: CONTINUATION",
            vec![continuation(1)],
            Must::GoAway(PROTOCOL),
        ),
        case(
            "5.1",
            "idle: PRIORITY",
            vec![frame(0x2, 0, 1, &[0, 0, 0, 0, 9]), ask(1)],
            Must::Answer(1, 200),
        ),
    ];
    run(cases).await;
}

#[tokio::test]
async fn section_5_1_half_closed_streams() {
    let closed = |name, late: Vec<u8>| {
        case(
            "5.1",
            name,
            vec![whole(1), late],
            Must::Reset(1, STREAM_CLOSED),
        )
        .or(Must::GoAway(PROTOCOL))
    };
    let cases = vec![
        closed("half-closed: DATA", data(1, END_STREAM, b"x")),
        closed("half-closed: HEADERS", whole(1)),
        case(
            "5.1",
            "half-closed: CONTINUATION",
            vec![whole(1), continuation(1)],
            Must::GoAway(PROTOCOL),
        ),
        case(
            "5.1",
            "half-closed: WINDOW_UPDATE",
            vec![whole(1), window_update(1, 9)],
            Must::Live,
        ),
        case(
            "5.1",
            "half-closed: PRIORITY",
            vec![whole(1), frame(0x2, 0, 1, &[0, 0, 0, 0, 9])],
            Must::Live,
        ),
        case(
            "5.1",
            "half-closed: RST_STREAM",
            vec![whole(1), reset(1, 8), ask(3)],
            Must::Answer(3, 200),
        ),
    ];
    run(cases).await;
}

#[tokio::test]
async fn section_5_1_closed_streams() {
    let cases = vec![
        case(
            "5.1",
            "closed by RST_STREAM: DATA",
            vec![open(1), reset(1, 8), data(1, END_STREAM, b"x")],
            Must::Reset(1, STREAM_CLOSED),
        ),
        case(
            "5.1",
            "closed by RST_STREAM: HEADERS",
            vec![open(1), reset(1, 8), whole(1)],
            Must::Reset(1, STREAM_CLOSED),
        )
        .or(Must::GoAway(PROTOCOL)),
        case(
            "5.1",
            "closed by RST_STREAM: CONTINUATION",
            vec![open(1), reset(1, 8), continuation(1)],
            Must::GoAway(PROTOCOL),
        ),
        case(
            "5.1",
            "closed: WINDOW_UPDATE and RST_STREAM, which may be under way",
            vec![
                open(1),
                reset(1, 8),
                window_update(1, 9),
                reset(1, 8),
                ask(3),
            ],
            Must::Answer(3, 200),
        ),
        case(
            "5.1",
            "closed: PRIORITY",
            vec![
                open(1),
                reset(1, 8),
                frame(0x2, 0, 1, &[0, 0, 0, 0, 9]),
                ask(3),
            ],
            Must::Answer(3, 200),
        ),
    ];
    run(cases).await;
}

/// Streams that both sides have ended: the late frame comes once the answer was read.
#[tokio::test]
async fn section_5_1_streams_that_have_ended() {
    let proxy = two(Setup::default(), by_streams()).await;
    for (name, late, must) in [
        (
            "DATA",
            data(1, END_STREAM, b"x"),
            Must::Reset(1, STREAM_CLOSED),
        ),
        // Section 5.1.1: "An endpoint that receives an unexpected stream identifier MUST respond with
        // a connection error (Section 5.4.1) of type PROTOCOL_ERROR".
        ("HEADERS", ask(1), Must::GoAway(PROTOCOL)),
        ("CONTINUATION", continuation(1), Must::GoAway(PROTOCOL)),
        ("WINDOW_UPDATE", window_update(1, 9), Must::Live),
        ("RST_STREAM", reset(1, 8), Must::Live),
        ("PRIORITY", frame(0x2, 0, 1, &[0, 0, 0, 0, 9]), Must::Live),
    ] {
        let mut raw = Raw::connect(&proxy).await;
        let hello = [PREFACE, &settings(&[]), &acknowledgement(), &ask(1)].concat();
        raw.write(&hello).await;
        assert_eq!(raw.outcome(Some(1)).await, Must::Answer(1, 200), "{name}");
        raw.write(&late).await;
        assert_eq!(raw.outcome(None).await, must, "{name}");
    }
}

#[tokio::test]
async fn section_5_1_1_identifiers() {
    let cases = vec![
        case("5.1.1", "an even one", vec![ask(2)], Must::GoAway(PROTOCOL)),
        case(
            "5.1.1",
            "a smaller one",
            vec![open(5), open(3)],
            Must::GoAway(PROTOCOL),
        ),
        case(
            "5.1.1",
            "some left out",
            vec![open(5), ask(17)],
            Must::Answer(17, 200),
        ),
        case(
            "5.1.1",
            "DATA of one left out",
            vec![open(5), data(3, 0, b"x")],
            Must::Reset(3, STREAM_CLOSED),
        ),
        case(
            "5.1.1",
            "the largest",
            vec![ask(0x7fff_ffff)],
            Must::Answer(0x7fff_ffff, 200),
        ),
    ];
    run(cases).await;
}

#[tokio::test]
async fn section_5_1_2_concurrency() {
    let most = |n: u32| (0..n).map(|i| open(2 * i + 1)).collect::<Vec<_>>();
    let cases = vec![
        case("5.1.2", "as many as announced", most(100), Must::Live),
        case("5.1.2", "one more", most(101), Must::Reset(201, REFUSED)),
        case(
            "5.1.2",
            "one more once one is over",
            [most(100), vec![reset(1, 8), ask(201)]].concat(),
            Must::Answer(201, 200),
        ),
    ];
    run(cases).await;
}

#[tokio::test]
async fn section_5_3_priorities() {
    let priority = |dependency: u32| [&dependency.to_be_bytes()[..], &[16]].concat();
    let fields = super::super::wire::block(&[METHOD, SCHEME, HANG, AUTHORITY]);
    let headers = |dependency| {
        let payload = [&priority(dependency)[..], &fields].concat();
        frame(0x1, 0x20 | 0x4 | END_STREAM, 1, &payload)
    };
    let cases = vec![
        case(
            "5.3",
            "HEADERS with a priority",
            vec![headers(0)],
            Must::Live,
        ),
        case(
            "5.3",
            "HEADERS that depend on a stream to come",
            vec![headers(0x8000_0003)],
            Must::Live,
        ),
        // RFC 7540 section 5.3.1, which h2spec tests; RFC 9113 has given priorities up.
        case(
            "5.3",
            "HEADERS that depend on themselves",
            vec![headers(1)],
            Must::Reset(1, PROTOCOL),
        ),
        case(
            "5.3",
            "PRIORITY that depends on itself",
            vec![open(1), frame(0x2, 0, 1, &priority(1))],
            Must::Reset(1, PROTOCOL),
        ),
    ];
    run(cases).await;
}

#[tokio::test]
async fn section_5_4_errors() {
    let cases = vec![
        // GOAWAY, then the end: `outcome` asks for both.
        case(
            "5.4.1",
            "of a connection",
            vec![open(1), frame(0x6, 0, 3, b"12345678")],
            Must::GoAway(PROTOCOL),
        ),
        case(
            "5.4.2",
            "of a stream leaves the others",
            vec![with(1, 0, &[("connection", "close")]), ask(3)],
            Must::Reset(1, PROTOCOL),
        ),
    ];
    run(cases).await;
}
