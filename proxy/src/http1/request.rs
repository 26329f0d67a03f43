//! The head of an HTTP/1 request: what a relay must know to forward it unread.
//!
//! Called by `relay` on the bytes at hand. A pure function: it must not know
//! sockets, metrics or the time.

use std::mem::MaybeUninit;

use httparse::{Error, Header, ParserConfig, Request, Status};

use super::{FEW_FIELDS, Framing, MAX_FIELDS, has_strict_lines};

/// A parsed request head. Offsets are relative to the bytes that were parsed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequestHead<'b> {
    /// Bytes of the head, the empty line included.
    pub len: usize,
    pub framing: Framing,
    /// The method is HEAD: its response has no body.
    pub is_head: bool,
    /// The method is CONNECT: a 2xx answer opens a tunnel.
    pub is_connect: bool,
    /// The client offers to switch protocols: a 101 answer opens a tunnel.
    pub upgrade: bool,
    /// Authority as the client wrote it: of an absolute or authority form of the
    /// target, else of `Host`; empty when there is none.
    pub authority: &'b [u8],
}

/// What the bytes of a request head turned out to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ParsedRequest<'b> {
    Head(RequestHead<'b>),
    Incomplete,
    /// Two recipients could see two different ends of this message: refused with 400.
    Ambiguous(&'static str),
    /// Odd, but its bytes can only mean one thing to its recipient: passes unmeasured.
    Unparsed(&'static str),
}

/// Parses the head at the beginning of `bytes`.
pub fn parse(bytes: &[u8]) -> ParsedRequest<'_> {
    let mut few = [const { MaybeUninit::<Header<'_>>::uninit() }; FEW_FIELDS];
    match parse_with(bytes, &mut few) {
        Err(Error::TooManyHeaders) => {}
        Err(e) => return ParsedRequest::Unparsed(reason(e)),
        Ok(parsed) => return parsed,
    }
    let mut many = [const { MaybeUninit::<Header<'_>>::uninit() }; MAX_FIELDS];
    match parse_with(bytes, &mut many) {
        Err(e) => ParsedRequest::Unparsed(reason(e)),
        Ok(parsed) => parsed,
    }
}

fn parse_with<'b>(
    bytes: &'b [u8],
    fields: &mut [MaybeUninit<Header<'b>>],
) -> Result<ParsedRequest<'b>, Error> {
    let mut request = Request::new(&mut []);
    let parsed =
        ParserConfig::default().parse_request_with_uninit_headers(&mut request, bytes, fields)?;
    let len = match parsed {
        Status::Partial => return Ok(ParsedRequest::Incomplete),
        Status::Complete(len) => len,
    };
    if !has_strict_lines(&bytes[..len]) {
        return Ok(ParsedRequest::Unparsed("bare line end"));
    }
    let method = request.method.unwrap_or_default();
    let target = request.path.unwrap_or_default();
    let fields = match Fields::read(request.headers) {
        Ok(fields) => fields,
        Err(why) => return Ok(ParsedRequest::Ambiguous(why)),
    };
    let framing = match fields.framing(request.version == Some(1)) {
        Ok(framing) => framing,
        Err(why) => return Ok(ParsedRequest::Ambiguous(why)),
    };
    let is_connect = method == "CONNECT";
    Ok(ParsedRequest::Head(RequestHead {
        len,
        framing,
        is_head: method == "HEAD",
        is_connect,
        upgrade: fields.upgrade,
        authority: authority(is_connect, target, fields.host),
    }))
}

fn reason(error: Error) -> &'static str {
    match error {
        Error::HeaderName => "field name",
        Error::HeaderValue => "field value",
        Error::NewLine => "line end",
        Error::Status => "status",
        Error::Token => "token",
        Error::TooManyHeaders => "too many fields",
        Error::Version => "version",
    }
}

/// The fields that a relay acts on.
#[derive(Default)]
struct Fields<'b> {
    host: &'b [u8],
    length: Option<u64>,
    coding: Option<Coding>,
    upgrade: bool,
}

/// What the last transfer coding is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Coding {
    Chunked,
    Other,
}

impl<'b> Fields<'b> {
    fn read(headers: &[Header<'b>]) -> Result<Self, &'static str> {
        let mut fields = Self::default();
        for header in headers {
            // Names are told apart by their length first: most headers cost one comparison.
            match header.name.len() {
                4 if header.name.eq_ignore_ascii_case("host") => fields.host = header.value,
                7 if header.name.eq_ignore_ascii_case("upgrade") => fields.upgrade = true,
                14 if header.name.eq_ignore_ascii_case("content-length") => {
                    fields.length = Some(one_length(fields.length, header.value)?);
                }
                17 if header.name.eq_ignore_ascii_case("transfer-encoding") => {
                    fields.coding = Some(last_coding(fields.coding, header.value)?);
                }
                _ => {}
            }
        }
        Ok(fields)
    }

    /// RFC 9112 section 6.3, the stricter reading where it leaves a choice.
    fn framing(&self, is_1_1: bool) -> Result<Framing, &'static str> {
        match (self.coding, self.length) {
            (Some(_), Some(_)) => Err("both content-length and transfer-encoding"),
            (Some(_), None) if !is_1_1 => Err("transfer-encoding in HTTP/1.0"),
            (Some(Coding::Chunked), None) => Ok(Framing::Chunked),
            (Some(Coding::Other), None) => Err("transfer-encoding does not end in chunked"),
            (None, Some(0) | None) => Ok(Framing::None),
            (None, Some(length)) => Ok(Framing::Length(length)),
        }
    }
}

/// Adds one `Content-Length` value, possibly a list, to what was seen before: all must agree.
pub(super) fn one_length(seen: Option<u64>, value: &[u8]) -> Result<u64, &'static str> {
    let mut length = seen;
    for item in value.split(|b| *b == b',') {
        let item = item.trim_ascii();
        if item.is_empty() || item.len() > 19 || !item.iter().all(u8::is_ascii_digit) {
            return Err("content-length is not a number");
        }
        let number = item.iter().fold(0u64, |n, d| n * 10 + u64::from(d - b'0'));
        if length.is_some_and(|seen| seen != number) {
            return Err("content-lengths differ");
        }
        length = Some(number);
    }
    length.ok_or("content-length is not a number")
}

/// Adds one `Transfer-Encoding` value to what was seen before. Only the last coding
/// may be chunked (RFC 9112 section 6.1).
fn last_coding(seen: Option<Coding>, value: &[u8]) -> Result<Coding, &'static str> {
    let mut last = seen;
    for item in value.split(|b| *b == b',') {
        if last == Some(Coding::Chunked) {
            return Err("chunked is not the last transfer coding");
        }
        let item = item.trim_ascii();
        if item.is_empty() {
            return Err("empty transfer coding");
        }
        last = Some(match item.eq_ignore_ascii_case(b"chunked") {
            true => Coding::Chunked,
            false => Coding::Other,
        });
    }
    last.ok_or("empty transfer coding")
}

/// The authority of the request (RFC 9112 section 3.2): an absolute or authority
/// form of the target wins over `Host`.
fn authority<'b>(is_connect: bool, target: &'b str, host: &'b [u8]) -> &'b [u8] {
    if is_connect {
        return target.as_bytes();
    }
    if target.starts_with('/') {
        return host;
    }
    match target.split_once("://") {
        Some((_, rest)) => {
            let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
            let authority = &rest[..end];
            authority
                .rsplit_once('@')
                .map_or(authority, |(_, host)| host)
                .as_bytes()
        }
        None => host,
    }
}

#[cfg(test)]
mod tests;
