//! The HTTP probe: one GET as a kubelet sends it, following redirects exactly as far as a kubelet does, over
//! plain TCP or over TLS that trusts anyone. Called by `probe`.

use super::target::Target;
use super::{ProbeError, Verdict, connect};
use bytes::Bytes;
use http_body_util::{BodyExt, Empty};
use hyper::body::{Body, Incoming};
use hyper::client::conn::http1;
use hyper::header::{ACCEPT, CONNECTION, HOST, HeaderName, HeaderValue, LOCATION, USER_AGENT};
use hyper::{HeaderMap, Response};
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use std::pin::pin;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::TlsConnector;

/// Most of a body that is read and passed on, in bytes; a kubelet reads no more.
const BODY_SIZE: usize = 10 * 1024;
/// Redirects to the same host that are followed, as in a kubelet; one more is a failure.
const REDIRECTS: usize = 10;

/// What every request of one probe has in common.
pub(super) struct Request<'a> {
    /// The probe's own headers; `Host` and `User-Agent` among them replace ours.
    pub(super) headers: &'a [(String, String)],
    /// The User-Agent of whoever asked for the probe.
    pub(super) agent: Option<&'a HeaderValue>,
    pub(super) tls: &'a TlsConnector,
}

impl Request<'_> {
    /// Asks `target`; a redirect within the same host is followed, any other 3xx is the answer.
    pub(super) async fn get(&self, mut target: Target) -> Result<Verdict, ProbeError> {
        for _ in 0..=REDIRECTS {
            let (verdict, location) = self.ask(&target).await?;
            let next = location
                .filter(|_| matches!(verdict.status.as_u16(), 301 | 302 | 303 | 307 | 308))
                .and_then(|location| target.follow(&location));
            match next {
                Some(next) if next.host == target.host => target = next,
                _ => return Ok(verdict),
            }
        }
        Err(ProbeError::Redirects(REDIRECTS))
    }

    async fn ask(&self, target: &Target) -> Result<(Verdict, Option<String>), ProbeError> {
        let request = self.build(target)?;
        let stream = connect(&target.host, target.port).await?;
        let answer = if target.https {
            let name =
                ServerName::try_from(target.host.clone()).map_err(|_| ProbeError::Unusable {
                    what: "host",
                    value: target.host.clone(),
                })?;
            let stream = self
                .tls
                .connect(name, stream)
                .await
                .map_err(|error| ProbeError::Tls {
                    to: target.authority(),
                    error,
                })?;
            exchange(stream, request).await
        } else {
            exchange(stream, request).await
        };
        answer.map_err(|error| ProbeError::Http {
            to: target.authority(),
            error,
        })
    }

    fn build(&self, target: &Target) -> Result<hyper::Request<Empty<Bytes>>, ProbeError> {
        let mut headers = HeaderMap::new();
        headers.insert(ACCEPT, HeaderValue::from_static("*/*"));
        if let Some(agent) = self.agent {
            headers.insert(USER_AGENT, agent.clone());
        }
        let host = target.authority();
        headers.insert(HOST, header_value(&host)?);
        let mut own = HeaderMap::new();
        for (name, value) in self.headers {
            let key: HeaderName = name.parse().map_err(|_| ProbeError::Unusable {
                what: "header name",
                value: name.clone(),
            })?;
            own.append(key, header_value(value)?);
        }
        headers.extend(own);
        // An empty value asks for no such header at all.
        for name in [ACCEPT, USER_AGENT] {
            if headers.get(&name).is_some_and(HeaderValue::is_empty) {
                headers.remove(&name);
            }
        }
        headers.insert(CONNECTION, HeaderValue::from_static("close"));
        let mut request = hyper::Request::new(Empty::new());
        *request.uri_mut() = target.path.parse().map_err(|_| ProbeError::Unusable {
            what: "path",
            value: target.path.clone(),
        })?;
        *request.headers_mut() = headers;
        Ok(request)
    }
}

fn header_value(value: &str) -> Result<HeaderValue, ProbeError> {
    value.parse().map_err(|_| ProbeError::Unusable {
        what: "header value",
        value: value.to_owned(),
    })
}

/// Sends one request on a fresh connection and reads its answer, and where it redirects to.
async fn exchange<T>(
    stream: T,
    request: hyper::Request<Empty<Bytes>>,
) -> hyper::Result<(Verdict, Option<String>)>
where
    T: AsyncRead + AsyncWrite + Unpin,
{
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    let mut connection = pin!(connection);
    let mut answer = pin!(async { judge(sender.send_request(request).await?).await });
    tokio::select! {
        biased;
        answer = &mut answer => answer,
        // Whatever ended the connection is what the answer reports.
        _ = &mut connection => answer.await,
    }
}

async fn judge(response: Response<Incoming>) -> hyper::Result<(Verdict, Option<String>)> {
    let (head, mut incoming) = response.into_parts();
    let location = head.headers.get(LOCATION);
    let location = location.and_then(|location| Some(location.to_str().ok()?.to_owned()));
    let mut body = Vec::new();
    while body.len() < BODY_SIZE && !incoming.is_end_stream() {
        let Some(frame) = incoming.frame().await else {
            break;
        };
        if let Some(data) = frame?.data_ref() {
            body.extend_from_slice(data);
        }
    }
    body.truncate(BODY_SIZE);
    let verdict = Verdict {
        status: head.status,
        body,
        reached: true,
    };
    Ok((verdict, location))
}
