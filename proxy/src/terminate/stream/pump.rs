//! A stream that has its endpoint: moves the request one way and the response the other, and
//! passes on how either of them ends.
//!
//! `stream` makes one once the request's head can be sent, and awaits its end.

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Instant;

use bytes::Bytes;
use h2::client::ResponseFuture;
use h2::server::SendResponse;
use h2::{Reason, RecvStream};
use hyper::http::Response;

use super::super::lane::{Broken, Lane, Passing};
use super::super::message;
use super::super::pool::Found;
use super::Asked;
use crate::exchange::End;
use crate::http1::reply::Reply;
use crate::http2::call::Call;
use crate::http2::reason;

/// The response, as far as it has come.
enum Down {
    Head {
        response: ResponseFuture,
        respond: SendResponse<Bytes>,
    },
    /// Once all of it has passed, the request may still be under way.
    Body(Lane),
}

impl Down {
    /// Ready once the client has reset the stream, or is gone.
    fn poll_reset(&mut self, cx: &mut Context<'_>) -> Poll<Result<Reason, h2::Error>> {
        match self {
            Self::Head { respond, .. } => respond.poll_reset(cx),
            Self::Body(lane) => lane.to.poll_reset(cx),
        }
    }

    fn reset(&mut self, code: Reason) {
        match self {
            Self::Head { respond, .. } => respond.send_reset(code),
            Self::Body(lane) => lane.to.send_reset(code),
        }
    }
}

/// What became of a stream.
pub(super) enum Ended {
    Over,
    /// The endpoint has not looked at it, and never will.
    Unseen(Box<Unseen>),
}

/// A stream that could begin anew: nothing of its body was taken.
pub(super) struct Unseen {
    pub(super) found: Found,
    pub(super) call: Call,
    pub(super) body: RecvStream,
    pub(super) respond: SendResponse<Bytes>,
}

enum Step {
    Over,
    Unseen,
}

pub(super) struct Pump {
    found: Found,
    call: Call,
    up: Lane,
    down: Down,
    /// The server takes nothing more of the request.
    is_cut: bool,
    /// It may be tried once more.
    may_retry: bool,
    /// What the client is told once what was passed before is on its way.
    resetting: Option<Reason>,
}

impl Pump {
    /// Sends the head of the request.
    ///
    /// # Errors
    /// When the connection that was found does not take it.
    pub(super) fn begin(
        mut found: Found,
        asked: Asked,
        mut call: Call,
    ) -> Result<Self, Box<Unseen>> {
        let Asked {
            head,
            body,
            respond,
            may_retry,
            ..
        } = asked;
        let ends = body.is_end_stream();
        match found.lease.send(head, ends) {
            Ok((response, to)) => {
                if ends {
                    call.client_ended(Instant::now());
                }
                Ok(Self {
                    found,
                    call,
                    up: Lane::new(body, to, ends),
                    down: Down::Head { response, respond },
                    is_cut: false,
                    may_retry,
                    resetting: None,
                })
            }
            Err(error) => {
                tracing::debug!(%error, "a connection takes no request");
                Err(Box::new(Unseen {
                    found,
                    call,
                    body,
                    respond,
                }))
            }
        }
    }

    /// Runs the stream to its end.
    pub(super) async fn run(mut self) -> Ended {
        let step = poll_fn(|cx| self.poll(cx)).await;
        match (step, self.down) {
            (Step::Unseen, Down::Head { respond, .. }) => Ended::Unseen(Box::new(Unseen {
                found: self.found,
                call: self.call,
                body: self.up.from,
                respond,
            })),
            _ => Ended::Over,
        }
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Step> {
        if let Some(code) = self.resetting {
            self.down.reset(code);
            return Poll::Ready(Step::Over);
        }
        if let Poll::Ready(reset) = self.down.poll_reset(cx) {
            return Poll::Ready(self.client_left(reset, cx));
        }
        if let Poll::Ready(step) = self.poll_up(cx) {
            return Poll::Ready(step);
        }
        ready!(self.poll_down(cx)).map_or_else(|| self.poll_rest(cx), Poll::Ready)
    }

    /// The request; ready where the stream ends with it.
    fn poll_up(&mut self, cx: &mut Context<'_>) -> Poll<Step> {
        if self.is_cut || self.up.is_done() {
            return Poll::Pending;
        }
        let call = &mut self.call;
        let show = |passing: Passing<'_>| {
            if let Passing::Data(bytes) = passing {
                call.client_sent(bytes);
            }
        };
        match ready!(self.up.poll(cx, show)) {
            Ok(()) => self.call.client_ended(Instant::now()),
            Err(Broken::From(error)) => return Poll::Ready(self.client_failed(&error)),
            // Its response says why.
            Err(Broken::To) => self.is_cut = true,
        }
        Poll::Pending
    }

