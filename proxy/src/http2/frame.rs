//! Frames (RFC 9113 sections 4 and 6), read from bytes in pieces of any size.
//!
//! `lane` calls it. It strips padding and priority, so that what it hands on is the content of a
//! frame and nothing else. It must not know what a content means.

/// Bytes of a frame's head.
pub const HEAD: usize = 9;

/// The flag END_STREAM of DATA and HEADERS.
pub const END_STREAM: u8 = 0x1;
/// The flag ACK of SETTINGS and PING.
pub const ACK: u8 = 0x1;
/// The flag END_HEADERS of HEADERS, PUSH_PROMISE and CONTINUATION.
pub const END_HEADERS: u8 = 0x4;
/// The flag PADDED of DATA, HEADERS and PUSH_PROMISE.
pub const PADDED: u8 = 0x8;
/// The flag PRIORITY of HEADERS.
pub const PRIORITY: u8 = 0x20;

/// The types of frames (RFC 9113 section 6).
pub mod types {
    pub const DATA: u8 = 0x0;
    pub const HEADERS: u8 = 0x1;
    pub const PRIORITY: u8 = 0x2;
    pub const RST_STREAM: u8 = 0x3;
    pub const SETTINGS: u8 = 0x4;
    pub const PUSH_PROMISE: u8 = 0x5;
    pub const PING: u8 = 0x6;
    pub const GOAWAY: u8 = 0x7;
    pub const WINDOW_UPDATE: u8 = 0x8;
    pub const CONTINUATION: u8 = 0x9;
}

/// The types of frame that measuring tells apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Data,
    Headers,
    Reset,
    Settings,
    PushPromise,
    GoAway,
    Continuation,
    /// PRIORITY, PING, WINDOW_UPDATE and all extensions.
    Other,
}

impl Kind {
    fn of(octet: u8) -> Self {
        match octet {
            types::DATA => Self::Data,
            types::HEADERS => Self::Headers,
            types::RST_STREAM => Self::Reset,
            types::SETTINGS => Self::Settings,
            types::PUSH_PROMISE => Self::PushPromise,
            types::GOAWAY => Self::GoAway,
            types::CONTINUATION => Self::Continuation,
            _ => Self::Other,
        }
    }
}

/// The head of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Head {
    /// Bytes that follow the head.
    pub len: u32,
    pub kind: Kind,
    pub flags: u8,
    /// Without the reserved bit.
    pub stream: u32,
}

impl Head {
    /// Reads a head (RFC 9113 section 4.1).
    pub fn parse(bytes: &[u8; HEAD]) -> Self {
        let [a, b, c, kind, flags, s @ ..] = *bytes;
        Self {
            len: u32::from_be_bytes([0, a, b, c]),
            kind: Kind::of(kind),
            flags,
            stream: u32::from_be_bytes(s) & 0x7fff_ffff,
        }
    }

    pub fn has(&self, flag: u8) -> bool {
        self.flags & flag != 0
    }

    fn is_padded(&self) -> bool {
        let may_be = matches!(self.kind, Kind::Data | Kind::Headers | Kind::PushPromise);
        may_be && self.has(PADDED)
    }

    /// Bytes of the fields that come before the content: a frame cannot be shorter.
    pub fn fields(&self) -> u32 {
        u32::from(self.is_padded()) + self.preamble()
    }

    /// Bytes between the pad length and the content: the priority of HEADERS, the promised
    /// stream of PUSH_PROMISE.
    fn preamble(&self) -> u32 {
        match self.kind {
            Kind::Headers if self.has(PRIORITY) => 5,
            Kind::PushPromise => 4,
            _ => 0,
        }
    }
}

/// A frame whose parts do not fit into it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a frame is shorter than its padding or its fields")]
pub struct BadFrame;

/// A piece of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Piece<'b> {
    /// A frame begins.
    Head(Head),
    /// Some of its content, never empty.
    Content(&'b [u8]),
    /// The frame has ended.
    End(Head),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Head,
    PadLength,
    Preamble,
    Content,
    Padding,
}

/// The reader's place in the frames of one direction.
#[derive(Clone, Debug)]
pub struct Reader {
    state: State,
    head: [u8; HEAD],
    have: usize,
    frame: Head,
    /// Bytes of the preamble, of the content and of the padding that are still to come.
    preamble: u32,
    content: u32,
    padding: u32,
}

impl Default for Reader {
    fn default() -> Self {
        Self {
            state: State::Head,
            head: [0; HEAD],
            have: 0,
            frame: Head::parse(&[0; HEAD]),
            preamble: 0,
            content: 0,
            padding: 0,
        }
    }
}

