//! Tests of the telemetry from outside: traffic goes in through recorders, and the text that a scraper gets is read
//! back. No sockets and no clocks; time is told.

// All of this is test code, but clippy's `allow-unwrap-in-tests` sees only the functions that are tests.
#![allow(clippy::unwrap_used)]

mod budget;
mod calls;
mod everything;
mod flood;
mod lint;
mod memory;
mod model;
mod policy;
mod promtool;
mod proxy;
mod retirement;
mod routes;
mod scrape;
mod singles;
mod stress;
mod text;
mod trailing;
mod values;
