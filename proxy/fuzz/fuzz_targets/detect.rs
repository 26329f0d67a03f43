//! Runs `bodies/detect.rs`: `e2e/lib/fuzz 60 target/found detect`.
#![no_main]

#[path = "../bodies/detect.rs"]
mod body;

libfuzzer_sys::fuzz_target!(|data: &[u8]| body::run(data));
