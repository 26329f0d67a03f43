//! Runs `bodies/cni.rs`: `e2e/lib/fuzz 60 target/found cni`.
#![no_main]

#[path = "../bodies/cni.rs"]
mod body;

libfuzzer_sys::fuzz_target!(|data: &[u8]| body::run(data));
