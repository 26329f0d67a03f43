//! One direction of an HTTP/2 connection: from bytes, in pieces of any size, to events.
//!
//! `session` has one for each direction. It gathers header blocks from their fragments and
//! decodes them. It must not know what a stream is, nor what is counted.

use super::frame::{ACK, BadFrame, END_HEADERS, END_STREAM, HEAD, Head, Kind, Piece, Reader};
use super::hpack::{BadBlock, Decoder, Fields};
use super::{MAX_BLOCK, PREFACE};

/// The setting SETTINGS_HEADER_TABLE_SIZE (RFC 9113 section 6.5.2).
const HEADER_TABLE_SIZE: u16 = 0x1;

/// Capacity of the gathered block that is kept from one block to the next, in bytes.
const KEEP: usize = 1024;

/// What the bytes of one direction say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event<'b> {
    /// A header block has ended; [`Lane::fields`] says what is in it.
    Headers {
        stream: u32,
        ends: bool,
    },
    /// A DATA frame begins.
    Data {
        stream: u32,
    },
    /// Some of its data, without the padding.
    Payload {
        stream: u32,
        bytes: &'b [u8],
    },
    /// A DATA frame has ended.
    DataEnd {
        stream: u32,
        ends: bool,
    },
    Reset {
        stream: u32,
        code: u32,
    },
    GoAway {
        last: u32,
        code: u32,
    },
    /// SETTINGS, with SETTINGS_HEADER_TABLE_SIZE where it is among them.
    Settings {
        table: Option<u32>,
    },
    Acknowledged,
}

/// Why a direction cannot be followed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unreadable {
    #[error("the connection does not begin with its preface and SETTINGS")]
    Preface,
    #[error(transparent)]
    Frame(#[from] BadFrame),
    #[error("a frame of a stream names none, or one of the connection names one")]
    Stream,
    #[error("a header block is interrupted, or continued where none began")]
    Continuation,
    #[error("a frame has another size than its type has")]
    Size,
    #[error("a header block is larger than {MAX_BLOCK} bytes")]
    LargeBlock,
    #[error(transparent)]
    Block(#[from] BadBlock),
}

impl Unreadable {
    /// The label `reason` of `weir_http_unparsed_total`.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Preface => "h2 preface",
            Self::Frame(_) | Self::Stream | Self::Continuation | Self::Size => "h2 frame",
            Self::LargeBlock => "h2 header block size",
            Self::Block(BadBlock::TableSize(_)) => "h2 header table size",
            Self::Block(_) => "h2 header block",
        }
    }
}

/// A header block whose end has not been seen.
#[derive(Clone, Copy, Debug)]
struct Block {
    stream: u32,
    ends: bool,
    /// The block of a PUSH_PROMISE: decoded for the table's sake only.
    is_push: bool,
    /// It was decoded as soon as its last byte was there.
    is_decoded: bool,
}

/// One direction of a connection.
pub struct Lane {
    /// Bytes of the preface that are still to come.
    preface: usize,
    has_begun: bool,
    frames: Reader,
    block: Option<Block>,
    /// Fragments of a block that did not come in one piece.
    gathered: Vec<u8>,
    /// The beginning of a frame of fixed size, or one setting.
    fixed: [u8; 8],
    have: usize,
    table: Option<u32>,
    /// It stops before the HEADERS of every stream above this one.
    held_above: Option<u32>,
    pub decoder: Decoder,
    fields: Fields,
}

impl Lane {
    /// What a client sends.
    pub fn of_client() -> Self {
        Self {
            preface: PREFACE.len(),
            ..Self::of_server()
        }
    }

    /// What a server sends.
    pub fn of_server() -> Self {
        Self {
            preface: 0,
            has_begun: false,
            frames: Reader::default(),
            block: None,
            gathered: Vec::new(),
            fixed: [0; 8],
            have: 0,
            table: None,
            held_above: None,
            decoder: Decoder::default(),
            fields: Fields::default(),
        }
    }

    /// What the last header block says.
    pub fn fields(&self) -> &Fields {
        &self.fields
    }

    /// Bytes of memory for header blocks and their table.
    pub fn held(&self) -> usize {
        self.gathered.capacity() + self.fields.authority().len() + self.decoder.held()
    }

    /// From now on it stops before the HEADERS of a stream above this one, and before the beginning of a frame of
    /// which that cannot be said yet; `None` stops nowhere.
    pub fn hold_above(&mut self, last: Option<u32>) {
        self.held_above = last;
    }

    /// Whether the next byte begins a frame that belongs to none before it.
    pub fn is_between(&self) -> bool {
        self.preface == 0 && self.block.is_none() && self.frames.is_between()
    }

    fn is_held(&self, bytes: &[u8]) -> bool {
        let Some(last) = self.held_above.filter(|_| self.is_between()) else {
            return false;
        };
        match bytes.first_chunk::<HEAD>().map(Head::parse) {
            Some(head) => head.kind == Kind::Headers && head.stream > last,
            None => !bytes.is_empty(),
        }
    }

