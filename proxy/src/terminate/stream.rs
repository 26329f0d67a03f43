//! One stream: an endpoint is found for it, then its request and its response pass, each at the
//! pace of who takes it.
//!
//! `client` runs one task for each. Nothing of one stream waits for another. It must not know
//! sockets.

use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll, Waker, ready};
use std::time::Instant;

use bytes::Bytes;
use h2::server::SendResponse;
use h2::{Reason, RecvStream};
use hyper::http::{Method, Request, Version};

use super::client::Client;
use super::message;
use super::pool::{Found, Service};
use super::slot::Refused;
use crate::exchange::{End, Exchange};
use crate::forward::Failed;
use crate::http2::call::Call;
use crate::record::{Book, HttpLedger};
use crate::telemetry::Peer;

mod pump;

use pump::{Pump, Step, Unseen};

/// A request as far as it is there, and the way back.
struct Asked {
    head: Request<()>,
    body: RecvStream,
    respond: SendResponse<Bytes>,
    started: Instant,
}

/// One stream of a client, to its end. Most have one small state: what is rare is boxed.
pub(super) struct Stream {
    client: Rc<Client>,
    state: State,
}

#[allow(
    clippy::large_enum_variant,
    reason = "nearly every stream is of the large one to its end"
)]
enum State {
    /// Its endpoint takes it. Also what can be sent once more.
    Passing(Pump, Request<()>),
    /// It waits for an endpoint, or has been sent back.
    Seeking(Pin<Box<dyn Future<Output = ()>>>),
    Over,
}

impl Stream {
    /// Of a request whose head has just come.
    pub(super) fn begin(
        client: Rc<Client>,
        request: Request<RecvStream>,
        mut respond: SendResponse<Bytes>,
    ) -> Self {
        client.account.stream_opened();
        let started = Instant::now();
        let (head, body) = request.into_parts();
        let mut head = Request::from_parts(head, ());
        if message::is_malformed(&head) {
            respond.send_reset(Reason::PROTOCOL_ERROR);
            let state = State::Over;
            return Self { client, state };
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
        };
        let state = State::begin(&client.service, asked);
        Self { client, state }
    }
}

impl State {
    fn begin(service: &Rc<Service>, mut asked: Asked) -> Self {
        // Who has taken back what was just asked costs no endpoint anything.
        let mut cx = Context::from_waker(Waker::noop());
        if asked.respond.poll_reset(&mut cx).is_ready() {
            leave(&service.book, &asked);
            return Self::Over;
        }
        match service.find_now(asked.started) {
            Some(found) => {
                let head = asked.head.clone();
                match send(found, asked) {
                    Ok(pump) => Self::Passing(pump, head),
                    Err(unseen) => Self::send_again(service, head, *unseen),
                }
            }
            None => Self::Seeking(Box::pin(seek(Rc::clone(service), asked))),
        }
    }

    fn send_again(service: &Rc<Service>, head: Request<()>, unseen: Unseen) -> Self {
        tracing::debug!("a request that its endpoint has not looked at is sent once more");
        Self::Seeking(Box::pin(again(Rc::clone(service), head, unseen)))
    }
}

impl Future for Stream {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = self.get_mut();
        let step = match &mut this.state {
            State::Passing(pump, _) => ready!(pump.poll(cx)),
            State::Seeking(future) => return future.as_mut().poll(cx),
            State::Over => return Poll::Ready(()),
        };
        let unseen = match (step, std::mem::replace(&mut this.state, State::Over)) {
            (Step::Unseen, State::Passing(pump, head)) => pump.give_back().map(|u| (head, u)),
            _ => None,
        };
        let Some((head, unseen)) = unseen else {
            return Poll::Ready(());
        };
        this.state = State::send_again(&this.client.service, head, unseen);
        Pin::new(this).poll(cx)
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        // What is under way closes its accounts first.
        self.state = State::Over;
        self.client.account.stream_closed();
    }
}

/// Waits for an endpoint, and serves the stream to its end.
async fn seek(service: Rc<Service>, mut asked: Asked) {
    let found = match unless_gone(service.find(), &mut asked.respond).await {
        Some(Ok(found)) => found,
        Some(Err(unreached)) => return refuse(&service.book, asked, unreached),
        None => return leave(&service.book, &asked),
    };
    let head = asked.head.clone();
    let unseen = match send(found, asked) {
        Ok(pump) => match pump.run().await {
            Some(unseen) => unseen,
            None => return,
        },
        Err(unseen) => *unseen,
    };
    again(service, head, unseen).await;
}

/// Opens the account, since an endpoint takes the request, and sends its head.
fn send(found: Found, asked: Asked) -> Result<Pump, Box<Unseen>> {
    let call = open(&found, &asked);
    found.claim.start(asked.started);
    Pump::begin(found, asked, call)
}

/// Tries once more, on another connection.
async fn again(service: Rc<Service>, head: Request<()>, unseen: Unseen) {
    let Unseen {
        found,
        mut call,
        body,
        mut respond,
        started,
    } = unseen;
    match unless_gone(service.find_again(found), &mut respond).await {
        Some(Ok(found)) => {
            found.claim.start(started);
            let asked = Asked {
                head,
                body,
                respond,
                started,
            };
            match Pump::begin(found, asked, call) {
                Ok(pump) => drop(pump.once().run().await),
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
fn refuse(book: &Book, mut asked: Asked, unreached: Failed<Refused>) {
    let Failed { error, dst, tls } = unreached;
    tracing::debug!(%error, "dial");
    let reply = error.reply();
    let label = reply.label().unwrap_or_default();
    let mut book = book.clone();
    book.settle(dst, tls);
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
