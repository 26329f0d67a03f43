//! The answers that the proxy makes up itself, in frames: to every open stream the same status,
//! then the end of the connection.
//!
//! Called by `session` where the server never spoke. The frames are a whole server's side: its
//! preface, the answers, GOAWAY (RFC 9113 sections 3.4, 6.8 and 8.1).

use super::frame::types::{GOAWAY, HEADERS, SETTINGS};
use super::frame::{END_HEADERS, END_STREAM};

/// Most streams that are answered one by one. Those after them learn from GOAWAY that nobody
/// has processed them.
pub const MAX_ANSWERS: usize = 128;

/// A GOAWAY that asks a client to leave and names no stream that would not be answered (RFC 9113 section 6.8).
pub const LEAVE: [u8; 17] = [
    0, 0, 8, GOAWAY, 0, 0, 0, 0, 0, 0x7f, 0xff, 0xff, 0xff, 0, 0, 0, 0,
];

/// The entry of the static table with the name `:status`.
const STATUS: u8 = 8;

/// Answers open `streams`, of which `last` was the last to open, with this status and error type
/// of RFC 9209, its parameters included. Answers the bytes, and how many streams they answer.
pub fn answer(
    streams: impl Iterator<Item = u32>,
    last: u32,
    (status, error): (u16, &str),
) -> (Vec<u8>, usize) {
    let block = block(status, error);
    let mut bytes = Vec::new();
    frame(&mut bytes, (SETTINGS, 0), 0, &[]);
    let (mut answered, mut last, mut streams) = (0, last, streams.peekable());
    while let Some(stream) = streams.next() {
        let flags = END_STREAM | END_HEADERS;
        frame(&mut bytes, (HEADERS, flags), stream, &block);
        answered += 1;
        if answered == MAX_ANSWERS && streams.peek().is_some() {
            last = stream;
            break;
        }
    }
    let no_error = [last.to_be_bytes(), [0; 4]].concat();
    frame(&mut bytes, (GOAWAY, 0), 0, &no_error);
    (bytes, answered)
}

/// `:status` and `proxy-status`, neither of them indexed (RFC 7541 section 6.2.2).
fn block(status: u16, error: &str) -> Vec<u8> {
    const NAME: &[u8] = b"proxy-status";
    let mut block = vec![STATUS, 3];
    block.extend(status.to_string().bytes());
    block.extend([0, NAME.len() as u8]);
    block.extend(NAME);
    let value = format!("weir; error={error}");
    // A length from 127 on would take a second octet (RFC 7541 section 5.1): an address is shorter.
    debug_assert!(value.len() < 127, "{value}");
    block.push(u8::try_from(value.len()).expect("error types are short"));
    block.extend(value.bytes());
    block
}

fn frame(bytes: &mut Vec<u8>, (kind, flags): (u8, u8), stream: u32, payload: &[u8]) {
    let len = u32::try_from(payload.len()).expect("a payload of ours is short");
    let [_, a, b, c] = len.to_be_bytes();
    bytes.extend([a, b, c, kind, flags]);
    bytes.extend(stream.to_be_bytes());
    bytes.extend(payload);
}

#[cfg(test)]
mod tests {
    use super::{LEAVE, MAX_ANSWERS, SETTINGS, answer, frame};
    use crate::http2::lane::{Event, Lane};

    /// What a client reads: the statuses by stream, and the stream that GOAWAY names.
    fn read(mut bytes: &[u8]) -> (Vec<u32>, u32) {
        let mut lane = Lane::of_server();
        let (mut answered, mut last) = (Vec::new(), None);
        while let Some(event) = lane.next(&mut bytes).expect("frames") {
            match event {
                Event::Headers { stream, ends: true } => {
                    assert_eq!(lane.fields().status, Some(502));
                    answered.push(stream);
                }
                Event::Settings { table: None } => assert!(answered.is_empty()),
                Event::GoAway { last: id, code: 0 } => last = Some(id),
                other => panic!("{other:?}"),
            }
        }
        (answered, last.expect("a GOAWAY"))
    }

    #[test]
    fn open_streams_are_answered_and_the_last_one_named() {
        let (bytes, n) = answer([1, 5].into_iter(), 7, (502, "connection_refused"));
        assert_eq!(n, 2);
        assert_eq!(read(&bytes), (vec![1, 5], 7));
        let (bytes, n) = answer([].into_iter(), 0, (502, "connection_refused"));
        assert_eq!((n, read(&bytes)), (0, (vec![], 0)));
    }

    #[test]
    fn the_longest_hop_has_room_in_a_field() {
        let hop = "[1111:2222:3333:4444:5555:6666:7777:8888%4294967295]:65535";
        let error = format!("connection_limit_reached; next-hop=\"{hop}\"");
        let (bytes, _) = answer([1].into_iter(), 1, (502, &error));
        assert_eq!(read(&bytes), (vec![1], 1));
    }

    #[test]
    fn who_is_asked_to_leave_loses_no_stream() {
        let mut bytes = Vec::new();
        frame(&mut bytes, (SETTINGS, 0), 0, &[]);
        bytes.extend(LEAVE);
        assert_eq!(read(&bytes), (vec![], (1 << 31) - 1));
    }

    #[test]
    fn those_beyond_the_limit_are_told_that_nobody_saw_them() {
        let many = || (0..1000u32).map(|n| 2 * n + 1);
        let (bytes, n) = answer(many(), 1999, (502, "connection_timeout"));
        assert_eq!(n, MAX_ANSWERS);
        // It fits the smallest buffer that the relay writes from.
        assert!(bytes.len() < 16 * 1024);
        let (answered, last) = read(&bytes);
        assert_eq!(answered, many().take(MAX_ANSWERS).collect::<Vec<_>>());
        assert_eq!(Some(&last), answered.last());
    }
}
