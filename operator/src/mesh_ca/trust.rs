//! Who is trusted in a Mesh, and from when a root signs. A new root is told to everyone before it
//! signs, and the one before it is trusted until its last certificate has expired; so a change of the
//! authority fails no connection. Pure: what was remembered, the root and the time come in. Called by
//! `keeper`, which keeps it in a ConfigMap.

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use super::root::Root;

/// How long before it signs a new root is told to the proxies that trust another.
pub const LEAD: SignedDuration = SignedDuration::from_secs(5);
/// How much longer than its last certificate a former root is trusted: a replica that has not heard
/// of the change yet may sign with it for a moment.
pub const MARGIN: SignedDuration = SignedDuration::from_mins(1);
/// Most former roots that are trusted; of more, those that end first are forgotten.
pub const MOST_FORMER: usize = 8;

/// Who is trusted in one Mesh. JSON in camelCase.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Trust {
    /// The root that signs; `None` where mutual TLS is off.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub current: Option<Trusted>,
    /// Roots that signed, with the end of the trust in them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub former: Vec<Trusted>,
}

/// One root that is trusted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Trusted {
    /// Its certificate, PEM.
    pub certificate: String,
    /// It signs from then on.
    pub signs_from: Timestamp,
    /// The longest life that certificates of it were given, in seconds.
    pub longest_life: i64,
    /// The end of the trust in it, where it is a former root.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<Timestamp>,
}

impl Trust {
    /// Reads what was kept; what cannot be read counts as nothing, and is written anew.
    #[must_use]
    pub fn parse(json: &str) -> Option<Self> {
        serde_json::from_str(json).ok()
    }

    /// What to keep.
    #[must_use]
    pub fn to_json(&self) -> String {
        serde_json::to_string(self).expect("it holds only texts, times and numbers")
    }

    /// The certificates that are trusted at `now`, PEM, the signing one first.
    #[must_use]
    pub fn bundle(&self, now: Timestamp) -> String {
        let former = self.former.iter().filter(|root| root.is_trusted(now));
        self.current
            .iter()
            .chain(former)
            .map(|root| root.certificate.as_str())
            .collect()
    }

    /// From when `root` may sign; `None` while it is not the one that everybody is told.
    #[must_use]
    pub fn signs_from(&self, root: &Root) -> Option<Timestamp> {
        let current = self.current.as_ref()?;
        (current.certificate == root.anchor()).then_some(current.signs_from)
    }

    /// The next moment at which something here ends.
    #[must_use]
    pub fn next_end(&self) -> Option<Timestamp> {
        self.former.iter().filter_map(|root| root.until).min()
    }

    /// What to remember at `now` when `root` signs certificates that live for `life`; none where
    /// mutual TLS is off.
    #[must_use]
    pub fn advanced(mut self, root: Option<(&Root, SignedDuration)>, now: Timestamp) -> Self {
        let anchor = root.map(|(root, _)| root.anchor());
        let current = self.current.take();
        let (stays, leaves) = match current {
            Some(current) if Some(current.certificate.as_str()) == anchor => (Some(current), None),
            other => (None, other),
        };
        self.former.extend(leaves.map(|root| root.ending(now)));
        self.former.retain(|root| root.is_trusted(now));
        let Some((root, life)) = root else {
            self.forget();
            return self;
        };
        let back = self
            .former
            .iter()
            .position(|former| former.certificate == root.anchor());
        let back = back.map(|index| self.former.remove(index));
        let mut current = stays.or(back).unwrap_or_else(|| Trusted {
            certificate: root.anchor().to_owned(),
            // Nobody has to hear of it first where nobody trusts another.
            signs_from: if self.former.is_empty() {
                now
            } else {
                now + LEAD
            },
            longest_life: 0,
            until: None,
        });
        current.longest_life = current.longest_life.max(life.as_secs());
        current.until = None;
        self.current = Some(current);
        self.forget();
        self
    }

    /// What to remember at `now` while it is not known who signs: nothing changes but what ends.
    #[must_use]
    pub fn pruned(mut self, now: Timestamp) -> Self {
        self.former.retain(|root| root.is_trusted(now));
        self
    }

    /// Whether nobody is trusted.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.current.is_none() && self.former.is_empty()
    }

    fn forget(&mut self) {
        self.former
            .sort_by_key(|root| std::cmp::Reverse(root.until));
        self.former.truncate(MOST_FORMER);
    }
}

impl Trusted {
    fn is_trusted(&self, now: Timestamp) -> bool {
        self.until.is_some_and(|until| now < until)
    }

    fn ending(mut self, now: Timestamp) -> Self {
        let longest = SignedDuration::from_secs(self.longest_life);
        let end = now
            .saturating_add(longest)
            .and_then(|end| end.saturating_add(MARGIN));
        self.until = Some(end.unwrap_or(Timestamp::MAX));
        self
    }
}
