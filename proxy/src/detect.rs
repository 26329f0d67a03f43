//! Protocol detection: which protocol do the first bytes of a client speak?
//!
//! A pure function on bytes; `detect::wait` does the waiting around it. It must
//! not know sockets, targets or metrics. A connection is HTTP/1 only once its
//! whole request line says so (RFC 9112 section 3), because a wrong guess would
//! hold back the bytes of another protocol.

use crate::http2::PREFACE;

pub mod hello;
pub mod learned;
pub mod rtt;
pub mod wait;

/// Longest request line that detection will wait for, in bytes. A longer one
/// is judged by what is there: the head parser has its own limit.
pub const MAX_REQUEST_LINE: usize = 32 * 1024;

/// The methods whose beginning is worth waiting for when the first segment
/// holds no whole line: RFC 9110 section 9, RFC 5789 and WebDAV (RFC 4918).
const METHODS: [&[u8]; 16] = [
    b"GET ",
    b"HEAD ",
    b"POST ",
    b"PUT ",
    b"DELETE ",
    b"CONNECT ",
    b"OPTIONS ",
    b"TRACE ",
    b"PATCH ",
    b"PROPFIND ",
    b"PROPPATCH ",
    b"MKCOL ",
    b"COPY ",
    b"MOVE ",
    b"LOCK ",
    b"UNLOCK ",
];

/// What the first bytes of a client mean.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// An HTTP/1.0 or HTTP/1.1 request line.
    Http1,
    /// The preface of HTTP/2 with prior knowledge (RFC 9113 section 3.4).
    Http2,
    /// Anything else; the bytes pass untouched.
    Opaque,
    /// The beginning of what may become a request line.
    NeedMore,
}

/// Judges the bytes a client has sent so far.
pub fn detect(bytes: &[u8]) -> Verdict {
    if bytes.starts_with(PREFACE) {
        return Verdict::Http2;
    }
    if PREFACE.starts_with(bytes) {
        return Verdict::NeedMore;
    }
    // A recipient may skip empty lines before the request line (RFC 9112 section 2.2).
    let line = skip_empty_lines(bytes);
    if line.is_empty() {
        return Verdict::Opaque;
    }
    let window = &line[..line.len().min(MAX_REQUEST_LINE)];
    match memchr::memchr(b'\n', window) {
        Some(end) if is_request_line(&window[..end]) => Verdict::Http1,
        Some(_) => Verdict::Opaque,
        None if window.len() < MAX_REQUEST_LINE && starts_a_method(window) => Verdict::NeedMore,
        None => Verdict::Opaque,
    }
}

/// Whether an application could take these bytes for a request, or for the beginning of one, though [`detect`] does not.
/// For whoever lets no request pass that there is no route for.
pub fn resembles_http1(bytes: &[u8]) -> bool {
    let Some(start) = bytes.iter().position(|b| !b"\r\n".contains(b)) else {
        // Empty lines, which a recipient may skip.
        return !bytes.is_empty();
    };
    let line = &bytes[start..];
    match memchr::memchr(b'\n', line) {
        Some(end) => is_nearly_request_line(&line[..end]),
        None => {
            let method = line.split(|b| *b == b' ').next().unwrap_or_default();
            method.iter().all(|b| is_token(*b))
        }
    }
}

/// A line that names a version of HTTP, or begins with a method and names no other protocol's, as SIP's and RTSP's do.
fn is_nearly_request_line(line: &[u8]) -> bool {
    let names_version = memchr::memmem::find(line, b" HTTP/").is_some();
    let last = line.trim_ascii_end().rsplit(|b| *b == b' ').next();
    let mut parts = last.unwrap_or_default().split(|b| *b == b'/');
    let is_other = match (parts.next(), parts.next(), parts.next()) {
        (Some(name), Some(version), None) => {
            let is_name = !name.is_empty() && name.iter().all(u8::is_ascii_uppercase);
            is_name && version.first().is_some_and(u8::is_ascii_digit)
        }
        _ => false,
    };
    names_version || starts_a_method(line) && !is_other
}

fn skip_empty_lines(mut bytes: &[u8]) -> &[u8] {
    while let Some(rest) = bytes.strip_prefix(b"\r\n") {
        bytes = rest;
    }
    bytes
}

fn starts_a_method(bytes: &[u8]) -> bool {
    METHODS.iter().any(|m| {
        let n = m.len().min(bytes.len());
        m[..n] == bytes[..n]
    })
}

/// `method SP request-target SP HTTP/1.x`, without the line feed.
fn is_request_line(line: &[u8]) -> bool {
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    let Some(at) = memchr::memrchr(b' ', line) else {
        return false;
    };
    let (request, version) = line.split_at(at);
    if !matches!(version, b" HTTP/1.1" | b" HTTP/1.0") {
        return false;
    }
    match memchr::memchr(b' ', request) {
        Some(0) | None => false,
        Some(end) => request[..end].iter().all(|b| is_token(*b)),
    }
}

