//! The sidecar proxy as a library; `main` is a thin shell around it.
//!
//! ```text
//! connection -> accept -> detect -> route -> forward -> record -> expose
//! ```
pub mod accept;
pub mod activity;
pub mod admin;
pub mod app;
mod ask;
pub mod buffer;
pub mod cni;
pub mod config;
pub mod connection;
pub mod control;
pub mod destinations;
pub mod detect;
pub mod drain;
pub mod endpoints;
pub mod exchange;
pub mod forward;
pub mod heartbeat;
pub mod http1;
pub mod http2;
pub mod identity;
pub mod init;
pub mod log;
pub mod mesh;
pub mod permission;
pub mod plan;
#[cfg(test)]
#[path = "../../e2e/src/ports.rs"]
mod ports;
pub mod record;
pub mod redirection;
pub mod routes;
pub mod session;
pub mod shutdown;
pub mod stream;
pub mod telemetry;
pub mod terminate;
pub mod wait;
pub mod worker;
