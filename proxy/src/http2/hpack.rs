//! HPACK (RFC 7541), decoded as far as measuring needs it.
//!
//! `lane` has one decoder a direction. Fields that are not measured are followed only where the
//! dynamic table depends on them: then the length of their strings is needed, and no text. So a
//! block that says much costs little, and nothing is allocated where the tables are warm. What
//! this decoder takes is a superset of what a recipient takes: it does not judge what it skips.

pub mod huffman;
mod limit;
mod table;

use huffman::BadHuffman;
use limit::Limit;
pub use table::Field;
use table::{Name, Table};

use super::MAX_TABLE;
use crate::record::{Authority, Scheme};

/// Longest text of a field that is kept, in bytes: longer authorities become no label.
pub const MAX_TEXT: usize = 262;

/// Bytes of the longest name that measuring looks for, and one more.
const MAX_NAME: usize = 16;

/// The size of a dynamic table before anybody has said anything (RFC 9113 section 6.5.2).
pub const INITIAL_TABLE: u32 = 4096;

/// Why a header block cannot be decoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadBlock {
    #[error("the block ends inside a field")]
    Truncated,
    #[error("an integer is too large")]
    Integer,
    #[error("there is no entry {0}")]
    Index(u32),
    #[error(transparent)]
    Huffman(#[from] BadHuffman),
    #[error("a table of {0} octets is larger than was allowed")]
    TableSize(u32),
    #[error("the size of the table changes in the middle of a block")]
    LateUpdate,
}

/// What the fields of one header block say.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Fields {
    /// `:method` is CONNECT.
    pub is_connect: bool,
    /// `:status`, where it is a number of three digits.
    pub status: Option<u16>,
    /// `grpc-status`; what is not a number counts as UNKNOWN.
    pub grpc_status: Option<u16>,
    /// `content-type` is gRPC's.
    pub is_grpc: bool,
    /// `:scheme`.
    pub scheme: Option<Scheme>,
    authority: Vec<u8>,
    has_authority: bool,
}

impl Fields {
    /// `:authority`, else `host`, as the client wrote it; empty without either.
    pub fn authority(&self) -> &[u8] {
        &self.authority
    }

    /// Whom a request is for; only that of a CONNECT has no scheme (RFC 9113 section 8.3.1).
    pub fn target(&self) -> Authority<'_> {
        let scheme = if self.is_connect {
            Scheme::Other
        } else {
            Scheme::Http
        };
        Authority {
            scheme: self.scheme.unwrap_or(scheme),
            text: &self.authority,
        }
    }

    fn clear(&mut self) {
        let authority = std::mem::take(&mut self.authority);
        *self = Self {
            authority,
            ..Self::default()
        };
        self.authority.clear();
    }

    /// Takes a field; `text` is the value of those that are texts.
    fn add(&mut self, field: Field, text: &[u8]) {
        match field {
            Field::Other => {}
            Field::Method { is_connect } => self.is_connect = is_connect,
            Field::Scheme(scheme) => self.scheme = Some(scheme),
            Field::Status(status) => self.status = (status >= 100).then_some(status),
            Field::GrpcStatus(code) => self.grpc_status = Some(code),
            Field::ContentType { is_grpc } => self.is_grpc = is_grpc,
            Field::Host if self.has_authority => {}
            Field::Host | Field::Authority => {
                self.has_authority = field == Field::Authority;
                self.authority.clear();
                self.authority.extend_from_slice(text);
            }
        }
    }
}

/// The decoder of one direction.
#[derive(Clone, Debug)]
pub struct Decoder {
    table: Table,
    limit: Limit,
}

impl Default for Decoder {
    fn default() -> Self {
        Self {
            table: Table::new(INITIAL_TABLE),
            limit: Limit::new(INITIAL_TABLE),
        }
    }
}

impl Decoder {
    /// The recipient of these blocks has sent SETTINGS, with this SETTINGS_HEADER_TABLE_SIZE if
    /// it named one. It holds once their sender has acknowledged it.
    pub fn announce(&mut self, size: Option<u32>) {
        self.limit.announce(size);
    }

    /// The sender of these blocks has acknowledged the oldest SETTINGS that it had not.
    pub fn acknowledge(&mut self) {
        self.limit.acknowledge();
    }

    /// Decodes a whole block into `fields`, whatever they held before.
    pub fn decode(&mut self, mut block: &[u8], fields: &mut Fields) -> Result<(), BadBlock> {
        fields.clear();
        let mut is_start = true;
        while let Some(first) = block.first() {
            match first.leading_zeros() {
                0 => self.indexed(integer(&mut block, 7)?, fields)?,
                1 => self.literal(&mut block, 6, fields)?,
                2 if is_start => {
                    self.resize(integer(&mut block, 5)?)?;
                    continue;
                }
                2 => return Err(BadBlock::LateUpdate),
                // Without indexing or never indexed: the same to a decoder.
                _ => self.literal(&mut block, 4, fields)?,
            }
            is_start = false;
        }
        Ok(())
    }

