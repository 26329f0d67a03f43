//! Abuse: thousands of clients that say nothing, or one byte at a time. Others are served meanwhile, and the memory
//! of the proxy, a process of its own here, stays within its bound.

mod child;
mod http2;
mod idle;
#[path = "../../../e2e/src/ports.rs"]
mod ports;
mod slow;
#[allow(dead_code, reason = "the tests of HTTP/2 use the rest")]
#[path = "../http2/wire.rs"]
mod wire;
