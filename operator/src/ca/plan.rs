//! Decides which certificate is due and what the bundle holds. Pure: the stored state and the
//! time come in, a decision goes out. Called by `keeper`; it knows no client.

use jiff::{SignedDuration, Timestamp};

use super::material::{Facts, Pair, is_signed_by};

/// The authority as stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Authority {
    /// Signs every new certificate.
    pub current: Pair,
    /// The authority before it; trusted until it expires.
    pub previous: Option<Previous>,
}

/// An authority that a newer one follows.
#[derive(Clone, PartialEq, Eq)]
pub struct Previous {
    /// Its certificate, PEM.
    pub certificate: String,
    /// Its key, where it goes on signing until shortly before its end.
    pub key: Option<String>,
}

impl std::fmt::Debug for Previous {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Previous")
            .field("certificate", &self.certificate)
            .field("signs", &self.key.is_some())
            .finish()
    }
}

impl Authority {
    /// Who signs at `now`: the previous authority while its key is kept and it outlives what it
    /// signs, else the current one.
    #[must_use]
    pub fn signer(&self, now: Timestamp, validity: SignedDuration) -> Pair {
        let previous = self.previous.as_ref().and_then(|previous| {
            let ends = Facts::read(&previous.certificate).ok()?.not_after;
            let pair = Pair {
                certificate: previous.certificate.clone(),
                key: previous.key.clone()?,
            };
            (now + validity < ends && pair.fits()).then_some(pair)
        });
        previous.unwrap_or_else(|| self.current.clone())
    }
}

/// The serving certificate as stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Serving {
    /// What the webhook serves.
    pub pair: Pair,
    /// The bundle stored beside it (`ca.crt`).
    pub bundle: String,
}

/// Why a certificate must be made anew.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Due {
    /// There is none.
    Missing,
    /// It cannot be read, or its key is another's.
    Unusable,
    /// It lacks a name: for one, it was made for another domain of the cluster.
    OtherNames,
    /// It is not valid now.
    NotValid,
    /// Another authority signed it.
    OtherAuthority,
    /// Two thirds of its life are over; it still works.
    Renewal,
}

impl Due {
    /// Whether the certificate in place does not work, so that there is nothing to wait for.
    #[must_use]
    pub fn is_broken(self) -> bool {
        matches!(self, Self::Missing | Self::Unusable | Self::NotValid)
    }

    /// Words for the log.
    #[must_use]
    pub fn reason(self) -> &'static str {
        match self {
            Self::Missing => "there is none",
            Self::Unusable => "the stored one cannot be used",
            Self::OtherNames => "the stored one is for other names",
            Self::NotValid => "the stored one is not valid at this time",
            Self::OtherAuthority => "another authority signed the stored one",
            Self::Renewal => "two thirds of its life are over",
        }
    }
}

/// Whether a new authority is due.
#[must_use]
pub fn due_authority(stored: Option<&Authority>, now: Timestamp) -> Option<Due> {
    let Some(stored) = stored else {
        return Some(Due::Missing);
    };
    match Facts::read(&stored.current.certificate) {
        Ok(facts) if facts.is_authority && stored.current.fits() => due_by_time(&facts, now),
        _ => Some(Due::Unusable),
    }
}

/// Whether an authority can sign at `now`.
#[must_use]
pub(super) fn is_usable(authority: &Authority, now: Timestamp) -> bool {
    due_authority(Some(authority), now).is_none_or(|due| !due.is_broken())
}

/// Whether a new serving certificate is due, given the authority of which `signer` must have signed
/// it.
#[must_use]
pub fn due_serving(
    stored: Option<&Serving>,
    (authority, signer): (&Authority, &Pair),
    names: &[String],
    now: Timestamp,
) -> Option<Due> {
    let Some(Serving { pair, .. }) = stored else {
        return Some(Due::Missing);
    };
    let Ok(facts) = Facts::read(&pair.certificate) else {
        return Some(Due::Unusable);
    };
    if !pair.fits() {
        return Some(Due::Unusable);
    }
    let by_time = due_by_time(&facts, now);
    if by_time == Some(Due::NotValid) {
        return by_time;
    }
    if is_signed_by(&pair.certificate, &signer.certificate) {
        let lacks = names.iter().any(|name| !facts.names.contains(name));
        return if lacks {
            Some(Due::OtherNames)
        } else {
            by_time
        };
    }
    let previous = authority.previous.as_ref();
    let known = [&authority.current.certificate]
        .into_iter()
        .chain(previous.map(|previous| &previous.certificate))
        .any(|known| is_signed_by(&pair.certificate, known));
    // One that no trusted authority signed fails every call already.
    Some(if known {
        Due::OtherAuthority
    } else {
        Due::Unusable
    })
}

