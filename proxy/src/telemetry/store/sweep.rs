//! Retirement. A worker lets go of a set that is idle, unpinned and at rest; once every worker has, the set waits
//! until a complete exposition has shown its last values, is then hidden, and is freed after an exposition has passed
//! without it. If it comes back before that, it goes on from its totals. Where only filtered expositions come, one of
//! those has to; where nobody scrapes, time alone decides.
//! Called by the service thread about once a second.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::{CHUNK, Expositions, Registry, Store};
use crate::telemetry::rules::Rules;
use crate::telemetry::set::{Mark, Set};

/// What a sweep may conclude from the expositions that there were.
#[derive(Clone, Copy)]
pub(super) struct Scrapers {
    /// Milliseconds since the epoch.
    pub(super) now: u64,
    /// No complete exposition for as long as a set may be idle: do not wait for one.
    pub(super) none_complete: bool,
    /// No exposition at all for as long.
    pub(super) none: bool,
}

impl Store {
    /// Retires what can be retired.
    pub(in crate::telemetry) fn sweep(&self, now: Instant) {
        let now = self.millis(now);
        let patience = millis(self.config.retain_idle);
        let (scrapers, news) = self.registry().expositions.observe(now, patience);
        let rules = self.rules();
        if news || scrapers.none_complete {
            self.hide_idle(scrapers, &rules);
        }
        self.free_hidden(scrapers);
        self.forget_former(scrapers, &rules);
    }

    /// Hides the idle sets whose last values were shown, some in each hold of the lock.
    fn hide_idle(&self, scrapers: Scrapers, rules: &Rules) {
        let mut left = std::mem::take(&mut self.registry().idle);
        let mut kept = Vec::new();
        while !left.is_empty() {
            let chunk = left.split_off(left.len().saturating_sub(CHUNK / 8));
            let mut registry = self.registry();
            kept.extend(
                chunk
                    .into_iter()
                    .filter(|id| registry.keep_idle(*id, scrapers, rules)),
            );
        }
        self.registry().idle.append(&mut kept);
    }

    /// Frees the sets that were hidden long enough.
    fn free_hidden(&self, scrapers: Scrapers) {
        let hidden_for = millis(self.config.hidden_for);
        loop {
            let freed = self.free_some(scrapers, hidden_for);
            let Some(freed) = freed else { return };
            for set in freed {
                self.budget.give_bytes(set.bytes());
                for series in set.series().iter() {
                    self.budget.evict(series.family);
                }
            }
        }
    }

    fn free_some(&self, scrapers: Scrapers, hidden_for: u64) -> Option<Vec<Arc<Set>>> {
        let mut registry = self.registry();
        let freed = registry.free_some(scrapers, hidden_for)?;
        // Still under the lock: the filter has one writer at a time.
        freed.iter().for_each(|set| self.presence.remove(set.hash));
        Some(freed)
    }

    /// How many label sets are held, hidden ones included.
    pub(in crate::telemetry) fn sets(&self) -> usize {
        self.registry().slots.len()
    }
}

impl Registry {
    /// Looks at a set to which no worker was attached; false if it need not be looked at again.
    fn keep_idle(&mut self, id: u64, scrapers: Scrapers, rules: &Rules) -> bool {
        let slot = self.slots.get_mut(&id).expect("a queued set stays");
        let done = slot.attached > 0;
        // No worker is attached and none can attach while the lock is held: the cells are at rest.
        let is_shown = if scrapers.none_complete {
            self.expositions.came(slot.idle_after, scrapers)
        } else {
            slot.set.is_exposed(slot.set.checksum(rules))
        };
        if !done && !is_shown {
            return true;
        }
        slot.queued = false;
        if !done {
            let hidden = Mark {
                after: self.expositions.started,
                at: scrapers.now,
            };
            slot.hidden = Some(hidden);
            self.hidden.push_back((id, hidden));
        }
        false
    }

    /// Takes out a bounded number of the sets that may go, the longest hidden first; `None` once there are none.
    fn free_some(&mut self, scrapers: Scrapers, hidden_for: u64) -> Option<Vec<Arc<Set>>> {
        let mut freed = Vec::new();
        let mut looked = 0;
        while looked < CHUNK / 8
            && let Some((id, hidden)) = self.hidden.front().copied()
        {
            looked += 1;
            let stale = self.slots.get(&id).is_none_or(|s| s.hidden != Some(hidden));
            if stale {
                self.hidden.pop_front();
                continue;
            }
            let passed = scrapers.now.saturating_sub(hidden.at) >= hidden_for
                && self.expositions.passed(hidden.after, scrapers);
            if !(passed || scrapers.none) {
                break;
            }
            self.hidden.pop_front();
            freed.extend(self.remove(id));
        }
        (looked > 0 && (!freed.is_empty() || looked == CHUNK / 8)).then_some(freed)
    }

    fn remove(&mut self, id: u64) -> Option<Arc<Set>> {
        let slot = self.slots.remove(&id)?;
        if let Some(known) = self.by_labels.get_mut(&slot.set.kind) {
            known.swap_remove(&slot.set.labels);
            if known.len() < known.capacity() / 4 {
                known.shrink_to(known.len() * 2);
            }
        }
        if self.hidden.is_empty() {
            self.hidden = VecDeque::new();
        }
        Some(slot.set)
    }
}

impl Expositions {
    /// Takes note of the expositions since the last sweep; also says whether a complete one was among them.
    fn observe(&mut self, now: u64, patience: u64) -> (Scrapers, bool) {
        let news = self.complete != self.complete_seen;
        if news {
            self.complete_seen = self.complete;
            self.complete_at = now;
        }
        if self.finished != self.finished_seen {
            self.finished_seen = self.finished;
            self.finished_at = now;
        }
        let scrapers = Scrapers {
            now,
            none_complete: now.saturating_sub(self.complete_at) >= patience,
            none: now.saturating_sub(self.finished_at) >= patience,
        };
        (scrapers, news)
    }

    /// Where no complete one comes: true once any that began after `number` has finished. What is selected by a filter is
    /// not known to be all that somebody wants, but nobody wants more.
    pub(super) fn came(&self, number: u64, scrapers: Scrapers) -> bool {
        scrapers.none || self.finished > number
    }

    /// True once an exposition after `number` has finished (a complete one, where there are any), and none up to it
    /// is still on its way.
    pub(super) fn passed(&self, number: u64, scrapers: Scrapers) -> bool {
        let last = if scrapers.none_complete {
            self.finished
        } else {
            self.complete
        };
        last > number && self.in_flight.first().is_none_or(|first| *first > number)
    }
}

pub(super) fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
