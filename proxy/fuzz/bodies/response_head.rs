//! Response heads: a verdict never changes as bytes arrive, and lies within them.
//!
//! The input: two bytes that say where the head is cut, the higher bit whether it answers a HEAD
//! request, and the head. Run by the fuzzer, and by `tests/corpora` on what is in `corpus`.

use weir_proxy::http1::Framing;
use weir_proxy::http1::response::{ParsedResponse, parse};

pub(crate) fn run(data: &[u8]) {
    let Some((first, bytes)) = data.split_first_chunk() else {
        return;
    };
    let first = u16::from_le_bytes(*first);
    let (to_head, cut) = (first & 0x8000 != 0, usize::from(first & 0x7fff));
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
    let part = parse(&bytes[..bytes.len().min(cut)], to_head);
    assert!(
        part == ParsedResponse::Incomplete || part == whole,
        "{part:?} became {whole:?}"
    );
}