/// The certificates that clients must trust: the current authority's and, until it expires, the
/// previous one's. PEM.
#[must_use]
pub fn bundle(authority: &Authority, now: Timestamp) -> String {
    let mut text = authority.current.certificate.clone();
    if let Some(previous) = live_previous(authority, now) {
        text.push_str(previous);
    }
    text
}

/// The authority to store when a new one takes the place of `stored`, which goes on signing where
/// `keeps_signing`.
pub(super) fn succeed(
    stored: Option<Authority>,
    new: Pair,
    keeps_signing: bool,
    now: Timestamp,
) -> Authority {
    let valid = |pair: &Pair| Facts::read(&pair.certificate).is_ok_and(|facts| facts.is_valid(now));
    let previous = stored.map(|stored| stored.current).filter(valid);
    Authority {
        current: new,
        previous: previous.map(|pair| Previous {
            key: (keeps_signing && pair.fits()).then_some(pair.key),
            certificate: pair.certificate,
        }),
    }
}

/// The next moment at which anything becomes due.
pub(super) fn next_deadline(
    authority: &Authority,
    serving: Option<&Serving>,
    now: Timestamp,
) -> Option<Timestamp> {
    let current = Facts::read(&authority.current.certificate).map(|facts| facts.renew_at());
    let served =
        serving.map(|serving| Facts::read(&serving.pair.certificate).map(|facts| facts.renew_at()));
    let previous = live_previous(authority, now)
        .map(|certificate| Facts::read(certificate).map(|facts| facts.not_after));
    [Some(current), served, previous]
        .into_iter()
        .flatten()
        .filter_map(Result::ok)
        .min()
}

fn live_previous(authority: &Authority, now: Timestamp) -> Option<&str> {
    let previous = &authority.previous.as_ref()?.certificate;
    let facts = Facts::read(previous).ok()?;
    (now < facts.not_after).then_some(previous)
}

