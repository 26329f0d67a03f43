//! Runs `bodies/signing_request.rs`: `e2e/lib/fuzz 60 target/found signing_request`.
#![no_main]

#[path = "../bodies/signing_request.rs"]
mod body;
#[path = "../../src/serve/identity/request.rs"]
#[allow(unreachable_pub, reason = "it is another crate's module")]
mod request;

libfuzzer_sys::fuzz_target!(|data: &[u8]| body::run(data));
