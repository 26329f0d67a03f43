//! The accepting side: one client's connection, from its first frames to its end. Each of its
//! streams runs as a task of its own.
//!
//! `connection` calls it with what detection has read. It must not know endpoints.

use std::future::{Future, poll_fn};
use std::io;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll};

use bytes::Bytes;
use h2::server::{Builder, Connection, SendResponse};
use h2::{Reason, RecvStream};
use hyper::http::Request;
use tokio::time::{Instant, Sleep, sleep, sleep_until, timeout_at};

use super::held::Held;
use super::pool::Service;
use super::socket::Socket;
use super::stream::Stream;
use super::{Config, LARGEST_WINDOW};
use crate::activity::Busy;
use crate::permission::Permit;
use crate::record::{Book, Http2Side, Side};
use crate::stream;
use crate::telemetry::Peer;

/// A connection that speaks HTTP/2, as `connection` hands it over.
pub struct Incoming {
    pub stream: stream::Stream,
    /// What detection has read of it, and counted.
    pub first: Bytes,
    pub book: Book,
    pub accepted: Side,
    pub busy: Busy,
    /// What the client is held to for as long as the connection lives; none where nobody asks.
    pub permit: Option<Permit>,
}

/// What the streams of one client share.
pub(super) struct Client {
    pub(super) service: Rc<Service>,
    pub(super) account: Http2Side,
}

type Begun = (Request<RecvStream>, SendResponse<Bytes>);

/// Serves one client to the end of its connection. Its streams end with it, each in its task.
pub async fn serve(service: Rc<Service>, incoming: Incoming) {
    let setup = Rc::clone(&service.setup);
    let client = Rc::new(Client {
        account: incoming.book.http2(Peer::Src),
        service,
    });
    let socket = Socket::accepted(incoming.stream, incoming.first, incoming.accepted);
    let deadline = Instant::now() + setup.config.handshake_timeout;
    let handshake = builder(&setup.config).handshake(socket.clone());
    if let Ok(Ok(connection)) = timeout_at(deadline, handshake).await {
        let serving = Serving {
            connection,
            socket: socket.clone(),
            busy: incoming.busy,
            deadline: Some(Box::pin(sleep_until(deadline))),
            held: incoming.permit.map(Held::new),
            parting: None,
        };
        let mut accepting = pin!(accept(&client, serving));
        let turn = |cx: &mut Context<'_>| {
            socket.begin_turn();
            accepting.as_mut().poll(cx)
        };
        poll_fn(turn).await;
    }
    client.service.leave();
    socket.drain(setup.config.linger).await;
}

/// A connection whose client's SETTINGS may be still to come.
struct Serving {
    connection: Connection<Socket, Bytes>,
    socket: Socket,
    busy: Busy,
    /// Of its SETTINGS; none once they have come.
    deadline: Option<Pin<Box<Sleep>>>,
    held: Option<Held>,
    /// How long a client that was told to go may take to read that.
    parting: Option<Pin<Box<Sleep>>>,
}

/// Runs the connection until it is over.
async fn accept(client: &Rc<Client>, mut serving: Serving) {
    let setup = &client.service.setup;
    // Who comes while the proxy drains is not sent away: there is nowhere else to go.
    let mut is_told = setup.stopping.is_cancelled();
    let mut draining = pin!(setup.draining.cancelled());
    loop {
        let next = poll_fn(|cx| {
            if !is_told && draining.as_mut().poll(cx).is_ready() {
                is_told = true;
                serving.connection.graceful_shutdown();
            }
            serving.obey(&client.service, cx);
            serving.poll(cx)
        });
        match next.await {
            Some(Ok(begun)) => begin(client, begun),
            Some(Err(error)) => return tracing::debug!(%error, "a client's connection has failed"),
            None => return,
        }
    }
}

impl Serving {
    /// Takes over what has changed for a client of the application. One that may not connect any more, and has had its
    /// time, is told that there is no more to come.
    fn obey(&mut self, service: &Service, cx: &mut Context<'_>) {
        let Some(held) = &mut self.held else { return };
        if held.poll(service, &self.socket, cx).is_pending() {
            return;
        }
        self.held = None;
        let reason = match self.connection.has_streams() {
            true => {
                self.socket.cut(io::ErrorKind::PermissionDenied);
                Reason::CANCEL
            }
            false => Reason::NO_ERROR,
        };
        self.connection.abrupt_shutdown(reason);
        self.parting = Some(Box::pin(sleep(service.setup.config.linger)));
    }

    /// The next stream of the client; none at the end.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Begun, h2::Error>>> {
        let mut next = self.connection.poll_accept(cx);
        if next.is_pending()
            && let Some(reason) = self.broken(cx)
        {
            self.connection.abrupt_shutdown(reason);
            next = self.connection.poll_accept(cx);
        }
        if next.is_ready() {
            return next;
        }
        if let Some(parting) = &mut self.parting
            && parting.as_mut().poll(cx).is_ready()
        {
            return Poll::Ready(None);
        }
        let out = self.socket.poll_out(cx);
        // A stream is there until the last of it is written.
        let is_busy = out.is_pending() || self.connection.has_streams();
        self.busy.set(is_busy);
        match out {
            Poll::Ready(Err(_)) => Poll::Ready(None),
            Poll::Ready(Ok(())) | Poll::Pending => Poll::Pending,
        }
    }

    /// The error that must end the connection: of what its client has sent, or has not.
    fn broken(&mut self, cx: &mut Context<'_>) -> Option<Reason> {
        let broken = self.socket.broken();
        let Some(deadline) = &mut self.deadline else {
            return broken;
        };
        let has_come = self.socket.has_preface();
        let is_late = !has_come && deadline.as_mut().poll(cx).is_ready();
        if has_come || is_late {
            self.deadline = None;
        }
        broken.or_else(|| is_late.then_some(Reason::PROTOCOL_ERROR))
    }
}

fn begin(client: &Rc<Client>, (request, respond): Begun) {
    let stream = Stream::begin(Rc::clone(client), request, respond);
    client.service.setup.tasks.spawn_local(stream);
}

fn builder(config: &Config) -> Builder {
    let mut builder = Builder::new();
    builder
        .max_concurrent_streams(config.max_streams)
        .max_header_list_size(config.max_header_list)
        .initial_window_size(config.window)
        .initial_connection_window_size(all_windows(config))
        .max_send_buffer_size(config.send_buffer)
        .max_pending_accept_reset_streams(config.reset_burst)
        .max_concurrent_reset_streams(config.reset_memory)
        .max_local_error_reset_streams(Some(config.stream_errors))
        .data_frame_budget(super::SMALL_FRAMES)
        .enable_connect_protocol();
    builder
}

/// The windows of all streams together, at least the size that a connection begins with.
fn all_windows(config: &Config) -> u32 {
    const LEAST: u32 = (1 << 16) - 1;
    let all = config.window.saturating_mul(config.max_streams);
    all.clamp(LEAST, LARGEST_WINDOW)
}
