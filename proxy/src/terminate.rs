//! The terminating path of HTTP/2: where a service has several endpoints, or routes, and where a
//! port of the application lets in only some requests. Every request of a connection goes its own
//! way, so frames cannot pass as they are. Both sides are spoken by the `h2` crate.
//!
//! `connection` hands accepted connections to `client`; `stream` runs one task for each of their
//! streams; `pool` holds the connections to the endpoints, which all clients of a worker share, and
//! to the application, which they do not. It must not know how endpoints are found.

use std::time::Duration;

mod client;
mod guard;
mod held;
mod intake;
mod lane;
mod link;
mod message;
mod outbox;
mod pool;
mod slot;
mod socket;
mod stream;

pub use client::{Incoming, serve};
pub use pool::{Links, Service};

/// The largest window there is, in octets (RFC 9113 section 6.9.1).
const LARGEST_WINDOW: u32 = (1 << 31) - 1;

/// How many small frames of data may wait is bounded by what is read in one turn (`socket`): `h2` would count them for as
/// long as a connection lives, and end that of a client with many messages.
const SMALL_FRAMES: usize = usize::MAX;

/// The bounds of the terminating path. What a client, or a server, can make the proxy hold is
/// bounded by them: a stream holds at most `window` and `send_buffer` in each direction, in pieces that `h2` adds some
/// 300 bytes to (those of one turn are put together), and of its request
/// [`MAX_KEPT`](crate::routes::MAX_KEPT) more until its response begins.
#[derive(Clone, Copy, Debug)]
pub struct Config {
    /// Streams that a client may have open on one connection (SETTINGS_MAX_CONCURRENT_STREAMS);
    /// those beyond it are refused. Default: 256, more than clients of gRPC open on one.
    pub max_streams: u32,
    /// Largest list of header fields, of either side, in the octets of RFC 9113 section 10.5.1
    /// (SETTINGS_MAX_HEADER_LIST_SIZE). A request beyond it is 431; one beyond its fourfold ends
    /// the connection. Default: 64 KiB, what is measured of header blocks on the relay; most
    /// servers take less.
    pub max_header_list: u32,
    /// Bytes of a stream's data that a peer may send ahead of what its other side has taken, in
    /// octets of flow control (RFC 9113 section 6.9). Default: 64 KiB. The window of a whole
    /// connection is as large as those of all its streams together, so that streams nobody reads
    /// cannot hold up the others.
    pub window: u32,
    /// Bytes of a stream that may wait for a socket that does not take them. Default: 64 KiB.
    pub send_buffer: usize,
    /// Requests that a client has taken back before they were looked at, at one time; one more
    /// ends its connection ("rapid reset", CVE-2023-44487). Default: 100.
    pub reset_burst: usize,
    /// Streams that are remembered for a second after the proxy has reset them, because frames
    /// for them may still be under way. Default: 1024.
    pub reset_memory: usize,
    /// Streams that a client may break the protocol on in the life of its connection, before that
    /// ends. Default: 1024.
    pub stream_errors: usize,
    /// Longest time in which a peer's first frames are exchanged, once it is connected.
    /// Default: 5 s. An endpoint that has not said its SETTINGS by then takes no connections, a
    /// client that has not is sent away.
    pub handshake_timeout: Duration,
    /// How long a client whose connection the proxy has ended may take to read why.
    /// Default: 1 s.
    pub linger: Duration,
    /// Connections to one endpoint that a worker has at a time. There is one until the endpoint's
    /// SETTINGS_MAX_CONCURRENT_STREAMS is used up; when all are, streams wait. Default: 8.
    pub connections: usize,
    /// How long a connection to an endpoint is kept without a stream. Default: 60 s, less than
    /// after what servers close theirs.
    pub idle: Duration,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            max_streams: 256,
            max_header_list: 64 * 1024,
            window: 64 * 1024,
            send_buffer: 64 * 1024,
            reset_burst: 100,
            reset_memory: 1024,
            stream_errors: 1024,
            handshake_timeout: Duration::from_secs(5),
            linger: Duration::from_secs(1),
            connections: 8,
            idle: Duration::from_secs(60),
        }
    }
}
