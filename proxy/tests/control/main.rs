//! The proxy and its operator: real connections on loopback to a control plane of which each test says everything.

mod away;
mod branches;
mod calls;
mod certify;
mod connection;
mod desk;
mod discovery;
mod late;
mod opaque;
#[allow(dead_code, reason = "the tests with real redirection use the rest")]
mod operator;
mod room;
mod services;
mod settings;
mod worker;