/// A `tchar` of RFC 9110 section 5.6.2.
fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

#[cfg(test)]
mod tests {
    use super::{PREFACE, Verdict, detect};

    #[test]
    fn request_lines_are_http() {
        for line in [
            "GET / HTTP/1.1\r\n",
            "get /x HTTP/1.0\r\nHost: a\r\n",
            "\r\nPOST /a b HTTP/1.1\r\n",
            "M-SEARCH * HTTP/1.1\n",
            "CONNECT a:443 HTTP/1.1\r\n\r\n",
        ] {
            assert_eq!(detect(line.as_bytes()), Verdict::Http1, "{line:?}");
        }
    }

    #[test]
    fn other_protocols_pass_at_once() {
        for bytes in [
            &b"\x16\x03\x01\x02\x00\x01"[..],
            b"PRI * HTTP/2.0\r\n\r\nSN",
            b"\r\nPRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
            b"USER anonymous\r\n",
            b"HELO x",
            b"*1\r\n$4\r\nPING\r\n",
            b"GET /\r\n",
            b" / HTTP/1.1\r\n",
            b"\0\0\0\0",
            b"\r\n",
        ] {
            assert_eq!(detect(bytes), Verdict::Opaque, "{bytes:?}");
        }
    }

    #[test]
    fn the_beginning_of_a_known_method_is_waited_for() {
        for bytes in [&b"G"[..], b"GET", b"GET /a HTT", b"POST / HTTP/1.1\r", b""] {
            assert_eq!(detect(bytes), Verdict::NeedMore, "{bytes:?}");
        }
        let methods = "GET HEAD POST PUT DELETE CONNECT OPTIONS TRACE PATCH PROPFIND PROPPATCH MKCOL COPY MOVE LOCK UNLOCK";
        for method in methods.split(' ') {
            let line = format!("{method} /a HTTP/1.1\r");
            for n in 0..=line.len() {
                let begun = &line[..n];
                assert_eq!(detect(begun.as_bytes()), Verdict::NeedMore, "{begun:?}");
            }
        }
    }

    #[test]
    fn the_preface_of_http2_is_found_when_it_is_whole() {
        for n in 0..PREFACE.len() {
            assert_eq!(detect(&PREFACE[..n]), Verdict::NeedMore, "{n}");
        }
        assert_eq!(detect(PREFACE), Verdict::Http2);
        let more = [&PREFACE[..], b"\0\0\0\x04"].concat();
        assert_eq!(detect(&more), Verdict::Http2);
    }

    #[test]
    fn an_endless_line_is_not_waited_for() {
        let mut line = b"GET /".to_vec();
        line.resize(super::MAX_REQUEST_LINE - 1, b'a');
        assert_eq!(detect(&line), Verdict::NeedMore);
        line.push(b'a');
        assert_eq!(detect(&line), Verdict::Opaque);
    }

    #[test]
    fn a_long_line_is_a_request_as_any() {
        let mut line = b"GET /?x=".to_vec();
        line.resize(super::MAX_REQUEST_LINE - 20, b'a');
        line.extend_from_slice(b" HTTP/1.1\r\n");
        assert_eq!(detect(&line), Verdict::Http1);
    }

    #[test]
    fn what_could_be_taken_for_a_request_is_told_from_other_protocols() {
        for bytes in [
            &b"G"[..],
            b"\r\n",
            b"\n",
            b"M-SEARCH /b HT",
            b"\nGET / HTTP/1.1\r\n",
            b"GET /b\r\n",
            b"GET /a/b/1\r\n",
            b"\r\n\r\nPUT",
            b"GET / HTTP/1.1 \r\n",
            b"M-SEARCH /b HTTP/1.1\t\r\n",
        ] {
            assert!(super::resembles_http1(bytes), "{bytes:?}");
        }
        for bytes in [
            &b""[..],
            b"\x16\x03\x01",
            b"*1\r\n$4\r\nPING\r\n",
            b"OPTIONS sip:a@b SIP/2.0\r\n",
            b"USER anonymous\r\nGET / HTTP/1.1\r\n",
        ] {
            assert!(!super::resembles_http1(bytes), "{bytes:?}");
        }
    }

    proptest::proptest! {
        #[test]
        fn a_verdict_never_changes_as_bytes_arrive(bytes: Vec<u8>, cut in 0usize..64) {
            let first = detect(&bytes[..cut.min(bytes.len())]);
            if first != Verdict::NeedMore && cut.min(bytes.len()) > 2 {
                proptest::prop_assert!(first == Verdict::Opaque || detect(&bytes) == first);
            }
        }
    }
}
