//! The answers that the proxy makes up itself, as bytes.
//!
//! Called by the relay and by the stage that dials. Each is a whole HTTP/1.1 response
//! that ends the connection and names its reason (`Proxy-Status`, RFC 9209).

use std::borrow::Cow;
use std::net::SocketAddr;

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
    /// 503: there is no descriptor, or no memory, for a connection to the application.
    Overloaded,
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
            Self::Overloaded => 503,
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
            Self::Overloaded => Some("loadshed"),
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
            Self::Overloaded => "connection_limit_reached",
            Self::Late => "http_response_timeout",
            Self::NotFound | Self::NoBackend => "destination_not_found",
        }
    }

    /// Whether nothing of the request has gone on: there was no connection.
    fn is_unseen(self) -> bool {
        matches!(self, Self::Connect | Self::Timeout | Self::Overloaded)
    }

    /// The error type, and the hop that was asked for where it has not seen the request (`next-hop`, RFC 9209 section
    /// 2.1.2): what the client has dialed, so that it can tell whose answer this is.
    pub fn error_at(self, hop: Option<SocketAddr>) -> Cow<'static, str> {
        let error = self.error_type();
        match hop.filter(|_| self.is_unseen()) {
            None => Cow::Borrowed(error),
            Some(hop) => Cow::Owned(format!("{error}{NEXT_HOP}{hop}\"")),
        }
    }

    /// The hop that a response with this status says has not seen its request; none where its `proxy-status` is not, to
    /// the byte, what [`Self::error_at`] makes of one. Whoever has passed on what was behind it names another hop than itself.
    pub fn unseen_by(status: u16, proxy_status: &[u8]) -> Option<SocketAddr> {
        let value = str::from_utf8(proxy_status).ok()?;
        let value = value.strip_prefix("weir; error=")?.strip_suffix('"')?;
        let (error, text) = value.split_once(NEXT_HOP)?;
        let is_it = |reply: &Self| reply.status() == status && reply.error_type() == error;
        [Self::Connect, Self::Timeout, Self::Overloaded]
            .iter()
            .find(|r| is_it(r))?;
        let hop: SocketAddr = text.parse().ok()?;
        (hop.to_string() == text).then_some(hop)
    }

    /// The whole response, which names the hop where [`Self::error_at`] does.
    pub fn bytes_at(self, hop: Option<SocketAddr>) -> Cow<'static, [u8]> {
        match self.error_at(hop) {
            Cow::Borrowed(_) => Cow::Borrowed(self.bytes()),
            Cow::Owned(error) => {
                let text = String::from_utf8_lossy(self.bytes());
                let named = text.replacen(self.error_type(), &error, 1);
                Cow::Owned(named.into_bytes())
            }
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
            Self::Overloaded => {
                concat_reply!("503 Service Unavailable", "connection_limit_reached")
            }
            Self::Late => concat_reply!("504 Gateway Timeout", "http_response_timeout"),
            Self::NotFound => concat_reply!("404 Not Found", "destination_not_found"),
            Self::NoBackend => {
                concat_reply!("500 Internal Server Error", "destination_not_found")
            }
        }
    }
}

/// What is between the error type and the hop.
const NEXT_HOP: &str = "; next-hop=\"";

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

    const ALL: [Reply; 10] = [
        Reply::BadRequest,
        Reply::Denied,
        Reply::TooLarge,
        Reply::Connect,
        Reply::Reset,
        Reply::Timeout,
        Reply::Overloaded,
        Reply::Late,
        Reply::NotFound,
        Reply::NoBackend,
    ];

    #[test]
    fn every_reply_is_a_response_with_its_status() {
        for reply in ALL {
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

    #[test]
    fn only_what_nobody_has_seen_names_its_hop() {
        for (hop, text) in [
            ("10.0.0.7:8080", "10.0.0.7:8080"),
            ("[fd00::7]:80", "[fd00::7]:80"),
        ] {
            let hop = hop.parse().expect("an address");
            for reply in ALL {
                let bytes = reply.bytes_at(Some(hop));
                let end = match reply {
                    Reply::Connect | Reply::Timeout | Reply::Overloaded => {
                        format!("; next-hop=\"{text}\"\r\n")
                    }
                    _ => "\r\n".to_owned(),
                };
                let all = String::from_utf8_lossy(&bytes);
                let field = format!("weir; error={}{end}content-length", reply.error_type());
                assert!(all.contains(&field), "{all}");
                assert_eq!(reply.bytes_at(None), reply.bytes());
            }
        }
    }

    #[test]
    fn a_hop_is_read_back_as_it_was_written_and_from_nothing_else() {
        let unseen = |status, value: &str| Reply::unseen_by(status, value.as_bytes());
        for hop in ["10.0.0.7:8080", "[fd00::7]:80"] {
            let hop = hop.parse().expect("an address");
            for reply in ALL {
                let value = format!("weir; error={}", reply.error_at(Some(hop)));
                let is_named = matches!(reply, Reply::Connect | Reply::Timeout | Reply::Overloaded);
                let named = is_named.then_some(hop);
                assert_eq!(unseen(reply.status(), &value), named, "{value}");
                assert_eq!(unseen(501, &value), None, "another status");
                assert_eq!(unseen(reply.status(), &format!("{value}, x")), None);
            }
        }
        for odd in [
            "",
            "weir; error=connection_refused",
            "weir; error=connection_refused; next-hop=10.0.0.7:8080",
            "weir; error=connection_refused; next-hop=\"10.0.0.7\"",
            "weir; error=connection_refused; next-hop=\"10.0.0.7:08080\"",
            "weir; error=connection_refused; next-hop=\"web:8080\"",
            "weir; error=connection_refused; next-hop=\"fd00::7:80\"",
            "weir; error=connection_refused; next-hop=\"[fd00:0::7]:80\"",
            "weir; error=connection_refused;next-hop=\"10.0.0.7:8080\"",
            "weir; error=connection_refused; next-hop=\"10.0.0.7:8080\"; a",
            "weir; error=connection_timeout; next-hop=\"10.0.0.7:8080\"",
            "weir; error=connection_terminated; next-hop=\"10.0.0.7:8080\"",
            "weir; error=; next-hop=\"10.0.0.7:8080\"",
            "Weir; error=connection_refused; next-hop=\"10.0.0.7:8080\"",
            "cdn, weir; error=connection_refused; next-hop=\"10.0.0.7:8080\"",
            "weir; error=\"",
        ] {
            assert_eq!(unseen(502, odd), None, "{odd}");
        }
        assert_eq!(Reply::unseen_by(502, b"weir; error=\xff"), None);
    }
}
