//! gRPC messages in the DATA of a stream, counted without being gathered.
//!
//! `session` feeds it the data of streams whose content type is gRPC's. The framing is that of
//! "gRPC over HTTP/2": a flag, a length of four bytes, the message.

/// Bytes in front of every message.
const PREFIX: u8 = 5;

/// Whether a content type is gRPC's: `application/grpc`, alone or followed by a message format
/// (`+proto`) or parameters. gRPC-Web has another framing and is not.
pub fn is_grpc(content_type: &[u8]) -> bool {
    const GRPC: &[u8] = b"application/grpc";
    let Some((start, rest)) = content_type.split_at_checked(GRPC.len()) else {
        return false;
    };
    start.eq_ignore_ascii_case(GRPC) && matches!(rest.first(), None | Some(b'+' | b';' | b' '))
}

/// The place in the messages of one direction of a stream.
#[derive(Clone, Copy, Debug, Default)]
pub struct Messages {
    /// Bytes of the prefix that were read.
    have: u8,
    /// Bytes of the message that are to come, or as much of its length as was read.
    left: u32,
}

impl Messages {
    /// Reads on; answers how many messages have ended in `bytes`.
    pub fn feed(&mut self, mut bytes: &[u8]) -> u64 {
        let mut ended = 0;
        loop {
            if self.have < PREFIX {
                let Some((byte, rest)) = bytes.split_first() else {
                    return ended;
                };
                bytes = rest;
                // The flag, whatever it is, is shifted out again by the length.
                self.left = self.left << 8 | u32::from(*byte);
                if self.have == 0 {
                    self.left = 0;
                }
                self.have += 1;
            }
            if self.have == PREFIX {
                let n = bytes.len().min(self.left as usize);
                bytes = &bytes[n..];
                // At most what was left, which is a u32.
                self.left -= n as u32;
                if self.left > 0 {
                    return ended;
                }
                self.have = 0;
                ended += 1;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Messages, is_grpc};

    #[test]
    fn only_grpc_itself_is_grpc() {
        for (text, expected) in [
            ("application/grpc", true),
            ("Application/gRPC+proto", true),
            ("application/grpc;charset=utf-8", true),
            ("application/grpc-web", false),
            ("application/grpc-web-text+proto", false),
            ("application/grp", false),
            ("text/html", false),
        ] {
            assert_eq!(is_grpc(text.as_bytes()), expected, "{text}");
        }
    }

    #[test]
    fn messages_are_counted_when_they_end_however_they_are_cut() {
        let mut bytes = Vec::new();
        for len in [0usize, 3, 0, 300, 70_000, 1] {
            bytes.push(u8::from(len == 3));
            bytes.extend(u32::try_from(len).unwrap().to_be_bytes());
            bytes.resize(bytes.len() + len, 0xff);
        }
        for size in (1..=20).chain([8_192, bytes.len()]) {
            let mut messages = Messages::default();
            let count: u64 = bytes.chunks(size).map(|piece| messages.feed(piece)).sum();
            assert_eq!(count, 6, "in pieces of {size}");
        }
        let mut messages = Messages::default();
        assert_eq!(messages.feed(&bytes[..bytes.len() - 1]), 5);
        assert_eq!(messages.feed(&[0]), 1);
    }
}
