//! Response heads: a verdict never changes as bytes arrive, and lies within them.
//!
//! Run by `cargo +nightly fuzz run response_head`.
#![no_main]

use libfuzzer_sys::fuzz_target;
use weir_proxy::http1::Framing;
use weir_proxy::http1::response::{ParsedResponse, parse};

fuzz_target!(|input: (&[u8], bool, u16)| {
    let (bytes, to_head, cut) = input;
    let whole = parse(bytes, to_head);
    if let ParsedResponse::Head(head) = &whole {
        assert!(head.len <= bytes.len());
        if to_head || matches!(head.status, 100..=199 | 204 | 304) {
            assert_eq!(head.framing, Framing::None);
        }
        assert_ne!(
            head.framing,
            Framing::Length(0),
            "a body of nothing is no body"
        );
    }
    let part = parse(&bytes[..bytes.len().min(cut.into())], to_head);
    assert!(
        part == ParsedResponse::Incomplete || part == whole,
        "{part:?} became {whole:?}"
    );
});
