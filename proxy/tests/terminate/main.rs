//! HTTP/2 to services with several endpoints, with real sockets on loopback: every request goes
//! its own way, nothing of it is lost, and it is counted as on the relay.

#[path = "../relay/http2/both.rs"]
mod both;
#[path = "../relay/closing.rs"]
mod closing;
#[allow(dead_code, reason = "the tests of the relay use the rest")]
#[path = "../relay/http2/peer.rs"]
mod peer;
#[path = "../../../e2e/src/ports.rs"]
mod ports;
#[allow(dead_code, reason = "the tests of the relay use the rest")]
#[path = "../relay/proxy.rs"]
mod proxy;
#[path = "../relay/routed.rs"]
mod routed;
#[allow(dead_code, reason = "the tests of the relay use the rest")]
#[path = "../http2/wire.rs"]
mod wire;

mod anything;
mod balance;
mod bodies;
mod branches;
mod closed;
mod ends;
mod rfc9113;
mod routes;
mod service;
mod tunnels;
mod unseen;
