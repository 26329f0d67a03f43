//! Runs `bodies/documents.rs`: `cargo +nightly fuzz run documents`.
#![no_main]

#[path = "../bodies/documents.rs"]
mod body;

libfuzzer_sys::fuzz_target!(|data: &[u8]| body::run(data));
