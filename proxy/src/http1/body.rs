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
    SizeBlank,
    Extension,
    Quoted,
    Escaped,
    SizeLf,
    Data,
    DataCr,
    DataLf,
    TrailerStart,
    TrailerName,
    TrailerValue,
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
            (State::Size | State::SizeBlank | State::Extension, b'\r') => State::SizeLf,
            (State::Size | State::SizeBlank, b' ' | b'\t') => self.count(State::SizeBlank)?,
            (State::Size | State::SizeBlank, b';') => self.count(State::Extension)?,
            (State::Size | State::SizeBlank, _) => {
                return Err(BadChunk("size is not hexadecimal"));
            }
            (State::Extension | State::Quoted | State::Escaped, _) => self.extension(byte)?,
            (State::SizeLf, b'\n') => self.end_of_size(),
            (State::DataCr, b'\r') => State::DataLf,
            (State::DataLf, b'\n') => State::Size,
            (State::TrailerStart, b'\r') => State::EndLf,
            (State::TrailerStart | State::TrailerName | State::TrailerValue, _) => {
                self.trailer(byte)?
            }
            (State::TrailerLf, b'\n') => State::TrailerStart,
            (State::EndLf, b'\n') => State::End,
            (State::Data | State::End, _) => self.state,
            _ => return Err(BadChunk("line end expected")),
        };
        Ok(())
    }

    /// Some readers see a line's end in a quoted string, others do not: none may be there.
    fn extension(&mut self, byte: u8) -> Result<State, BadChunk> {
        let next = match (self.state, byte) {
            (_, b'\t') => self.state,
            (_, 0..=31 | 127) => return Err(BadChunk("control character in an extension")),
            (State::Extension, b'"') | (State::Escaped, _) => State::Quoted,
            (State::Quoted, b'"') => State::Extension,
            (State::Quoted, b'\\') => State::Escaped,
            _ => self.state,
        };
        self.count(next)
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

    /// Counts a byte of a size's line against the limit.
    fn count(&mut self, next: State) -> Result<State, BadChunk> {
        self.line += 1;
        if self.line > MAX_CHUNK_LINE {
            return Err(BadChunk("extension too long"));
        }
        Ok(next)
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

    fn trailer(&mut self, byte: u8) -> Result<State, BadChunk> {
        self.line += 1;
        if self.line > MAX_TRAILERS {
            return Err(BadChunk("trailers too long"));
        }
        if self.state == State::TrailerStart {
            self.matched = 0;
        }
        match (self.state, byte) {
            (State::TrailerValue, b'\r') => return Ok(State::TrailerLf),
            (State::TrailerValue, b'\t') => {}
            (State::TrailerValue, 0..=31 | 127) => {
                return Err(BadChunk("control character in a trailer"));
            }
            (State::TrailerValue, _) => self.trailer_value(byte),
            (State::TrailerName, b':') => {
                self.match_name(byte);
                if self.matched == GRPC_STATUS.len() {
                    self.grpc_status = None;
                }
                return Ok(State::TrailerValue);
            }
            _ if is_token(byte) => {
                self.match_name(byte);
                return Ok(State::TrailerName);
            }
            _ => return Err(BadChunk("trailer is no field")),
        }
        Ok(State::TrailerValue)
    }

    fn match_name(&mut self, byte: u8) {
        let is_same = GRPC_STATUS.get(self.matched) == Some(&byte.to_ascii_lowercase());
        self.matched = if is_same {
            self.matched + 1
        } else {
            usize::MAX
        };
    }

    fn trailer_value(&mut self, byte: u8) {
        if self.matched != GRPC_STATUS.len() || byte == b' ' {
            return;
        }
        self.grpc_status = Some(if byte.is_ascii_digit() {
            let status = self.grpc_status.unwrap_or_default().saturating_mul(10);
            status.saturating_add(u16::from(byte - b'0'))
        } else {
            self.matched = usize::MAX;
            UNKNOWN
        });
    }
}

/// A `tchar` of RFC 9110 section 5.6.2.
fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
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
        assert_eq!(
            read("5 \t\r\nhello\r\n0;a=\"b\\\"\";c\r\n\r\n"),
            Ok((27, true))
        );
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
            "5 x\r\n",
            "5 5\r\n",
            "5_0\r\n",
            "5;a=\"b\r\n",
            "5;a=\"b\\\"\r\n",
            "5;a=\"\r\n\"\r\n",
            "5;a\0\r\n",
            "5;a\rb\r\n",
            "0\r\n a: b\r\n\r\n",
            "0\r\na\r\n\r\n",
            "0\r\na : b\r\n\r\n",
            "0\r\nGET / HTTP/1.1\r\n\r\n",
            "0\r\na: \0\r\n\r\n",
            "0\r\na: b\r c\r\n\r\n",
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

    #[test]
    fn of_two_grpc_statuses_the_last_counts() {
        let mut reader = ChunkReader::default();
        let body = b"0\r\ngrpc-status: 1\r\ngrpc-status: 2\r\ngrpc-statuses: 3\r\n\r\n";
        assert_eq!(reader.feed(body), Ok(body.len()));
        assert_eq!(reader.grpc_status(), Some(2));
    }
}
