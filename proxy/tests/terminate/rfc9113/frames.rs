//! Section 6: each type of frame, as it must not be.

use super::super::wire::{
    END_HEADERS, END_STREAM, acknowledgement, block, data, frame, goaway, reset, settings,
};
use super::*;

fn request() -> Vec<u8> {
    block(&[METHOD, SCHEME, HANG, AUTHORITY])
}

#[tokio::test]
async fn section_6_1_data() {
    let padded = |stream, len: u8, rest: &[u8]| {
        let payload = [&[len][..], rest].concat();
        frame(0x0, 0x8 | END_STREAM, stream, &payload)
    };
    let cases = vec![
        case(
            "6.1",
            "of no stream",
            vec![data(0, 0, b"x")],
            Must::GoAway(PROTOCOL),
        ),
        case(
            "6.1",
            "padded",
            vec![open(1), padded(1, 3, b"data\0\0\0")],
            Must::Live,
        ),
        case(
            "6.1",
            "of nothing but padding",
            vec![open(1), padded(1, 3, b"\0\0\0")],
            Must::Live,
        ),
        case(
            "6.1",
            "with too much padding",
            vec![open(1), padded(1, 8, b"data\0\0\0")],
            Must::GoAway(PROTOCOL),
        ),
        case(
            "6.1",
            "without its length of padding",
            vec![open(1), frame(0x0, 0x8, 1, b"")],
            Must::GoAway(FRAME_SIZE),
        ),
        case(
            "6.1",
            "empty, but for the end",
            vec![open(1), data(1, 0, b""), data(1, END_STREAM, b"")],
            Must::Live,
        ),
    ];
    run(cases).await;
}

#[tokio::test]
async fn section_6_2_headers() {
    let padded = |len: u8, padding: usize| {
        let payload = [&[len][..], &request(), &vec![0; padding]].concat();
        frame(0x1, 0x8 | END_HEADERS | END_STREAM, 1, &payload)
    };
    let cases = vec![
        case(
            "6.2",
            "of no stream",
            vec![frame(0x1, END_HEADERS | END_STREAM, 0, &request())],
            Must::GoAway(PROTOCOL),
        ),
        case("6.2", "padded", vec![padded(3, 3)], Must::Live),
        case(
            "6.2",
            "with too much padding",
            vec![padded(255, 3)],
            Must::GoAway(PROTOCOL),
        ),
        case(
            "6.2",
            "with DATA before their end",
            vec![frame(0x1, 0, 1, &request()), data(1, 0, b"x")],
            Must::GoAway(PROTOCOL),
        ),
        case(
            "6.2",
            "without room for a priority",
            vec![frame(0x1, 0x20 | END_HEADERS, 1, &[0; 4])],
            Must::GoAway(FRAME_SIZE),
        ),
        case(
            "6.2",
            "without room for padding and a priority",
            vec![frame(0x1, 0x28 | END_HEADERS, 1, &[0; 5])],
            Must::GoAway(FRAME_SIZE),
        ),
    ];
    run(cases).await;
}

#[tokio::test]
async fn section_6_3_priority() {
    let cases = vec![
        case(
            "6.3",
            "of no stream",
            vec![frame(0x2, 0, 0, &[0; 5])],
            Must::GoAway(PROTOCOL),
        ),
        case(
            "6.3",
            "of four bytes",
            vec![open(1), frame(0x2, 0, 1, &[0; 4])],
            Must::Reset(1, FRAME_SIZE),
        )
        .or(Must::GoAway(FRAME_SIZE)),
    ];
    run(cases).await;
}

#[tokio::test]
async fn section_6_4_rst_stream() {
    let cases = vec![
        case(
            "6.4",
            "of no stream",
            vec![reset(0, 8)],
            Must::GoAway(PROTOCOL),
        ),
        case(
            "6.4",
            "of an idle stream",
            vec![reset(1, 8)],
            Must::GoAway(PROTOCOL),
        ),
        case(
            "6.4",
            "of three bytes",
            vec![open(1), frame(0x3, 0, 1, &[0; 3])],
            Must::GoAway(FRAME_SIZE),
        ),
        case(
            "6.4",
            "of five bytes",
            vec![open(1), frame(0x3, 0, 1, &[0; 5])],
            Must::GoAway(FRAME_SIZE),
        ),
        case(
            "6.4",
            "of an open stream",
            vec![open(1), reset(1, 8), ask(3)],
            Must::Answer(3, 200),
        ),
    ];
    run(cases).await;
}

