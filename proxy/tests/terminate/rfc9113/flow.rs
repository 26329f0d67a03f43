//! Section 6.9: windows, those of the client and those that it fills.

use super::super::wire::{END_STREAM, data, frame, headers, settings};
use super::*;

const MOST: u32 = 0x7fff_ffff;

fn window_update(stream: u32, by: u32) -> Vec<u8> {
    frame(0x8, 0, stream, &by.to_be_bytes())
}

#[tokio::test]
async fn section_6_9_window_update() {
    let cases = vec![
        case(
            "6.9",
            "of nothing, for the connection",
            vec![window_update(0, 0)],
            Must::GoAway(PROTOCOL),
        ),
        case(
            "6.9",
            "of nothing, for a stream",
            vec![open(1), window_update(1, 0)],
            Must::Reset(1, PROTOCOL),
        )
        .or(Must::GoAway(PROTOCOL)),
        case(
            "6.9",
            "of three bytes",
            vec![frame(0x8, 0, 0, &[0; 3])],
            Must::GoAway(FRAME_SIZE),
        ),
        case(
            "6.9",
            "of five bytes",
            vec![frame(0x8, 0, 0, &[0; 5])],
            Must::GoAway(FRAME_SIZE),
        ),
        case(
            "6.9.1",
            "beyond the largest, for the connection",
            vec![window_update(0, MOST), window_update(0, MOST)],
            Must::GoAway(FLOW_CONTROL),
        ),
        case(
            "6.9.1",
            "beyond the largest, for a stream",
            vec![open(1), window_update(1, MOST), window_update(1, MOST)],
            Must::Reset(1, FLOW_CONTROL),
        ),
        case(
            "6.9.2",
            "an initial window that puts a stream's beyond the largest",
            vec![
                open(1),
                window_update(1, MOST - 65_535),
                settings(&[(0x4, 65_536)]),
            ],
            Must::GoAway(FLOW_CONTROL),
        ),
    ];
    run(cases).await;
}

/// A request whose body comes back.
fn echo() -> Vec<u8> {
    let path = (":path", "/echo");
    let head = headers(1, 0, &[METHOD, SCHEME, path, AUTHORITY]);
    [head, data(1, END_STREAM, b"body")].concat()
}

/// The data of stream 1 that has come, and whether it has ended.
fn come(raw: &Raw) -> (Vec<u8>, bool) {
    let all: Vec<&Frame> = raw.seen.iter().filter(|f| f.kind == 0x0).collect();
    let bytes = all.iter().flat_map(|f| f.payload.clone()).collect();
    (bytes, all.iter().any(|f| f.flags & END_STREAM != 0))
}

/// Waits until this much has come of it.
async fn wait_for(raw: &mut Raw, bytes: &[u8]) {
    while come(raw).0 != bytes {
        let frame = raw.next().await.expect("a frame");
        raw.seen.push_back(frame);
    }
}

async fn proxy() -> Proxy {
    two(Setup::default(), by_streams()).await
}

#[tokio::test]
async fn section_6_9_1_no_more_than_the_window_is_sent() {
    let proxy = proxy().await;
    let mut raw = Raw::connect(&proxy).await;
    let hello = [PREFACE, &settings(&[(0x4, 1)]), &acknowledgement(), &echo()].concat();
    raw.write(&hello).await;
    wait_for(&mut raw, b"b").await;
    assert_eq!(raw.outcome(None).await, Must::Live);
    assert_eq!(come(&raw), (b"b".to_vec(), false));
    raw.write(&window_update(1, 2)).await;
    wait_for(&mut raw, b"bod").await;
    assert_eq!(raw.outcome(None).await, Must::Live);
    assert_eq!(come(&raw), (b"bod".to_vec(), false));
    raw.write(&window_update(1, 9)).await;
    while !come(&raw).1 {
        let frame = raw.next().await.expect("a frame");
        raw.seen.push_back(frame);
    }
    assert_eq!(come(&raw).0, b"body");
}

#[tokio::test]
async fn section_6_9_2_the_initial_window_changes_and_may_be_negative() {
    let proxy = proxy().await;
    let mut raw = Raw::connect(&proxy).await;
    let hello = [PREFACE, &settings(&[(0x4, 3)]), &acknowledgement(), &echo()].concat();
    raw.write(&hello).await;
    wait_for(&mut raw, b"bod").await;
    // Three are used of two: one must be given back before the next may come.
    raw.write(&[settings(&[(0x4, 2)]), window_update(1, 1)].concat())
        .await;
    assert_eq!(raw.outcome(None).await, Must::Live);
    assert_eq!(come(&raw), (b"bod".to_vec(), false));
    raw.write(&settings(&[(0x4, 3)])).await;
    while !come(&raw).1 {
        let frame = raw.next().await.expect("a frame");
        raw.seen.push_back(frame);
    }
    assert_eq!(come(&raw).0, b"body");
}

#[tokio::test]
async fn section_6_9_1_no_more_than_the_window_is_taken() {
    let mut config = by_streams();
    config.terminate.window = 1000;
    let proxy = two(Setup::default(), config).await;
    for (len, must) in [(1000, Must::Live), (1001, Must::Reset(1, FLOW_CONTROL))] {
        let mut raw = Raw::connect(&proxy).await;
        let hello = [PREFACE, &settings(&[]), &acknowledgement(), &open(1)].concat();
        raw.write(&[hello, data(1, 0, &vec![0; len])].concat())
            .await;
        assert_eq!(raw.outcome(None).await, must, "{len} bytes");
    }
    // The window of a connection is never below 65,535, nor taken for larger before it is said.
    let mut raw = Raw::connect(&proxy).await;
    let hello = [PREFACE, &settings(&[]), &acknowledgement()].concat();
    let streams = (0..5).map(|n| [open(2 * n + 1), data(2 * n + 1, 0, &[0; 1000])].concat());
    raw.write(&[hello, streams.collect::<Vec<_>>().concat()].concat())
        .await;
    assert_eq!(raw.outcome(None).await, Must::Live);
}
