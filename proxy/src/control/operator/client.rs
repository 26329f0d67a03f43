//! Calls to the operator, as the generated stubs make them: each takes the bearer token that is in force, goes out on the
//! connection there is, and is counted. It must not know what is called.

use std::future::Future;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::Instant;

use bytes::Bytes;
use h2::SendStream;
use h2::client::SendRequest;
use http_body_util::BodyExt;
use hyper::Uri;
use hyper::header::{AUTHORIZATION, HeaderValue};
use hyper::http::{Request, Response};
use tokio::sync::{Notify, watch};
use tonic::body::Body;

use super::received::{GRPC_STATUS, Received, end_of};
use super::{Config, Slot};
use crate::exchange::{End, Exchange, grpc_code};
use crate::record::CallLog;

/// Longest token that is read, in bytes; Kubernetes' are about 1 KiB.
const MAX_TOKEN: u64 = 64 * 1024;

/// Makes calls to the operator; clones share its connection.
#[derive(Clone)]
pub struct Client {
    shared: Arc<Shared>,
    connection: watch::Receiver<Slot>,
}

struct Shared {
    origin: Uri,
    token: Option<Token>,
    log: CallLog,
    refused: Arc<Notify>,
}

/// The file with the token, and whether it was told that it cannot be used.
struct Token {
    path: PathBuf,
    is_told: AtomicBool,
}

/// Why a call could not be made, or broke.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    #[error("there is no connection to the operator")]
    Disconnected,
    #[error("the connection to the operator takes no call: {0}")]
    Refused(#[source] h2::Error),
    #[error("the token in {0} cannot be used: {1}")]
    Token(PathBuf, io::Error),
    #[error("the call broke: {0}")]
    Broken(#[source] h2::Error),
    #[error("the request could not be made: {0}")]
    Request(#[source] tonic::Status),
}

impl From<h2::Error> for CallError {
    fn from(error: h2::Error) -> Self {
        Self::Broken(error)
    }
}

impl Client {
    pub(super) fn new(
        config: &Config,
        log: CallLog,
        (connection, refused): (watch::Receiver<Slot>, Arc<Notify>),
    ) -> Self {
        let shared = Arc::new(Shared {
            origin: config.target.origin.clone(),
            token: config.token.clone().map(|path| Token {
                path,
                is_told: AtomicBool::new(false),
            }),
            log,
            refused,
        });
        Self { shared, connection }
    }

    /// What generated stubs are made with beside the client.
    pub fn origin(&self) -> Uri {
        self.shared.origin.clone()
    }

    /// Waits until there is a connection; false once there will be none.
    pub async fn connected(&self) -> bool {
        let mut connection = self.connection.clone();
        connection.wait_for(Option::is_some).await.is_ok()
    }

    /// What calls are sent on, once it takes one.
    async fn sender(&self) -> Result<SendRequest<Bytes>, CallError> {
        let sender = self.connection.borrow().clone();
        let ready = sender.ok_or(CallError::Disconnected)?.ready().await;
        ready.map_err(|error| {
            self.shared.refused.notify_one();
            CallError::Refused(error)
        })
    }

    async fn send(self, request: Request<Body>) -> Result<Response<Received>, CallError> {
        let mut call = Exchange::open(self.shared.log.clone(), Instant::now());
        let (mut head, body) = request.into_parts();
        let answered = async {
            if let Some(token) = &self.shared.token {
                head.headers.insert(AUTHORIZATION, token.bearer()?);
            }
            let mut sender = self.sender().await?;
            let (answer, to) = sender.send_request(Request::from_parts(head, ()), false)?;
            upload(body, to).await?;
            Ok(answer.await?)
        };
        let (head, stream) = match answered.await {
            Ok(response) => Response::into_parts(response),
            Err(error) => {
                call.end(Instant::now(), end_of(&error));
                return Err(error);
            }
        };
        call.head(head.status.as_u16());
        let code = head.headers.get(GRPC_STATUS);
        if let Some(code) = code {
            call.grpc_status(Some(grpc_code(code.as_bytes())));
        }
        if stream.is_end_stream() {
            call.end(Instant::now(), End::Complete);
            return Ok(Response::from_parts(head, Received::empty(stream)));
        }
        Ok(Response::from_parts(head, Received::new(stream, call)))
    }
}

impl tower_service::Service<Request<Body>> for Client {
    type Response = Response<Received>;
    type Error = CallError;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, CallError>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), CallError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        Box::pin(self.clone().send(request))
    }
}

/// Sends what is asked. Questions are small, so nothing waits for the operator to take them.
async fn upload(mut body: Body, mut to: SendStream<Bytes>) -> Result<(), CallError> {
    while let Some(frame) = body.frame().await {
        if let Ok(data) = frame.map_err(CallError::Request)?.into_data() {
            to.send_data(data, false)?;
        }
    }
    to.send_data(Bytes::new(), true)?;
    Ok(())
}

impl Token {
    /// What `authorization` says; a file that cannot be used is told of once, whichever calls find it so.
    fn bearer(&self) -> Result<HeaderValue, CallError> {
        let bearer = bearer(&self.path);
        let was_told = self.is_told.swap(bearer.is_err(), Ordering::Relaxed);
        bearer.map_err(|error| {
            let error = CallError::Token(self.path.clone(), error);
            if !was_told {
                tracing::warn!(%error, "the operator is not asked for anything until it can");
            }
            error
        })
    }
}

/// The token in force, which whoever keeps the file replaces before it expires.
fn bearer(path: &Path) -> io::Result<HeaderValue> {
    let mut token = String::new();
    let file = std::fs::File::open(path)?;
    file.take(MAX_TOKEN).read_to_string(&mut token)?;
    let mut bearer = HeaderValue::try_from(format!("Bearer {}", token.trim()))
        .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
    bearer.set_sensitive(true);
    Ok(bearer)
}
