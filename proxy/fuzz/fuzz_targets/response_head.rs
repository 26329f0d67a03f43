//! Runs `bodies/response_head.rs`: `e2e/lib/fuzz 60 target/found response_head`.
#![no_main]

#[path = "../bodies/response_head.rs"]
mod body;

libfuzzer_sys::fuzz_target!(|data: &[u8]| body::run(data));