fn due_by_time(facts: &Facts, now: Timestamp) -> Option<Due> {
    if !facts.is_valid(now) {
        Some(Due::NotValid)
    } else if facts.renew_at() <= now {
        Some(Due::Renewal)
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: SignedDuration = SignedDuration::from_hours(24);

    fn start() -> Timestamp {
        "2026-11-01T00:00:00Z".parse().unwrap()
    }

    fn authority(at: Timestamp) -> Authority {
        Authority {
            current: Pair::authority("webhook", at, DAY * 300).unwrap(),
            previous: None,
        }
    }

    fn by_current(authority: &Authority) -> (&Authority, &Pair) {
        (authority, &authority.current)
    }

    fn names() -> Vec<String> {
        vec!["weir-webhook.kuma-system.svc".to_owned()]
    }

    fn serving(authority: &Authority, at: Timestamp) -> Serving {
        Serving {
            pair: authority
                .current
                .sign_serving(&names(), at, DAY * 90)
                .unwrap(),
            bundle: bundle(authority, at),
        }
    }

    #[test]
    fn an_authority_is_kept_until_two_thirds_of_its_life() {
        let stored = authority(start());
        assert_eq!(due_authority(None, start()), Some(Due::Missing));
        assert_eq!(due_authority(Some(&stored), start()), None);
        assert_eq!(due_authority(Some(&stored), start() + DAY * 199), None);
        assert_eq!(
            due_authority(Some(&stored), start() + DAY * 201),
            Some(Due::Renewal)
        );
        assert_eq!(
            due_authority(Some(&stored), start() + DAY * 301),
            Some(Due::NotValid)
        );
    }

    #[test]
    fn an_authority_with_a_foreign_key_or_no_right_to_sign_is_unusable() {
        let mut stored = authority(start());
        let leaf = serving(&stored, start()).pair;
        stored.current.key = authority(start()).current.key;
        assert_eq!(due_authority(Some(&stored), start()), Some(Due::Unusable));
        stored.current = leaf;
        assert_eq!(due_authority(Some(&stored), start()), Some(Due::Unusable));
        stored.current.certificate = "nonsense".to_owned();
        assert_eq!(due_authority(Some(&stored), start()), Some(Due::Unusable));
    }

    #[test]
    fn a_rotation_trusts_both_authorities_until_the_old_one_expires() {
        let old = authority(start());
        let served = serving(&old, start() + DAY * 180);
        let now = start() + DAY * 201;
        let new = succeed(
            Some(old.clone()),
            Pair::authority("webhook", now, DAY * 300).unwrap(),
            false,
            now,
        );
        let both = bundle(&new, now);
        assert!(both.contains(&new.current.certificate));
        assert!(both.contains(&old.current.certificate));
        // The certificate of the old authority still works, so the new one can wait its turn.
        let due = due_serving(Some(&served), (&new, &new.current), &names(), now);
        assert_eq!(due, Some(Due::OtherAuthority));
        assert!(!due.unwrap().is_broken());
        let later = start() + DAY * 300;
        assert!(!bundle(&new, later).contains(&old.current.certificate));
    }

    #[test]
    fn an_authority_that_pods_carry_signs_until_shortly_before_its_end() {
        let old = authority(start());
        let now = start() + DAY * 201;
        let next = Pair::authority("operator", now, DAY * 300).unwrap();
        let new = succeed(Some(old.clone()), next, true, now);
        assert_eq!(new.signer(now, DAY * 90), old.current);
        assert!(bundle(&new, now).contains(&new.current.certificate));
        let served = serving(&old, now);
        let signer = new.signer(now, DAY * 90);
        assert_eq!(
            due_serving(Some(&served), (&new, &signer), &names(), now),
            None
        );
        let late = start() + DAY * 210;
        assert_eq!(new.signer(late, DAY * 90), new.current);
        let due = due_serving(Some(&served), (&new, &new.current), &names(), late);
        assert_eq!(due, Some(Due::OtherAuthority));
        let debug = format!("{new:?}");
        assert!(!debug.contains("PRIVATE KEY"), "{debug}");
    }

    #[test]
    fn an_expired_authority_leaves_no_trust_behind() {
        let now = start() + DAY * 400;
        let new = succeed(
            Some(authority(start())),
            Pair::authority("webhook", now, DAY).unwrap(),
            false,
            now,
        );
        assert_eq!(new.previous, None);
    }

    #[test]
    fn a_serving_certificate_is_due_for_each_reason() {
        let signer = authority(start());
        let stored = serving(&signer, start());
        let due =
            |stored: &Serving, now| due_serving(Some(stored), by_current(&signer), &names(), now);
        assert_eq!(
            due_serving(None, by_current(&signer), &names(), start()),
            Some(Due::Missing)
        );
        assert_eq!(due(&stored, start() + DAY * 59), None);
        assert_eq!(due(&stored, start() + DAY * 61), Some(Due::Renewal));
        assert_eq!(due(&stored, start() + DAY * 91), Some(Due::NotValid));
        let more = vec!["other.svc".to_owned()];
        for (days, why) in [
            (0, Due::OtherNames),
            (61, Due::OtherNames),
            (91, Due::NotValid),
        ] {
            let now = start() + DAY * days;
            let due = due_serving(Some(&stored), by_current(&signer), &more, now);
            assert_eq!(due, Some(why), "{days}");
        }
        // Whoever asks for the names that it has is served, so clients learn of a new authority first.
        assert!(!Due::OtherNames.is_broken());
        let stranger = authority(start());
        assert_eq!(
            due_serving(Some(&stored), by_current(&stranger), &names(), start()),
            Some(Due::Unusable)
        );
    }

    #[test]
    fn the_next_deadline_is_the_earliest() {
        let signer = authority(start());
        let stored = serving(&signer, start());
        let facts = Facts::read(&stored.pair.certificate).unwrap();
        assert_eq!(
            next_deadline(&signer, Some(&stored), start()),
            Some(facts.renew_at())
        );
    }
}
