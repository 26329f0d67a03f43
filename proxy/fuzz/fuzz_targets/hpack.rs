//! Runs `bodies/hpack.rs`: `cargo +nightly fuzz run hpack -- -dict=fuzz/http2.dict`.
#![no_main]

#[path = "../bodies/hpack.rs"]
mod body;

libfuzzer_sys::fuzz_target!(|data: &[u8]| body::run(data));
