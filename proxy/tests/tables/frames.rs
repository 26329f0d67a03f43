//! Frames of HTTP/2 by short names, for the scripts of rows.
//!
//! `rows` plays them, `http2` writes them. It must not know what is counted.

use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;

use super::wire::{END_STREAM, PREFACE, data, goaway, headers, hello, message, reset, settings};

/// SETTINGS_ENABLE_CONNECT_PROTOCOL (RFC 8441 section 3).
const ENABLE_CONNECT: u16 = 0x8;

/// The bytes of frames by their names, each of stream 1 unless it ends in `@` and another:
///
/// - of a client, `hi` is its preface and `get`, `post`, `call` (gRPC) and `connect` are heads of requests;
/// - of a server, `set` is its preface, `200` the head of an answer, `200+7` one with a `grpc-status`, `200g` one of
///   gRPC, `t7` trailers with a `grpc-status`, `g7` a GOAWAY, `bad` a frame that is none;
/// - of either, `d` is four bytes of data, `m` a gRPC message, `r7` RST_STREAM.
///
/// `.` before the stream is END_STREAM; `get` and trailers have it anyway.
pub(crate) fn bytes(names: &str) -> Vec<u8> {
    names.split_whitespace().flat_map(one).collect()
}

fn one(name: &str) -> Vec<u8> {
    let (name, stream) = name.split_once('@').map_or((name, 1), |(name, stream)| {
        (name, stream.parse().expect("the number of a stream"))
    });
    let (name, flags) = match name.strip_suffix('.') {
        Some(name) => (name, END_STREAM),
        None => (name, 0),
    };
    let code = |text: &str| text.parse().expect("a code");
    match name {
        "hi" => hello(),
        "set" => settings(&[(ENABLE_CONNECT, 1)]),
        "get" => request(stream, END_STREAM, "GET", &[]),
        "post" => request(stream, flags, "POST", &[]),
        "call" => request(stream, flags, "POST", &[GRPC]),
        "connect" => request(stream, flags, "CONNECT", &[(":protocol", "websocket")]),
        "d" => data(stream, flags, b"some"),
        "m" => data(stream, flags, &message(7)),
        "bad" => data(0, 0, b"of no stream"),
        _ => match name.split_at(1) {
            ("t", grpc) => headers(stream, END_STREAM, &[("grpc-status", grpc)]),
            ("r", reason) => reset(stream, code(reason)),
            ("g", reason) => goaway(stream, code(reason)),
            _ => answer(stream, flags, name),
        },
    }
}

const GRPC: (&str, &str) = ("content-type", "application/grpc");

fn request(stream: u32, flags: u8, method: &str, more: &[(&str, &str)]) -> Vec<u8> {
    let head = [
        (":method", method),
        (":scheme", "http"),
        (":path", "/"),
        (":authority", "Web.example:80"),
    ];
    // Pseudo-fields come first (RFC 9113 section 8.3).
    let (pseudo, fields): (Vec<_>, Vec<_>) = more.iter().partition(|(n, _)| n.starts_with(':'));
    headers(stream, flags, &[&head[..], &pseudo, &fields].concat())
}

fn answer(stream: u32, flags: u8, name: &str) -> Vec<u8> {
    if let Some(status) = name.strip_suffix('g') {
        return headers(stream, flags, &[(":status", status), GRPC]);
    }
    match name.split_once('+') {
        Some((status, grpc)) => headers(
            stream,
            flags,
            &[(":status", status), GRPC, ("grpc-status", grpc)],
        ),
        None => headers(stream, flags, &[(":status", name)]),
    }
}

/// Reads until these have come, in this order, whatever else does: `p` is a client's preface, `h` HEADERS, `d` DATA,
/// `r` RST_STREAM, `s` SETTINGS, `g` GOAWAY; with a `.` one that ends its stream.
pub(crate) async fn hear(stream: &mut TcpStream, names: &str) {
    for name in names.split_whitespace() {
        if name == "p" {
            let mut preface = [0; PREFACE.len()];
            stream.read_exact(&mut preface).await.expect("a preface");
            assert_eq!(preface, PREFACE);
            continue;
        }
        let (name, ends) = match name.strip_suffix('.') {
            Some(name) => (name, true),
            None => (name, false),
        };
        let kind = match name {
            "d" => 0x0,
            "h" => 0x1,
            "r" => 0x3,
            "s" => 0x4,
            "g" => 0x7,
            _ => panic!("{name} is no frame"),
        };
        while !is_next(stream, kind, ends).await {}
    }
}

/// Reads one frame. Answers whether it is of this kind, and ends its stream if that is wanted.
async fn is_next(stream: &mut TcpStream, kind: u8, ends: bool) -> bool {
    let mut head = [0; 9];
    stream.read_exact(&mut head).await.expect("a frame");
    let [a, b, c, of, flags, ..] = head;
    let mut payload = vec![0; u32::from_be_bytes([0, a, b, c]) as usize];
    stream.read_exact(&mut payload).await.expect("its payload");
    of == kind && (!ends || flags & END_STREAM != 0)
}
