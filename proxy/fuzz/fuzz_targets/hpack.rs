//! HPACK beside the decoder of the h2 crate: what a server takes, ours takes, and says the same of
//! it; what ours refuses, a server refuses. (Ours takes more: it does not judge what it skips.)
//!
//! Run by `cargo +nightly fuzz run hpack -- -dict=fuzz/http2.dict`.
#![no_main]

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};
use weir_proxy::http2::PREFACE;
use weir_proxy::http2::hpack::{Decoder, Fields, MAX_TEXT};

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
async fn serve(blocks: &[&[u8]]) -> Vec<Seen> {
    let (mut near, far) = duplex(1 << 20);
    let mut sent = [&PREFACE[..], &frame(0x4, 0, 0, &[])].concat();
    for (at, block) in blocks.iter().enumerate() {
        sent.extend(frame(0x1, 0x5, 2 * at as u8 + 1, block));
    }
    near.write_all(&sent).await.expect("it fits");
    near.shutdown().await.expect("a half-close");
    let mut seen = Vec::new();
    let mut builder = h2::server::Builder::new();
    builder
        .max_header_list_size(1 << 24)
        .max_concurrent_streams(64);
    let Ok(mut connection) = builder.handshake::<_, Bytes>(far).await else {
        return seen;
    };
    let mut held = Vec::new();
    while let Some(Ok((request, respond))) = connection.accept().await {
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
    drop((connection, held));
    let mut rest = Vec::new();
    let _read = near.read_to_end(&mut rest).await;
    seen
}

fuzz_target!(|input: Vec<&[u8]>| {
    let blocks: Vec<&[u8]> = input
        .into_iter()
        .take(16)
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
});
