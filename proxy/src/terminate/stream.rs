//! One stream: an endpoint is found for it, then its request and its response pass, each at the
//! pace of who takes it.
//!
//! `client` runs one task for each. Nothing of one stream waits for another. It must not know
//! sockets.

use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker, ready};
use std::time::Instant;

use bytes::Bytes;
use h2::server::SendResponse;
use h2::{Reason, RecvStream};
use hyper::http::{Method, Request, Version};

use super::client::Client;
use super::intake::Intake;
use super::message;
use super::pool::{Found, Service};
use super::slot::Refused;
use crate::exchange::{End, Exchange};
use crate::forward::Failed;
use crate::http1::reply::Reply;
use crate::http2::call::Call;
use crate::record::{Account, Book, HttpLedger};
use crate::telemetry::Peer;

mod pump;
mod retry;

use pump::{Pump, Step, Unseen};
use retry::{Terms, Waited, wait};

/// A request as far as it is there, and the way back.
struct Asked {
    head: Request<()>,
    body: Intake,
    respond: SendResponse<Bytes>,
    started: Instant,
    terms: Terms,
}

/// One stream of a client, to its end. Most have one small state: what is rare is boxed.
pub(super) struct Stream {
    client: Rc<Client>,
    /// Where its route leads.
    service: Rc<Service>,
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
            return Self {
                service: Rc::clone(&client.service),
                client,
                state: State::Over,
            };
        }
        if head.uri().authority().is_none() {
            // What `h2` asks for where a request names its host in a field, or not at all.
            *head.version_mut() = Version::HTTP_11;
        }
        let choice = client.service.choose(&head, started);
        let service = client.service.branch(&choice);
        let terms = Terms::new(choice, service.has_several());
        let asked = Asked {
            head,
            body: Intake::new(body),
            respond,
            started,
            terms,
        };
        let state = State::begin(&service, asked);
        Self {
            client,
            service,
            state,
        }
    }
}

