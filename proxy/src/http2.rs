//! HTTP/2 (RFC 9113) as a relay sees it: frames pass unchanged and are never held back;
//! header blocks are decoded only as far as measuring needs them.
//!
//! `frame` and `hpack` are parsers; `lane` reads one direction of a connection into events;
//! `session` is the state machine of one connection pair; `call` is the account of one stream.
//! Nothing here dials, and nothing here rewrites.

pub mod call;
pub mod frame;
pub mod grpc;
pub mod hpack;
pub mod lane;
pub mod reason;
pub mod reply;
pub mod session;
pub mod streams;

/// What every client sends first (RFC 9113 section 3.4).
pub const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Largest header block that is gathered from its fragments, in bytes of HPACK. A larger one
/// ends the measuring of its connection. The limit of most servers is at or below it.
pub const MAX_BLOCK: usize = 64 * 1024;

/// Most streams of one connection that are measured at a time. A request beyond it is counted
/// and its response is not followed. Servers that announce SETTINGS_MAX_CONCURRENT_STREAMS
/// mostly say 100 to 256, and refuse what exceeds it themselves.
pub const MAX_STREAMS: usize = 4096;

/// Largest dynamic table that is followed, in the octets of RFC 7541 section 4.1: what browsers
/// announce. A peer that uses a larger one ends the measuring of its connection.
pub const MAX_TABLE: u32 = 64 * 1024;
