//! The files that provided authorities are in, where the operator reads files: outside Kubernetes. Read by `reading`, looked
//! at by `keeper` in every pass, used by `resolve`. Certificate and key are two files, so what takes the place of a pair that
//! can be used must have been the same for the time between two looks.

mod reading;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use jiff::Timestamp;
use tokio::time::Instant;
use weir_crds::authority::{Authority, Data, DataSource, RootSource};

use self::reading::Reading;
use super::root::Root;
use crate::ca::Pair;

/// What the files hold that one Mesh names, or why they do not, by path.
pub(super) type Texts = BTreeMap<String, Result<String, String>>;

/// The files of one Mesh.
#[derive(Default)]
struct OfMesh {
    known: Texts,
    /// What they hold where that is something else, and since when.
    seen: Option<(Texts, Instant)>,
}

/// The files of all Meshes.
pub(super) struct Given {
    meshes: BTreeMap<String, OfMesh>,
    reading: Reading,
    /// How often they are looked at.
    look: Duration,
}

impl Given {
    pub(super) fn new(look: Duration) -> Self {
        Self {
            meshes: BTreeMap::new(),
            reading: Reading::default(),
            look,
        }
    }

    /// When they are to be looked at next; none where no Mesh names one.
    pub(super) fn pause(&self) -> Option<Duration> {
        (!self.meshes.is_empty()).then_some(self.look)
    }

    /// Begins a pass: reads the files that these Meshes name, and forgets those of all others.
    pub(super) async fn read(&mut self, authorities: &[(&str, Authority)]) {
        let named = authorities.iter().map(|(mesh, of)| (*mesh, named(of)));
        let named: BTreeMap<&str, Vec<&str>> =
            named.filter(|(_, paths)| !paths.is_empty()).collect();
        self.meshes
            .retain(|mesh, _| named.contains_key(mesh.as_str()));
        let paths: BTreeSet<&str> = named.into_values().flatten().collect();
        self.reading.read(&paths).await;
    }

    /// What is used of the files that a Mesh names.
    pub(super) fn look(&mut self, mesh: &str, authority: &Authority) -> Texts {
        let named = named(authority);
        if named.is_empty() {
            return Texts::new();
        }
        let of_mesh = self.meshes.entry(mesh.to_owned()).or_default();
        let is_known = named.iter().all(|path| of_mesh.known.contains_key(*path));
        if is_known && !named.iter().all(|path| self.reading.has(path)) {
            // Of a file that is still being read nothing can be said, nor of what belongs to it.
            return of_mesh.known.clone();
        }
        let texts = named
            .iter()
            .map(|path| ((*path).to_owned(), self.reading.of(path)));
        let texts: Texts = texts.collect();
        of_mesh.take(texts, self.look, |texts| is_usable(authority, texts));
        of_mesh.known.clone()
    }
}

impl OfMesh {
    fn take(&mut self, now: Texts, look: Duration, is_usable: impl Fn(&Texts) -> bool) {
        let since = match self.seen.take() {
            Some((seen, since)) if seen == now => since,
            _ => Instant::now(),
        };
        if now == self.known {
            return;
        }
        // Nothing is lost where nothing can be used.
        let is_other = !now.keys().eq(self.known.keys());
        if is_other || since.elapsed() >= look || !is_usable(&self.known) {
            self.known = now;
        } else {
            self.seen = Some((now, since));
        }
    }
}

/// Whether a root can be made of it; where certificate or key is elsewhere, whether the file is there.
fn is_usable(authority: &Authority, texts: &Texts) -> bool {
    let text = |source: &DataSource| match &source.data {
        Data::File(path) => texts.get(path)?.as_ref().ok().cloned(),
        Data::Secret(_) | Data::Base64(_) | Data::Text(_) => None,
    };
    match &authority.root {
        RootSource::Provided { certificate, key } => match (text(certificate), text(key)) {
            (Some(certificate), Some(key)) => {
                Root::read(&Pair { certificate, key }, Timestamp::now()).is_ok()
            }
            _ => !texts.is_empty() && texts.values().all(Result::is_ok),
        },
        RootSource::Builtin { .. } => false,
    }
}

/// The paths in an authority.
fn named(authority: &Authority) -> Vec<&str> {
    let RootSource::Provided { certificate, key } = &authority.root else {
        return Vec::new();
    };
    let paths = [certificate, key].into_iter();
    let paths = paths.filter_map(|source| match &source.data {
        Data::File(path) => Some(path.as_str()),
        Data::Secret(_) | Data::Base64(_) | Data::Text(_) => None,
    });
    paths.collect()
}

#[cfg(test)]
mod tests;
