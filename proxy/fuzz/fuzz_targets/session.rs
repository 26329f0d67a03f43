//! Runs `bodies/session.rs`: `e2e/lib/fuzz 60 target/found session`.
#![no_main]

#[path = "../bodies/session.rs"]
mod body;
#[path = "../../tests/corpora/book.rs"]
mod book;

libfuzzer_sys::fuzz_target!(|data: &[u8]| body::run(data));
