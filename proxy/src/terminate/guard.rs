//! What the `h2` crate takes from a client, or names by another code, and RFC 9113 does not: a
//! connection that does not begin with SETTINGS (section 3.4), and frames of a size that their
//! type does not have, or that are too small for what they must say (section 4.2).
//!
//! `socket` shows it what a client sends, before `h2` has it. It reads the heads of frames only.

use h2::Reason;

use crate::http2::PREFACE;
use crate::http2::frame::types::{GOAWAY, PING, PRIORITY, RST_STREAM, SETTINGS, WINDOW_UPDATE};
use crate::http2::frame::{ACK, HEAD, Head};

/// Largest frame, as the proxy announces none larger (SETTINGS_MAX_FRAME_SIZE), in bytes.
const LARGEST: u32 = 16_384;

/// The place in the frames of one client.
#[derive(Debug)]
pub(super) struct Guard {
    /// Bytes of the preface or of a payload that are to come.
    skip: u32,
    head: [u8; HEAD],
    have: usize,
    has_begun: bool,
    /// The first SETTINGS are whole.
    has_preface: bool,
    broken: Option<Reason>,
    /// Frames that have begun.
    frames: usize,
}

impl Guard {
    /// Of a client that has sent nothing yet, not even its preface.
    pub(super) fn new() -> Self {
        Self {
            skip: PREFACE.len() as u32,
            head: [0; HEAD],
            have: 0,
            has_begun: false,
            has_preface: false,
            broken: None,
            frames: 0,
        }
    }

    /// The error that ends the connection, once a frame was not to be taken.
    pub(super) fn broken(&self) -> Option<Reason> {
        self.broken
    }

    /// Frames that have begun since this was asked before.
    pub(super) fn take_frames(&mut self) -> usize {
        std::mem::take(&mut self.frames)
    }

    /// Whether the client has said its preface, the SETTINGS at its end included.
    pub(super) fn has_preface(&self) -> bool {
        self.has_preface
    }

    /// Reads on; answers how many of the bytes may be taken.
    pub(super) fn pass(&mut self, bytes: &[u8]) -> usize {
        let mut at = 0;
        while at < bytes.len() && self.broken.is_none() {
            if self.skip > 0 {
                let n = (bytes.len() - at).min(self.skip as usize);
                // At most what was to be skipped, which is a u32.
                self.skip -= n as u32;
                at += n;
                self.has_preface |= self.has_begun && self.skip == 0;
                continue;
            }
            let n = (bytes.len() - at).min(HEAD - self.have);
            self.head[self.have..self.have + n].copy_from_slice(&bytes[at..at + n]);
            self.have += n;
            if self.have == HEAD {
                self.broken = self.judge();
                self.frames += 1;
                self.have = 0;
            }
            if self.broken.is_none() {
                at += n;
            }
        }
        at
    }

    fn judge(&mut self) -> Option<Reason> {
        let head = Head::parse(&self.head);
        let (kind, len) = (self.head[3], head.len);
        self.skip = len;
        let is_ack = head.has(ACK);
        if !std::mem::replace(&mut self.has_begun, true) && (kind != SETTINGS || is_ack) {
            return Some(Reason::PROTOCOL_ERROR);
        }
        let fits = match kind {
            _ if len > LARGEST => false,
            PRIORITY => len == 5,
            RST_STREAM | WINDOW_UPDATE => len == 4,
            SETTINGS if is_ack => len == 0,
            SETTINGS => len.is_multiple_of(6),
            PING => len == 8,
            GOAWAY => len >= 8,
            _ => len >= head.fields(),
        };
        self.has_preface |= len == 0;
        (!fits).then_some(Reason::FRAME_SIZE_ERROR)
    }
}

#[cfg(test)]
mod tests {
    use h2::Reason;

    use super::{Guard, PREFACE};

    fn frame(kind: u8, flags: u8, len: usize) -> Vec<u8> {
        let [.., a, b, c] = len.to_be_bytes();
        let mut bytes = vec![a, b, c, kind, flags, 0, 0, 0, 1];
        bytes.resize(bytes.len() + len, 0xff);
        bytes
    }

    /// Shows `frames` in pieces; answers how many bytes were taken, and the error.
    fn shown(frames: &[Vec<u8>], size: usize) -> (usize, Option<Reason>) {
        let bytes = [PREFACE.to_vec(), frames.concat()].concat();
        let mut guard = Guard::new();
        let taken = bytes.chunks(size).map(|piece| guard.pass(piece)).sum();
        (taken, guard.broken())
    }

    #[test]
    fn what_fits_passes_and_nothing_from_the_first_that_does_not() {
        let begin = frame(4, 0, 12);
        let good = [
            frame(4, 1, 0),
            frame(0, 1, 16_384),
            frame(0, 0, 0),
            frame(0, 8, 1),
            frame(1, 0, 0),
            frame(1, 0x28, 6),
            frame(9, 0x28, 0),
            frame(6, 0, 8),
            frame(2, 0, 5),
            frame(8, 0, 4),
            frame(7, 0, 20),
            frame(0xbe, 0xff, 7),
        ];
        let good = [vec![begin.clone()], good.to_vec()].concat();
        let whole = PREFACE.len() + good.concat().len();
        let bad = [
            (good.clone(), frame(6, 0, 7)),
            (good.clone(), frame(3, 0, 5)),
            (good.clone(), frame(4, 0, 7)),
            (good.clone(), frame(4, 1, 6)),
            (good.clone(), frame(8, 0, 3)),
            (good.clone(), frame(2, 0, 4)),
            (good.clone(), frame(7, 0, 7)),
            (good.clone(), frame(1, 4, 16_385)),
            (good.clone(), frame(0, 0x8, 0)),
            (good.clone(), frame(1, 0x8, 0)),
            (good.clone(), frame(1, 0x20, 4)),
            (good.clone(), frame(1, 0x28, 5)),
        ];
        for size in [1, 2, 5, 9, 10, 1000, 100_000] {
            assert_eq!(shown(&good, size), (whole, None), "in pieces of {size}");
            for (before, bad) in &bad {
                let all = [before.clone(), vec![bad.clone(), begin.clone()]].concat();
                let (taken, broken) = shown(&all, size);
                assert_eq!(broken, Some(Reason::FRAME_SIZE_ERROR), "{:?}", &bad[..9]);
                // Its head is never whole.
                assert!((whole..whole + 9).contains(&taken), "{taken} of {whole}");
            }
        }
    }

    #[test]
    fn the_preface_ends_with_settings_that_are_whole() {
        for len in [0, 6] {
            let bytes = [PREFACE.to_vec(), frame(4, 0, len), frame(1, 0, 9)].concat();
            let whole = PREFACE.len() + 9 + len;
            let mut guard = Guard::new();
            for (at, byte) in bytes.iter().enumerate() {
                assert_eq!(guard.has_preface(), at >= whole, "{at} of {whole}");
                guard.pass(&[*byte]);
            }
        }
    }

    #[test]
    fn settings_come_first() {
        for first in [frame(6, 0, 8), frame(4, 1, 0), frame(1, 5, 3)] {
            for size in [1, 24, 100] {
                let (taken, broken) = shown(std::slice::from_ref(&first), size);
                assert_eq!(broken, Some(Reason::PROTOCOL_ERROR));
                assert!(taken < PREFACE.len() + 9);
            }
        }
    }
}
