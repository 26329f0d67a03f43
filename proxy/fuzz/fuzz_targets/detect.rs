//! Detection: bytes that are judged are judged for good, and no wait is without an end.
//!
//! Run by `cargo +nightly fuzz run detect`.
#![no_main]

use libfuzzer_sys::fuzz_target;
use weir_proxy::detect::{MAX_REQUEST_LINE, Verdict, detect};

fuzz_target!(|input: (&[u8], u16)| {
    let (bytes, cut) = input;
    let whole = detect(bytes);
    let part = detect(&bytes[..bytes.len().min(cut.into())]);
    if part == Verdict::Http1 {
        assert_eq!(whole, Verdict::Http1, "a request line does not end twice");
    }
    if whole == Verdict::NeedMore {
        let line = bytes
            .iter()
            .position(|b| !b"\r\n".contains(b))
            .unwrap_or(bytes.len());
        assert!(bytes.len() - line < MAX_REQUEST_LINE);
        assert!(!bytes[line..].contains(&b'\n'));
    }
});
