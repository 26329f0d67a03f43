//! HPACK beside the decoder of the h2 crate: what a server takes, ours takes, and says the same of
//! it; what ours refuses, a server refuses. (Ours takes more: it does not judge what it skips.)
//!
//! The input: blocks, as `Arbitrary` makes them of bytes; whether each is bare, and its parts. Run by
//! the fuzzer, and by `tests/corpora` on what is in `corpus`.

use std::future::poll_fn;
use std::task::Poll;

use arbitrary::{Arbitrary, Unstructured};
use bytes::Bytes;
use tokio::io::{AsyncWriteExt, duplex};
use weir_proxy::http2::PREFACE;
use weir_proxy::http2::hpack::{Decoder, Fields, MAX_TEXT};

/// How often a server is asked again: the runtime makes it pause in between.
const QUIET: u8 = 3;

/// A part of a block.
#[derive(Arbitrary, Debug)]
enum Part<'a> {
    /// Anything.
    Raw(&'a [u8]),
    /// An entry of the tables, the newest of the dynamic one more often.
    Indexed(u8),
    /// A literal: which name, to be indexed or not, its value.
    Literal(u8, bool, &'a str),
    Resize(u8),
}

/// Names by index, or as they are.
const NAMES: [&[u8]; 8] = [
    b"\x01",
    b"\x02",
    b"\x1f",
    b"\x26",
    b"\x00\x0cx-unmeasured",
    b"\x00\x0ccontent-type",
    b"\x00\x04host",
    b"\x3e",
];

/// A block: the pseudo-fields that a request must have, unless it is bare, then its parts.
fn block((is_bare, parts): &(bool, Vec<Part<'_>>)) -> Vec<u8> {
    let mut block = Vec::new();
    for part in parts {
        if let Part::Resize(size) = part {
            block.extend([0x3f, size & 0x7f]);
        }
    }
    if !is_bare {
        block.extend(b"\x82\x86\x84");
    }
    for part in parts {
        match part {
            Part::Raw(bytes) => block.extend(*bytes),
            Part::Indexed(n) if n % 2 == 0 => block.push(0x80 | (62 + n % 32 / 2)),
            Part::Indexed(n) => block.push(0x80 | n),
            Part::Literal(name, is_indexed, value) => {
                let name = NAMES[usize::from(*name) % NAMES.len()];
                let value = &value.as_bytes()[..value.len().min(100)];
                block.push(name[0] | if *is_indexed { 0x40 } else { 0x10 });
                if !is_indexed && name[0] > 14 {
                    // A prefix of four bits holds no more than 14.
                    *block.last_mut().expect("just pushed") = 0x1f;
                    block.push(name[0] - 15);
                }
                block.extend(&name[1..]);
                block.push(value.len() as u8);
                block.extend(value);
            }
            Part::Resize(_) => {}
        }
    }
    block
}

/// What a server saw of a request.
#[derive(Debug, PartialEq, Eq)]
struct Seen {
    is_connect: bool,
    authority: Vec<u8>,
    is_grpc: bool,
}

/// What is kept of an authority.
fn label(authority: &[u8]) -> Vec<u8> {
    match authority.len() {
        0..=MAX_TEXT => authority.to_vec(),
        _ => Vec::new(),
    }
}

fn frame(kind: u8, flags: u8, stream: u8, payload: &[u8]) -> Vec<u8> {
    let len = (payload.len() as u32).to_be_bytes();
    let head = [len[1], len[2], len[3], kind, flags, 0, 0, 0, stream];
    [&head[..], payload].concat()
}

/// Shows the blocks to a server, as one request each. Answers what it saw, in order, until it gave
/// the connection up.
async fn serve(blocks: &[Vec<u8>]) -> Vec<Seen> {
    let (mut near, far) = duplex(1 << 20);
    let mut sent = [&PREFACE[..], &frame(0x4, 0, 0, &[])].concat();
    for (at, block) in blocks.iter().enumerate() {
        sent.extend(frame(0x1, 0x5, 2 * at as u8 + 1, block));
    }
    near.write_all(&sent).await.expect("it fits");
    let mut seen = Vec::new();
    let mut builder = h2::server::Builder::new();
    builder
        .max_header_list_size(1 << 24)
        .max_concurrent_streams(64);
    let Ok(mut connection) = builder.handshake::<_, Bytes>(far).await else {
        return seen;
    };
    let mut held = Vec::new();
    let mut quiet = 0;
    while quiet < QUIET {
        // All there will be is in the pipe: where nothing is ready, nothing more comes.
        let (request, respond) = match poll_fn(|cx| Poll::Ready(connection.poll_accept(cx))).await {
            Poll::Ready(Some(Ok(accepted))) => accepted,
            Poll::Ready(_) => break,
            Poll::Pending => {
                quiet += 1;
                tokio::task::yield_now().await;
                continue;
            }
        };
        let authority = request
            .uri()
            .authority()
            .map_or(&b""[..], |a| a.as_str().as_bytes());
        let host = request.headers().get_all("host").iter().next_back();
        let host = host.map_or(&b""[..], |host| host.as_bytes());
        let kind = request.headers().get_all("content-type").iter().next_back();
        seen.push(Seen {
            is_connect: request.method() == "CONNECT",
            authority: label(if authority.is_empty() {
                host
            } else {
                authority
            }),
            is_grpc: kind.is_some_and(|k| weir_proxy::http2::grpc::is_grpc(k.as_bytes())),
        });
        held.push(respond);
    }
    seen
}

pub(crate) fn run(data: &[u8]) {
    let input = Vec::<(bool, Vec<Part<'_>>)>::arbitrary_take_rest(Unstructured::new(data));
    let Ok(input) = input else {
        return;
    };
    let blocks: Vec<Vec<u8>> = input
        .iter()
        .take(16)
        .map(block)
        .filter(|b| b.len() < 16_000)
        .collect();
    let (mut decoder, mut fields) = (Decoder::default(), Fields::default());
    let (mut ours, mut refused) = (Vec::new(), false);
    for block in &blocks {
        if decoder.decode(block, &mut fields).is_err() {
            refused = true;
            break;
        }
        assert!(decoder.table_size() <= 4096, "the table keeps to its size");
        ours.push(Seen {
            is_connect: fields.is_connect,
            authority: fields.authority().to_vec(),
            is_grpc: fields.is_grpc,
        });
    }
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .expect("a runtime");
    let seen = runtime.block_on(serve(&blocks));
    // A server drops what is malformed beyond HPACK: what it saw is a part of what we saw.
    let mut rest = ours.iter();
    for request in &seen {
        let found = rest.any(|known| known == request);
        assert!(
            found,
            "{request:?} is not among {ours:?} (refused: {refused})"
        );
    }
}
