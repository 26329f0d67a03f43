//! Runs `bodies/hello.rs`: `cargo +nightly fuzz run hello`.
#![no_main]

#[path = "../bodies/hello.rs"]
mod body;

libfuzzer_sys::fuzz_target!(|data: &[u8]| body::run(data));
