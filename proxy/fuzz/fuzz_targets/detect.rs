//! Detection: bytes that are judged are judged for good, and no wait is without an end.
//!
//! Run by `cargo +nightly fuzz run detect`.
#![no_main]

use libfuzzer_sys::fuzz_target;
use weir_proxy::detect::{MAX_REQUEST_LINE, Verdict, detect};
use weir_proxy::http2::PREFACE;

fuzz_target!(|input: (&[u8], u16)| {
    let (bytes, cut) = input;
    let whole = detect(bytes);
    let part = detect(&bytes[..bytes.len().min(cut.into())]);
    if matches!(part, Verdict::Http1 | Verdict::Http2) {
        assert_eq!(whole, part, "neither a request line nor a preface ends twice");
    }
    if whole == Verdict::NeedMore && !PREFACE.starts_with(bytes) {
        let line = bytes
            .iter()
            .position(|b| !b"\r\n".contains(b))
            .unwrap_or(bytes.len());
        assert!(bytes.len() - line < MAX_REQUEST_LINE);
        assert!(!bytes[line..].contains(&b'\n'));
    }
});
