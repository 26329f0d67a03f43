//! The retry budget of one service: in any time as long as `ttl`, there are at most so many retries as a part of the
//! requests and a number a second allow.
//!
//! `routing` keeps one. A pure value: it is told the time.

use std::cell::Cell;
use std::time::{Duration, Instant};

use weir_crds::routes::RetryBudget;

/// Largest request that is kept to be sent again, in bytes: Linkerd's limit. Of HTTP/2 its body, of HTTP/1 all of it.
pub const MAX_KEPT: usize = 64 * 1024;

/// Most attempts of one request, whatever the budget allows: one request must not use it up.
pub const MAX_ATTEMPTS: u32 = 10;

/// In so many parts the window moves on: what was counted is forgotten a tenth of `ttl` too late, never too early.
const SLOTS: usize = 10;

/// Requests and retries in one part of the window.
type Slot = (u32, u32);

/// What may be retried, and what was.
#[derive(Debug)]
pub struct Budget {
    limits: RetryBudget,
    /// The part of `min_per_second` that is this worker's.
    share: f64,
    began: Instant,
    /// The number of the newest slot, counted from `began`.
    newest: Cell<u64>,
    slots: [Cell<Slot>; SLOTS],
}

impl Budget {
    /// Of these limits, of whose retries a second this part may be spent here.
    pub fn new(limits: RetryBudget, share: f64, now: Instant) -> Self {
        Self {
            limits,
            share,
            began: now,
            newest: Cell::new(0),
            slots: Default::default(),
        }
    }

    /// What it was made of.
    pub fn limits(&self) -> RetryBudget {
        self.limits
    }

    /// A request has come.
    pub fn request(&self, now: Instant) {
        self.turn(now, |(requests, retries)| {
            (requests.saturating_add(1), retries)
        });
    }

    /// Takes a retry, if there is one left.
    pub fn withdraw(&self, now: Instant) -> bool {
        self.turn(now, |slot| slot);
        let sum = |(a, b): (f64, f64), (c, d): Slot| (a + f64::from(c), b + f64::from(d));
        let slots = self.slots.iter().map(Cell::get);
        let (requests, retries) = slots.fold((0.0, 0.0), sum);
        let RetryBudget {
            ratio,
            min_per_second,
            ttl,
        } = self.limits;
        let least = f64::from(min_per_second) * ttl.as_secs_f64() * self.share;
        let is_allowed = retries + 1.0 <= f64::from(ratio) * requests + least;
        if is_allowed {
            self.turn(now, |(requests, retries)| (requests, retries + 1));
        }
        is_allowed
    }

    /// Forgets what is older than the window, and changes the newest slot.
    fn turn(&self, now: Instant, change: impl FnOnce(Slot) -> Slot) {
        let since = now.saturating_duration_since(self.began);
        // One more is kept than the window has, which the newest has just begun.
        let length = (self.limits.ttl / (SLOTS as u32 - 1)).max(Duration::from_nanos(1));
        let number = u64::try_from(since.as_nanos() / length.as_nanos()).unwrap_or(u64::MAX);
        let newest = self.newest.get();
        if number > newest {
            let passed = (number - newest).min(SLOTS as u64);
            for back in 0..passed {
                self.slots[place(number - back)].set((0, 0));
            }
            self.newest.set(number);
        }
        let slot = &self.slots[place(self.newest.get())];
        slot.set(change(slot.get()));
    }
}

fn place(number: u64) -> usize {
    (number % SLOTS as u64) as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    fn budget(ratio: f32, min_per_second: u32, now: Instant) -> Budget {
        let limits = RetryBudget {
            ratio,
            min_per_second,
            ttl: Duration::from_secs(10),
        };
        Budget::new(limits, 1.0, now)
    }

    #[test]
    fn a_fifth_of_the_requests_may_be_retried() {
        let now = Instant::now();
        let budget = budget(0.2, 0, now);
        assert!(!budget.withdraw(now));
        (0..100).for_each(|_| budget.request(now));
        let retries = (0..100).filter(|_| budget.withdraw(now)).count();
        assert_eq!(retries, 20);
    }

    #[test]
    fn some_a_second_are_allowed_without_requests_and_shared_by_workers() {
        let now = Instant::now();
        let whole = budget(0.0, 2, now);
        assert_eq!((0..100).filter(|_| whole.withdraw(now)).count(), 20);
        let half = Budget::new(whole.limits(), 0.5, now);
        assert_eq!((0..100).filter(|_| half.withdraw(now)).count(), 10);
    }

    #[test]
    fn what_is_older_than_the_window_counts_no_more() {
        let now = Instant::now();
        let budget = budget(0.0, 1, now);
        assert_eq!((0..100).filter(|_| budget.withdraw(now)).count(), 10);
        let before = now + Duration::from_millis(9_999);
        assert!(!budget.withdraw(before));
        let after = now + Duration::from_secs(12);
        assert_eq!((0..100).filter(|_| budget.withdraw(after)).count(), 10);
        let much_later = now + Duration::from_secs(1 << 30);
        assert!(budget.withdraw(much_later));
    }

    proptest::proptest! {
        /// Whatever comes when: no retry is one more than the window of `ttl` that it ends may have.
        #[test]
        fn no_window_is_overspent(steps in proptest::collection::vec((0u64..3_000, proptest::bool::ANY), 1..200)) {
            let began = Instant::now();
            let budget = budget(0.5, 1, began);
            let (mut now, mut requests, mut retries) = (began, Vec::new(), Vec::new());
            let ttl = Duration::from_secs(10);
            for (wait, is_request) in steps {
                now += Duration::from_millis(wait);
                if is_request {
                    budget.request(now);
                    requests.push(now);
                    continue;
                }
                if !budget.withdraw(now) {
                    continue;
                }
                retries.push(now);
                let of = |times: &[Instant], window: Duration| times.iter().filter(|t| **t + window > now).count();
                // Requests are remembered a slot longer than retries have to be.
                let most = 0.5 * of(&requests, ttl + ttl / 8) as f64 + 10.0;
                proptest::prop_assert!(of(&retries, ttl) as f64 <= most);
            }
        }
    }
}