#[tokio::test]
async fn section_6_5_settings() {
    let cases = vec![
        case(
            "6.5",
            "an acknowledgement that says something",
            vec![frame(0x4, 0x1, 0, &[0; 6])],
            Must::GoAway(FRAME_SIZE),
        ),
        case(
            "6.5",
            "of a stream",
            vec![frame(0x4, 0, 1, &[])],
            Must::GoAway(PROTOCOL),
        ),
        case(
            "6.5",
            "of five bytes",
            vec![frame(0x4, 0, 0, &[0; 5])],
            Must::GoAway(FRAME_SIZE),
        ),
    ];
    run(cases).await;
}

#[tokio::test]
async fn section_6_5_2_what_settings_say() {
    let cases = vec![
        case(
            "6.5.2",
            "a push that is neither",
            vec![settings(&[(0x2, 2)])],
            Must::GoAway(PROTOCOL),
        ),
        case(
            "6.5.2",
            "a window too large",
            vec![settings(&[(0x4, 0x8000_0000)])],
            Must::GoAway(FLOW_CONTROL),
        )
        .or(Must::GoAway(PROTOCOL)),
        case(
            "6.5.2",
            "frames too small",
            vec![settings(&[(0x5, 16_383)])],
            Must::GoAway(PROTOCOL),
        ),
        case(
            "6.5.2",
            "frames too large",
            vec![settings(&[(0x5, 16_777_216)])],
            Must::GoAway(PROTOCOL),
        ),
        case(
            "6.5.2",
            "a connect protocol that is neither",
            vec![settings(&[(0x8, 2)])],
            Must::GoAway(PROTOCOL),
        ),
        case(
            "6.5.2",
            "every one there is",
            vec![
                settings(&[
                    (0x1, 0),
                    (0x2, 0),
                    (0x3, 0),
                    (0x4, 9),
                    (0x5, 16_777_215),
                    (0x6, 9999),
                ]),
                ask(1),
            ],
            Must::Answer(1, 200),
        ),
        case(
            "6.5.3",
            "an acknowledgement that nobody waits for",
            vec![acknowledgement(), acknowledgement(), ask(1)],
            Must::GoAway(PROTOCOL),
        ),
    ];
    run(cases).await;
}

#[tokio::test]
async fn section_6_5_3_settings_are_acknowledged() {
    let proxy = two(Setup::default(), by_streams()).await;
    let mut raw = Raw::connect(&proxy).await;
    let three = [
        PREFACE,
        &settings(&[]),
        &settings(&[(0x4, 1), (0x4, 2)]),
        &settings(&[]),
    ]
    .concat();
    raw.write(&three).await;
    assert_eq!(raw.outcome(None).await, Must::Live);
    let acknowledged = |frame: &&Frame| frame.kind == 0x4 && frame.flags == 0x1;
    assert_eq!(raw.seen.iter().filter(acknowledged).count(), 3);
}

#[tokio::test]
async fn section_6_6_push_promise() {
    let promise = [&2u32.to_be_bytes()[..], &request()].concat();
    let cases = vec![
        case(
            "6.6",
            "from a client",
            vec![open(1), frame(0x5, END_HEADERS, 1, &promise)],
            Must::GoAway(PROTOCOL),
        ),
        case(
            "6.6",
            "of no stream",
            vec![frame(0x5, END_HEADERS, 0, &promise)],
            Must::GoAway(PROTOCOL),
        ),
    ];
    run(cases).await;
}

#[tokio::test]
async fn section_6_7_ping() {
    let cases = vec![
        case("6.7", "one", vec![ping()], Must::Live),
        case(
            "6.7",
            "an answer that nobody waits for",
            vec![frame(0x6, 0x1, 0, b"12345678")],
            Must::Live,
        ),
        case(
            "6.7",
            "of a stream",
            vec![frame(0x6, 0, 1, b"12345678")],
            Must::GoAway(PROTOCOL),
        ),
        case(
            "6.7",
            "of seven bytes",
            vec![frame(0x6, 0, 0, b"1234567")],
            Must::GoAway(FRAME_SIZE),
        ),
        case(
            "6.7",
            "of nine bytes",
            vec![frame(0x6, 0, 0, b"123456789")],
            Must::GoAway(FRAME_SIZE),
        ),
    ];
    run(cases).await;
}

