//! Chunked bodies: pieces of any size end where the whole does, and where a decoder that
//! only knows the grammar says.
//!
//! The input: one byte with the number of cuts, the length of each piece, and the body. Run by the
//! fuzzer, and by `tests/corpora` on what is in `corpus`.

use weir_proxy::http1::body::ChunkReader;

/// The end of a body, from the grammar of RFC 9112 section 7.1; none where there is none or
/// the body breaks off.
fn end(body: &[u8]) -> Option<usize> {
    let line = |from: usize| {
        let found = body[from..].windows(2).position(|w| w == b"\r\n")?;
        Some((&body[from..from + found], from + found + 2))
    };
    let mut at = 0;
    loop {
        let (head, next) = line(at)?;
        let digits = head.iter().take_while(|b| b.is_ascii_hexdigit()).count();
        let size = std::str::from_utf8(&head[..digits]).ok()?;
        let size = usize::from_str_radix(size, 16).ok()?;
        at = next;
        if size == 0 {
            break;
        }
        at = at.checked_add(size)?;
        if body.get(at..at.checked_add(2)?)? != b"\r\n" {
            return None;
        }
        at += 2;
    }
    loop {
        let (field, next) = line(at)?;
        at = next;
        if field.is_empty() {
            return Some(at);
        }
    }
}

pub(crate) fn run(data: &[u8]) {
    let Some((&count, rest)) = data.split_first() else {
        return;
    };
    let (cuts, bytes) = rest.split_at(rest.len().min(usize::from(count % 16)));
    let mut whole = ChunkReader::default();
    let outcome = whole.feed(bytes);
    let mut pieces = ChunkReader::default();
    let (mut fed, mut failed) = (0, None);
    let mut cuts = cuts
        .iter()
        .map(|n| usize::from(*n) + 1)
        .chain(std::iter::repeat(1));
    while fed < bytes.len() && !pieces.is_done() {
        let size = cuts.next().unwrap_or(1).min(bytes.len() - fed);
        match pieces.feed(&bytes[fed..fed + size]) {
            Ok(n) => fed += n,
            Err(error) => {
                failed = Some(error);
                break;
            }
        }
    }
    assert_eq!(outcome, failed.map_or(Ok(fed), Err));
    assert_eq!(whole.is_done(), pieces.is_done());
    if outcome.is_ok() {
        assert_eq!(whole.grpc_status(), pieces.grpc_status());
        assert_eq!(whole.has_data(), pieces.has_data());
    }
    if let (Ok(n), true) = (outcome, whole.is_done()) {
        assert_eq!(end(bytes), Some(n), "another reader sees another end");
    }
}
