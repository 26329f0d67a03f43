//! The gRPC probe: one `grpc.health.v1.Health/Check` call over cleartext HTTP/2, its two messages (a string and
//! an enum) written and read by hand. Called by `probe`. Source: the gRPC health checking protocol.

use super::{ProbeError, authority, connect};
use bytes::{BufMut, Bytes, BytesMut};
use h2::client;
use hyper::header::{CONTENT_TYPE, HeaderValue, TE, USER_AGENT};
use hyper::{HeaderMap, Method, Request};
use std::pin::pin;

/// Most of an answer that is read, in bytes; a health answer takes 7.
const ANSWER_SIZE: usize = 4096;
/// `HealthCheckResponse.ServingStatus.SERVING`.
const SERVING: u64 = 1;

/// What the application said.
#[derive(Debug, PartialEq, Eq)]
enum Found {
    Serving,
    /// Anything else, in words.
    Not(String),
}

/// Asks whether `service` (may be empty: the server as a whole) is serving.
pub(super) async fn check(
    host: &str,
    port: u16,
    service: &str,
    agent: Option<&HeaderValue>,
) -> Result<(), ProbeError> {
    let to = authority(host, port);
    let stream = connect(host, port).await?;
    let request = request(&to, agent);
    let failed = |error| ProbeError::Grpc {
        to: to.clone(),
        error,
    };
    let (sender, connection) = client::handshake(stream).await.map_err(failed)?;
    let mut connection = pin!(connection);
    let mut call = pin!(call(sender, request, encode(service)));
    let found = tokio::select! {
        biased;
        found = &mut call => found,
        // Whatever ended the connection is what the call reports.
        _ = &mut connection => call.await,
    };
    match found.map_err(failed)? {
        Found::Serving => Ok(()),
        Found::Not(found) => Err(ProbeError::Unhealthy {
            to,
            service: service.to_owned(),
            found,
        }),
    }
}

fn request(authority: &str, agent: Option<&HeaderValue>) -> Request<()> {
    let uri = format!("http://{authority}/grpc.health.v1.Health/Check");
    let mut request = Request::new(());
    *request.method_mut() = Method::POST;
    *request.uri_mut() = uri
        .parse()
        .expect("an IP address, a port and a fixed path make a URI");
    let headers = request.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    headers.insert(TE, HeaderValue::from_static("trailers"));
    if let Some(agent) = agent {
        headers.insert(USER_AGENT, agent.clone());
    }
    request
}

async fn call(
    sender: client::SendRequest<Bytes>,
    request: Request<()>,
    message: Bytes,
) -> Result<Found, h2::Error> {
    let (response, mut body) = sender.ready().await?.send_request(request, false)?;
    body.send_data(message, true)?;
    let (head, mut incoming) = response.await?.into_parts();
    if !head.status.is_success() {
        return Ok(Found::Not(format!("HTTP status {}", head.status)));
    }
    if let Some(refused) = refusal(&head.headers) {
        return Ok(Found::Not(refused));
    }
    let mut answer = Vec::new();
    while let Some(data) = incoming.data().await {
        let data = data?;
        incoming.flow_control().release_capacity(data.len())?;
        if answer.len() + data.len() > ANSWER_SIZE {
            return Ok(Found::Not("an answer too long for a health check".into()));
        }
        answer.extend_from_slice(&data);
    }
    let refused = incoming.trailers().await?.as_ref().and_then(refusal);
    Ok(match refused {
        Some(refused) => Found::Not(refused),
        None => decode(&answer),
    })
}

/// The call's own failure, from trailers or from the headers of an answer without a body.
fn refusal(headers: &HeaderMap) -> Option<String> {
    let text = |name| {
        headers
            .get(name)
            .map(|value: &HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned())
    };
    let status = text("grpc-status").filter(|status| status != "0")?;
    let message = text("grpc-message").unwrap_or_default();
    Some(
        format!("gRPC status {status} {message}")
            .trim_end()
            .to_owned(),
    )
}

