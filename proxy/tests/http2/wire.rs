//! Frames and header blocks as bytes, written by hand (RFC 9113 section 6, RFC 7541 section 6).

pub(crate) const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

pub(crate) const END_STREAM: u8 = 0x1;
pub(crate) const END_HEADERS: u8 = 0x4;

pub(crate) fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let [_, a, b, c] = u32::try_from(payload.len())
        .expect("a short payload")
        .to_be_bytes();
    let mut bytes = vec![a, b, c, kind, flags];
    bytes.extend(stream.to_be_bytes());
    bytes.extend(payload);
    bytes
}

/// A block of literals that are not indexed.
pub(crate) fn block(fields: &[(&str, &str)]) -> Vec<u8> {
    let mut block = Vec::new();
    for (name, value) in fields {
        block.push(0);
        for text in [name, value] {
            length(&mut block, text.len());
            block.extend(text.bytes());
        }
    }
    block
}

fn length(block: &mut Vec<u8>, len: usize) {
    if len < 127 {
        return block.push(u8::try_from(len).expect("below 127"));
    }
    block.push(127);
    let mut rest = len - 127;
    while rest >= 128 {
        block.push(0x80 | (rest & 0x7f) as u8);
        rest >>= 7;
    }
    block.push(rest as u8);
}

/// HEADERS that are whole; `flags` beside END_HEADERS.
pub(crate) fn headers(stream: u32, flags: u8, fields: &[(&str, &str)]) -> Vec<u8> {
    frame(0x1, flags | END_HEADERS, stream, &block(fields))
}

/// A request of this stream to `web`, with its END_STREAM or not.
pub(crate) fn get(stream: u32) -> Vec<u8> {
    headers(
        stream,
        END_STREAM,
        &[(":method", "GET"), (":authority", "web")],
    )
}

pub(crate) fn post(stream: u32) -> Vec<u8> {
    headers(stream, 0, &[(":method", "POST"), (":authority", "web")])
}

pub(crate) fn status(stream: u32, flags: u8, status: &str) -> Vec<u8> {
    headers(stream, flags, &[(":status", status)])
}

pub(crate) fn data(stream: u32, flags: u8, bytes: &[u8]) -> Vec<u8> {
    frame(0x0, flags, stream, bytes)
}

pub(crate) fn reset(stream: u32, code: u32) -> Vec<u8> {
    frame(0x3, 0, stream, &code.to_be_bytes())
}

pub(crate) fn goaway(last: u32, code: u32) -> Vec<u8> {
    frame(
        0x7,
        0,
        0,
        &[last.to_be_bytes(), code.to_be_bytes()].concat(),
    )
}

pub(crate) fn settings(pairs: &[(u16, u32)]) -> Vec<u8> {
    let mut payload = Vec::new();
    for (id, value) in pairs {
        payload.extend(id.to_be_bytes());
        payload.extend(value.to_be_bytes());
    }
    frame(0x4, 0, 0, &payload)
}

pub(crate) fn acknowledgement() -> Vec<u8> {
    frame(0x4, 0x1, 0, &[])
}

/// What a client says first.
pub(crate) fn hello() -> Vec<u8> {
    [PREFACE, &settings(&[])].concat()
}

/// A gRPC message of so many bytes.
pub(crate) fn message(len: usize) -> Vec<u8> {
    let mut bytes = vec![0];
    bytes.extend(u32::try_from(len).expect("a short message").to_be_bytes());
    bytes.resize(bytes.len() + len, b'm');
    bytes
}