    /// The response: none once all of it has passed.
    fn poll_down(&mut self, cx: &mut Context<'_>) -> Poll<Option<Step>> {
        loop {
            match &mut self.down {
                Down::Body(lane) if lane.is_done() => return Poll::Ready(None),
                Down::Head { response, respond } => {
                    match ready!(poll_head(response, respond, cx)) {
                        Ok(head) => {
                            if let Some(step) = self.answered(head, cx) {
                                return Poll::Ready(Some(step));
                            }
                        }
                        Err(error) => return self.server_failed(&error, cx).map(Some),
                    }
                }
                Down::Body(_) => match ready!(self.poll_body(cx)) {
                    Ok(()) => {}
                    Err(Broken::From(error)) => return self.server_failed(&error, cx).map(Some),
                    Err(Broken::To) => {
                        let gone = || Err(Reason::CANCEL.into());
                        let reset = match self.down.poll_reset(cx) {
                            Poll::Ready(reset) => reset,
                            Poll::Pending => gone(),
                        };
                        return Poll::Ready(Some(self.client_left(reset, cx)));
                    }
                },
            }
        }
    }

    fn poll_body(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Broken>> {
        let Down::Body(lane) = &mut self.down else {
            return Poll::Ready(Ok(()));
        };
        let (call, claim) = (&mut self.call, &self.found.claim);
        let show = |passing: Passing<'_>| match passing {
            Passing::Data(bytes) => {
                if !call.is_timed() {
                    let now = Instant::now();
                    call.data_begins(now);
                    claim.first_byte(now);
                }
                call.server_sent(bytes);
            }
            Passing::Trailers(fields) => {
                call.answered(message::trailers(fields), true, Instant::now());
            }
        };
        ready!(lane.poll(cx, show))?;
        self.response_ended();
        Poll::Ready(Ok(()))
    }

    /// The final head of the response.
    fn answered(&mut self, head: Response<RecvStream>, cx: &mut Context<'_>) -> Option<Step> {
        let Down::Head { respond, .. } = &mut self.down else {
            return None;
        };
        let (head, body) = head.into_parts();
        let (ends, now) = (body.is_end_stream(), Instant::now());
        let said = message::head(head.status, &head.headers);
        self.call.answered(said, ends, now);
        if self.call.is_tunnel() {
            self.found.claim.first_byte(now);
        }
        match respond.send_response(Response::from_parts(head, ()), ends) {
            Ok(to) => {
                self.down = Down::Body(Lane::new(body, to, ends));
                if ends {
                    self.response_ended();
                }
                None
            }
            Err(error) => {
                let reset = match self.down.poll_reset(cx) {
                    Poll::Ready(reset) => reset,
                    Poll::Pending => {
                        self.down.reset(Reason::INTERNAL_ERROR);
                        Err(error)
                    }
                };
                Some(self.client_left(reset, cx))
            }
        }
    }

    fn response_ended(&mut self) {
        let now = Instant::now();
        self.call.server_ended(now);
        self.found.claim.first_byte(now);
    }

    /// What is left of a request whose response has passed.
    fn poll_rest(&mut self, cx: &mut Context<'_>) -> Poll<Step> {
        if self.up.is_done() {
            return Poll::Ready(Step::Over);
        }
        // The server has heard enough. Dropping the stream says so to the client, after the
        // response (RFC 9113 section 8.1).
        match ready!(self.up.to.poll_reset(cx)) {
            Ok(code) if self.call.is_tunnel() => {
                self.call.reset_by_server(code.into(), Instant::now());
                self.reset(code, cx)
            }
            Err(_) if self.call.is_tunnel() => {
                self.call.cut(Instant::now(), End::Reset);
                self.reset(Reason::CONNECT_ERROR, cx)
            }
            Ok(_) | Err(_) => Poll::Ready(Step::Over),
        }
    }

