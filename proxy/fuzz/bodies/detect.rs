//! Detection: bytes that are judged are judged for good, and no wait is without an end.
//!
//! The input: two bytes that say where the bytes are cut, and the bytes. Run by the fuzzer, and by
//! `tests/corpora` on what is in `corpus`.

use weir_proxy::detect::{MAX_REQUEST_LINE, Verdict, detect};
use weir_proxy::http2::PREFACE;

pub(crate) fn run(data: &[u8]) {
    let Some((cut, bytes)) = data.split_first_chunk() else {
        return;
    };
    let cut = usize::from(u16::from_le_bytes(*cut));
    let whole = detect(bytes);
    let part = detect(&bytes[..bytes.len().min(cut)]);
    if matches!(part, Verdict::Http1 | Verdict::Http2) {
        assert_eq!(
            whole, part,
            "neither a request line nor a preface ends twice"
        );
    }
    if whole == Verdict::NeedMore && !PREFACE.starts_with(bytes) {
        let line = bytes
            .iter()
            .position(|b| !b"\r\n".contains(b))
            .unwrap_or(bytes.len());
        assert!(bytes.len() - line < MAX_REQUEST_LINE);
        assert!(!bytes[line..].contains(&b'\n'));
    }
}
