//! Services whose calls are answered by a stream: reads the one message that asks, and writes each message of the answer
//! into bytes of its own, which are gone once they are sent. In the place of tonic's server, whose body keeps the room of
//! its longest message for as long as the stream waits, and a stream waits nearly always. Used by the services; it knows
//! none of them.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};

use axum::body::Body;
use axum::http::{HeaderMap, HeaderValue, Request, Response, header};
use bytes::Bytes;
use futures::stream;
use http_body_util::StreamBody;
use hyper::body::Frame;
use prost::Message;
use tonic::Status;
use tonic::codec::Codec;
use tonic::metadata::{GRPC_CONTENT_TYPE, MetadataValue};
use tonic::server::NamedService;
use tower::Service;
use weir_crds::grpc::SmallBuffers;

use super::MAX_MESSAGE;

/// What stands before a message: whether it is compressed, and its length (gRPC over HTTP/2, "Length-Prefixed-Message").
const PREFIX: usize = 5;
/// The header that says how a message is compressed.
const ENCODING: &str = "grpc-encoding";

/// A call as it comes in.
pub type CallRequest = Request<tonic::body::Body>;

/// What answers the calls of a service.
pub trait Streams: Clone + Send + Sync + 'static {
    /// `<package>.<service>`.
    const NAME: &'static str;

    /// Answers a call of `method`; one that there is not with UNIMPLEMENTED.
    fn answer(
        self,
        method: &str,
        request: CallRequest,
    ) -> impl Future<Output = Response<Body>> + Send;
}

/// What a stream tells, message by message.
pub trait Follow: Send + 'static {
    /// What it is told in.
    type Message: Message;

    /// Waits for the next message; without one the stream ends.
    ///
    /// # Errors
    /// The status that the stream ends with.
    fn next(&mut self) -> impl Future<Output = Result<Option<Self::Message>, Status>> + Send;
}

/// A service, to be added to a server.
#[derive(Clone, Debug)]
pub struct Streaming<S>(pub(super) S);

impl<S: Streams> NamedService for Streaming<S> {
    const NAME: &'static str = S::NAME;
}

impl<S: Streams> Service<CallRequest> for Streaming<S> {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: CallRequest) -> Self::Future {
        let (streams, uri) = (self.0.clone(), request.uri().clone());
        Box::pin(async move {
            let method = uri.path().splitn(3, '/').nth(2).unwrap_or_default();
            Ok(streams.answer(method, request).await)
        })
    }
}

/// The answer to a call of a method that there is not.
pub(super) fn unknown() -> Response<Body> {
    Status::unimplemented("").into_http()
}

/// What is asked.
pub(super) async fn read<M>(request: CallRequest) -> Result<M, Status>
where
    M: Message + Default + 'static,
{
    let encoding = request.headers().get(ENCODING);
    if encoding.is_some_and(|encoding| encoding != "identity") {
        let mut refused = Status::unimplemented("grpc-encoding: messages must not be compressed");
        let accepted = MetadataValue::from_static("identity");
        let metadata = refused.metadata_mut();
        metadata.insert("grpc-accept-encoding", accepted);
        return Err(refused);
    }
    let decoder = SmallBuffers::<(), M>::default().decoder();
    let limit = Some(MAX_MESSAGE);
    let mut messages = tonic::Streaming::new_request(decoder, request.into_body(), None, limit);
    let message = messages.message().await?;
    // The call is read to its end.
    messages.trailers().await?;
    message.ok_or_else(|| Status::internal("the call has no message"))
}

/// The answer, where there is one.
pub(super) fn respond<F: Follow>(following: Result<F, Status>) -> Response<Body> {
    match following {
        Err(status) => status.into_http(),
        Ok(following) => {
            let mut response = Response::new(body(following));
            let headers = response.headers_mut();
            headers.insert(header::CONTENT_TYPE, GRPC_CONTENT_TYPE);
            response
        }
    }
}

fn body<F: Follow>(following: F) -> Body {
    // Boxed, because a stream has the room twice for what it holds.
    let following = Some(Box::new(following));
    let frames = stream::unfold(following, async |following| {
        let mut following = following?;
        let message = match following.next().await {
            Ok(Some(message)) => written(&message),
            Ok(None) => Err(Status::ok("")),
            Err(status) => Err(status),
        };
        Some(match message {
            Ok(bytes) => (Ok::<_, Infallible>(Frame::data(bytes)), Some(following)),
            Err(status) => (Ok(Frame::trailers(trailers(&status))), None),
        })
    });
    Body::new(StreamBody::new(frames))
}

/// A message with its prefix.
fn written(message: &impl Message) -> Result<Bytes, Status> {
    let length = message.encoded_len();
    let told = u32::try_from(length)
        .map_err(|_| Status::resource_exhausted("a message is longer than 4 GiB"))?;
    let mut bytes = Vec::with_capacity(PREFIX + length);
    bytes.push(0);
    bytes.extend(told.to_be_bytes());
    message.encode(&mut bytes).expect("there is room for it");
    Ok(bytes.into())
}