    /// Octets that the dynamic table holds (RFC 7541 section 4.1).
    pub fn table_size(&self) -> u32 {
        self.table.size()
    }

    /// Bytes of memory for the dynamic table.
    pub fn held(&self) -> usize {
        self.table.held()
    }

    /// RFC 7541 section 6.1.
    fn indexed(&self, index: u32, fields: &mut Fields) -> Result<(), BadBlock> {
        let (field, text) = self.table.field(index).ok_or(BadBlock::Index(index))?;
        fields.add(field, text);
        Ok(())
    }

    /// RFC 7541 section 6.2; a prefix of six bits is that of a field to be indexed.
    fn literal(
        &mut self,
        block: &mut &[u8],
        prefix: u8,
        fields: &mut Fields,
    ) -> Result<(), BadBlock> {
        let is_indexed = prefix == 6;
        let (name, name_len) = match integer(block, prefix)? {
            0 => {
                let mut buffer = [0; MAX_NAME];
                let text = Text::read(block, &mut buffer)?;
                (Name::of(text.bytes), text.len)
            }
            index => self.table.name(index).ok_or(BadBlock::Index(index))?,
        };
        if name == Name::Other {
            let value_len = match is_indexed {
                true => Text::read(block, &mut [])?.len,
                false => skip(block)?,
            };
            if is_indexed {
                self.table.insert(Field::Other, (name_len, value_len), &[]);
            }
            return Ok(());
        }
        let mut buffer = [0; MAX_TEXT];
        let value = Text::read(block, &mut buffer)?;
        let text = match value.len {
            len if len as usize > MAX_TEXT => &[],
            _ => value.bytes,
        };
        let field = name.with(value.bytes);
        fields.add(field, text);
        if is_indexed {
            self.table.insert(field, (name_len, value.len), text);
        }
        Ok(())
    }

    /// RFC 7541 section 6.3.
    fn resize(&mut self, size: u32) -> Result<(), BadBlock> {
        if size > self.limit.allowed() || size > MAX_TABLE {
            return Err(BadBlock::TableSize(size));
        }
        self.table.resize(size);
        Ok(())
    }
}

/// A string, or as much of it as is needed, and its whole length.
struct Text<'t> {
    bytes: &'t [u8],
    len: u32,
}

impl<'t> Text<'t> {
    /// Takes a string off the block (RFC 7541 section 5.2). Of one in Huffman's code as much is
    /// kept as the buffer takes.
    fn read<'b: 't>(block: &mut &'b [u8], buffer: &'t mut [u8]) -> Result<Self, BadBlock> {
        let (is_huffman, raw) = string(block)?;
        if !is_huffman {
            let len = raw.len() as u32;
            return Ok(Self { bytes: raw, len });
        }
        let mut len = 0;
        huffman::decode(raw, |symbol| {
            if let Some(place) = buffer.get_mut(len) {
                *place = symbol;
            }
            len += 1;
        })?;
        let kept = len.min(buffer.len());
        Ok(Self {
            bytes: &buffer[..kept],
            // A symbol has five bits or more, and a block is far from a GiB.
            len: len as u32,
        })
    }
}

/// Skips a string that nobody asks for. Answers the length of what was skipped.
fn skip(block: &mut &[u8]) -> Result<u32, BadBlock> {
    let (_, raw) = string(block)?;
    Ok(raw.len() as u32)
}

/// The octets of a string, and whether they are in Huffman's code.
fn string<'b>(block: &mut &'b [u8]) -> Result<(bool, &'b [u8]), BadBlock> {
    let first = block.first().ok_or(BadBlock::Truncated)?;
    let is_huffman = first & 0x80 != 0;
    let len = integer(block, 7)? as usize;
    let (raw, rest) = block.split_at_checked(len).ok_or(BadBlock::Truncated)?;
    *block = rest;
    Ok((is_huffman, raw))
}

/// Takes an integer with a prefix of so many bits (RFC 7541 section 5.1).
fn integer(block: &mut &[u8], prefix: u8) -> Result<u32, BadBlock> {
    let (first, mut rest) = block.split_first().ok_or(BadBlock::Truncated)?;
    let mask = (1u64 << prefix) - 1;
    let mut value = u64::from(*first) & mask;
    if value == mask {
        let mut shift = 0;
        loop {
            let (octet, after) = rest.split_first().ok_or(BadBlock::Truncated)?;
            rest = after;
            value += u64::from(octet & 0x7f) << shift;
            if shift > 28 || value > u64::from(u32::MAX) {
                return Err(BadBlock::Integer);
            }
            if octet & 0x80 == 0 {
                break;
            }
            shift += 7;
        }
    }
    *block = rest;
    u32::try_from(value).map_err(|_| BadBlock::Integer)
}

#[cfg(test)]
mod tests;
