//! What the relay waits for beside its sockets: a client that has left unseen, and a response whose time is up. A part of
//! the relay, polled when nothing else moves.

use std::future::Future;
use std::task::Context;
use std::time::Instant;

use super::{Relay, VIGIL};

impl Relay<'_> {
    /// Looks at the client now and then while it is not read from. Answers whether it is gone.
    pub(super) fn keep_vigil(&mut self, cx: &mut Context<'_>) -> bool {
        if let Some(vigil) = &mut self.vigil
            && vigil.as_mut().poll(cx).is_pending()
        {
            // Left to run where the server reads on: a busy connection sets no timer twice.
            return false;
        }
        let has_waited = self.vigil.take().is_some();
        let holds = !self.up.is_written() || self.up.is_full();
        if !(holds && self.client.can_read()) {
            return false;
        }
        if has_waited && self.client.find_reset() {
            return true;
        }
        let mut vigil = Box::pin(tokio::time::sleep(VIGIL));
        let is_elapsed = vigil.as_mut().poll(cx).is_ready();
        self.vigil = Some(vigil);
        is_elapsed
    }

    /// Ends the wait for a response whose time is up. Answers whether it is.
    pub(super) fn keep_time(&mut self, cx: &mut Context<'_>) -> bool {
        let Some(session) = self.session.as_mut().filter(|_| !self.replied) else {
            return false;
        };
        let Some(deadline) = session.deadline() else {
            return false;
        };
        let at = tokio::time::Instant::from_std(deadline);
        loop {
            let alarm = self
                .alarm
                .get_or_insert_with(|| Box::pin(tokio::time::sleep_until(at)));
            // Of a request before this one, which may have had more time.
            if alarm.deadline() > at {
                alarm.as_mut().reset(at);
            }
            if alarm.as_mut().poll(cx).is_pending() {
                return false;
            }
            let rang_at = alarm.deadline();
            self.alarm = None;
            if rang_at >= at {
                break;
            }
        }
        session.expire(deadline.max(Instant::now()));
        // Half a head and an answer of the proxy's own would make neither.
        self.down.drop_pending();
        true
    }
}
