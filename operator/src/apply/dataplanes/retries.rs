//! When what failed is tried again: each pod by its own pauses, whatever happens to the others. Kept by the writer of
//! Dataplanes; it knows no client. At most one entry a pod, which leaves when its write succeeds or has nothing to do.

use std::collections::HashMap;

use tokio::time::{Duration, Instant};

use crate::backoff::Backoff;
use crate::index::ObjectKey;

/// What is due within this is tried with what is due: an outage then fails in few passes, which say so in few lines.
const TOGETHER: Duration = Duration::from_secs(1);

/// The pods whose write failed.
#[derive(Debug, Default)]
pub(super) struct Retries(HashMap<ObjectKey, Retry>);

#[derive(Debug)]
struct Retry {
    due: Instant,
    backoff: Backoff,
}

impl Retries {
    /// It failed, perhaps once more.
    pub(super) fn failed(&mut self, key: ObjectKey, now: Instant) {
        let retry = self.0.entry(key).or_insert_with(|| Retry {
            due: now,
            backoff: Backoff::default(),
        });
        retry.due = now + retry.backoff.next_pause();
    }

    /// It is as it should be.
    pub(super) fn settled(&mut self, key: &ObjectKey) {
        self.0.remove(key);
    }

    /// Forgets them all.
    pub(super) fn clear(&mut self) {
        self.0.clear();
    }

    /// When the next is due.
    pub(super) fn next(&self) -> Option<Instant> {
        self.0.values().map(|retry| retry.due).min()
    }

    /// What is to be tried now: nothing before one is due, then those that soon are, too.
    pub(super) fn due(&self, now: Instant) -> Vec<ObjectKey> {
        if self.next().is_none_or(|next| next > now) {
            return Vec::new();
        }
        let soon = self
            .0
            .iter()
            .filter(|(_, retry)| retry.due <= now + TOGETHER);
        soon.map(|(key, _)| key.clone()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(name: &str) -> ObjectKey {
        ObjectKey {
            namespace: "shop".into(),
            name: name.into(),
        }
    }

    #[test]
    fn each_is_tried_by_its_own_pauses_and_those_that_meet_together() {
        let mut retries = Retries::default();
        let mut now = Instant::now();
        assert_eq!((retries.next(), retries.due(now)), (None, vec![]));
        for _ in 0..10 {
            retries.failed(key("old"), now);
        }
        retries.failed(key("new"), now);
        assert_eq!(retries.due(now), []);
        now = retries.next().unwrap();
        assert_eq!(retries.due(now), [key("new")]);
        // Those that have come to the longest pause meet, and stay together.
        for _ in 0..10 {
            retries.failed(key("new"), now);
        }
        now = retries.next().unwrap();
        assert_eq!(retries.due(now).len(), 2);
        retries.failed(key("old"), now);
        retries.settled(&key("new"));
        assert_eq!(retries.due(now), []);
        retries.clear();
        assert_eq!(retries.next(), None);
    }
}
