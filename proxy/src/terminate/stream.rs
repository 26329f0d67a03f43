//! One stream: an endpoint is found for it, then its request and its response pass, each at the
//! pace of who takes it.
//!
//! `client` runs one task for each. Nothing of one stream waits for another. It must not know
//! sockets.

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::rc::Rc;
use std::task::Poll;
use std::time::Instant;

use bytes::Bytes;
use h2::server::SendResponse;
use h2::{Reason, RecvStream};
use hyper::http::{Method, Request, Version};

use super::client::Client;
use super::message;
use super::pool::{Found, Service, Unreached};
use crate::exchange::{End, Exchange};
use crate::http1::reply::Reply;
use crate::http2::call::Call;
use crate::record::{Book, HttpLedger};
use crate::telemetry::Peer;

mod pump;

use pump::{Ended, Pump, Unseen};

/// A request as far as it is there, and the way back.
struct Asked {
    head: Request<()>,
    body: RecvStream,
    respond: SendResponse<Bytes>,
    started: Instant,
    may_retry: bool,
}

/// One stream of a client, open as long as this lives.
struct Open<'a>(&'a Client);

impl<'a> Open<'a> {
    fn new(client: &'a Client) -> Self {
        client.account.stream_opened();
        Self(client)
    }
}

impl Drop for Open<'_> {
    fn drop(&mut self) {
        self.0.account.stream_closed();
    }
}

/// Serves one stream to its end.
pub(super) async fn run(
    client: Rc<Client>,
    request: Request<RecvStream>,
    mut respond: SendResponse<Bytes>,
) {
    let started = Instant::now();
    let _open = Open::new(&client);
    let (head, body) = request.into_parts();
    let mut head = Request::from_parts(head, ());
    if message::is_malformed(&head) {
        return respond.send_reset(Reason::PROTOCOL_ERROR);
    }
    if head.uri().authority().is_none() {
        // What `h2` asks for where a request names its host in a field, or not at all.
        *head.version_mut() = Version::HTTP_11;
    }
    let asked = Asked {
        head,
        body,
        respond,
        started,
        may_retry: true,
    };
    serve(&client.service, asked).await;
}

async fn serve(service: &Service, mut asked: Asked) {
    let found = match unless_gone(service.find(), &mut asked.respond).await {
        Some(Ok(found)) => found,
        Some(Err(unreached)) => return refuse(&service.book, asked, unreached),
        None => return leave(&service.book, &asked),
    };
    let call = open(&found, &asked);
    let (head, started) = (asked.head.clone(), asked.started);
    found.claim.start(started);
    let unseen = match Pump::begin(found, asked, call) {
        Ok(pump) => match pump.run().await {
            Ended::Over => return,
            Ended::Unseen(unseen) => unseen,
        },
        Err(unseen) => unseen,
    };
    tracing::debug!("a request that its endpoint has not looked at is sent once more");
    again(service, (head, started), *unseen).await;
}

/// Tries once more, on another connection.
async fn again(service: &Service, (head, started): (Request<()>, Instant), unseen: Unseen) {
    let Unseen {
        found,
        mut call,
        body,
        mut respond,
    } = unseen;
    match unless_gone(service.find_again(found), &mut respond).await {
        Some(Ok(found)) => {
            found.claim.start(started);
            let asked = Asked {
                head,
                body,
                respond,
                started,
                may_retry: false,
            };
            match Pump::begin(found, asked, call) {
                Ok(pump) => drop(pump.run().await),
                Err(unseen) => give_up(unseen.respond, unseen.call),
            }
        }
        Some(Err(_)) => give_up(respond, call),
        None => call.cut(Instant::now(), End::Canceled),
    }
}

/// Nobody takes the request: its client may send it again.
fn give_up(mut respond: SendResponse<Bytes>, mut call: Call) {
    respond.send_reset(Reason::REFUSED_STREAM);
    call.end(Instant::now(), End::Reset);
}

/// What `finding` answers; none when the client has left the stream before.
async fn unless_gone<T>(
    finding: impl Future<Output = T>,
    respond: &mut SendResponse<Bytes>,
) -> Option<T> {
    let mut finding = pin!(finding);
    poll_fn(|cx| {
        if respond.poll_reset(cx).is_ready() {
            return Poll::Ready(None);
        }
        finding.as_mut().poll(cx).map(Some)
    })
    .await
}

/// Opens the account: an endpoint takes the request.
fn open(found: &Found, asked: &Asked) -> Call {
    let authority = message::authority(&asked.head);
    let mut ledger = found.slot.ledger.borrow_mut();
    let exchange = Exchange::open(ledger.series(authority), asked.started);
    let is_grpc = message::has_grpc(asked.head.headers());
    let grpc = is_grpc.then(|| ledger.grpc(authority));
    Call::new(exchange, grpc, asked.head.method() == Method::CONNECT)
}

/// There is no endpoint for it.
fn refuse(book: &Book, mut asked: Asked, unreached: Unreached) {
    let Unreached { error, dst } = unreached;
    tracing::debug!(%error, "dial");
    let reply = match error.is_timeout() {
        true => Reply::Timeout,
        false => Reply::Connect,
    };
    let label = reply.label().unwrap_or_default();
    let mut book = book.clone();
    book.settle(dst);
    book.tcp_error(Peer::Dst, error.class());
    book.http_error(label);
    let series = HttpLedger::new(book).series(message::authority(&asked.head));
    let exchange = Exchange::open(series, asked.started);
    exchange.end(Instant::now(), End::Replied(reply.status(), label));
    message::answer(&mut asked.respond, reply);
}

/// Its client has left before there was an endpoint.
fn leave(book: &Book, asked: &Asked) {
    let authority = message::authority(&asked.head);
    let series = HttpLedger::new(book.clone()).series(authority);
    Exchange::open(series, asked.started).end(Instant::now(), End::Canceled);
}
