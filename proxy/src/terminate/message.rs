//! What is read of heads for the accounts, and the answers that the proxy makes up itself.
//!
//! `stream` calls it. It must not know sockets or connections.

use std::net::SocketAddr;

use h2::server::SendResponse;
use hyper::http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, header};

use crate::exchange::grpc_code;
use crate::http1::reply::Reply;
use crate::http2::call::Said;
use crate::http2::grpc::is_grpc;
use crate::record::{Authority, Scheme};
use crate::routes;

/// What a response's head says.
pub(super) fn head(status: StatusCode, fields: &HeaderMap) -> Said {
    Said {
        status: Some(status.as_u16()),
        grpc_status: grpc_status(fields),
        is_grpc: has_grpc(fields),
    }
}

/// What trailers say.
pub(super) fn trailers(fields: &HeaderMap) -> Said {
    Said {
        grpc_status: grpc_status(fields),
        ..Said::default()
    }
}

fn grpc_status(fields: &HeaderMap) -> Option<u16> {
    let value = fields.get("grpc-status")?;
    Some(grpc_code(value.as_bytes()))
}

/// Whether the content type of a head is gRPC's.
pub(super) fn has_grpc(fields: &HeaderMap) -> bool {
    let value = fields.get(header::CONTENT_TYPE);
    value.is_some_and(|value| is_grpc(value.as_bytes()))
}

/// `:authority`, else `host`, as the client wrote it; empty without either.
pub(super) fn authority(head: &Request<()>) -> Authority<'_> {
    let scheme = match head.uri().scheme() {
        Some(scheme) => Scheme::of(scheme.as_str().as_bytes()),
        None if head.method() == Method::CONNECT => Scheme::Other,
        None => Scheme::Http,
    };
    let authority = head.uri().authority().map(|a| a.as_str().as_bytes());
    let host = || head.headers().get(header::HOST).map(HeaderValue::as_bytes);
    Authority {
        scheme,
        text: authority.or_else(host).unwrap_or_default(),
    }
}

/// Whether a request asks for a tunnel without saying where to (RFC 9113 section 8.5): the `h2`
/// crate lets it pass.
pub(super) fn is_malformed(head: &Request<()>) -> bool {
    head.method() == Method::CONNECT && head.uri().authority().is_none()
}

/// A request's head as routes ask for it.
pub(super) struct HeadFields<'h>(pub(super) &'h Request<()>);

impl routes::Fields for HeadFields<'_> {
    fn first(&self, name: &str) -> Option<&[u8]> {
        match self.0.headers().get(name) {
            Some(value) => Some(value.as_bytes().trim_ascii()),
            None if name == "host" => Some(self.0.uri().authority()?.as_str().as_bytes()),
            None => None,
        }
    }
}

impl HeadFields<'_> {
    /// What routes see of it.
    pub(super) fn request(&self) -> routes::Request<'_> {
        let target = self.0.uri().path_and_query();
        let target = target.map_or("", |target| target.as_str());
        routes::Request::new(self.0.method().as_str().as_bytes(), target.as_bytes(), self)
    }
}

/// The `grpc-status` of a call of something that is not there.
const UNIMPLEMENTED: u16 = 12;

/// The `grpc-status` of a call that cannot be served now.
const UNAVAILABLE: u16 = 14;

/// What a gRPC call is told in place of this answer.
pub(super) fn status_of_grpc(reply: Reply) -> u16 {
    match reply {
        Reply::NotFound => UNIMPLEMENTED,
        _ => UNAVAILABLE,
    }
}

/// Answers a gRPC call as gRPC has it: 200 with a status of its own, and an error type of RFC 9209.
pub(super) fn answer_grpc(respond: &mut SendResponse<bytes::Bytes>, reply: Reply) {
    let mut response = Response::new(());
    let fields = response.headers_mut();
    let grpc = HeaderValue::from_static("application/grpc");
    fields.insert(header::CONTENT_TYPE, grpc);
    fields.insert("grpc-status", HeaderValue::from(status_of_grpc(reply)));
    fields.insert("proxy-status", proxy_status(reply, None));
    let _told = respond.send_response(response, true);
}

fn proxy_status(reply: Reply, hop: Option<SocketAddr>) -> HeaderValue {
    let text = format!("weir; error={}", reply.error_at(hop));
    HeaderValue::from_str(&text).expect("error types and addresses are visible characters")
}

/// The hop that a response says has not seen its request ([`Reply::unseen_by`]).
pub(super) fn unseen_by(status: StatusCode, fields: &HeaderMap) -> Option<SocketAddr> {
    if !status.is_server_error() {
        return None;
    }
    let mut values = fields.get_all("proxy-status").iter();
    let value = values.next()?;
    let is_only = values.next().is_none();
    Reply::unseen_by(status.as_u16(), value.as_bytes()).filter(|_| is_only)
}

/// Answers in the server's place, at this hop ([`Reply::error_at`]). A client that is gone already is not told.
pub(super) fn answer(
    respond: &mut SendResponse<bytes::Bytes>,
    reply: Reply,
    hop: Option<SocketAddr>,
) {
    let status = StatusCode::from_u16(reply.status()).unwrap_or(StatusCode::BAD_GATEWAY);
    let mut response = Response::new(());
    *response.status_mut() = status;
    let fields = response.headers_mut();
    fields.insert("proxy-status", proxy_status(reply, hop));
    let _told = respond.send_response(response, true);
}
