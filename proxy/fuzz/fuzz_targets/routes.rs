//! Runs `bodies/routes.rs`: `cargo +nightly fuzz run routes`.
#![no_main]

#[path = "../bodies/routes.rs"]
mod body;

libfuzzer_sys::fuzz_target!(|data: &[u8]| body::run(data));
