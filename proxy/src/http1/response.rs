//! The head of an HTTP/1 response: its status and where its body ends.
//!
//! Called by `relay` on the bytes at hand. A pure function: it must not know
//! sockets, metrics or the time.

use std::mem::MaybeUninit;

use httparse::{Error, Header, ParserConfig, Response, Status};

use super::request::one_length;
use super::{FEW_FIELDS, Framing, MAX_FIELDS};

/// A parsed response head.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ResponseHead<'b> {
    /// Bytes of the head, the empty line included.
    pub len: usize,
    pub status: u16,
    pub framing: Framing,
    /// It has no end but that of the connection for a coding (RFC 9112 section 6.3, rule 4), which a client that does not
    /// know it may not see.
    pub is_doubtful: bool,
    /// The field `grpc-status` of a trailers-only response.
    pub grpc_status: Option<&'b [u8]>,
}

/// What the bytes of a response head turned out to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ParsedResponse<'b> {
    Head(ResponseHead<'b>),
    Incomplete,
    /// Not a response we can follow: passes unmeasured from here.
    Unparsed(&'static str),
}

/// Parses the head at the beginning of `bytes`, the answer to a request whose
/// method was HEAD where `to_head` says so.
pub fn parse(bytes: &[u8], to_head: bool) -> ParsedResponse<'_> {
    let mut few = [const { MaybeUninit::<Header<'_>>::uninit() }; FEW_FIELDS];
    match parse_with(bytes, to_head, &mut few) {
        Err(Error::TooManyHeaders) => {}
        Err(_) => return ParsedResponse::Unparsed("response head"),
        Ok(parsed) => return parsed,
    }
    let mut many = [const { MaybeUninit::<Header<'_>>::uninit() }; MAX_FIELDS];
    parse_with(bytes, to_head, &mut many).unwrap_or(ParsedResponse::Unparsed("response head"))
}

fn parse_with<'b>(
    bytes: &'b [u8],
    to_head: bool,
    fields: &mut [MaybeUninit<Header<'b>>],
) -> Result<ParsedResponse<'b>, Error> {
    let mut response = Response::new(&mut []);
    let parsed =
        ParserConfig::default().parse_response_with_uninit_headers(&mut response, bytes, fields)?;
    let Status::Complete(len) = parsed else {
        return Ok(ParsedResponse::Incomplete);
    };
    let status = response.code.unwrap_or_default();
    let mut grpc_status = None;
    let mut length = None;
    let mut coding: Option<&[u8]> = None;
    for header in response.headers.iter() {
        match header.name.len() {
            11 if header.name.eq_ignore_ascii_case("grpc-status") => {
                grpc_status = Some(header.value)
            }
            14 if header.name.eq_ignore_ascii_case("content-length") => {
                match one_length(length, header.value) {
                    Ok(number) => length = Some(number),
                    Err(_) => return Ok(ParsedResponse::Unparsed("response content-length")),
                }
            }
            17 if header.name.eq_ignore_ascii_case("transfer-encoding") => {
                coding = Some(header.value)
            }
            _ => {}
        }
    }
    if coding.is_some() && response.version != Some(1) {
        // RFC 9112 section 6.1: its framing is faulty, whoever reads it.
        return Ok(ParsedResponse::Unparsed("response transfer-encoding"));
    }
    let framing = framing(status, to_head, coding, length);
    let is_doubtful = coding.is_some() && framing == Framing::UntilClose;
    Ok(ParsedResponse::Head(ResponseHead {
        len,
        status,
        framing,
        is_doubtful,
        grpc_status,
    }))
}

/// RFC 9112 section 6.3, rules 1, 4, 5, 6 and 8. CONNECT and Upgrade are the relay's.
fn framing(status: u16, to_head: bool, coding: Option<&[u8]>, length: Option<u64>) -> Framing {
    if to_head || status < 200 || status == 204 || status == 304 {
        return Framing::None;
    }
    match (coding, length) {
        (Some(coding), _) if ends_in_chunked(coding) => Framing::Chunked,
        (Some(_), _) => Framing::UntilClose,
        (None, Some(0)) => Framing::None,
        (None, Some(length)) => Framing::Length(length),
        (None, None) => Framing::UntilClose,
    }
}

fn ends_in_chunked(coding: &[u8]) -> bool {
    let last = coding.rsplit(|b| *b == b',').next().unwrap_or_default();
    last.trim_ascii().eq_ignore_ascii_case(b"chunked")
}

#[cfg(test)]
mod tests {
    use super::{Framing, ParsedResponse, ResponseHead, parse};

    fn head(text: &str, to_head: bool) -> (u16, Framing) {
        match parse(text.as_bytes(), to_head) {
            ParsedResponse::Head(ResponseHead {
                status,
                framing,
                len,
                ..
            }) => {
                assert_eq!(len, text.len());
                (status, framing)
            }
            other => panic!("{text:?}: {other:?}"),
        }
    }

    #[test]
    fn framing_follows_the_rules_in_order() {
        let ok = "HTTP/1.1 200 OK\r\n";
        assert_eq!(
            head(&format!("{ok}content-length: 5\r\n\r\n"), false),
            (200, Framing::Length(5))
        );
        assert_eq!(
            head(&format!("{ok}content-length: 5\r\n\r\n"), true),
            (200, Framing::None)
        );
        assert_eq!(
            head(&format!("{ok}content-length: 0\r\n\r\n"), false),
            (200, Framing::None)
        );
        assert_eq!(
            head(&format!("{ok}\r\n"), false),
            (200, Framing::UntilClose)
        );
        let chunked = format!("{ok}Transfer-Encoding: gzip, Chunked\r\n\r\n");
        assert_eq!(head(&chunked, false), (200, Framing::Chunked));
        let gzip = format!("{ok}transfer-encoding: gzip\r\n\r\n");
        assert_eq!(head(&gzip, false), (200, Framing::UntilClose));
        let no_content = "HTTP/1.1 204 No Content\r\ncontent-length: 5\r\n\r\n";
        assert_eq!(head(no_content, false), (204, Framing::None));
        assert_eq!(
            head("HTTP/1.1 304 Not Modified\r\n\r\n", false),
            (304, Framing::None)
        );
        assert_eq!(
            head("HTTP/1.1 100 Continue\r\n\r\n", false),
            (100, Framing::None)
        );
        assert_eq!(
            head("HTTP/1.0 200\r\n\r\n", false),
            (200, Framing::UntilClose)
        );
    }

    #[test]
    fn what_cannot_be_followed_is_unparsed() {
        for text in [
            "ICY 200 OK\r\n\r\n",
            "HTTP/1.1 200 OK\r\ncontent-length: x\r\n\r\n",
            "HTTP/1.1 200 OK\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\n",
            "HTTP/1.0 200 OK\r\ntransfer-encoding: chunked\r\n\r\n",
        ] {
            assert!(
                matches!(parse(text.as_bytes(), false), ParsedResponse::Unparsed(_)),
                "{text:?}"
            );
        }
        assert_eq!(
            parse(b"HTTP/1.1 200 OK\r\na: b\r\n", false),
            ParsedResponse::Incomplete
        );
    }

    #[test]
    fn a_trailers_only_answer_carries_its_grpc_status() {
        let ParsedResponse::Head(head) = parse(b"HTTP/1.1 200 OK\r\ngrpc-status: 7\r\n\r\n", false)
        else {
            panic!("a head");
        };
        assert_eq!(head.grpc_status, Some(&b"7"[..]));
    }
}
