//! Sections 3.4, 4 and 5.5: how a connection begins, what a frame is, and what extends it.

use super::super::wire::{END_HEADERS, END_STREAM, acknowledgement, block, data, frame, settings};
use super::*;

#[tokio::test]
async fn section_3_4_the_preface() {
    let preface = || PREFACE.to_vec();
    let cases = vec![
        case("3.4", "preface and SETTINGS", vec![], Must::Live),
        case(
            "3.4",
            "a request in the same flight",
            vec![ask(1)],
            Must::Answer(1, 200),
        ),
        case(
            "3.4",
            "PING before SETTINGS",
            vec![],
            Must::GoAway(PROTOCOL),
        )
        .from(vec![preface(), ping(), settings(&[])]),
        case(
            "3.4",
            "HEADERS before SETTINGS",
            vec![],
            Must::GoAway(PROTOCOL),
        )
        .from(vec![preface(), ask(1), settings(&[])]),
        case(
            "3.4",
            "an acknowledgement before SETTINGS",
            vec![],
            Must::GoAway(PROTOCOL),
        )
        .from(vec![preface(), acknowledgement(), settings(&[])]),
    ];
    run(cases).await;
}

/// What does not begin with the preface is no HTTP/2, and the proxy no server of it: it goes to an
/// endpoint as it is, which ends it here.
#[tokio::test]
async fn section_3_4_another_preface() {
    let proxy = two(Setup::default(), by_streams()).await;
    let late = [&PREFACE[..23], b"?"].concat();
    for preface in [b"INVALID CONNECTION PREFACE\r\n\r\n", &late[..]] {
        let mut raw = Raw::connect(&proxy).await;
        raw.write(preface).await;
        while raw.next().await.is_some() {}
    }
}

#[tokio::test]
async fn section_3_4_settings_are_the_first_to_come() {
    let proxy = two(Setup::default(), by_streams()).await;
    let mut raw = Raw::connect(&proxy).await;
    raw.write(PREFACE).await;
    let first = raw.next().await.expect("a frame");
    assert_eq!((first.kind, first.flags, first.stream), (0x4, 0, 0));
    let said: Vec<_> = first.payload.chunks(6).map(<[u8]>::to_vec).collect();
    let config = weir_proxy::terminate::Config::default();
    for (id, value) in [
        (0x3u16, config.max_streams),
        (0x4, config.window),
        (0x6, config.max_header_list),
        // RFC 8441.
        (0x8, 1),
    ] {
        let setting = [&id.to_be_bytes()[..], &value.to_be_bytes()].concat();
        assert!(said.contains(&setting), "{id}: {value} of {said:?}");
    }
}

#[tokio::test]
async fn section_4_1_frames_that_nobody_knows() {
    let cases = vec![
        case(
            "4.1",
            "an unknown type",
            vec![frame(0x16, 0, 0, b"anything"), ask(1)],
            Must::Answer(1, 200),
        ),
        case(
            "4.1",
            "unknown flags",
            vec![frame(0x6, 0x16, 0, b"12345678"), ask(1)],
            Must::Answer(1, 200),
        ),
        case(
            "4.1",
            "the reserved bit",
            vec![frame(0x6, 0, 0x8000_0000, b"12345678"), ask(1)],
            Must::Answer(1, 200),
        ),
        case(
            "5.5",
            "an extension of a stream",
            vec![open(1), frame(0xbe, 0xff, 1, b"anything")],
            Must::Live,
        ),
        case(
            "5.5",
            "an extension within a header block",
            vec![
                frame(0x1, END_STREAM, 1, &block(&[METHOD])),
                frame(0x16, 0, 0, b"anything"),
            ],
            Must::GoAway(PROTOCOL),
        ),
        case(
            "5.5",
            "an unknown setting",
            vec![settings(&[(0xff, 1)]), ask(1)],
            Must::Answer(1, 200),
        ),
    ];
    run(cases).await;
}

#[tokio::test]
async fn section_4_2_the_sizes_of_frames() {
    let cases = vec![
        case(
            "4.2",
            "DATA of 2^14 bytes",
            vec![open(1), data(1, 0, &[0; 16_384])],
            Must::Live,
        ),
        case(
            "4.2",
            "DATA of more",
            vec![open(1), data(1, 0, &[0; 16_385])],
            Must::GoAway(FRAME_SIZE),
        ),
        case(
            "4.2",
            "HEADERS of more",
            vec![frame(0x1, END_STREAM | END_HEADERS, 1, &[0x82; 16_385])],
            Must::GoAway(FRAME_SIZE),
        ),
        case(
            "4.2",
            "an unknown type of more",
            vec![frame(0x16, 0, 0, &[0; 16_385])],
            Must::GoAway(FRAME_SIZE),
        ),
    ];
    run(cases).await;
}

#[tokio::test]
async fn section_4_3_header_blocks() {
    let broken = |name, bytes: &[u8]| {
        let sent = vec![frame(0x1, END_STREAM | END_HEADERS, 1, bytes)];
        case("4.3", name, sent, Must::GoAway(COMPRESSION)).or(Must::GoAway(PROTOCOL))
    };
    let cases = vec![
        broken("an incomplete literal", &[0x40, 0x7f]),
        // RFC 7541 sections 2.3.3, 4.2, 5.2, 6.1 and 6.3.
        broken("an index that is not in the table", &[0x82, 0xfe]),
        broken("index 0", &[0x80]),
        broken(
            "a size update at the end",
            &[&block(&[METHOD])[..], &[0x20]].concat(),
        ),
        broken("a table larger than announced", &[0x3f, 0xe2, 0x1f, 0x82]),
        broken(
            "padding of more than seven bits",
            &[0x40, 0x81, 0xff, 0x82, 0xff, 0xff],
        ),
        broken(
            "padding that is not of ones",
            &[0x00, 0x82, 0x1c, 0x00, 0x01, b'a'],
        ),
        broken(
            "a text with the end of Huffman's code in it",
            &[0x00, 0x85, 0xf2, 0xb2, 0x4f, 0xff, 0xff, 0x01, b'a'],
        ),
        case(
            "4.3",
            "PRIORITY within a block",
            vec![
                frame(0x1, END_STREAM, 1, &block(&[METHOD])),
                frame(0x2, 0, 1, &[0; 5]),
            ],
            Must::GoAway(PROTOCOL),
        ),
        case(
            "4.3",
            "HEADERS of another stream within a block",
            vec![frame(0x1, END_STREAM, 1, &block(&[METHOD])), ask(3)],
            Must::GoAway(PROTOCOL),
        ),
    ];
    run(cases).await;
}
