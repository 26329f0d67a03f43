//! HTTP/1 (RFC 9112) as a relay sees it: heads are parsed, bodies are measured,
//! and the very bytes that came in go out again.
//!
//! `request`, `response` and `body` are pure parsers; `session` is the state machine
//! of one connection pair. Nothing here dials, and nothing here rewrites.

pub mod body;
pub mod fields;
pub mod reply;
pub mod request;
pub mod response;
pub mod session;

/// Largest head in bytes, the limit of most servers (nginx: 4 buffers of 8 KiB, Node: 16 KiB,
/// Go: 1 MiB). A larger one is answered with 431.
pub const MAX_HEAD: usize = 64 * 1024;

/// Most header fields in one head; the first try is made with [`FEW_FIELDS`].
pub(crate) const MAX_FIELDS: usize = 512;

/// Header fields that fit the stack of the common case.
pub(crate) const FEW_FIELDS: usize = 48;

/// How a message's body ends (RFC 9112 section 6.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    /// There is no body.
    None,
    /// This many bytes follow the head; never zero.
    Length(u64),
    /// The chunked transfer coding.
    Chunked,
    /// The body ends with the connection (responses only).
    UntilClose,
}

/// Whether every line of a head ends in CRLF. A lone LF or CR is read by some
/// recipients as a line's end and by others as part of it (RFC 9112 section 2.2).
pub(crate) fn has_strict_lines(head: &[u8]) -> bool {
    memchr::memchr2_iter(b'\n', b'\r', head).all(|at| match head[at] {
        b'\n' => at > 0 && head[at - 1] == b'\r',
        _ => head.get(at + 1) == Some(&b'\n'),
    })
}
