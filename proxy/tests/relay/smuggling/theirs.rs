//! The same bytes as an independent and strict HTTP/1 implementation reads them: hyper, as the application and as
//! the client.

use std::cell::RefCell;
use std::convert::Infallible;
use std::rc::Rc;

use http_body_util::{BodyExt, Empty};
use hyper::body::{Bytes, Incoming};
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};

/// How a body was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Content {
    Whole(Vec<u8>),
    /// It breaks off.
    Broken,
    /// It is refused for its syntax.
    Malformed,
}

#[derive(Debug)]
pub(crate) struct Message {
    /// The method of a request, the status of a response.
    pub(crate) kind: String,
    /// The target of a request.
    pub(crate) target: String,
    pub(crate) content: Content,
}

#[derive(Debug)]
pub(crate) struct Seen {
    pub(crate) messages: Vec<Message>,
    /// It refused what came next for its syntax.
    pub(crate) refused: bool,
}

fn content(read: Result<http_body_util::Collected<Bytes>, hyper::Error>) -> Content {
    match read {
        Ok(collected) => Content::Whole(collected.to_bytes().to_vec()),
        Err(error) if is_cut(&error) => Content::Broken,
        Err(_) => Content::Malformed,
    }
}

/// Whether the message breaks off, instead of being wrong.
fn is_cut(error: &hyper::Error) -> bool {
    let mut cause: Option<&dyn std::error::Error> = Some(error);
    while let Some(error) = cause {
        if let Some(error) = error.downcast_ref::<std::io::Error>() {
            return error.kind() == std::io::ErrorKind::UnexpectedEof;
        }
        cause = error.source();
    }
    error.is_incomplete_message()
}

/// A connection that carries these bytes to its reader and then ends; it takes what is written to it.
fn wire(bytes: &[u8]) -> DuplexStream {
    let (near, mut far) = tokio::io::duplex(1 << 20);
    let bytes = bytes.to_vec();
    tokio::task::spawn_local(async move {
        let _gone = far.write_all(&bytes).await;
        let _gone = far.shutdown().await;
        let _gone = far.read_to_end(&mut Vec::new()).await;
    });
    near
}

/// The requests that an application sees.
pub(crate) async fn requests(bytes: &[u8]) -> Seen {
    let messages = Rc::new(RefCell::new(Vec::<Message>::new()));
    let log = Rc::clone(&messages);
    let service = service_fn(move |request: Request<Incoming>| {
        let log = Rc::clone(&log);
        async move {
            let at = log.borrow().len();
            log.borrow_mut().push(Message {
                kind: request.method().to_string(),
                target: request.uri().to_string(),
                content: Content::Broken,
            });
            let read = content(request.into_body().collect().await);
            log.borrow_mut()[at].content = read;
            let mut response = Response::new(Empty::<Bytes>::new());
            *response.status_mut() = StatusCode::NOT_FOUND;
            Ok::<_, Infallible>(response)
        }
    });
    let mut server = hyper::server::conn::http1::Builder::new();
    server
        .half_close(true)
        .max_buf_size(1 << 17)
        .max_headers(1000);
    let served = server
        .serve_connection(TokioIo::new(wire(bytes)), service)
        .await;
    let messages = std::mem::take(&mut *messages.borrow_mut());
    let refused = served.is_err_and(|error| !is_cut(&error));
    Seen { messages, refused }
}

/// A connection whose other side answers the first request with these bytes, and then ends it.
fn answer(bytes: &[u8]) -> DuplexStream {
    let (near, mut far) = tokio::io::duplex(1 << 20);
    let bytes = bytes.to_vec();
    tokio::task::spawn_local(async move {
        let mut request = Vec::new();
        while !request.ends_with(b"\r\n\r\n") {
            if far.read_buf(&mut request).await.is_ok_and(|n| n == 0) {
                return;
            }
        }
        let _gone = far.write_all(&bytes).await;
        let _gone = far.shutdown().await;
    });
    near
}

/// The answers that a client sees to three requests: GET, HEAD, GET. It takes nothing for an answer that was there
/// before its request, so each is shown to it alone, with all that follows.
pub(crate) async fn responses(bytes: &[u8], starts: &[usize]) -> Seen {
    let mut seen = Seen {
        messages: Vec::new(),
        refused: false,
    };
    for (method, start) in ["GET", "HEAD", "GET"].into_iter().zip(starts) {
        match response(method, &bytes[*start..]).await {
            Ok(message) => seen.messages.push(message),
            Err(error) => {
                seen.refused = !is_cut(&error);
                break;
            }
        }
    }
    seen
}

async fn response(method: &str, bytes: &[u8]) -> Result<Message, hyper::Error> {
    let mut client = hyper::client::conn::http1::Builder::new();
    client.max_buf_size(1 << 17).max_headers(1000);
    let io = TokioIo::new(answer(bytes));
    let (mut sender, connection) = client.handshake::<_, Empty<Bytes>>(io).await?;
    tokio::task::spawn_local(connection);
    let request = Request::builder()
        .method(method)
        .uri("/")
        .header("host", "a");
    let request = request.body(Empty::new()).expect("a request");
    let response = sender.send_request(request).await?;
    let kind = response.status().as_str().to_owned();
    Ok(Message {
        kind,
        target: String::new(),
        content: content(response.into_body().collect().await),
    })
}
