//! Runs `bodies/hello.rs`: `e2e/lib/fuzz 60 target/found hello`.
#![no_main]

#[path = "../bodies/hello.rs"]
mod body;

libfuzzer_sys::fuzz_target!(|data: &[u8]| body::run(data));
