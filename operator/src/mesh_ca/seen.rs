//! What a pass has seen of each Mesh, and what follows: who signs, who is trusted, when to look again. Pure.
//! `keeper` asks.

use std::collections::BTreeMap;

use jiff::Timestamp;
use weir_crds::{Mesh, Violation, authority};

use super::resolve::{self, Found};
use super::trust::Trust;
use super::{NotReady, Signer};

/// Who is trusted, by Mesh.
pub(super) type Trusts = BTreeMap<String, Trust>;

/// One Mesh, what its `mtls` asks for, and what of that there is.
pub(super) struct Seen<'a> {
    pub(super) mesh: &'a Mesh,
    pub(super) wanted: Option<authority::Authority>,
    pub(super) found: Result<Option<Found>, Violation>,
}

/// Who signs for a Mesh, given who is trusted there.
pub(super) fn signer(seen: &Seen<'_>, trust: &Trust) -> Result<Signer, NotReady> {
    let root = match &seen.found {
        Err(violation) | Ok(Some(Found::Unusable(violation))) => {
            return Err(NotReady::Unusable(violation.clone()));
        }
        Ok(None) => return Err(NotReady::Off),
        Ok(Some(Found::Incomplete(_))) => return Err(NotReady::Soon),
        Ok(Some(Found::Usable(root, _))) => root,
    };
    let life = seen
        .wanted
        .as_ref()
        .map_or(authority::LEAF_LIFE, |wanted| wanted.leaf_life);
    Ok(Signer {
        root: root.clone(),
        from: trust.signs_from(root).ok_or(NotReady::Soon)?,
        leaf_life: resolve::signed(life),
    })
}

/// Who is trusted from now on.
pub(super) fn advance(before: &Trusts, seen: &BTreeMap<&str, Seen<'_>>, now: Timestamp) -> Trusts {
    let mut after = Trusts::new();
    let gone = before
        .keys()
        .map(String::as_str)
        .filter(|mesh| !seen.contains_key(mesh));
    for mesh in gone.chain(seen.keys().copied()) {
        let trust = before.get(mesh).cloned().unwrap_or_default();
        let trust = match seen.get(mesh) {
            None => trust.advanced(None, now),
            Some(seen) => match (&seen.found, &seen.wanted) {
                (Ok(None), _) => trust.advanced(None, now),
                (Ok(Some(Found::Usable(root, _))), Some(wanted)) => {
                    trust.advanced(Some((root, resolve::signed(wanted.leaf_life))), now)
                }
                _ => trust.pruned(now),
            },
        };
        if !trust.is_empty() {
            after.insert(mesh.to_owned(), trust);
        }
    }
    after
}

/// When the next root is to be renewed, or somebody's trust ends.
pub(super) fn next_deadline(seen: &BTreeMap<&str, Seen<'_>>, trusts: &Trusts) -> Option<Timestamp> {
    let roots = seen.values().filter_map(|seen| match &seen.found {
        Ok(Some(Found::Usable(root, _))) => Some(root.renew_at()),
        _ => None,
    });
    let ends = trusts.values().filter_map(Trust::next_end);
    roots.chain(ends).min()
}