/// A length-prefixed `HealthCheckRequest { service = 1 }`.
fn encode(service: &str) -> Bytes {
    let mut message = BytesMut::new();
    if !service.is_empty() {
        message.put_u8(0x0a);
        let mut length = service.len();
        while length >= 0x80 {
            message.put_u8((length & 0x7f) as u8 | 0x80);
            length >>= 7;
        }
        message.put_u8(length as u8);
        message.put_slice(service.as_bytes());
    }
    let mut framed = BytesMut::with_capacity(message.len() + 5);
    framed.put_u8(0);
    let length = u32::try_from(message.len()).expect("a service name is no gigabytes");
    framed.put_u32(length);
    framed.put_slice(&message);
    framed.freeze()
}

/// Reads a length-prefixed `HealthCheckResponse { status = 1 }`.
fn decode(answer: &[u8]) -> Found {
    let status = answer
        .split_first_chunk::<5>()
        .filter(|(prefix, message)| {
            let [compressed, a, b, c, d] = **prefix;
            compressed == 0 && u32::from_be_bytes([a, b, c, d]) as usize == message.len()
        })
        .and_then(|(_, message)| serving_status(message));
    match status {
        Some(SERVING) => Found::Serving,
        Some(0) => Found::Not("UNKNOWN".into()),
        Some(2) => Found::Not("NOT_SERVING".into()),
        Some(3) => Found::Not("SERVICE_UNKNOWN".into()),
        Some(other) => Found::Not(format!("status {other}")),
        None => Found::Not("no health answer".into()),
    }
}

/// The value of field 1 (a varint); 0 where it is absent, `None` where the message cannot be read.
fn serving_status(mut message: &[u8]) -> Option<u64> {
    let mut status = 0;
    while !message.is_empty() {
        let key = varint(&mut message)?;
        match key & 7 {
            0 => {
                let value = varint(&mut message)?;
                if key >> 3 == 1 {
                    status = value;
                }
            }
            1 => message = message.get(8..)?,
            2 => {
                let length = usize::try_from(varint(&mut message)?).ok()?;
                message = message.get(length..)?;
            }
            5 => message = message.get(4..)?,
            _ => return None,
        }
    }
    Some(status)
}

fn varint(message: &mut &[u8]) -> Option<u64> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let (byte, rest) = message.split_first()?;
        *message = rest;
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_request_is_a_framed_string() {
        assert_eq!(&encode("")[..], [0, 0, 0, 0, 0]);
        assert_eq!(&encode("ab")[..], [0, 0, 0, 0, 4, 0x0a, 2, b'a', b'b']);
        let long = "x".repeat(200);
        let framed = encode(&long);
        assert_eq!(framed[..8], [0, 0, 0, 0, 203, 0x0a, 0xc8, 1]);
    }

    #[test]
    fn only_serving_is_success() {
        assert_eq!(decode(&[0, 0, 0, 0, 2, 8, 1]), Found::Serving);
        let not = |answer: &[u8]| match decode(answer) {
            Found::Not(found) => found,
            Found::Serving => "SERVING".into(),
        };
        assert_eq!(not(&[0, 0, 0, 0, 0]), "UNKNOWN");
        assert_eq!(not(&[0, 0, 0, 0, 2, 8, 2]), "NOT_SERVING");
        assert_eq!(not(&[0, 0, 0, 0, 2, 8, 9]), "status 9");
        assert_eq!(not(&[1, 0, 0, 0, 2, 8, 1]), "no health answer");
        assert_eq!(not(&[0, 0, 0, 0, 3, 8, 1]), "no health answer");
        assert_eq!(not(&[]), "no health answer");
    }

    #[test]
    fn unknown_fields_are_skipped() {
        let message = [
            0x11, 1, 2, 3, 4, 5, 6, 7, 8, 0x1a, 1, 9, 0x25, 1, 2, 3, 4, 0x08, 1,
        ];
        assert_eq!(serving_status(&message), Some(1));
        assert_eq!(serving_status(&message[..5]), None);
        assert_eq!(serving_status(&[0x0f]), None);
    }
}
