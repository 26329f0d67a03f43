//! An HTTP/1 client that keeps its connections: how the bot reaches `web`, `web` reaches `voting`, and
//! the demo reads `/metrics`. Knows one address; that a proxy may be there is not its concern.

use std::net::SocketAddr;
use std::sync::Mutex;
use std::time::Duration;

use anyhow::Context as _;
use http_body_util::{BodyExt as _, Empty};
use hyper::body::Bytes;
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper::header::HOST;
use hyper::{Method, Request, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::crew::Crew;

/// How long an exchange may take, from the connection to the last byte.
pub(super) const LIMIT: Duration = Duration::from_secs(5);
/// Connections that are kept open for the next request.
const IDLE: usize = 32;

/// What was answered.
#[derive(Clone, Debug)]
pub(super) struct Answer {
    pub status: StatusCode,
    pub body: Bytes,
}

/// A client of one address.
#[derive(Debug)]
pub(super) struct Client {
    address: SocketAddr,
    /// The `Host` of its requests.
    authority: String,
    crew: Crew,
    idle: Mutex<Vec<SendRequest<Empty<Bytes>>>>,
}

impl Client {
    pub(super) fn new(address: SocketAddr, authority: &str, crew: Crew) -> Self {
        Self {
            address,
            authority: authority.to_owned(),
            crew,
            idle: Mutex::default(),
        }
    }

    /// One exchange, on a connection that is idle or a new one.
    pub(super) async fn send(&self, method: Method, path: &str) -> anyhow::Result<Answer> {
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header(HOST, &self.authority)
            .body(Empty::new())?;
        timeout(LIMIT, self.exchange(request))
            .await
            .with_context(|| format!("no whole answer within {LIMIT:?}"))
            .flatten()
            .with_context(|| format!("{} does not answer {path}", self.address))
    }

    async fn exchange(&self, request: Request<Empty<Bytes>>) -> anyhow::Result<Answer> {
        let mut connection = match self.kept() {
            Some(connection) => connection,
            None => self.connect().await?,
        };
        let response = connection.send_request(request).await?;
        let status = response.status();
        let body = response.into_body().collect().await?.to_bytes();
        self.keep(connection);
        Ok(Answer { status, body })
    }

    /// An idle connection that its peer has not closed.
    fn kept(&self) -> Option<SendRequest<Empty<Bytes>>> {
        let mut idle = self.idle.lock().expect("no holder of the lock can panic");
        std::iter::from_fn(|| idle.pop()).find(SendRequest::is_ready)
    }

    fn keep(&self, connection: SendRequest<Empty<Bytes>>) {
        let mut idle = self.idle.lock().expect("no holder of the lock can panic");
        if idle.len() < IDLE {
            idle.push(connection);
        }
    }

    async fn connect(&self) -> anyhow::Result<SendRequest<Empty<Bytes>>> {
        let stream = TcpStream::connect(self.address).await?;
        stream.set_nodelay(true)?;
        let (sender, connection) = handshake(TokioIo::new(stream)).await?;
        // Its errors reach whoever waits for the answer.
        self.crew.spawn(async move { drop(connection.await) });
        Ok(sender)
    }
}
