//! Runs `bodies/exposition.rs`: `cargo +nightly fuzz run exposition`.
#![no_main]

#[path = "../bodies/exposition.rs"]
mod body;
#[path = "../../tests/exposition/parser.rs"]
mod parser;

libfuzzer_sys::fuzz_target!(|data: &[u8]| body::run(data));