impl Reader {
    /// The next piece of `bytes`, which it takes off their front; none once they are used up.
    pub fn next<'b>(&mut self, bytes: &mut &'b [u8]) -> Result<Option<Piece<'b>>, BadFrame> {
        loop {
            match self.state {
                State::Head => {
                    if !self.take_head(bytes) {
                        return Ok(None);
                    }
                    self.begin()?;
                    return Ok(Some(Piece::Head(self.frame)));
                }
                State::PadLength => {
                    let Some((length, rest)) = bytes.split_first() else {
                        return Ok(None);
                    };
                    *bytes = rest;
                    self.padding = u32::from(*length);
                    let left = self.content.checked_sub(self.padding);
                    self.content = left.ok_or(BadFrame)?;
                    self.state = State::Preamble;
                }
                State::Preamble => {
                    take(bytes, &mut self.preamble);
                    if self.preamble > 0 {
                        return Ok(None);
                    }
                    self.state = State::Content;
                }
                State::Content if self.content == 0 => self.state = State::Padding,
                State::Content => {
                    let content = take(bytes, &mut self.content);
                    let is_some = !content.is_empty();
                    return Ok(is_some.then_some(Piece::Content(content)));
                }
                State::Padding => {
                    take(bytes, &mut self.padding);
                    if self.padding > 0 {
                        return Ok(None);
                    }
                    self.state = State::Head;
                    return Ok(Some(Piece::End(self.frame)));
                }
            }
        }
    }

    /// Whether the next byte begins a frame.
    pub fn is_between(&self) -> bool {
        matches!(self.state, State::Head) && self.have == 0
    }

    /// The head of the frame whose pieces come.
    pub fn head(&self) -> Head {
        self.frame
    }

    /// Whether all of the current frame's content was handed on.
    pub fn has_all_content(&self) -> bool {
        self.content == 0
    }

    /// Takes what is missing of a head. Answers whether it is complete.
    fn take_head(&mut self, bytes: &mut &[u8]) -> bool {
        if self.have == 0
            && let Some((head, rest)) = bytes.split_first_chunk::<HEAD>()
        {
            self.frame = Head::parse(head);
            *bytes = rest;
            return true;
        }
        let n = (HEAD - self.have).min(bytes.len());
        self.head[self.have..self.have + n].copy_from_slice(&bytes[..n]);
        *bytes = &bytes[n..];
        self.have += n;
        if self.have < HEAD {
            return false;
        }
        self.have = 0;
        self.frame = Head::parse(&self.head);
        true
    }

    fn begin(&mut self) -> Result<(), BadFrame> {
        let is_padded = self.frame.is_padded();
        self.preamble = self.frame.preamble();
        self.padding = 0;
        let content = self.frame.len.checked_sub(self.frame.fields());
        self.content = content.ok_or(BadFrame)?;
        self.state = if is_padded {
            State::PadLength
        } else {
            State::Preamble
        };
        Ok(())
    }
}

/// Takes as many of `left` bytes as there are.
fn take<'b>(bytes: &mut &'b [u8], left: &mut u32) -> &'b [u8] {
    let n = bytes.len().min(*left as usize);
    let (taken, rest) = bytes.split_at(n);
    *bytes = rest;
    // At most what was left, which is a u32.
    *left -= n as u32;
    taken
}

#[cfg(test)]
mod tests {
    use super::{BadFrame, Head, Kind, Piece, Reader};

    fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
        let len = u32::try_from(payload.len()).unwrap().to_be_bytes();
        let mut bytes = vec![len[1], len[2], len[3], kind, flags];
        bytes.extend(stream.to_be_bytes());
        bytes.extend(payload);
        bytes
    }

    /// What a reader says of bytes that arrive in pieces of `size`: heads, joined contents, ends.
    fn read(bytes: &[u8], size: usize) -> Result<Vec<(Head, Vec<u8>, bool)>, BadFrame> {
        let mut reader = Reader::default();
        let mut frames: Vec<(Head, Vec<u8>, bool)> = Vec::new();
        for mut piece in bytes.chunks(size) {
            while let Some(piece) = reader.next(&mut piece)? {
                match piece {
                    Piece::Head(head) => frames.push((head, Vec::new(), false)),
                    Piece::Content(bytes) => frames.last_mut().unwrap().1.extend(bytes),
                    Piece::End(head) => {
                        let last = frames.last_mut().unwrap();
                        assert_eq!(last.0, head);
                        last.2 = true;
                    }
                }
            }
        }
        Ok(frames)
    }

    #[test]
    fn contents_are_the_same_however_the_bytes_are_cut() {
        let bytes = [
            frame(0x0, 0x8, 1, b"\x03data\0\0\0"),
            frame(0x1, 0x2c, 0x8000_0003, b"\x02\0\0\0\0\x10block\0\0"),
            frame(0x5, 0x4, 1, b"\0\0\0\x02block"),
            frame(0x9, 0x4, 1, b""),
            frame(0x0, 0x8, 1, b"\0"),
            frame(0x6, 0x0, 0, b"12345678"),
            frame(0xfa, 0x8, 0, b"\xffgrease"),
        ]
        .concat();
        for size in 1..=bytes.len() {
            let frames = read(&bytes, size).unwrap();
            let contents: Vec<&[u8]> = frames.iter().map(|f| &*f.1).collect();
            let expected: [&[u8]; 7] = [
                b"data",
                b"block",
                b"block",
                b"",
                b"",
                b"12345678",
                b"\xffgrease",
            ];
            assert_eq!(contents, expected, "in pieces of {size}");
            assert!(frames.iter().all(|f| f.2), "all have ended");
            assert_eq!((frames[1].0.stream, frames[1].0.kind), (3, Kind::Headers));
        }
    }

    #[test]
    fn a_frame_that_is_too_short_for_its_parts_is_bad() {
        for bytes in [
            frame(0x0, 0x8, 1, b""),
            frame(0x0, 0x8, 1, b"\x04abc"),
            frame(0x1, 0x28, 1, b"\x01\0\0\0\0\x10"),
            frame(0x1, 0x20, 1, b"1234"),
            frame(0x5, 0x0, 1, b"123"),
        ] {
            for size in 1..=bytes.len() {
                assert_eq!(read(&bytes, size), Err(BadFrame), "{bytes:?}");
            }
        }
    }
}
