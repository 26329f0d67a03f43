//! The session of HTTP/2 without sockets: every byte passes, and what is counted for it.
//!
//! `wire` writes frames, `pair` is a session with its series; `rows` goes through what may happen
//! one by one, `model` in random orders and pieces, `peers` with real peers at both ends, `abuse`
//! with peers that mean harm.

// All of this is test code, but clippy's `allow-unwrap-in-tests` sees only the functions that are tests.
#![allow(clippy::unwrap_used)]

mod abuse;
mod messages;
mod model;
mod pair;
mod peers;
mod rows;
mod wire;
