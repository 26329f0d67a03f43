//! The webhook without a cluster: golden injections, whole reviews through the router, and TLS.
//! One program, because linking is most of the time that these tests take.
#![allow(
    clippy::unwrap_used,
    reason = "a test fails by panicking, also outside its own function"
)]

mod exchange;
mod fixture;
mod golden;
mod health;
mod layers;
mod manifests;
mod offline;
mod pods;
#[path = "../../../proxy/tests/telemetry/promtool.rs"]
mod promtool;
mod resources;
mod silence;
mod tls;
