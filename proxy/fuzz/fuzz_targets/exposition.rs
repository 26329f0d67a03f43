//! Runs `bodies/exposition.rs`: `e2e/lib/fuzz 60 target/found exposition`.
#![no_main]

#[path = "../bodies/exposition.rs"]
mod body;
#[path = "../../tests/exposition/parser.rs"]
mod parser;

libfuzzer_sys::fuzz_target!(|data: &[u8]| body::run(data));
