//! Whether the API server has answered lately, by the answers about the Lease. Part of `leader`, which asks. It knows
//! neither the Lease nor who is to be told.

use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

use crate::call::CallError;

/// For how many silences the API server has to have answered again before contact is found: watches that broke off with
/// it need a while to catch up.
const SETTLED: f64 = 0.5;

/// The contact with the API server.
#[derive(Debug)]
pub(super) struct Contact {
    silence: Duration,
    answered: Instant,
    /// Since when it has answered again.
    back: Option<Instant>,
    sender: watch::Sender<bool>,
}

impl Contact {
    /// One that begins now, and is lost after `silence`.
    pub(super) fn new(silence: Duration) -> Self {
        Self {
            silence,
            answered: Instant::now(),
            back: None,
            sender: watch::Sender::new(true),
        }
    }

    /// Whether there is any, now and at every change.
    pub(super) fn view(&self) -> watch::Receiver<bool> {
        self.sender.subscribe()
    }

    /// A request was answered, or failed so. What is refused for good is an answer.
    pub(super) fn asked(&mut self, failed: Option<&CallError>) {
        let now = Instant::now();
        if failed.is_none_or(CallError::is_final) {
            self.answered = now;
            let is_lost = !*self.sender.borrow();
            let back = *self.back.get_or_insert(now);
            if is_lost && now - back >= self.silence.mul_f64(SETTLED) && self.tell(true) {
                tracing::info!("the API server answers again");
            }
            return;
        }
        self.back = None;
        if self.answered.elapsed() >= self.silence && self.tell(false) {
            tracing::error!(
                silence = ?self.silence,
                "the API server does not answer: proxies are sent away, because what they would be told is stale"
            );
        }
    }

    /// Whether that is another thing than before.
    fn tell(&self, is_there: bool) -> bool {
        self.sender
            .send_if_modified(|told| std::mem::replace(told, is_there) != is_there)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SILENCE: Duration = Duration::from_secs(60);

    fn refused(code: u16) -> CallError {
        let status = kube::core::Status::failure("no", "No").with_code(code);
        CallError::from(kube::Error::Api(status.boxed()))
    }

    #[tokio::test(start_paused = true)]
    async fn contact_is_lost_after_the_silence_and_found_once_there_are_answers_again() {
        let mut contact = Contact::new(SILENCE);
        let view = contact.view();
        tokio::time::advance(SILENCE - Duration::from_secs(1)).await;
        contact.asked(Some(&refused(500)));
        assert!(*view.borrow(), "not yet");
        tokio::time::advance(Duration::from_secs(1)).await;
        contact.asked(Some(&refused(500)));
        assert!(!*view.borrow());
        // An answer, and none: it begins anew.
        contact.asked(None);
        contact.asked(Some(&refused(500)));
        tokio::time::advance(SILENCE).await;
        contact.asked(None);
        assert!(!*view.borrow(), "what is known is old");
        tokio::time::advance(SILENCE.mul_f64(SETTLED)).await;
        contact.asked(None);
        assert!(*view.borrow());
        tokio::time::advance(SILENCE - Duration::from_secs(1)).await;
        contact.asked(Some(&CallError::Timeout(SILENCE)));
        assert!(*view.borrow(), "it counts from the last answer");
    }

    #[tokio::test(start_paused = true)]
    async fn who_refuses_for_good_is_there_and_who_knows_us_no_more_is_not() {
        for (code, is_there) in [(403, true), (404, true), (401, false), (429, false)] {
            let mut contact = Contact::new(SILENCE);
            tokio::time::advance(SILENCE).await;
            contact.asked(Some(&refused(code)));
            assert_eq!(*contact.view().borrow(), is_there, "{code}");
        }
    }
}
