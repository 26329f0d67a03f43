//! The static and the dynamic table (RFC 7541 section 2.3 and appendix A), of which only what
//! measuring needs is kept: for most entries two lengths.
//!
//! The decoder uses it. An entry costs far less than the octets it counts for.

use std::collections::VecDeque;

use crate::exchange::grpc_code;
use crate::http2::grpc::is_grpc;
use crate::record::Scheme;

/// The names of appendix A, in its order.
const STATIC: [&str; 61] = [
    ":authority",
    ":method",
    ":method",
    ":path",
    ":path",
    ":scheme",
    ":scheme",
    ":status",
    ":status",
    ":status",
    ":status",
    ":status",
    ":status",
    ":status",
    "accept-charset",
    "accept-encoding",
    "accept-language",
    "accept-ranges",
    "accept",
    "access-control-allow-origin",
    "age",
    "allow",
    "authorization",
    "cache-control",
    "content-disposition",
    "content-encoding",
    "content-language",
    "content-length",
    "content-location",
    "content-range",
    "content-type",
    "cookie",
    "date",
    "etag",
    "expect",
    "expires",
    "from",
    "host",
    "if-match",
    "if-modified-since",
    "if-none-match",
    "if-range",
    "if-unmodified-since",
    "last-modified",
    "link",
    "location",
    "max-forwards",
    "proxy-authenticate",
    "proxy-authorization",
    "range",
    "referer",
    "refresh",
    "retry-after",
    "server",
    "set-cookie",
    "strict-transport-security",
    "transfer-encoding",
    "user-agent",
    "vary",
    "via",
    "www-authenticate",
];

/// What an entry counts for beside its texts (RFC 7541 section 4.1).
const OVERHEAD: u32 = 32;

/// A name, as far as measuring tells names apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Name {
    Other,
    Method,
    Scheme,
    Authority,
    Host,
    Status,
    ContentType,
    GrpcStatus,
}

impl Name {
    pub(super) fn of(name: &[u8]) -> Self {
        match name {
            b":method" => Self::Method,
            b":scheme" => Self::Scheme,
            b":authority" => Self::Authority,
            b":status" => Self::Status,
            b"host" => Self::Host,
            b"content-type" => Self::ContentType,
            b"grpc-status" => Self::GrpcStatus,
            _ => Self::Other,
        }
    }

    /// The field of this name with a value.
    pub(super) fn with(self, value: &[u8]) -> Field {
        match self {
            Self::Other => Field::Other,
            Self::Authority => Field::Authority,
            Self::Host => Field::Host,
            Self::Method => Field::Method {
                is_connect: value == b"CONNECT",
            },
            Self::Scheme => Field::Scheme(Scheme::of(value)),
            Self::Status => Field::Status(status(value)),
            Self::ContentType => Field::ContentType {
                is_grpc: is_grpc(value),
            },
            Self::GrpcStatus => Field::GrpcStatus(grpc_code(value)),
        }
    }
}

/// A field, as far as measuring needs it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Field {
    Other,
    Method {
        is_connect: bool,
    },
    Scheme(Scheme),
    /// Its text is kept beside it.
    Authority,
    /// Its text is kept beside it.
    Host,
    /// 0 where it is not three digits.
    Status(u16),
    ContentType {
        is_grpc: bool,
    },
    GrpcStatus(u16),
}

impl Field {
    fn name(self) -> Name {
        match self {
            Self::Other => Name::Other,
            Self::Method { .. } => Name::Method,
            Self::Scheme(_) => Name::Scheme,
            Self::Authority => Name::Authority,
            Self::Host => Name::Host,
            Self::Status(_) => Name::Status,
            Self::ContentType { .. } => Name::ContentType,
            Self::GrpcStatus(_) => Name::GrpcStatus,
        }
    }

    fn is_text(self) -> bool {
        matches!(self, Self::Authority | Self::Host)
    }
}

fn status(value: &[u8]) -> u16 {
    match value {
        [a @ b'1'..=b'9', b @ b'0'..=b'9', c @ b'0'..=b'9'] => {
            let digit = |d: u8| u16::from(d - b'0');
            digit(*a) * 100 + digit(*b) * 10 + digit(*c)
        }
        _ => 0,
    }
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    name_len: u32,
    value_len: u32,
    field: Field,
}

impl Entry {
    fn size(&self) -> u32 {
        size(self.name_len, self.value_len)
    }
}

fn size(name_len: u32, value_len: u32) -> u32 {
    name_len.saturating_add(value_len).saturating_add(OVERHEAD)
}

/// The tables of one direction.
#[derive(Clone, Debug)]
pub(super) struct Table {
    /// The oldest first.
    entries: VecDeque<Entry>,
    /// The texts of the entries that have one, by the entry's number.
    texts: VecDeque<(u64, Box<[u8]>)>,
    /// How many entries were ever inserted: the number of the next.
    inserted: u64,
    size: u32,
    max: u32,
}

