//! The relay with real sockets on loopback: what goes in comes out, and is counted.
//!
//! Every test runs real workers; `chain` puts two proxies in a row, as between two pods.

mod balance;
#[allow(dead_code, reason = "the fuzzer's bodies read the series, too")]
#[path = "../corpora/book.rs"]
mod book;
mod broken;
mod bulk;
mod bytes;
mod closed;
mod closing;
mod counts;
mod deaf;
mod ends;
mod http2;
mod kept;
#[path = "../../../e2e/src/ports.rs"]
mod ports;
mod proxy;
mod retried;
mod routed;
mod routes;
mod smuggling;
mod steered;
mod talk;
mod unseen;