    /// The next event in `bytes`, which it takes off their front; none once they are used up, or what is held begins.
    pub fn next<'b>(&mut self, bytes: &mut &'b [u8]) -> Result<Option<Event<'b>>, Unreadable> {
        self.skip_preface(bytes)?;
        while !self.is_held(bytes)
            && let Some(piece) = self.frames.next(bytes)?
        {
            let event = match piece {
                Piece::Head(head) => self.begin(head)?,
                Piece::Content(content) => self.content(content)?,
                Piece::End(head) => self.end(head)?,
            };
            if event.is_some() {
                return Ok(event);
            }
        }
        Ok(None)
    }

    fn skip_preface(&mut self, bytes: &mut &[u8]) -> Result<(), Unreadable> {
        if self.preface == 0 {
            return Ok(());
        }
        let expected = &PREFACE[PREFACE.len() - self.preface..];
        let n = expected.len().min(bytes.len());
        if bytes[..n] != expected[..n] {
            return Err(Unreadable::Preface);
        }
        *bytes = &bytes[n..];
        self.preface -= n;
        Ok(())
    }

    fn begin<'b>(&mut self, head: Head) -> Result<Option<Event<'b>>, Unreadable> {
        if !self.has_begun && (head.kind != Kind::Settings || head.has(ACK)) {
            return Err(Unreadable::Preface);
        }
        self.has_begun = true;
        if self.block.is_some() != (head.kind == Kind::Continuation)
            || self.block.is_some_and(|block| block.stream != head.stream)
        {
            return Err(Unreadable::Continuation);
        }
        let is_of_stream = match head.kind {
            Kind::Settings | Kind::GoAway => false,
            Kind::Other => head.stream > 0,
            _ => true,
        };
        if is_of_stream != (head.stream > 0) {
            return Err(Unreadable::Stream);
        }
        self.have = 0;
        match head.kind {
            Kind::Headers | Kind::PushPromise => {
                self.block = Some(Block {
                    stream: head.stream,
                    ends: head.kind == Kind::Headers && head.has(END_STREAM),
                    is_push: head.kind == Kind::PushPromise,
                    is_decoded: false,
                });
            }
            Kind::Settings if !head.len.is_multiple_of(6) || head.has(ACK) && head.len > 0 => {
                return Err(Unreadable::Size);
            }
            Kind::Settings => self.table = None,
            Kind::Reset if head.len != 4 => return Err(Unreadable::Size),
            Kind::GoAway if head.len < 8 => return Err(Unreadable::Size),
            Kind::Data => {
                let stream = head.stream;
                return Ok(Some(Event::Data { stream }));
            }
            _ => {}
        }
        Ok(None)
    }

    fn content<'b>(&mut self, content: &'b [u8]) -> Result<Option<Event<'b>>, Unreadable> {
        let head = self.frames.head();
        match head.kind {
            Kind::Data => {
                return Ok(Some(Event::Payload {
                    stream: head.stream,
                    bytes: content,
                }));
            }
            Kind::Headers | Kind::PushPromise | Kind::Continuation => {
                self.fragment(content, head)?;
            }
            Kind::Settings => self.settings(content),
            Kind::Reset | Kind::GoAway => {
                let n = (self.fixed.len() - self.have).min(content.len());
                self.fixed[self.have..self.have + n].copy_from_slice(&content[..n]);
                self.have += n;
            }
            Kind::Other => {}
        }
        Ok(None)
    }

    /// Decodes a block that is there in one piece, which most are; gathers the others.
    fn fragment(&mut self, content: &[u8], head: Head) -> Result<(), Unreadable> {
        let is_last = head.has(END_HEADERS) && self.frames.has_all_content();
        if is_last && self.gathered.is_empty() {
            self.decoder.decode(content, &mut self.fields)?;
            if let Some(block) = &mut self.block {
                block.is_decoded = true;
            }
            return Ok(());
        }
        if self.gathered.len() + content.len() > MAX_BLOCK {
            return Err(Unreadable::LargeBlock);
        }
        self.gathered.extend_from_slice(content);
        Ok(())
    }

    fn settings(&mut self, content: &[u8]) {
        for byte in content {
            self.fixed[self.have] = *byte;
            self.have += 1;
            if self.have == 6 {
                self.have = 0;
                let [a, b, value @ .., _, _] = self.fixed;
                if u16::from_be_bytes([a, b]) == HEADER_TABLE_SIZE {
                    self.table = Some(u32::from_be_bytes(value));
                }
            }
        }
    }

    fn end<'b>(&mut self, head: Head) -> Result<Option<Event<'b>>, Unreadable> {
        let stream = head.stream;
        let [a, b, c, d, code @ ..] = self.fixed;
        let first = u32::from_be_bytes([a, b, c, d]);
        let event = match head.kind {
            Kind::Data => Event::DataEnd {
                stream,
                ends: head.has(END_STREAM),
            },
            Kind::Headers | Kind::PushPromise | Kind::Continuation => return self.end_block(head),
            Kind::Reset => Event::Reset {
                stream,
                code: first,
            },
            Kind::GoAway => Event::GoAway {
                last: first & 0x7fff_ffff,
                code: u32::from_be_bytes(code),
            },
            Kind::Settings if head.has(ACK) => Event::Acknowledged,
            Kind::Settings => Event::Settings { table: self.table },
            Kind::Other => return Ok(None),
        };
        Ok(Some(event))
    }

    fn end_block<'b>(&mut self, head: Head) -> Result<Option<Event<'b>>, Unreadable> {
        if !head.has(END_HEADERS) {
            return Ok(None);
        }
        let Some(block) = self.block.take() else {
            return Ok(None);
        };
        if !block.is_decoded {
            self.decoder.decode(&self.gathered, &mut self.fields)?;
            self.gathered.clear();
            self.gathered.shrink_to(KEEP);
        }
        let (stream, ends) = (block.stream, block.ends);
        Ok((!block.is_push).then_some(Event::Headers { stream, ends }))
    }
}
