//! Runs the passes over the authorities: look at the Meshes and what is stored, make what is missing,
//! remember who is trusted, publish. Spawned by `app`. Only the leader writes; every replica publishes
//! what is stored, and none signs with a root that is not remembered. It knows no caller.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use kube::Client;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use weir_crds::Violation;
use weir_crds::authority::{self, RootSource};

use super::given::Given;
use super::names::{certificate_secret, key_secret};
use super::resolve::{self, Found, Make, Stored};
use super::root::{self, Root};
use super::secrets::{SecretSet, SecretView};
use super::seen::{Seen, Trusts, advance, next_deadline, signer};
use super::store::{Cluster, Files, Kept, Store, StoreError};
use super::trust::Trust;
use super::{Authorities, Authority, NotReady, View};
use crate::backoff::Backoff;
use crate::ca::Pair;
use crate::index::{MeshSet, MeshView};
use crate::metrics::{Controller, Metrics, Outcome};

/// A pass is made at least this often, whatever the watches say.
const RECHECK: Duration = Duration::from_mins(1);

/// Where the authorities are kept.
#[derive(Clone, Debug)]
pub struct Config {
    /// Namespace of the Secrets and of the ConfigMap.
    pub namespace: String,
}

/// What a pass looks at, as watches show it.
#[derive(Clone, Debug)]
pub struct Sources {
    /// The Meshes.
    pub meshes: watch::Receiver<MeshView>,
    /// The Secrets of Meshes.
    pub secrets: watch::Receiver<SecretView>,
    /// Moves whenever the ConfigMap did.
    pub trust: watch::Receiver<u64>,
}

/// Keeps the authorities of one installation.
pub struct Keeper {
    store: Store,
    metrics: Metrics,
    /// The root of each Mesh and what it was read from.
    known: BTreeMap<String, (Pair, Arc<Root>)>,
    /// The files that Meshes name, where files are read.
    given: Option<Given>,
    view: watch::Sender<View>,
}

impl Keeper {
    /// A keeper that has not seen anything yet.
    #[must_use]
    pub fn new(client: Client, config: &Config, metrics: Metrics) -> Self {
        Self::on(
            Store::Cluster(Box::new(Cluster::new(client, &config.namespace))),
            metrics,
        )
    }

    /// A keeper outside Kubernetes; it looks at files that Meshes name every `look`.
    #[must_use]
    pub fn on_files(files: Files, look: Duration, metrics: Metrics) -> Self {
        Self {
            given: Some(Given::new(look)),
            ..Self::on(Store::Files(files), metrics)
        }
    }

    fn on(store: Store, metrics: Metrics) -> Self {
        Self {
            store,
            metrics,
            known: BTreeMap::new(),
            given: None,
            view: watch::Sender::new(None),
        }
    }

    /// The authorities now and at every change.
    #[must_use]
    pub fn view(&self) -> watch::Receiver<View> {
        self.view.subscribe()
    }

