//! A small HTTP client: one request a connection, the body as it was coded.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

/// Longest time that any answer may take.
pub(crate) const DEADLINE: Duration = Duration::from_secs(60);

#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    head: String,
    pub(crate) body: Vec<u8>,
}

impl Answer {
    /// The value of a header, or nothing.
    pub(crate) fn header(&self, name: &str) -> &str {
        let mut lines = self.head.lines().skip(1);
        lines
            .find_map(|line| {
                line.split_once(": ")
                    .filter(|(n, _)| n.eq_ignore_ascii_case(name))
            })
            .map_or("", |(_, value)| value)
    }

    /// The body without its coding, as text.
    pub(crate) fn text(&self) -> String {
        match self.header("content-encoding") {
            "" => String::from_utf8(self.body.clone()).unwrap(),
            "gzip" => {
                std::io::read_to_string(flate2::read::GzDecoder::new(&self.body[..])).unwrap()
            }
            other => panic!("coded as {other}"),
        }
    }
}

/// Asks with these header lines; each ends in CR LF.
pub(crate) fn get(addr: SocketAddr, path: &str, headers: &str) -> Answer {
    let mut stream = ask(addr, path, headers);
    let mut raw = Vec::new();
    stream.read_to_end(&mut raw).unwrap();
    read(&raw)
}

/// Asks and reads nothing.
pub(crate) fn ask(addr: SocketAddr, path: &str, headers: &str) -> TcpStream {
    let mut stream = TcpStream::connect(addr).unwrap();
    stream.set_read_timeout(Some(DEADLINE)).unwrap();
    let head =
        format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n{headers}\r\n");
    stream.write_all(head.as_bytes()).unwrap();
    stream
}

pub(crate) fn read(raw: &[u8]) -> Answer {
    let end = raw
        .windows(4)
        .position(|w| w == b"\r\n\r\n")
        .expect("a head");
    let head = String::from_utf8(raw[..end].to_vec()).unwrap();
    let mut answer = Answer {
        status: head.split(' ').nth(1).unwrap().parse().unwrap(),
        head,
        body: raw[end + 4..].to_vec(),
    };
    if answer.header("transfer-encoding") == "chunked" {
        answer.body = dechunked(&answer.body);
    }
    answer
}

fn dechunked(mut rest: &[u8]) -> Vec<u8> {
    let mut body = Vec::new();
    loop {
        let end = rest
            .windows(2)
            .position(|w| w == b"\r\n")
            .expect("a chunk's size");
        let size = usize::from_str_radix(std::str::from_utf8(&rest[..end]).unwrap(), 16).unwrap();
        if size == 0 {
            return body;
        }
        body.extend_from_slice(&rest[end + 2..end + 2 + size]);
        rest = &rest[end + 2 + size + 2..];
    }
}
