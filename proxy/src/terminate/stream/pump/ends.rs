//! How a stream ends before its time, and who is told what. A part of the pump.

use std::task::{Context, Poll};
use std::time::Instant;

use h2::Reason;

use super::super::super::message;
use super::{Down, Pump, Step};
use crate::exchange::End;
use crate::http1::reply::Reply;
use crate::http2::reason;

impl Pump {
    /// The client has reset the stream, or its connection is over.
    pub(super) fn client_left(
        &mut self,
        reset: Result<Reason, h2::Error>,
        cx: &mut Context<'_>,
    ) -> Step {
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
    pub(super) fn client_failed(&mut self, error: &h2::Error) -> Step {
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
    pub(super) fn server_failed(&mut self, error: &h2::Error, cx: &mut Context<'_>) -> Poll<Step> {
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
        if code.is_none() && self.is_lost_again(now) {
            return Poll::Ready(Step::Failed);
        }
        if let Down::Head { respond, .. } = &mut self.down {
            message::answer(respond, Reply::Reset, None);
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

    /// Whether a request whose connection has ended before its response is sent again. That is the end of an attempt.
    fn is_lost_again(&mut self, now: Instant) -> bool {
        let may_retry = matches!(self.down, Down::Head { .. }) && self.may_send_again();
        let is_lost = may_retry && self.found.service.may_retry(now);
        if is_lost {
            self.call.retried(Some(502), "reset");
        }
        is_lost
    }

    /// The response should have begun before.
    pub(super) fn is_late(&mut self) -> Step {
        self.up.to.send_reset(Reason::CANCEL);
        if let Down::Head { respond, .. } = &mut self.down {
            let service = &self.found.service;
            service.answer(respond, Reply::Late, &mut self.call);
        }
        Step::Over
    }
}
