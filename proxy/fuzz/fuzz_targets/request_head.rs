//! Request heads: a verdict never changes as bytes arrive, and lies within them.
//!
//! Run by `cargo +nightly fuzz run request_head`.
#![no_main]

use libfuzzer_sys::fuzz_target;
use weir_proxy::http1::request::{ParsedRequest, parse};

fuzz_target!(|input: (&[u8], u16)| {
    let (bytes, cut) = input;
    let whole = parse(bytes);
    if let ParsedRequest::Head(head) = &whole {
        assert!(head.len <= bytes.len());
        assert!(bytes[..head.len].ends_with(b"\r\n\r\n"));
        assert_eq!(
            parse(&bytes[..head.len]),
            whole,
            "what follows a head is not part of it"
        );
    }
    let part = parse(&bytes[..bytes.len().min(cut.into())]);
    assert!(
        part == ParsedRequest::Incomplete || part == whole,
        "{part:?} became {whole:?}"
    );
});
