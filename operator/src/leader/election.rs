//! Decides what to do about a Lease that was read. Pure: the Lease and the clock come in. Called by
//! `leader`. Expiry is judged by our own clock only: a Lease is free once it stayed unchanged
//! before our eyes for its duration, so clocks that differ between nodes do no harm.

use std::time::Duration;

use k8s_openapi::api::coordination::v1::LeaseSpec;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use tokio::time::Instant;

/// What to do about the Lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// It is ours: renew it.
    Renew,
    /// It is free: take it.
    Acquire,
    /// Another replica holds it.
    Wait,
}

/// The record of another holder and when it was first seen like that.
#[derive(Debug)]
struct Seen {
    holder: String,
    renewed: Option<MicroTime>,
    since: Instant,
}

/// One candidate's view of the election.
#[derive(Debug)]
pub(super) struct Election {
    me: String,
    duration: Duration,
    seen: Option<Seen>,
}

impl Election {
    pub(super) fn new(me: String, duration: Duration) -> Self {
        Self {
            me,
            duration,
            seen: None,
        }
    }

    /// What to do, given the Lease as just read.
    pub(super) fn step(&mut self, spec: Option<&LeaseSpec>, now: Instant) -> Step {
        let holder = spec.and_then(|spec| spec.holder_identity.as_deref());
        let Some(holder) = holder.filter(|holder| !holder.is_empty()) else {
            self.seen = None;
            return Step::Acquire;
        };
        if holder == self.me {
            self.seen = None;
            return Step::Renew;
        }
        let renewed = spec.and_then(|spec| spec.renew_time.clone());
        let duration = spec
            .and_then(|spec| spec.lease_duration_seconds)
            .and_then(|seconds| u64::try_from(seconds).ok())
            .map_or(self.duration, Duration::from_secs);
        match &self.seen {
            Some(seen) if seen.holder == holder && seen.renewed == renewed => {
                if now.duration_since(seen.since) >= duration {
                    return Step::Acquire;
                }
            }
            _ => {
                self.seen = Some(Seen {
                    holder: holder.to_owned(),
                    renewed,
                    since: now,
                });
            }
        }
        Step::Wait
    }

    /// The Lease after `step`, held by us.
    pub(super) fn held(&self, step: Step, read: Option<&LeaseSpec>, now: MicroTime) -> LeaseSpec {
        let mut spec = read.cloned().unwrap_or_default();
        if step == Step::Acquire {
            let before = spec.lease_transitions.unwrap_or(0);
            spec.lease_transitions = Some(if read.is_some() { before + 1 } else { before });
            spec.acquire_time = Some(now.clone());
        }
        spec.holder_identity = Some(self.me.clone());
        spec.renew_time = Some(now);
        spec.lease_duration_seconds = i32::try_from(self.duration.as_secs()).ok();
        spec
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DURATION: Duration = Duration::from_secs(15);

    fn election() -> Election {
        Election::new("me".to_owned(), DURATION)
    }

    fn lease(holder: &str, renewed: i64) -> LeaseSpec {
        LeaseSpec {
            holder_identity: Some(holder.to_owned()),
            renew_time: Some(MicroTime(jiff::Timestamp::from_second(renewed).unwrap())),
            lease_duration_seconds: Some(15),
            ..LeaseSpec::default()
        }
    }

    #[test]
    fn a_lease_that_nobody_holds_is_taken_at_once() {
        let now = Instant::now();
        assert_eq!(election().step(None, now), Step::Acquire);
        assert_eq!(
            election().step(Some(&LeaseSpec::default()), now),
            Step::Acquire
        );
        assert_eq!(election().step(Some(&lease("", 0)), now), Step::Acquire);
    }

    #[test]
    fn our_own_lease_is_renewed_even_after_a_restart() {
        assert_eq!(
            election().step(Some(&lease("me", 0)), Instant::now()),
            Step::Renew
        );
    }

    #[test]
    fn the_lease_of_another_is_free_only_after_it_stood_still_for_its_duration() {
        let mut election = election();
        let start = Instant::now();
        // Its time stamp is decades old, yet it counts from when we saw it.
        assert_eq!(election.step(Some(&lease("other", 0)), start), Step::Wait);
        let almost = start + DURATION - Duration::from_millis(1);
        assert_eq!(election.step(Some(&lease("other", 0)), almost), Step::Wait);
        assert_eq!(election.step(Some(&lease("other", 5)), almost), Step::Wait);
        let later = start + DURATION;
        assert_eq!(election.step(Some(&lease("other", 5)), later), Step::Wait);
        let silent = almost + DURATION;
        assert_eq!(
            election.step(Some(&lease("other", 5)), silent),
            Step::Acquire
        );
    }

    #[test]
    fn the_duration_in_the_lease_counts_not_ours() {
        let mut election = election();
        let start = Instant::now();
        let mut long = lease("other", 0);
        long.lease_duration_seconds = Some(60);
        assert_eq!(election.step(Some(&long), start), Step::Wait);
        assert_eq!(election.step(Some(&long), start + DURATION), Step::Wait);
        assert_eq!(
            election.step(Some(&long), start + DURATION * 4),
            Step::Acquire
        );
    }

    #[test]
    fn a_takeover_is_counted_and_a_renewal_is_not() {
        let now = MicroTime(jiff::Timestamp::from_second(100).unwrap());
        let election = election();
        let fresh = election.held(Step::Acquire, None, now.clone());
        assert_eq!(fresh.lease_transitions, Some(0));
        assert_eq!(fresh.holder_identity.as_deref(), Some("me"));
        assert_eq!(fresh.lease_duration_seconds, Some(15));
        let taken = election.held(Step::Acquire, Some(&lease("other", 5)), now.clone());
        assert_eq!(taken.lease_transitions, Some(1));
        let renewed = election.held(Step::Renew, Some(&taken), now);
        assert_eq!(renewed.lease_transitions, Some(1));
        assert_eq!(renewed.acquire_time, taken.acquire_time);
    }
}
