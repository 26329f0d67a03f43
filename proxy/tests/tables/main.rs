//! The contract, row by row: which series a behaviour of HTTP and TCP leaves, in both directions, with exactly
//! which labels in which order, through a whole proxy with real sockets.
//!
//! `bench` runs a proxy and two scripted peers; `http1`, `http2`, `tcp`, `errors` and `routed` are rows of the tables of
//! "Every family the proxy exposes"; `behaviours` is what the peers' own tests hold, `mistakes` what they get wrong.

mod behaviours;
mod bench;
#[path = "../relay/deaf.rs"]
mod deaf;
mod errors;
#[allow(
    dead_code,
    reason = "the parser of e2e, of which not every reader is used here"
)]
#[path = "../../../e2e/src/exposition.rs"]
pub mod exposition;
mod frames;
mod http1;
mod http2;
mod labels;
mod mistakes;
#[path = "../../../e2e/src/ports.rs"]
mod ports;
mod routed;
mod rows;
mod tcp;
mod told;
#[allow(dead_code, reason = "the tests of HTTP/2 use the rest")]
#[path = "../http2/wire.rs"]
mod wire;
