//! Runs `bodies/documents.rs`: `e2e/lib/fuzz 60 target/found documents`.
#![no_main]

#[path = "../bodies/documents.rs"]
mod body;

libfuzzer_sys::fuzz_target!(|data: &[u8]| body::run(data));
