//! The admin port as its clients find it: what a scraper gets, read by strict readers (ours, Prometheus, the client
//! library of Python), and the page in a real browser. Real sockets on loopback. Needs Debian's packages `prometheus`
//! and `chromium`.

// All of this is test code, but clippy's `allow-unwrap-in-tests` sees only the functions that are tests.
#![allow(clippy::unwrap_used)]

mod browser;
#[path = "../telemetry/everything.rs"]
mod everything;
mod families;
mod http;
mod labels;
mod memory;
mod pace;
mod page;
mod parser;
#[path = "../../../e2e/src/ports.rs"]
mod ports;
mod process;
mod prometheus;
mod python;
mod reader;
#[allow(dead_code, reason = "the tests of telemetry use the rest")]
#[path = "../telemetry/scrape.rs"]
mod scrape;
mod served;
