//! Whether the API server has answered lately, by the answers about the Lease. Part of `leader`, which asks. It knows
//! neither the Lease nor who is to be told.

use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

use crate::call::CallError;

/// The contact with the API server.
#[derive(Debug)]
pub(super) struct Contact {
    silence: Duration,
    answered: Instant,
    sender: watch::Sender<bool>,
}

impl Contact {
    /// One that begins now, and is lost after `silence`.
    pub(super) fn new(silence: Duration) -> Self {
        Self {
            silence,
            answered: Instant::now(),
            sender: watch::Sender::new(true),
        }
    }

    /// Whether there is any, now and at every change.
    pub(super) fn view(&self) -> watch::Receiver<bool> {
        self.sender.subscribe()
    }

    /// A request was answered, or failed so. What is refused for good is an answer.
    pub(super) fn asked(&mut self, failed: Option<&CallError>) {
        if failed.is_none_or(CallError::is_final) {
            self.answered = Instant::now();
            if self.tell(true) {
                tracing::info!("the API server answers again");
            }
        } else if self.answered.elapsed() >= self.silence && self.tell(false) {
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
    async fn contact_is_lost_after_the_silence_and_found_with_the_first_answer() {
        let mut contact = Contact::new(SILENCE);
        let view = contact.view();
        tokio::time::advance(SILENCE - Duration::from_secs(1)).await;
        contact.asked(Some(&refused(500)));
        assert!(*view.borrow(), "not yet");
        tokio::time::advance(Duration::from_secs(1)).await;
        contact.asked(Some(&refused(500)));
        assert!(!*view.borrow());
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
