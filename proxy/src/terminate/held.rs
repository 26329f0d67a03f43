//! What a client of the application is held to: a permission that changes under its connection. `client` asks at each of
//! its turns, and is woken where it has none.
//!
//! The terms are those of the relay: who may not connect any more gets 403 for the next streams, what is under way may go
//! on for [`GRACE`], and a permission that comes back in time was never away.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::time::{Sleep, sleep};

use super::pool::Service;
use super::socket::Socket;
use crate::forward::relay::GRACE;
use crate::permission::{Permit, Verdict};

pub(super) struct Held {
    permit: Permit,
    /// Runs while the client may not connect.
    grace: Option<Pin<Box<Sleep>>>,
}

impl Held {
    /// Of a client that has been judged.
    pub(super) fn new(permit: Permit) -> Self {
        Self {
            permit,
            grace: None,
        }
    }

    /// Takes over what has changed; what is asked of `service` from now on goes by it. Ready once the connection has to
    /// end.
    pub(super) fn poll(
        &mut self,
        service: &Service,
        socket: &Socket,
        cx: &mut Context<'_>,
    ) -> Poll<()> {
        self.permit.watch(cx);
        if self.permit.is_stale() {
            let peer = socket.peer();
            let verdict = self.permit.judge(peer.as_ref().map(|peer| &*peer.identity));
            service.judge(&verdict);
            let grace = self.grace.take();
            self.grace = (verdict == Verdict::Denied)
                .then(|| grace.unwrap_or_else(|| Box::pin(sleep(GRACE))));
        }
        match &mut self.grace {
            Some(grace) => grace.as_mut().poll(cx),
            None => Poll::Pending,
        }
    }
}

#[cfg(test)]
mod tests;
