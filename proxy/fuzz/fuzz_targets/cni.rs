//! Runs `bodies/cni.rs`: `cargo +nightly fuzz run cni`.
#![no_main]

#[path = "../bodies/cni.rs"]
mod body;

libfuzzer_sys::fuzz_target!(|data: &[u8]| body::run(data));
