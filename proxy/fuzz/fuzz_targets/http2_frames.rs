//! Runs `bodies/http2_frames.rs`: `cargo +nightly fuzz run http2_frames -- -dict=fuzz/http2.dict`.
#![no_main]

#[path = "../bodies/http2_frames.rs"]
mod body;
#[path = "../../tests/corpora/book.rs"]
mod book;

libfuzzer_sys::fuzz_target!(|data: &[u8]| body::run(data));