    /// Runs until `stop`; `leading` says whether this replica may write.
    pub async fn run(
        mut self,
        mut sources: Sources,
        mut leading: watch::Receiver<bool>,
        stop: CancellationToken,
    ) {
        let mut backoff = Backoff::default();
        loop {
            sources.trust.borrow_and_update();
            let meshes = sources.meshes.borrow_and_update().clone();
            let secrets = sources.secrets.borrow_and_update().clone();
            let may_write = *leading.borrow_and_update();
            let mut pause = RECHECK;
            if let (Some(meshes), Some(secrets)) = (meshes, secrets) {
                let now = Timestamp::now();
                match self.pass((&meshes, &secrets), now, may_write).await {
                    Ok(next) => {
                        backoff.reset();
                        pause = until(next, now);
                    }
                    Err(error) => {
                        pause = backoff.next_pause();
                        tracing::warn!(%error, ?pause, "authorities of Meshes are not in order, trying again");
                    }
                }
            }
            let look = self.given.as_ref().and_then(Given::pause);
            let pause = look.map_or(pause, |look| look.min(pause));
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(pause) => {}
                Ok(()) = sources.meshes.changed() => {}
                Ok(()) = sources.secrets.changed() => {}
                Ok(()) = sources.trust.changed() => {}
                Ok(()) = leading.changed() => {}
            }
        }
    }

    /// One pass at the time `now`. Returns when the next thing becomes due.
    ///
    /// # Errors
    /// When a request failed; what was found is published all the same, and the next pass goes on.
    pub async fn pass(
        &mut self,
        (meshes, secrets): (&MeshSet, &SecretSet),
        now: Timestamp,
        may_write: bool,
    ) -> Result<Option<Timestamp>, StoreError> {
        let result = self.look_and_write((meshes, secrets), now, may_write).await;
        let outcome = match &result {
            Ok((_, true)) => Outcome::Changed,
            Ok((_, false)) => Outcome::Unchanged,
            Err(error) => Outcome::from_class(error.class()),
        };
        self.metrics
            .count_reconcile(Controller::Authorities, outcome);
        result.map(|(next, _)| next)
    }

    async fn look_and_write(
        &mut self,
        (meshes, secrets): (&MeshSet, &SecretSet),
        now: Timestamp,
        may_write: bool,
    ) -> Result<(Option<Timestamp>, bool), StoreError> {
        let stored = self.store.read_trust().await?;
        let before = parse(&stored);
        self.read_given(meshes).await;
        let mut seen = self.look(meshes, secrets, now);
        if !may_write {
            self.publish(&seen, &before, now);
            return Ok((next_deadline(&seen, &before), false));
        }
        let made = self.make(&mut seen, secrets, now).await;
        let after = advance(&before, &seen, now);
        let mut wrote = false;
        if after != before {
            let trusts = after
                .iter()
                .map(|(mesh, trust)| (mesh.clone(), trust.to_json()))
                .collect();
            let written = self.store.write_trust(Kept { trusts, ..stored }).await;
            if let Err(error) = written {
                self.publish(&seen, &before, now);
                return Err(error);
            }
            tracing::info!("remembered who is trusted");
            wrote = true;
        }
        self.publish(&seen, &after, now);
        Ok((next_deadline(&seen, &after), made? || wrote))
    }

    /// Reads the files that Meshes name.
    async fn read_given(&mut self, meshes: &MeshSet) {
        if let Some(given) = &mut self.given {
            let meshes = meshes.iter().map(|(name, mesh)| (name.as_str(), mesh));
            let wanted = meshes.filter_map(|(name, mesh)| {
                let authority = mesh.spec.authority().ok().flatten()?;
                Some((name, authority))
            });
            given.read(&wanted.collect::<Vec<_>>()).await;
        }
    }

    fn look<'a>(
        &mut self,
        meshes: &'a MeshSet,
        secrets: &SecretSet,
        now: Timestamp,
    ) -> BTreeMap<&'a str, Seen<'a>> {
        self.known.retain(|mesh, _| meshes.contains_key(mesh));
        let mut seen = BTreeMap::new();
        for (name, mesh) in meshes {
            let wanted = mesh.spec.authority();
            let found = match &wanted {
                Err(violation) => Err(violation.clone()),
                Ok(None) => Ok(None),
                Ok(Some(authority)) => Ok(Some(self.find((name, authority), secrets, now))),
            };
            let wanted = wanted.ok().flatten();
            seen.insert(
                name.as_str(),
                Seen {
                    mesh,
                    wanted,
                    found,
                },
            );
        }
        seen
    }

    fn find(
        &mut self,
        (mesh, authority): (&str, &authority::Authority),
        secrets: &SecretSet,
        now: Timestamp,
    ) -> Found {
        let given = self.given.as_mut();
        let files = given.map(|given| given.look(mesh, authority));
        let stored = Stored {
            secrets,
            files: files.as_ref(),
        };
        let read = std::cell::RefCell::new(None);
        let known = self.known.get(mesh);
        let found = resolve::find(
            (mesh, authority),
            stored,
            |pair| {
                *read.borrow_mut() = Some(pair.clone());
                let (_, root) = known.filter(|(known, _)| known == pair)?;
                Some(root.clone())
            },
            now,
        );
        if let (Found::Usable(root, _), Some(pair)) = (&found, read.into_inner()) {
            self.known.insert(mesh.to_owned(), (pair, root.clone()));
        }
        found
    }

    /// Makes what builtin roots lack. Returns whether anything was written, or the first failure: one
    /// Mesh that cannot be helped holds up no other. A root that can never be made is unusable.
    async fn make(
        &self,
        seen: &mut BTreeMap<&str, Seen<'_>>,
        secrets: &SecretSet,
        now: Timestamp,
    ) -> Result<bool, StoreError> {
        let mut wrote = false;
        let mut failed = None;
        for (name, seen) in seen {
            let (Ok(Some(Found::Usable(_, Some(make)) | Found::Incomplete(make))), Some(authority)) =
                (&seen.found, &seen.wanted)
            else {
                continue;
            };
            let part = part(*make, (name, authority), secrets, now);
            let written = match part {
                Ok(None) => continue,
                Ok(Some((secret, value))) => {
                    let version = secrets
                        .get(&secret)
                        .and_then(|stored| stored.version.clone());
                    self.store
                        .write_secret(seen.mesh, (&secret, value), version)
                        .await
                }
                Err(error) => Err(error.into()),
            };
            match written {
                Ok(()) => {
                    tracing::info!(mesh = %name, part = ?make, "made a part of the builtin authority");
                    wrote = true;
                }
                Err(error) => {
                    if error.is_final() && matches!(seen.found, Ok(Some(Found::Incomplete(_)))) {
                        let name = format!("{}.name", authority.path);
                        let why = format!("its root cannot be kept: {error}");
                        seen.found = Ok(Some(Found::Unusable(Violation::new(name, why))));
                    }
                    failed = failed.or(Some(error));
                }
            }
        }
        failed.map_or(Ok(wrote), Err)
    }

    fn publish(&self, seen: &BTreeMap<&str, Seen<'_>>, trusts: &Trusts, now: Timestamp) {
        let nobody = Trust::default();
        let authorities: Authorities = seen
            .iter()
            .map(|(name, seen)| {
                let trust = trusts.get(*name).unwrap_or(&nobody);
                let authority = Authority {
                    bundle: trust.bundle(now).into(),
                    signer: signer(seen, trust),
                };
                ((*name).to_owned(), authority)
            })
            .collect();
        self.view.send_if_modified(|view| {
            let changed = view.as_deref() != Some(&authorities);
            if changed {
                tell(view.as_deref(), &authorities);
                *view = Some(Arc::new(authorities));
            }
            changed
        });
    }
}