#[tokio::test]
async fn section_6_7_a_ping_is_answered_once_with_what_it_says() {
    let proxy = two(Setup::default(), by_streams()).await;
    let mut raw = Raw::connect(&proxy).await;
    let hello = [
        PREFACE,
        &settings(&[]),
        &ping(),
        &frame(0x6, 0x1, 0, b"a server"),
    ]
    .concat();
    raw.write(&hello).await;
    assert_eq!(raw.outcome(None).await, Must::Live);
    let pongs: Vec<_> = raw.seen.iter().filter(|f| f.kind == 0x6).collect();
    assert_eq!((pongs[0].flags, &*pongs[0].payload), (1, &b"a client"[..]));
    assert!(pongs.iter().all(|pong| *pong.payload != *b"a server"));
}

#[tokio::test]
async fn section_6_8_goaway() {
    let cases = vec![
        case(
            "6.8",
            "of a stream",
            vec![frame(0x7, 0, 1, &[0; 8])],
            Must::GoAway(PROTOCOL),
        ),
        case(
            "6.8",
            "of seven bytes",
            vec![frame(0x7, 0, 0, &[0; 7])],
            Must::GoAway(FRAME_SIZE),
        ),
        case(
            "6.8",
            "while a stream is open",
            vec![open(1), goaway(0, 0)],
            Must::Live,
        ),
        case(
            "6.8",
            "with nothing to wait for",
            vec![goaway(0, 0)],
            Must::GoAway(NO_ERROR),
        ),
    ];
    run(cases).await;
}

#[tokio::test]
async fn section_6_10_continuation() {
    let fields = request();
    let (first, rest) = fields.split_at(10);
    let (second, third) = rest.split_at(10);
    let begin = || frame(0x1, END_STREAM, 1, first);
    let end = |stream| frame(0x9, END_HEADERS, stream, third);
    let cases = vec![
        case(
            "6.10",
            "two",
            vec![begin(), frame(0x9, 0, 1, second), end(1)],
            Must::Live,
        ),
        case(
            "6.10",
            "an empty one",
            vec![
                frame(0x1, END_STREAM, 1, &fields),
                frame(0x9, END_HEADERS, 1, b""),
            ],
            Must::Live,
        ),
        case(
            "6.10",
            "with DATA between",
            vec![begin(), data(1, 0, b"x"), end(1)],
            Must::GoAway(PROTOCOL),
        ),
        case(
            "6.10",
            "of no stream",
            vec![begin(), end(0)],
            Must::GoAway(PROTOCOL),
        ),
        case(
            "6.10",
            "of another stream",
            vec![begin(), end(3)],
            Must::GoAway(PROTOCOL),
        ),
    ];
    run(cases).await;
}

#[tokio::test]
async fn section_6_10_continuation_of_nothing() {
    let fields = request();
    let end = |stream| frame(0x9, END_HEADERS, stream, &fields[20..]);
    let cases = vec![
        case(
            "6.10",
            "after the end of HEADERS",
            vec![open(1), end(1)],
            Must::GoAway(PROTOCOL),
        ),
        case(
            "6.10",
            "after the end of CONTINUATION",
            vec![
                frame(0x1, END_STREAM, 1, &fields),
                frame(0x9, END_HEADERS, 1, b""),
                end(1),
            ],
            Must::GoAway(PROTOCOL),
        ),
        case(
            "6.10",
            "after DATA",
            vec![open(1), data(1, 0, b"x"), end(1)],
            Must::GoAway(PROTOCOL),
        ),
        case("6.10", "first of all", vec![end(1)], Must::GoAway(PROTOCOL)),
    ];
    run(cases).await;
}

#[tokio::test]
async fn section_7_codes_that_nobody_knows() {
    let cases = vec![
        case(
            "7",
            "of RST_STREAM",
            vec![open(1), reset(1, 0xff), ask(3)],
            Must::Answer(3, 200),
        ),
        case("7", "of GOAWAY", vec![open(1), goaway(0, 0xff)], Must::Live),
    ];
    run(cases).await;
}
