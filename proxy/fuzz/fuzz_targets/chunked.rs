//! Runs `bodies/chunked.rs`: `cargo +nightly fuzz run chunked`.
#![no_main]

#[path = "../bodies/chunked.rs"]
mod body;

libfuzzer_sys::fuzz_target!(|data: &[u8]| body::run(data));
