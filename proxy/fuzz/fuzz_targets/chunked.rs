//! Runs `bodies/chunked.rs`: `e2e/lib/fuzz 60 target/found chunked`.
#![no_main]

#[path = "../bodies/chunked.rs"]
mod body;

libfuzzer_sys::fuzz_target!(|data: &[u8]| body::run(data));