impl State {
    fn begin(service: &Rc<Service>, mut asked: Asked) -> Self {
        // Who has taken back what was just asked costs no endpoint anything.
        let mut cx = Context::from_waker(Waker::noop());
        if asked.respond.poll_reset(&mut cx).is_ready() {
            leave(service.book(), &asked);
            return Self::Over;
        }
        if service.is_denied() {
            reply(service.book(), asked, Reply::Denied);
            return Self::Over;
        }
        if let Some(nowhere) = Reply::nowhere(&asked.terms.choice) {
            reply_for_both(service.book(), asked, nowhere);
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
        let State::Passing(pump, head) = std::mem::replace(&mut this.state, State::Over) else {
            return Poll::Ready(());
        };
        let service = &this.service;
        match (step, pump.give_back()) {
            (Step::Unseen, Some(unseen)) => {
                this.state = State::send_again(service, head, unseen);
            }
            (Step::Failed, Some(failed)) => {
                let retrying = retry::run(Rc::clone(service), head, failed);
                this.state = State::Seeking(Box::pin(retrying));
            }
            (Step::Over, _) | (_, None) => return Poll::Ready(()),
        }
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
    let found = match wait(
        service.find(None),
        &mut asked.body,
        &mut asked.respond,
        &mut asked.terms,
    )
    .await
    {
        Waited::Done(Ok(found)) => found,
        Waited::Done(Err(unreached)) => return refuse(&service, asked, unreached),
        Waited::Gone => return leave(service.book(), &asked),
        Waited::Late => return reply(service.book(), asked, Reply::Late),
    };
    let head = asked.head.clone();
    let mut pump = match send(found, asked) {
        Ok(pump) => pump,
        Err(unseen) => return again(service, head, *unseen).await,
    };
    let step = pump.run().await;
    match (step, pump.give_back()) {
        (Step::Unseen, Some(unseen)) => again(service, head, unseen).await,
        (Step::Failed, Some(failed)) => retry::run(service, head, failed).await,
        (Step::Over, _) | (_, None) => {}
    }
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
        mut body,
        mut respond,
        started,
        mut terms,
        ..
    } = unseen;
    let found = match wait(
        service.find_again(found),
        &mut body,
        &mut respond,
        &mut terms,
    )
    .await
    {
        Waited::Done(Ok(found)) => found,
        Waited::Done(Err(unreached)) => {
            service.note_unreached(&unreached);
            return give_up(respond, call);
        }
        Waited::Gone => return call.cut(Instant::now(), End::Canceled),
        Waited::Late => return service.answer(&mut respond, Reply::Late, &mut call),
    };
    found.claim.start(started);
    let asked = Asked {
        head: head.clone(),
        body,
        respond,
        started,
        terms,
    };
    let mut pump = match Pump::begin(found, asked, call) {
        Ok(pump) => pump.once(),
        Err(unseen) => return give_up(unseen.respond, unseen.call),
    };
    if let Step::Failed = pump.run().await
        && let Some(failed) = pump.give_back()
    {
        retry::run(service, head, failed).await;
    }
}

/// Nobody takes the request: its client may send it again.
fn give_up(mut respond: SendResponse<Bytes>, mut call: Call) {
    respond.send_reset(Reason::REFUSED_STREAM);
    call.end(Instant::now(), End::Reset);
}

/// Opens the account: an endpoint takes the request.
fn open(found: &Found, asked: &Asked) -> Call {
    let authority = message::authority(&asked.head);
    let mut ledger = found.slot.ledger.borrow_mut();
    let account = ledger.account(authority, &asked.terms.choice);
    let exchange = Exchange::open(account, asked.started);
    let is_grpc = message::has_grpc(asked.head.headers());
    let grpc = is_grpc.then(|| ledger.grpc(authority));
    Call::new(exchange, grpc, asked.head.method() == Method::CONNECT)
}

/// There is no endpoint for it.
fn refuse(service: &Service, asked: Asked, unreached: Failed<Refused>) {
    let mut book = service.book();
    let Failed { error, dst, tls } = unreached;
    tracing::debug!(%error, "dial");
    book.settle(dst, tls);
    book.tcp_error(Peer::Dst, error.class());
    reply_at(book, asked, (error.reply(), service.setup.hop));
}

/// Answers a request in the place of an endpoint.
fn reply(book: Book, asked: Asked, reply: Reply) {
    reply_at(book, asked, (reply, None));
}

/// The same, at this hop ([`Reply::error_at`]).
fn reply_at(book: Book, mut asked: Asked, (reply, hop): (Reply, Option<SocketAddr>)) {
    let label = reply.label().unwrap_or_default();
    if !label.is_empty() {
        book.http_error(label);
    }
    let exchange = exchange(book, &asked);
    exchange.end(Instant::now(), End::Replied(reply.status(), label));
    message::answer(&mut asked.respond, reply, hop);
}

/// Answers a request that goes nowhere: one of gRPC by a status of its own.
fn reply_for_both(book: Book, mut asked: Asked, nowhere: Reply) {
    if !message::has_grpc(asked.head.headers()) {
        return reply(book, asked, nowhere);
    }
    if let Some(label) = nowhere.label() {
        book.http_error(label);
    }
    let mut exchange = exchange(book, &asked);
    exchange.head(200);
    exchange.grpc_status(Some(message::status_of_grpc(nowhere)));
    exchange.end(Instant::now(), End::Complete);
    message::answer_grpc(&mut asked.respond, nowhere);
}

/// The account of a request that has no endpoint.
fn exchange(book: Book, asked: &Asked) -> Exchange<Account> {
    let authority = message::authority(&asked.head);
    let account = HttpLedger::new(book).account(authority, &asked.terms.choice);
    Exchange::open(account, asked.started)
}

/// Its client has left before there was an endpoint.
fn leave(book: Book, asked: &Asked) {
    exchange(book, asked).end(Instant::now(), End::Canceled);
}
