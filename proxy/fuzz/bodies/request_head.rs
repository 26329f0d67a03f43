//! Request heads: a verdict never changes as bytes arrive, and lies within them.
//!
//! The input: two bytes that say where the head is cut, and the head. Run by the fuzzer, and by
//! `tests/corpora` on what is in `corpus`.

use weir_proxy::http1::request::{ParsedRequest, parse};

pub(crate) fn run(data: &[u8]) {
    let Some((cut, bytes)) = data.split_first_chunk() else {
        return;
    };
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
    let cut = usize::from(u16::from_le_bytes(*cut));
    let part = parse(&bytes[..bytes.len().min(cut)]);
    assert!(
        part == ParsedRequest::Incomplete || part == whole,
        "{part:?} became {whole:?}"
    );
}
