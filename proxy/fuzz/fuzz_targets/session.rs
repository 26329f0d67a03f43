//! Runs `bodies/session.rs`: `cargo +nightly fuzz run session`.
#![no_main]

#[path = "../bodies/session.rs"]
mod body;
#[path = "../../tests/corpora/book.rs"]
mod book;

libfuzzer_sys::fuzz_target!(|data: &[u8]| body::run(data));
