//! Runs `bodies/routes.rs`: `e2e/lib/fuzz 60 target/found routes`.
#![no_main]

#[path = "../bodies/routes.rs"]
mod body;

libfuzzer_sys::fuzz_target!(|data: &[u8]| body::run(data));
