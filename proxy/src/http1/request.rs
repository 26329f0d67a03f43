//! The head of an HTTP/1 request: what a relay must know to forward it unread.
//!
//! Called by `relay` on the bytes at hand. A pure function: it must not know
//! sockets, metrics or the time.

use std::mem::MaybeUninit;

use httparse::{Error, Header, ParserConfig, Request, Status};

use super::{FEW_FIELDS, Framing, MAX_FIELDS, has_strict_lines};
use crate::record::{Authority, Scheme};

mod odd;

/// A parsed request head. Offsets are relative to the bytes that were parsed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequestHead<'b> {
    /// Bytes of the head, the empty line included.
    pub len: usize,
    pub method: &'b [u8],
    /// In whichever form the client wrote it (RFC 9112 section 3.2).
    pub target: &'b [u8],
    pub framing: Framing,
    /// The method is HEAD: its response has no body.
    pub is_head: bool,
    /// The method is CONNECT: a 2xx answer opens a tunnel.
    pub is_connect: bool,
    /// The client offers to switch protocols: a 101 answer opens a tunnel.
    pub upgrade: bool,
    /// It offers to go on in HTTP/2 (RFC 7540 section 3.2, no more in RFC 9113).
    pub offers_http2: bool,
    /// Nothing that follows is a request: the client has asked for the connection to end with
    /// the response (RFC 9112 section 9.3).
    pub is_last: bool,
    /// Authority as the client wrote it: of an absolute or authority form of the
    /// target, else of `Host`; empty when there is none.
    pub authority: Authority<'b>,
}

/// What the bytes of a request head turned out to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ParsedRequest<'b> {
    Head(RequestHead<'b>),
    Incomplete,
    /// Two recipients could see two different ends of this message, or two different hosts it
    /// is for: refused with 400.
    Ambiguous(&'static str),
    /// Odd, but where its message ends is not in doubt: passes unmeasured.
    Unparsed(&'static str),
}

/// Parses the head at the beginning of `bytes`.
pub fn parse(bytes: &[u8]) -> ParsedRequest<'_> {
    let mut few = [const { MaybeUninit::<Header<'_>>::uninit() }; FEW_FIELDS];
    match parse_with(bytes, &mut few) {
        Err(Error::TooManyHeaders) => {}
        Err(error) => return judge_odd(bytes, error),
        Ok(parsed) => return parsed,
    }
    let mut many = [const { MaybeUninit::<Header<'_>>::uninit() }; MAX_FIELDS];
    match parse_with(bytes, &mut many) {
        Err(error) => judge_odd(bytes, error),
        Ok(parsed) => parsed,
    }
}

/// Judges bytes that the parser refuses. Where the fault is in a field, the whole head is
/// awaited: the framing fields may come after it.
fn judge_odd(bytes: &[u8], error: Error) -> ParsedRequest<'_> {
    if odd::is_in_request_line(bytes) {
        return ParsedRequest::Unparsed(reason(error));
    }
    match odd::end(bytes).map(|end| odd::doubt(&bytes[..end])) {
        None => ParsedRequest::Incomplete,
        Some(Some(why)) => ParsedRequest::Ambiguous(why),
        Some(None) => ParsedRequest::Unparsed(reason(error)),
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
        let odd = odd::doubt(&bytes[..len]).map(ParsedRequest::Ambiguous);
        return Ok(odd.unwrap_or(ParsedRequest::Unparsed("bare line end")));
    }
    Ok(match read_head(&request, len) {
        Ok(head) => ParsedRequest::Head(head),
        Err(why) => ParsedRequest::Ambiguous(why),
    })
}

fn read_head<'b>(request: &Request<'_, 'b>, len: usize) -> Result<RequestHead<'b>, &'static str> {
    let method = request.method.unwrap_or_default();
    let target = request.path.unwrap_or_default();
    let is_1_1 = request.version == Some(1);
    let fields = Fields::read(request.headers)?;
    let framing = fields.framing(is_1_1)?;
    let is_connect = method == "CONNECT";
    if is_connect && framing != Framing::None {
        // RFC 9110 section 9.3.6: it has no content. Some read what follows as content.
        return Err("content of a CONNECT");
    }
    Ok(RequestHead {
        len,
        method: method.as_bytes(),
        target: target.as_bytes(),
        framing,
        is_head: method == "HEAD",
        is_connect,
        upgrade: fields.upgrade,
        offers_http2: fields.offers_http2,
        is_last: fields.closes || !(is_1_1 || fields.keeps_alive),
        authority: authority(is_connect, target, fields.host.unwrap_or_default()),
    })
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
    host: Option<&'b [u8]>,
    length: Option<u64>,
    coding: Option<Coding>,
    upgrade: bool,
    offers_http2: bool,
    /// `Connection` says `close`.
    closes: bool,
    /// `Connection` says `keep-alive`, which HTTP/1.0 needs.
    keeps_alive: bool,
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
            fields.add(header.name, header.value)?;
        }
        Ok(fields)
    }

    /// Names are told apart by their length first: most fields cost one comparison.
    fn add(&mut self, name: &str, value: &'b [u8]) -> Result<(), &'static str> {
        match name.len() {
            4 if name.eq_ignore_ascii_case("host") => {
                // RFC 9112 section 3.2: no more than one. The same one twice harms nobody.
                match self.host {
                    Some(seen) if !seen.eq_ignore_ascii_case(value) => {
                        return Err("host fields differ");
                    }
                    _ => self.host = Some(value),
                }
            }
            7 if name.eq_ignore_ascii_case("upgrade") => {
                self.upgrade = true;
                let mut offers = value.split(|b| *b == b',').map(<[u8]>::trim_ascii);
                self.offers_http2 |= offers.any(|offer| offer.eq_ignore_ascii_case(b"h2c"));
            }
            10 if name.eq_ignore_ascii_case("connection") => self.add_connection(value),
            14 if name.eq_ignore_ascii_case("content-length") => {
                self.length = Some(one_length(self.length, value)?);
            }
            17 if name.eq_ignore_ascii_case("transfer-encoding") => {
                self.coding = Some(last_coding(self.coding, value)?);
            }
            _ => {}
        }
        Ok(())
    }

    fn add_connection(&mut self, value: &[u8]) {
        for option in value.split(|b| *b == b',') {
            let option = option.trim_ascii();
            self.closes |= option.eq_ignore_ascii_case(b"close");
            self.keeps_alive |= option.eq_ignore_ascii_case(b"keep-alive");
        }
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
fn authority<'b>(is_connect: bool, target: &'b str, host: &'b [u8]) -> Authority<'b> {
    if is_connect {
        return Authority {
            scheme: Scheme::Other,
            text: target.as_bytes(),
        };
    }
    if target.starts_with('/') {
        return host.into();
    }
    match target.split_once("://") {
        Some((scheme, rest)) if is_scheme(scheme) => {
            let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
            let authority = &rest[..end];
            let text = authority
                .rsplit_once('@')
                .map_or(authority, |(_, host)| host);
            Authority {
                scheme: Scheme::of(scheme.as_bytes()),
                text: text.as_bytes(),
            }
        }
        _ => host.into(),
    }
}

/// RFC 3986 section 3.1.
fn is_scheme(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_alphabetic())
        && text
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b"+-.".contains(&b))
}

#[cfg(test)]
mod tests;
