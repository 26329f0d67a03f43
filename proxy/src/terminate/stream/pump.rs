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
use hyper::http::response::Parts;
use hyper::http::{Request, Response};

use super::super::intake::Intake;
use super::super::lane::{Broken, Lane, Passing};
use super::super::message;
use super::super::pool::Found;
use super::Asked;
use super::retry::Terms;
use crate::exchange::End;
use crate::http2::call::{Call, Said};

mod ends;

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

/// A stream that could begin anew: nothing of its body was taken, or all of it is kept.
pub(super) struct Unseen {
    pub(super) found: Found,
    pub(super) call: Call,
    pub(super) body: Intake,
    /// Nothing of the body comes any more: all of it is kept.
    pub(super) is_whole: bool,
    pub(super) respond: SendResponse<Bytes>,
    pub(super) started: Instant,
    pub(super) terms: Terms,
}

/// What became of a stream.
pub(super) enum Step {
    Over,
    /// The endpoint has not looked at it, and never will.
    Unseen,
    /// Its response is a failure that its client does not see: it is to be sent again.
    Failed,
}

pub(super) struct Pump {
    found: Found,
    call: Call,
    started: Instant,
    terms: Terms,
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
            started,
            terms,
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
                    started,
                    terms,
                    up: Lane::new(body, to, ends),
                    down: Down::Head { response, respond },
                    is_cut: false,
                    may_retry: true,
                    resetting: None,
                })
            }
            Err(error) => {
                tracing::debug!(%error, "a connection takes no request");
                Err(Box::new(Unseen {
                    found,
                    call,
                    body,
                    is_whole: ends,
                    respond,
                    started,
                    terms,
                }))
            }
        }
    }

    /// Sends once more what was kept of a request.
    ///
    /// # Errors
    /// When the connection that was found does not take it.
    pub(super) fn replay(head: Request<()>, mut again: Unseen) -> Result<Self, Box<Unseen>> {
        let kept = again.terms.replay(again.is_whole);
        let Ok((response, to)) = again.found.lease.send(head, kept.ends()) else {
            return Err(Box::new(again));
        };
        let respond = again.respond;
        Ok(Self {
            found: again.found,
            call: again.call,
            started: again.started,
            terms: again.terms,
            up: Lane::replay(again.body, to, kept),
            down: Down::Head { response, respond },
            is_cut: false,
            may_retry: false,
            resetting: None,
        })
    }

    /// The same, not to be tried once more.
    pub(super) fn once(self) -> Self {
        Self {
            may_retry: false,
            ..self
        }
    }

    /// Runs the stream to its end, unless it could begin anew.
    pub(super) async fn run(&mut self) -> Step {
        poll_fn(|cx| self.poll(cx)).await
    }

    /// What is needed to begin anew.
    pub(super) fn give_back(self) -> Option<Unseen> {
        let Down::Head { respond, .. } = self.down else {
            return None;
        };
        let (body, is_whole) = self.up.give_back();
        Some(Unseen {
            found: self.found,
            call: self.call,
            body,
            is_whole,
            respond,
            started: self.started,
            terms: self.terms,
        })
    }

    /// Moves what can be moved; ready at the end.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Step> {
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
        if matches!(self.down, Down::Head { .. }) && self.terms.poll_late(cx).is_ready() {
            return Poll::Ready(self.is_late());
        }
        ready!(self.poll_down(cx)).map_or_else(|| self.poll_rest(cx), Poll::Ready)
    }

    /// The request; ready where the stream ends with it.
    fn poll_up(&mut self, cx: &mut Context<'_>) -> Poll<Step> {
        if self.is_cut {
            self.up.from.gather(cx);
            return Poll::Pending;
        }
        if self.up.is_done() {
            return Poll::Pending;
        }
        let (call, terms) = (&mut self.call, &mut self.terms);
        let show = |passing: Passing<'_>| {
            terms.keep(&passing);
            if let Passing::Data(bytes) = passing {
                call.client_sent(bytes);
            }
        };
        match ready!(self.up.poll(cx, show)) {
            Ok(()) => self.call.client_ended(Instant::now()),
            Err(Broken::From(error)) => return Poll::Ready(self.client_failed(&error)),
            // Its response says why.
            Err(Broken::To) => {
                self.is_cut = true;
                self.up.from.gather(cx);
            }
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

    /// Whether all of the request is kept, and was not sent too often.
    fn may_send_again(&self) -> bool {
        self.terms.may_retry() && self.up.is_done()
    }

    /// Whether a response that begins like this is a failure after which the request is sent again. It is the end of
    /// an attempt then.
    fn is_retried(&mut self, said: Said, ends: bool, now: Instant) -> bool {
        if !self.may_send_again() {
            return false;
        }
        let is_retried = self.call.would_fail(said, ends) && self.found.service.may_retry(now);
        if is_retried {
            self.call.retried(said.status, "");
            self.found.claim.first_byte(now);
        }
        is_retried
    }

    /// Whether a response begins like this because nobody has seen its request, which goes to another endpoint instead.
    fn goes_elsewhere(&mut self, head: &Parts, now: Instant) -> bool {
        let Found { claim, service, .. } = &self.found;
        let by = message::unseen_by(head.status, &head.headers);
        // What another hop has said was passed on by one that has seen it.
        if by != Some(claim.addr) || !service.has_other(claim.addr, &[]) {
            return false;
        }
        claim.refused(now);
        let has_other = service.has_other(claim.addr, self.terms.refused());
        let goes = has_other && self.terms.note_refusal(claim.addr);
        if goes {
            self.call.retried(Some(head.status.as_u16()), "");
        }
        goes
    }

    /// The final head of the response.
    fn answered(&mut self, head: Response<RecvStream>, cx: &mut Context<'_>) -> Option<Step> {
        let (head, body) = head.into_parts();
        let (ends, now) = (body.is_end_stream(), Instant::now());
        let said = message::head(head.status, &head.headers);
        if self.goes_elsewhere(&head, now) || self.is_retried(said, ends, now) {
            return Some(Step::Failed);
        }
        self.terms.answered();
        let Down::Head { respond, .. } = &mut self.down else {
            return None;
        };
        self.call.answered(said, ends, now);
        if self.call.is_tunnel() {
            self.found.claim.first_byte(now);
        }
        match respond.send_response(Response::from_parts(head, ()), ends) {
            Ok(to) => {
                self.down = Down::Body(Lane::new(Intake::new(body), to, ends));
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
