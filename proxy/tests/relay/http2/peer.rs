//! An application and a client that speak HTTP/2 by the h2 crate.

use std::net::SocketAddr;

use bytes::Bytes;
use h2::client::SendRequest;
use h2::server::SendResponse;
use h2::{Reason, RecvStream, SendStream, client, server};
use hyper::http::{HeaderMap, Request, Response};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;

use crate::proxy::{DEADLINE, Proxy, application};

/// How both peers are set up.
#[derive(Clone, Copy)]
pub(crate) struct Setup {
    pub(crate) window: u32,
    pub(crate) most_streams: u32,
    /// The server says nothing before its client has.
    pub(crate) listens_first: bool,
}

impl Default for Setup {
    fn default() -> Self {
        Self {
            window: 65_535,
            most_streams: 200,
            listens_first: false,
        }
    }
}

/// An application that does with each request what its path says.
pub(crate) async fn serving(setup: Setup) -> SocketAddr {
    application(move |stream| serve(stream, setup)).await
}

async fn serve(stream: TcpStream, setup: Setup) {
    if setup.listens_first {
        stream.peek(&mut [0]).await.expect("a client");
    }
    let mut builder = server::Builder::new();
    builder
        .initial_window_size(setup.window)
        .initial_connection_window_size(setup.window)
        .max_concurrent_streams(setup.most_streams)
        .max_header_list_size(1 << 20)
        // Streams that their client has left before this side came to accept them are no attack here.
        .max_pending_accept_reset_streams(1000)
        .enable_connect_protocol();
    let Ok(mut connection) = builder.handshake::<_, Bytes>(stream).await else {
        return;
    };
    while let Some(Ok((request, respond))) = connection.accept().await {
        match request.uri().path() {
            "/leave" => connection.graceful_shutdown(),
            "/fail" => connection.abrupt_shutdown(Reason::INTERNAL_ERROR),
            _ => {}
        }
        tokio::spawn(answer(request, respond));
    }
}

fn ok() -> Response<()> {
    let builder = Response::builder().header("content-type", "application/grpc");
    builder.body(()).expect("a response")
}

async fn answer(request: Request<RecvStream>, mut respond: SendResponse<Bytes>) {
    let (head, body) = request.into_parts();
    let path = head.uri.path().to_owned();
    match path.as_str() {
        "/reset" => respond.send_reset(Reason::REFUSED_STREAM),
        "/hang" | "/fail" => std::future::pending().await,
        "/only" => {
            let mut only = ok();
            only.headers_mut()
                .insert("grpc-status", "12".parse().expect("a value"));
            let _sent = respond.send_response(only, true);
        }
        _ => {
            let Ok(send) = respond.send_response(ok(), false) else {
                return;
            };
            answer_with_body(&path, send, body).await;
        }
    }
}

async fn answer_with_body(path: &str, mut send: SendStream<Bytes>, mut body: RecvStream) {
    match path {
        "/break" => {
            let _sent = send.send_data(Bytes::from_static(b"some"), false);
            // A reset takes back what is not sent yet: the client ends its body once it has read.
            while let Some(Ok(_)) = body.data().await {}
            send.send_reset(Reason::INTERNAL_ERROR);
        }
        "/stream" => {
            let _sent = send.send_data(Bytes::from_static(b"some"), false);
            std::future::pending().await
        }
        "/trailers" => {
            let echoed = echo(body, &mut send).await;
            let mut trailers = HeaderMap::new();
            trailers.insert("grpc-status", "0".parse().expect("a value"));
            if echoed {
                let _sent = send.send_trailers(trailers);
            }
        }
        _ => {
            if echo(body, &mut send).await {
                let _sent = send.send_data(Bytes::new(), true);
            }
        }
    }
}

/// Sends back what comes, as fast as it is taken. Answers whether all of it was.
async fn echo(mut body: RecvStream, send: &mut SendStream<Bytes>) -> bool {
    while let Some(Ok(chunk)) = body.data().await {
        let _released = body.flow_control().release_capacity(chunk.len());
        if !write(send, chunk).await {
            return false;
        }
    }
    true
}