/// A status as trailers.
pub(super) fn trailers(status: &Status) -> HeaderMap<HeaderValue> {
    let mut trailers = HeaderMap::new();
    // Never fails for a text that a header can hold; tonic escapes all others.
    let _ = status.add_header(&mut trailers);
    trailers
}

#[cfg(test)]
mod tests {
    use axum::http::uri::PathAndQuery;
    use futures::StreamExt;
    use http_body_util::BodyExt;
    use tonic::Code;
    use tonic::client::Grpc;

    use super::*;

    /// Says what it is asked, as often as it has bytes, and ends with a status.
    #[derive(Clone)]
    struct Echo(Result<(), Status>);

    struct Saying {
        word: String,
        times: usize,
        end: Result<(), Status>,
    }

    impl Streams for Echo {
        const NAME: &'static str = "test.Echo";

        async fn answer(self, method: &str, request: CallRequest) -> Response<Body> {
            let saying = |word: String| Saying {
                times: word.len(),
                word,
                end: self.0,
            };
            match method {
                "Say" => respond(read(request).await.map(saying)),
                _ => unknown(),
            }
        }
    }

    impl Follow for Saying {
        type Message = String;

        async fn next(&mut self) -> Result<Option<String>, Status> {
            if self.times == 0 {
                return self.end.clone().map(|()| None);
            }
            self.times -= 1;
            Ok(Some(self.word.clone()))
        }
    }

    /// What tonic's client gets: all messages, and the end.
    async fn call(end: Result<(), Status>, method: &'static str, word: &str) -> (usize, Status) {
        let mut client = Grpc::new(Streaming(Echo(end)));
        client.ready().await.unwrap();
        let path = PathAndQuery::from_static(method);
        let codec = SmallBuffers::<String, String>::default();
        let request = tonic::Request::new(word.to_owned());
        let mut messages = match client.server_streaming(request, path, codec).await {
            Ok(response) => response.into_inner(),
            Err(status) => return (0, status),
        };
        let mut count = 0;
        while let Some(message) = messages.next().await {
            match message {
                Ok(message) => assert_eq!(message, word),
                Err(status) => return (count, status),
            }
            count += 1;
        }
        (count, Status::ok(""))
    }

    #[tokio::test]
    async fn a_stream_is_what_tonics_client_reads() {
        let (count, end) = call(Ok(()), "/test.Echo/Say", "word").await;
        assert_eq!((count, end.code()), (4, Code::Ok));
        let refused = Err(Status::not_found("no Ärger: 100 %"));
        let (count, end) = call(refused, "/test.Echo/Say", "word").await;
        assert_eq!((count, end.code()), (4, Code::NotFound));
        assert_eq!(end.message(), "no Ärger: 100 %");
    }

    #[tokio::test]
    async fn what_cannot_be_answered_is_refused() {
        for method in ["/test.Echo/Sing", "/test.Echo/Sing/Say"] {
            let (_, end) = call(Ok(()), method, "word").await;
            assert_eq!(end.code(), Code::Unimplemented, "{method}");
        }
        let long = "x".repeat(MAX_MESSAGE + 1);
        let (_, end) = call(Ok(()), "/test.Echo/Say", &long).await;
        assert_eq!(end.code(), Code::OutOfRange, "{end}");
        for (encoding, body, code) in [
            (Some("gzip"), vec![0; PREFIX], "12"),
            (Some("identity"), vec![0; PREFIX], "0"),
            (None, vec![1, 0, 0, 0, 0], "13"),
            (None, vec![0, 0, 0, 0, 1], "13"),
            (None, Vec::new(), "13"),
        ] {
            let mut request = Request::post("/test.Echo/Say");
            if let Some(encoding) = encoding {
                request = request.header(ENCODING, encoding);
            }
            let full = http_body_util::Full::new(Bytes::from(body));
            let request = request.body(tonic::body::Body::new(full)).unwrap();
            let response = Streaming(Echo(Ok(()))).call(request).await.unwrap();
            let headers = response.headers().clone();
            let end = response.into_body().collect().await.unwrap();
            let said = |map: &HeaderMap| map.get("grpc-status").cloned();
            let end = said(&headers).or_else(|| said(end.trailers()?));
            assert_eq!(end.unwrap(), code, "{encoding:?}");
        }
    }

    #[tokio::test]
    async fn nothing_of_a_message_stays_with_its_stream() {
        let mut body = body(Saying {
            word: "word".to_owned(),
            times: 2,
            end: Ok(()),
        });
        for _ in 0..2 {
            let message = body.frame().await.unwrap().unwrap().into_data().unwrap();
            assert_eq!(&message[..PREFIX], [0, 0, 0, 0, 6]);
            assert!(message.is_unique());
        }
    }
}