/// Logs which authorities cannot be used any more, or for another reason.
fn tell(before: Option<&Authorities>, now: &Authorities) {
    let reason = |authority: &Authority| match &authority.signer {
        Err(NotReady::Unusable(violation)) => Some(violation.clone()),
        _ => None,
    };
    for (mesh, authority) in now {
        let before = before.and_then(|before| reason(before.get(mesh)?));
        if let Some(violation) = reason(authority).filter(|now| Some(now) != before.as_ref()) {
            tracing::error!(mesh, %violation, "the certificate authority of a Mesh cannot be used");
        }
    }
}

/// The Secret to write and its content.
fn part(
    make: Make,
    (mesh, authority): (&str, &authority::Authority),
    secrets: &SecretSet,
    now: Timestamp,
) -> Result<Option<(String, String)>, root::RootError> {
    let RootSource::Builtin { life } = authority.root else {
        return Ok(None);
    };
    let key = key_secret(mesh, &authority.name);
    if make == Make::Key {
        return Ok(Some((key, root::new_key()?)));
    }
    let stored = secrets.get(&key).and_then(|stored| stored.value.as_deref());
    let life = resolve::signed(life);
    let certificate = root::new_certificate(mesh, stored.unwrap_or_default(), now, life)?;
    Ok(Some((
        certificate_secret(mesh, &authority.name),
        certificate,
    )))
}

fn parse(kept: &Kept) -> Trusts {
    let trusts = kept.trusts.iter();
    trusts
        .filter_map(|(mesh, json)| {
            let trust = Trust::parse(json);
            if trust.is_none() {
                tracing::error!(mesh, "who was trusted cannot be read, and is forgotten");
            }
            Some((mesh.clone(), trust?))
        })
        .collect()
}

/// How long to sleep until `next`, within [`RECHECK`].
fn until(next: Option<Timestamp>, now: Timestamp) -> Duration {
    let left = next.map(|next| Duration::try_from(next.duration_since(now)));
    match left {
        Some(Ok(left)) if !left.is_zero() => left.min(RECHECK),
        _ => RECHECK,
    }
}

#[cfg(test)]
mod tests;