    /// Resets the client's stream once what it was sent before had its turn.
    fn reset(&mut self, code: Reason, cx: &mut Context<'_>) -> Poll<Step> {
        if let Down::Head { respond, .. } = &mut self.down {
            respond.send_reset(code);
            return Poll::Ready(Step::Over);
        }
        self.resetting = Some(code);
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    /// The client has reset the stream, or its connection is over.
    fn client_left(&mut self, reset: Result<Reason, h2::Error>, cx: &mut Context<'_>) -> Step {
        let code = reset.ok().filter(|_| !self.is_client_gone(cx));
        self.up.to.send_reset(code.unwrap_or(Reason::CANCEL));
        let now = Instant::now();
        match code {
            Some(code) => self.call.reset_by_client(code.into(), now),
            None => self.call.cut(now, End::Canceled),
        }
        Step::Over
    }

    /// Whether it is the whole connection that has ended, as far as a request says that is not
    /// whole.
    fn is_client_gone(&mut self, cx: &mut Context<'_>) -> bool {
        while !self.up.is_done() {
            match self.up.from.poll_data(cx) {
                Poll::Ready(Some(Ok(_))) => {}
                Poll::Ready(Some(Err(error))) => return !error.is_reset(),
                Poll::Ready(None) | Poll::Pending => return false,
            }
        }
        false
    }

    /// The request has broken off.
    fn client_failed(&mut self, error: &h2::Error) -> Step {
        let now = Instant::now();
        match error.reason().filter(|_| error.is_reset()) {
            Some(code) if error.is_remote() => {
                self.up.to.send_reset(code);
                self.call.reset_by_client(code.into(), now);
            }
            _ => {
                self.up.to.send_reset(Reason::CANCEL);
                self.call.cut(now, End::Canceled);
            }
        }
        Step::Over
    }

    /// The response has broken off, or never came.
    fn server_failed(&mut self, error: &h2::Error, cx: &mut Context<'_>) -> Poll<Step> {
        let now = Instant::now();
        match error.reason() {
            Some(code) if error.is_reset() && error.is_remote() => {
                self.call.reset_by_server(code.into(), now);
                self.reset(code, cx)
            }
            Some(code) if error.is_go_away() && error.is_remote() => {
                if self.may_retry && !self.up.has_moved() && matches!(self.down, Down::Head { .. })
                {
                    return Poll::Ready(Step::Unseen);
                }
                self.call.end(now, End::Broken(reason::label(code.into())));
                // Nobody has looked at it: that is what the client must know.
                let code = match code {
                    Reason::NO_ERROR => Reason::REFUSED_STREAM,
                    code => code,
                };
                self.reset(code, cx)
            }
            code => {
                let of_stream = code.filter(|_| error.is_reset());
                self.lost(of_stream, cx)
            }
        }
    }

    /// The server's connection is gone, or what it says is no HTTP.
    fn lost(&mut self, code: Option<Reason>, cx: &mut Context<'_>) -> Poll<Step> {
        let now = Instant::now();
        let left = || self.found.lease.link.left();
        let code = code.or_else(left).filter(|code| *code != Reason::NO_ERROR);
        let end = code.map_or(End::Reset, |code| End::Broken(reason::label(code.into())));
        if let Down::Head { respond, .. } = &mut self.down {
            message::answer(respond, Reply::Reset);
            self.call.end(now, end);
            return Poll::Ready(Step::Over);
        }
        let code = match self.call.is_tunnel() {
            true => Reason::CONNECT_ERROR,
            false => Reason::INTERNAL_ERROR,
        };
        self.call.end(now, end);
        self.reset(code, cx)
    }
}

/// Passes interim responses on until the final head is there.
fn poll_head(
    response: &mut ResponseFuture,
    respond: &mut SendResponse<Bytes>,
    cx: &mut Context<'_>,
) -> Poll<Result<Response<RecvStream>, h2::Error>> {
    while let Some(interim) = ready!(response.poll_informational(cx)) {
        // A client that is gone is found elsewhere.
        let _told = respond.send_informational(interim?);
    }
    Pin::new(response).poll(cx)
}
