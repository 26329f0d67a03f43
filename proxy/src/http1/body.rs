//! The chunked transfer coding (RFC 9112 section 7.1), read without being undone.
//!
//! Called by `relay` with bytes as they arrive, in pieces of any size. It only
//! finds the end of the body, and the `grpc-status` of its trailers; the bytes
//! pass unchanged. Every doubt is an error, because a chunk that two recipients
//! read differently is how requests are smuggled.

use crate::exchange::UNKNOWN;

/// Longest line of a chunk's size with its extensions, in bytes.
pub const MAX_CHUNK_LINE: usize = 4096;
/// Most bytes of trailers.
pub const MAX_TRAILERS: usize = super::MAX_HEAD;

const GRPC_STATUS: &[u8] = b"grpc-status:";

/// Where in the coding the next byte stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Size,
    Extension,
    SizeLf,
    Data,
    DataCr,
    DataLf,
    TrailerStart,
    Trailer,
    TrailerLf,
    EndLf,
    End,
}

/// Why a chunked body cannot be followed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("bad chunked coding: {0}")]
pub struct BadChunk(pub &'static str);

/// The reader's place in one chunked body.
#[derive(Clone, Debug)]
pub struct ChunkReader {
    state: State,
    /// Bytes of the current chunk that are still to come, or the size while it is read.
    remaining: u64,
    digits: u8,
    /// Bytes of the line (or of all trailers) so far, against the limits.
    line: usize,
    /// Position in `GRPC_STATUS` while a trailer's name still matches it.
    matched: usize,
    grpc_status: Option<u16>,
    saw_data: bool,
}

impl Default for ChunkReader {
    fn default() -> Self {
        Self {
            state: State::Size,
            remaining: 0,
            digits: 0,
            line: 0,
            matched: 0,
            grpc_status: None,
            saw_data: false,
        }
    }
}

impl ChunkReader {
    /// Reads on; answers how many of `bytes` belong to the body. It is fewer than all
    /// only when the body has ended.
    pub fn feed(&mut self, bytes: &[u8]) -> Result<usize, BadChunk> {
        let mut at = 0;
        while at < bytes.len() && self.state != State::End {
            if self.state == State::Data {
                let n = self.remaining.min((bytes.len() - at) as u64);
                at += usize::try_from(n).expect("at most the length of a slice");
                self.remaining -= n;
                self.saw_data = true;
                if self.remaining == 0 {
                    self.state = State::DataCr;
                }
            } else {
                self.step(bytes[at])?;
                at += 1;
            }
        }
        Ok(at)
    }

    /// Whether the last byte of the body has been read.
    pub fn is_done(&self) -> bool {
        self.state == State::End
    }

    /// Whether any byte of content has been read.
    pub fn has_data(&self) -> bool {
        self.saw_data
    }

    /// The `grpc-status` trailer, when there was one.
    pub fn grpc_status(&self) -> Option<u16> {
        self.grpc_status
    }

    fn step(&mut self, byte: u8) -> Result<(), BadChunk> {
        self.state = match (self.state, byte) {
            (State::Size, b'0'..=b'9' | b'a'..=b'f' | b'A'..=b'F') => return self.digit(byte),
            (State::Size, _) if self.digits == 0 => return Err(BadChunk("no size")),
            (State::Size, b'\r') => State::SizeLf,
            (State::Size, b';' | b' ' | b'\t') => State::Extension,
            (State::Size, _) => return Err(BadChunk("size is not hexadecimal")),
            (State::Extension, b'\r') => State::SizeLf,
            (State::Extension, b'\n') => return Err(BadChunk("bare line feed")),
            (State::Extension, _) => return self.count(MAX_CHUNK_LINE, "extension too long"),
            (State::SizeLf, b'\n') => self.end_of_size(),
            (State::DataCr, b'\r') => State::DataLf,
            (State::DataLf, b'\n') => State::Size,
            (State::TrailerStart, b'\r') => State::EndLf,
            (State::TrailerStart | State::Trailer, _) => return self.trailer(byte),
            (State::TrailerLf, b'\n') => State::TrailerStart,
            (State::EndLf, b'\n') => State::End,
            (State::Data | State::End, _) => self.state,
            _ => return Err(BadChunk("line end expected")),
        };
        Ok(())
    }

    fn digit(&mut self, byte: u8) -> Result<(), BadChunk> {
        let value = char::from(byte)
            .to_digit(16)
            .ok_or(BadChunk("size is not hexadecimal"))?;
        self.digits += 1;
        if self.digits > 15 {
            return Err(BadChunk("size too large"));
        }
        self.remaining = self.remaining << 4 | u64::from(value);
        Ok(())
    }

    fn count(&mut self, limit: usize, why: &'static str) -> Result<(), BadChunk> {
        self.line += 1;
        if self.line > limit {
            Err(BadChunk(why))
        } else {
            Ok(())
        }
    }

    fn end_of_size(&mut self) -> State {
        self.digits = 0;
        self.line = 0;
        if self.remaining == 0 {
            State::TrailerStart
        } else {
            State::Data
        }
    }

    fn trailer(&mut self, byte: u8) -> Result<(), BadChunk> {
        self.count(MAX_TRAILERS, "trailers too long")?;
        if self.state == State::TrailerStart {
            self.matched = 0;
            self.state = State::Trailer;
        }
        match byte {
            b'\n' => return Err(BadChunk("bare line feed")),
            b'\r' => self.state = State::TrailerLf,
            _ if self.matched < GRPC_STATUS.len() => {
                let same = GRPC_STATUS[self.matched] == byte.to_ascii_lowercase();
                self.matched = if same { self.matched + 1 } else { usize::MAX };
            }
            b'0'..=b'9' if self.matched == GRPC_STATUS.len() => {
                let status = self.grpc_status.unwrap_or_default();
                self.grpc_status = Some(
                    status
                        .saturating_mul(10)
                        .saturating_add(u16::from(byte - b'0')),
                );
            }
            b' ' | b'\t' => {}
            _ if self.matched == GRPC_STATUS.len() => {
                self.grpc_status = Some(UNKNOWN);
                self.matched = usize::MAX;
            }
            _ => {}
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::{BadChunk, ChunkReader};

    fn read(text: &str) -> Result<(usize, bool), BadChunk> {
        let mut whole = ChunkReader::default();
        let outcome = whole.feed(text.as_bytes()).map(|n| (n, whole.is_done()));
        // A byte at a time must say the same.
        let mut single = ChunkReader::default();
        let mut fed = 0;
        for byte in text.as_bytes() {
            match single.feed(&[*byte]) {
                Ok(n) => fed += n,
                Err(e) => {
                    assert_eq!(outcome, Err(e), "{text:?}");
                    return outcome;
                }
            }
        }
        assert_eq!(outcome, Ok((fed, single.is_done())), "{text:?}");
        outcome
    }

    #[test]
    fn bodies_end_where_they_say() {
        assert_eq!(read("0\r\n\r\n"), Ok((5, true)));
        assert_eq!(read("5\r\nhello\r\n0\r\n\r\nGET /"), Ok((15, true)));
        assert_eq!(
            read("A;x=\"1\"\r\n0123456789\r\n00\r\nt: v\r\n\r\n"),
            Ok((33, true))
        );
        assert_eq!(read("5\r\nhel"), Ok((6, false)));
    }

    #[test]
    fn doubtful_codings_are_errors() {
        for text in [
            "\r\n",
            "x\r\n",
            "5\nhello\r\n",
            "5\r\nhello0\r\n",
            "5\r\nhello\n0\r\n\r\n",
            "0x5\r\n",
            "-5\r\n",
            "+5\r\n",
            " 5\r\n",
            "5;a\nb\r\n",
            "1000000000000000\r\n",
            "0\r\n\n",
            "0\r\na\nb\r\n\r\n",
            "5\r\nhello\r\r\n",
        ] {
            assert!(read(text).is_err(), "{text:?}");
        }
        let mut long = String::from("5;");
        long.push_str(&"a".repeat(super::MAX_CHUNK_LINE + 1));
        assert!(read(&long).is_err());
    }

    #[test]
    fn the_grpc_status_trailer_is_found() {
        let mut reader = ChunkReader::default();
        let body = b"1\r\nx\r\n0\r\na: 9\r\nGrpc-Status: 14\r\n\r\n";
        assert_eq!(reader.feed(body), Ok(body.len()));
        assert_eq!(reader.grpc_status(), Some(14));
        assert!(reader.has_data());
    }
}
