//! HTTP/2 through the relay: real peers at both ends, frames written by hand where it is about
//! single bytes.

#[path = "../http2/wire.rs"]
mod wire;

mod both;
mod calls;
mod ends;
mod frames;
pub(crate) mod peer;
