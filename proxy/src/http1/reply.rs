//! The answers that the proxy makes up itself, as bytes.
//!
//! Called by the relay and by the stage that dials. Each is a whole HTTP/1.1 response
//! that ends the connection and names its reason (`Proxy-Status`, RFC 9209).

use crate::routes::Choice;

/// An answer of the proxy's own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reply {
    /// 400: the framing of the request is ambiguous.
    BadRequest,
    /// 403: the peer has no permission.
    Denied,
    /// 431: the head is larger than the limit.
    TooLarge,
    /// 502: the application refused the connection, or could not be reached.
    Connect,
    /// 502: the application closed the connection before it answered.
    Reset,
    /// 504: the application did not accept the connection in time.
    Timeout,
    /// 504: the application did not answer within its route's timeout.
    Late,
    /// 404: the request is of no route of its destination, which answers no others.
    NotFound,
    /// 500: the request's route leads to a backend that is not there.
    NoBackend,
}

impl Reply {
    /// The answer to a request that its service's routes send to no server.
    pub fn nowhere(choice: &Choice) -> Option<Self> {
        match choice {
            Choice::Refused => Some(Self::NotFound),
            Choice::Missing(_) => Some(Self::NoBackend),
            Choice::Unrouted | Choice::Unmatched | Choice::Matched(_) => None,
        }
    }

    pub fn status(self) -> u16 {
        match self {
            Self::BadRequest => 400,
            Self::Denied => 403,
            Self::TooLarge => 431,
            Self::Connect | Self::Reset => 502,
            Self::Timeout | Self::Late => 504,
            Self::NotFound => 404,
            Self::NoBackend => 500,
        }
    }

    /// The `error` label of `inbound_http_errors_total` and `outbound_http_errors_total`;
    /// none where the application ended the exchange itself, and where the peer was denied.
    pub fn label(self) -> Option<&'static str> {
        match self {
            Self::BadRequest => Some("bad request"),
            Self::TooLarge => Some("too large"),
            Self::Connect => Some("connect"),
            Self::Timeout | Self::Late => Some("timeout"),
            Self::NoBackend => Some("no backend"),
            Self::Denied | Self::Reset | Self::NotFound => None,
        }
    }

    /// The proxy error type of RFC 9209 section 2.3.
    pub fn error_type(self) -> &'static str {
        match self {
            Self::BadRequest | Self::TooLarge => "http_request_error",
            Self::Denied => "http_request_denied",
            Self::Connect => "connection_refused",
            Self::Reset => "connection_terminated",
            Self::Timeout => "connection_timeout",
            Self::Late => "http_response_timeout",
            Self::NotFound | Self::NoBackend => "destination_not_found",
        }
    }

    /// The whole response.
    pub fn bytes(self) -> &'static [u8] {
        match self {
            Self::BadRequest => concat_reply!("400 Bad Request", "http_request_error"),
            Self::Denied => concat_reply!("403 Forbidden", "http_request_denied"),
            Self::TooLarge => {
                concat_reply!("431 Request Header Fields Too Large", "http_request_error")
            }
            Self::Connect => concat_reply!("502 Bad Gateway", "connection_refused"),
            Self::Reset => concat_reply!("502 Bad Gateway", "connection_terminated"),
            Self::Timeout => concat_reply!("504 Gateway Timeout", "connection_timeout"),
            Self::Late => concat_reply!("504 Gateway Timeout", "http_response_timeout"),
            Self::NotFound => concat_reply!("404 Not Found", "destination_not_found"),
            Self::NoBackend => {
                concat_reply!("500 Internal Server Error", "destination_not_found")
            }
        }
    }
}

/// A response without a body; `$error` is a proxy error type of RFC 9209 section 2.3.
macro_rules! concat_reply {
    ($status:literal, $error:literal) => {
        concat!(
            "HTTP/1.1 ",
            $status,
            "\r\nproxy-status: weir; error=",
            $error,
            "\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
        )
        .as_bytes()
    };
}
use concat_reply;

#[cfg(test)]
mod tests {
    use super::Reply;

    #[test]
    fn every_reply_is_a_response_with_its_status() {
        for reply in [
            Reply::BadRequest,
            Reply::Denied,
            Reply::TooLarge,
            Reply::Connect,
            Reply::Reset,
            Reply::Timeout,
            Reply::Late,
            Reply::NotFound,
            Reply::NoBackend,
        ] {
            let crate::http1::response::ParsedResponse::Head(head) =
                crate::http1::response::parse(reply.bytes(), false)
            else {
                panic!("{reply:?} is no response");
            };
            assert_eq!(
                (head.status, head.len),
                (reply.status(), reply.bytes().len())
            );
            let text = String::from_utf8_lossy(reply.bytes());
            assert!(text.contains(&format!("error={}\r\n", reply.error_type())));
        }
    }
}
