//! What is wrong with one route: since when, and what was said of it. Kept by `routes`, which says it. Pure: the time comes
//! in; it knows no log and no client.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use crate::index::RouteFault;

/// How long a fault must stand as it is before it is logged and published: what is applied after its route, a backend's
/// Service for one, is there by then.
pub(super) const SETTLE: Duration = Duration::from_secs(5);

/// What is wrong with one route.
pub(super) struct Standing {
    fault: Arc<RouteFault>,
    since: Instant,
    /// What the log has said last.
    logged: Option<Arc<RouteFault>>,
    /// What this replica has published last.
    told: Option<Arc<RouteFault>>,
}

impl Standing {
    pub(super) fn new(fault: Arc<RouteFault>, now: Instant) -> Self {
        Self {
            fault,
            since: now,
            logged: None,
            told: None,
        }
    }

    /// This is wrong now; the same stands on.
    pub(super) fn followed_by(self, fault: Arc<RouteFault>, now: Instant) -> Self {
        match self.fault == fault {
            true => self,
            false => Self {
                fault,
                since: now,
                ..self
            },
        }
    }

    pub(super) fn fault(&self) -> &Arc<RouteFault> {
        &self.fault
    }

    pub(super) fn settles_at(&self) -> Instant {
        self.since + SETTLE
    }

    /// The problems that are to be logged.
    pub(super) fn log(&mut self, now: Instant) -> Vec<String> {
        if now < self.settles_at() || self.logged.as_ref() == Some(&self.fault) {
            return Vec::new();
        }
        let before = self.logged.replace(self.fault.clone());
        let known = before.as_ref().map_or(&[][..], |known| &known.problems);
        let new = self.fault.problems.iter();
        new.filter(|one| !known.contains(one)).cloned().collect()
    }

    pub(super) fn is_logged(&self) -> bool {
        self.logged.is_some()
    }

    /// Whether it is to be published.
    pub(super) fn is_untold(&self, now: Instant) -> bool {
        now >= self.settles_at() && self.told.as_ref() != Some(&self.fault)
    }

    /// It was published.
    pub(super) fn told(&mut self) {
        self.told = Some(self.fault.clone());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::index::{ObjectKey, RouteKind};

    fn fault(problems: &[&str]) -> Arc<RouteFault> {
        Arc::new(RouteFault {
            kind: RouteKind::HttpRoute,
            key: ObjectKey {
                namespace: "shop".into(),
                name: "web".into(),
            },
            uid: "uid".into(),
            problems: problems.iter().copied().map(str::to_owned).collect(),
        })
    }

    #[test]
    fn what_stands_for_long_enough_is_said_once() {
        let start = Instant::now();
        let mut standing = Standing::new(fault(&["a"]), start);
        let early = start + SETTLE / 2;
        assert!(!standing.is_untold(early) && standing.log(early).is_empty());
        // The same goes on, another begins anew.
        standing = standing.followed_by(fault(&["a"]), early);
        assert_eq!(standing.settles_at(), start + SETTLE);
        standing = standing.followed_by(fault(&["a", "b"]), early);
        assert!(!standing.is_untold(start + SETTLE));
        let settled = early + SETTLE;
        assert!(standing.is_untold(settled) && !standing.is_logged());
        assert_eq!(standing.log(settled), ["a", "b"]);
        assert!(standing.is_logged() && standing.log(settled).is_empty());
        standing.told();
        assert!(!standing.is_untold(settled));
        // What was there for a moment is not said, and what it took the place of not again.
        let moment = standing.followed_by(fault(&["c"]), settled);
        let mut standing = moment.followed_by(fault(&["a", "b"]), settled);
        let later = settled + SETTLE;
        assert!(!standing.is_untold(later) && standing.log(later).is_empty());
        // Only the new is logged, all of it is published.
        let mut standing = standing.followed_by(fault(&["b", "c"]), later);
        assert_eq!(standing.log(later + SETTLE), ["c"]);
        assert!(standing.is_untold(later + SETTLE));
    }
}