impl Table {
    pub(super) fn new(max: u32) -> Self {
        Self {
            entries: VecDeque::new(),
            texts: VecDeque::new(),
            inserted: 0,
            size: 0,
            max,
        }
    }

    pub(super) fn size(&self) -> u32 {
        self.size
    }

    /// Bytes of memory for all entries.
    pub(super) fn held(&self) -> usize {
        let texts: usize = self.texts.iter().map(|(_, text)| text.len()).sum();
        let places = self.texts.capacity() * size_of::<(u64, Box<[u8]>)>();
        self.entries.capacity() * size_of::<Entry>() + places + texts
    }

    /// The field at an index of the joined tables, and its text where it has one.
    pub(super) fn field(&self, index: u32) -> Option<(Field, &[u8])> {
        let index = index as usize;
        if index <= STATIC.len() {
            return static_field(index).map(|field| (field, &[][..]));
        }
        let back = index - STATIC.len();
        let at = self.entries.len().checked_sub(back)?;
        let field = self.entries.get(at)?.field;
        if !field.is_text() {
            return Some((field, &[]));
        }
        let number = self.inserted - back as u64;
        let at = self.texts.binary_search_by_key(&number, |(n, _)| *n).ok()?;
        Some((field, &self.texts[at].1))
    }

    /// The name at an index of the joined tables, and its length.
    pub(super) fn name(&self, index: u32) -> Option<(Name, u32)> {
        let index = index as usize;
        if let Some(name) = STATIC.get(index.checked_sub(1)?) {
            let len = name.len() as u32;
            return static_field(index).map(|field| (field.name(), len));
        }
        let at = self.entries.len().checked_sub(index - STATIC.len())?;
        let entry = self.entries.get(at)?;
        Some((entry.field.name(), entry.name_len))
    }

    /// RFC 7541 section 4.4: what does not fit empties the table and is not in it.
    pub(super) fn insert(&mut self, field: Field, (name_len, value_len): (u32, u32), text: &[u8]) {
        let entry = Entry {
            name_len,
            value_len,
            field,
        };
        let size = entry.size();
        self.shrink_to(self.max.saturating_sub(size));
        if size > self.max {
            return;
        }
        if field.is_text() {
            self.texts.push_back((self.inserted, text.into()));
        }
        self.entries.push_back(entry);
        self.inserted += 1;
        self.size += size;
    }

    /// RFC 7541 section 4.3.
    pub(super) fn resize(&mut self, max: u32) {
        self.max = max;
        self.shrink_to(max);
    }

    fn shrink_to(&mut self, size: u32) {
        while self.size > size {
            let Some(entry) = self.entries.pop_front() else {
                return;
            };
            self.size -= entry.size();
            if entry.field.is_text() {
                self.texts.pop_front();
            }
        }
    }
}

/// Appendix A, the values included that measuring needs.
fn static_field(index: usize) -> Option<Field> {
    let field = match index {
        2 | 3 => Field::Method { is_connect: false },
        6 => Field::Scheme(Scheme::Http),
        7 => Field::Scheme(Scheme::Https),
        8 => Field::Status(200),
        9 => Field::Status(204),
        10 => Field::Status(206),
        11 => Field::Status(304),
        12 => Field::Status(400),
        13 => Field::Status(404),
        14 => Field::Status(500),
        1 => Field::Authority,
        31 => Field::ContentType { is_grpc: false },
        38 => Field::Host,
        4..=61 => Field::Other,
        _ => return None,
    };
    Some(field)
}

#[cfg(test)]
mod tests {
    use super::{Name, STATIC, Table, static_field};

    #[test]
    fn the_fields_of_the_static_table_have_its_names() {
        for (at, name) in STATIC.iter().enumerate() {
            let field = static_field(at + 1).expect("an entry");
            assert_eq!(field.name(), Name::of(name.as_bytes()), "{name}");
        }
        assert_eq!(static_field(0), None);
        assert_eq!(static_field(62), None);
    }

    #[test]
    fn entries_leave_in_the_order_they_came_with_their_texts() {
        let mut table = Table::new(200);
        for text in [&b"one"[..], b"two", b"three"] {
            let lens = (10, u32::try_from(text.len()).unwrap());
            table.insert(Name::Authority.with(text), lens, text);
            table.insert(Name::Other.with(b""), (1, 1), b"");
        }
        // 45 + 34 + 45 + 34 + 47 + 34 = 239: the first had to go.
        assert_eq!(table.size(), 194);
        assert_eq!(
            table.field(63),
            Some((Name::Authority.with(b""), &b"three"[..]))
        );
        assert_eq!(
            table.field(65),
            Some((Name::Authority.with(b""), &b"two"[..]))
        );
        assert_eq!(table.field(66), Some((Name::Other.with(b""), &b""[..])));
        assert_eq!(table.field(67), None);
        table.resize(100);
        assert_eq!(table.texts.len(), 1);
        table.insert(Name::Other.with(b""), (100, 100), b"");
        assert_eq!(
            (table.size(), table.entries.len(), table.texts.len()),
            (0, 0, 0)
        );
    }
}