/// Writes as the window opens.
pub(crate) async fn write(send: &mut SendStream<Bytes>, mut bytes: Bytes) -> bool {
    while !bytes.is_empty() {
        send.reserve_capacity(bytes.len());
        let Some(Ok(n)) = std::future::poll_fn(|cx| send.poll_capacity(cx)).await else {
            return false;
        };
        if send
            .send_data(bytes.split_to(n.min(bytes.len())), false)
            .is_err()
        {
            return false;
        }
    }
    true
}

/// A client connected through the proxy.
pub(crate) struct Client {
    pub(crate) sender: SendRequest<Bytes>,
    /// Ends with the connection.
    pub(crate) connection: JoinHandle<Result<(), h2::Error>>,
}

impl Client {
    pub(crate) async fn connect(proxy: &Proxy, setup: Setup) -> Self {
        Self::begin_on(proxy.connect().await, setup).await
    }

    /// Begins to speak on a connection that was silent.
    pub(crate) async fn begin_on(stream: TcpStream, setup: Setup) -> Self {
        let mut builder = client::Builder::new();
        builder
            .initial_window_size(setup.window)
            .initial_connection_window_size(setup.window)
            .max_header_list_size(1 << 20);
        let (sender, connection) = builder
            .handshake::<_, Bytes>(stream)
            .await
            .expect("a handshake");
        let connection = tokio::spawn(connection);
        Self { sender, connection }
    }

    /// Begins a request; the answer comes later.
    pub(crate) async fn begin(
        &mut self,
        path: &str,
    ) -> (client::ResponseFuture, SendStream<Bytes>) {
        self.begin_with(path, &[]).await
    }

    pub(crate) async fn begin_with(
        &mut self,
        path: &str,
        fields: &[(&'static str, &str)],
    ) -> (client::ResponseFuture, SendStream<Bytes>) {
        let mut request = Request::post(format!("http://web.example{path}"));
        for (name, value) in fields {
            request = request.header(*name, *value);
        }
        let request = request.body(()).expect("a request");
        let ready = self.sender.clone().ready();
        let ready = tokio::time::timeout(DEADLINE, ready)
            .await
            .expect("in time");
        let mut sender = ready.expect("a connection that takes requests");
        sender.send_request(request, false).expect("sent")
    }

    /// Sends a body and reads the answer to its end: status, body, `grpc-status`.
    pub(crate) async fn call(&mut self, path: &str, body: Bytes) -> Result<Answer, h2::Error> {
        let (response, send) = self.begin(path).await;
        finish(response, send, body).await
    }
}

pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) body: Vec<u8>,
    pub(crate) grpc_status: Option<String>,
}

pub(crate) async fn finish(
    response: client::ResponseFuture,
    mut send: SendStream<Bytes>,
    body: Bytes,
) -> Result<Answer, h2::Error> {
    let sending = async {
        if write(&mut send, body).await {
            let _sent = send.send_data(Bytes::new(), true);
        }
    };
    let reading = async {
        let response = response.await?;
        let status = response.status().as_u16();
        let mut grpc = response.headers().get("grpc-status").cloned();
        let mut body = response.into_body();
        let mut bytes = Vec::new();
        while let Some(chunk) = body.data().await {
            let chunk = chunk?;
            let _released = body.flow_control().release_capacity(chunk.len());
            bytes.extend(chunk);
        }
        if let Some(trailers) = body.trailers().await? {
            grpc = trailers.get("grpc-status").cloned();
        }
        let grpc_status = grpc.map(|v| v.to_str().expect("text").to_owned());
        Ok(Answer {
            status,
            body: bytes,
            grpc_status,
        })
    };
    let both = async { tokio::join!(sending, reading).1 };
    tokio::time::timeout(DEADLINE, both).await.expect("in time")
}
