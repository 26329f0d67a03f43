//! Series that go before their label set does: a policy has taken, or given back, labels that follow those of the set,
//! so nothing asks for them any more while the set is in use. Each is waited for as a set is: until nobody writes to it,
//! a complete exposition has shown its last value, and one has passed without it. Called by `sweep`.

use std::sync::atomic::Ordering;

use super::sweep::{Scrapers, millis};
use super::{CHUNK, Expositions, Store};
use crate::telemetry::rules::Rules;
use crate::telemetry::set::{Leaving, Mark};

impl Store {
    /// Has every such series go one step on. Looks at all label sets, but only as long as there may be such series.
    pub(super) fn forget_former(&self, scrapers: Scrapers, rules: &Rules) {
        if !self.has_former.swap(false, Ordering::Acquire) {
            return;
        }
        let hidden_for = millis(self.config.hidden_for);
        let (mut from, mut is_left) = (0, false);
        loop {
            let (mut freed, mut seen) = (Vec::new(), 0);
            let registry = self.registry();
            // No exposition begins while the lock is held: those after this one show what is found now.
            let step = |leaving| registry.expositions.step(leaving, scrapers, hidden_for);
            for (id, slot) in registry.slots.range(from..).take(CHUNK / 8) {
                seen += 1;
                from = *id + 1;
                is_left |= slot.set.forget_former(rules, step, &mut freed);
            }
            drop(registry);
            for series in freed {
                self.budget.give_bytes(series.bytes());
                self.budget.evict(series.family);
            }
            if seen < CHUNK / 8 {
                break;
            }
        }
        if is_left {
            self.has_former.store(true, Ordering::Release);
        }
    }
}

impl Expositions {
    /// What is next for a series that nobody writes to; nothing once it may be forgotten.
    fn step(&self, leaving: Leaving, scrapers: Scrapers, hidden_for: u64) -> Option<Leaving> {
        let now = Mark {
            after: self.started,
            at: scrapers.now,
        };
        let has_passed = |since: Mark| {
            let waited = scrapers.now.saturating_sub(since.at);
            scrapers.none || waited >= hidden_for && self.passed(since.after, scrapers)
        };
        let is_shown =
            |after| self.complete > after || scrapers.none_complete && self.came(after, scrapers);
        match leaving {
            Leaving::No => Some(Leaving::Quiet(now)),
            Leaving::Quiet(since) if is_shown(since.after) => Some(Leaving::Hidden(now)),
            Leaving::Hidden(since) if has_passed(since) => None,
            Leaving::Quiet(_) | Leaving::Hidden(_) => Some(leaving),
        }
    }
}
