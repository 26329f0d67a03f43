//! Runs `bodies/detect.rs`: `cargo +nightly fuzz run detect`.
#![no_main]

#[path = "../bodies/detect.rs"]
mod body;

libfuzzer_sys::fuzz_target!(|data: &[u8]| body::run(data));
