//! Runs the passes over the certificates: read, decide, write, sleep until something is due or
//! something changed. Spawned by `app`. Only the leader writes; every replica reads, for the
//! expiry gauges. It knows nothing of Meshes.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use kube::Client;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::material::{Facts, Pair};
use super::plan::{self, Authority, Due, Serving};
use super::store::{Read, Store, StoreError};
use super::{Config, Publish};
use crate::backoff::Backoff;
use crate::metrics::{Controller, Metrics, Outcome};

/// A pass is made at least this often, whatever the watches say.
const RECHECK: Duration = Duration::from_mins(10);
/// How long the bundle has to be published before another authority's certificate takes the place of one that works:
/// API servers hear of it by a watch.
pub const LEAD: SignedDuration = SignedDuration::from_secs(5);

/// Keeps the certificates of one installation.
pub struct Keeper {
    store: Store,
    config: Config,
    metrics: Metrics,
    serving: watch::Sender<Option<Pair>>,
    /// The last authority that was usable: it is written back where its Secret is lost.
    last: Option<Authority>,
    /// Since when this leader knows that the bundle is published as it should be.
    published: Option<Timestamp>,
}

impl Keeper {
    /// A keeper that has not read anything yet.
    #[must_use]
    pub fn new(client: Client, config: Config, metrics: Metrics) -> Self {
        Self {
            store: Store::new(client, config.clone()),
            config,
            metrics,
            serving: watch::Sender::new(None),
            last: None,
            published: None,
        }
    }

    /// The serving certificate as it is stored, now and at every change, on every replica.
    #[must_use]
    pub fn serving(&self) -> watch::Receiver<Option<Pair>> {
        self.serving.subscribe()
    }

    /// Runs until `stop`. `changes` moves whenever a kept object did; `leading` says whether this
    /// replica may write.
    pub async fn run(
        mut self,
        mut changes: watch::Receiver<u64>,
        mut leading: watch::Receiver<bool>,
        stop: CancellationToken,
    ) {
        let mut backoff = Backoff::default();
        loop {
            changes.borrow_and_update();
            let may_write = *leading.borrow_and_update();
            let now = Timestamp::now();
            let pause = match self.pass(now, may_write).await {
                Ok(next) => {
                    backoff.reset();
                    until(next, now)
                }
                Err(error) => {
                    let pause = backoff.next_pause();
                    tracing::warn!(
                        server = self.config.server,
                        %error,
                        ?pause,
                        "certificates are not in order, trying again"
                    );
                    pause
                }
            };
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(pause) => {}
                Ok(()) = changes.changed() => {}
                Ok(()) = leading.changed() => {}
            }
        }
    }

    /// One pass at the time `now`. Returns when the next thing becomes due.
    ///
    /// # Errors
    /// When a request failed; what was done until then stands, and the next pass goes on from it.
    pub async fn pass(
        &mut self,
        now: Timestamp,
        may_write: bool,
    ) -> Result<Option<Timestamp>, StoreError> {
        let result = self.read_and_write(now, may_write).await;
        let outcome = match &result {
            Ok((_, true)) => Outcome::Changed,
            Ok((_, false)) => Outcome::Unchanged,
            Err(error) => Outcome::from_class(error.class()),
        };
        self.metrics
            .count_reconcile(Controller::Certificates, outcome);
        result.map(|(next, _)| next)
    }

    async fn read_and_write(
        &mut self,
        now: Timestamp,
        may_write: bool,
    ) -> Result<(Option<Timestamp>, bool), StoreError> {
        let authority = self.store.read_authority().await?;
        let serving = self.store.read_serving().await?;
        self.observe(authority.value.as_ref(), serving.value.as_ref());
        let usable = authority.value.clone();
        if let Some(usable) = usable.filter(|authority| plan::is_usable(authority, now)) {
            self.last = Some(usable);
        }
        if !may_write {
            self.published = None;
            return Ok((None, false));
        }
        let (authority, renewed) = self.ensure_authority(authority, now).await?;
        let bundle = plan::bundle(&authority, now);
        // Clients learn of a new authority before the server serves by it.
        let published = self.store.publish_bundle(&bundle).await;
        let signer = authority.signer(now, self.config.serving_validity);
        let due = plan::due_serving(
            serving.value.as_ref(),
            (&authority, &signer),
            &self.config.serving_names(),
            now,
        );
        let lead = self.lead(published.as_ref().ok().copied(), now);
        let wait = match due {
            Some(due) if due.is_broken() => false,
            Some(Due::OtherAuthority) => lead.is_none_or(|lead| now < lead),
            _ => published.is_err(),
        };
        let mut kept = serving.value.clone();
        let mut wrote = renewed;
        if !wait && let Some(new) = self.next_serving(&serving, &signer, (due, &bundle), now)? {
            self.store.write_serving(&new, &serving).await?;
            kept = Some(new);
            wrote = true;
        }
        self.observe(Some(&authority), kept.as_ref());
        let changed = published?;
        if changed > 0 {
            tracing::info!(
                server = self.config.server,
                objects = changed,
                "published the bundle"
            );
        }
        let next = plan::next_deadline(&authority, kept.as_ref(), now);
        let next = [next, lead.filter(|_| wait)].into_iter().flatten().min();
        Ok((next, wrote || changed > 0))
    }

    /// From when on every client knows the bundle, given how many objects were changed just now; `None` where it could not
    /// be published. Since when it is there nobody tells a leader that begins: it counts from now.
    fn lead(&mut self, changed: Option<usize>, now: Timestamp) -> Option<Timestamp> {
        let before = self.published.filter(|_| changed == Some(0));
        self.published = changed.map(|_| before.unwrap_or(now));
        self.published.map(|since| since + LEAD)
    }

    /// The authority to sign by, stored; and whether it was written just now.
    async fn ensure_authority(
        &mut self,
        read: Read<Authority>,
        now: Timestamp,
    ) -> Result<(Authority, bool), StoreError> {
        let due = plan::due_authority(read.value.as_ref(), now);
        if let (None, Some(stored)) = (due, &read.value) {
            return Ok((stored.clone(), false));
        }
        let reason = due.map_or("", Due::reason);
        let last = self.last.clone();
        let last =
            last.filter(|last| due.is_some_and(Due::is_broken) && plan::is_usable(last, now));
        let authority = match last {
            Some(last) => {
                self.store.write_authority(&last, &read).await?;
                let server = self.config.server;
                tracing::warn!(server, reason, "wrote the last authority back");
                last
            }
            None => self.make_authority(&read, reason, now).await?,
        };
        self.last = Some(authority.clone());
        Ok((authority, true))
    }

    async fn make_authority(
        &self,
        read: &Read<Authority>,
        reason: &'static str,
        now: Timestamp,
    ) -> Result<Authority, StoreError> {
        let config = &self.config;
        let server = config.server;
        let copied = self.store.copied_bundle().await?;
        let new = Pair::authority(server, now, config.authority_validity)?;
        let keeps_signing = matches!(config.publish, Publish::ConfigMap(_));
        let authority = plan::succeed(read.value.clone(), new, keeps_signing, now);
        self.store.write_authority(&authority, read).await?;
        tracing::info!(server, reason, "made a new authority");
        let signer = authority.signer(now, config.serving_validity);
        if copied.is_some_and(|bundle| !bundle.contains(&signer.certificate)) {
            tracing::error!(
                server,
                reason,
                "the authority that injected pods trust is lost: injected pods must be restarted"
            );
        }
        Ok(authority)
    }

    /// What to store as serving certificate, if not what is there.
    fn next_serving(
        &self,
        read: &Read<Serving>,
        signer: &Pair,
        (due, bundle): (Option<Due>, &str),
        now: Timestamp,
    ) -> Result<Option<Serving>, StoreError> {
        let pair = match (due, &read.value) {
            (None, Some(stored)) if stored.bundle == bundle => return Ok(None),
            (None, Some(stored)) => stored.pair.clone(),
            (due, _) => {
                let reason = due.map_or("", Due::reason);
                tracing::info!(
                    server = self.config.server,
                    reason,
                    "made a new serving certificate"
                );
                signer.sign_serving(
                    &self.config.serving_names(),
                    now,
                    self.config.serving_validity,
                )?
            }
        };
        Ok(Some(Serving {
            pair,
            bundle: bundle.to_owned(),
        }))
    }

    fn observe(&self, authority: Option<&Authority>, serving: Option<&Serving>) {
        let authority = authority.map(|stored| &stored.current.certificate);
        let serving = serving.map(|stored| &stored.pair);
        self.serving.send_if_modified(|published| {
            let changed = serving.is_some() && published.as_ref() != serving;
            if changed {
                *published = serving.cloned();
            }
            changed
        });
        let serving = serving.map(|pair| &pair.certificate);
        for (name, pem) in self.config.metrics.into_iter().zip([authority, serving]) {
            if let Some(facts) = pem.and_then(|pem| Facts::read(pem).ok()) {
                self.metrics.set_expiry(name, facts.not_after);
            }
        }
    }
}

/// How long to sleep until `next`, within [`RECHECK`].
fn until(next: Option<Timestamp>, now: Timestamp) -> Duration {
    let left = next.map(|next| next.duration_since(now));
    match left.map(Duration::try_from) {
        Some(Ok(left)) => left.min(RECHECK),
        // Already due again: something is odd with the clock, so no hurry.
        Some(Err(_)) | None => RECHECK,
    }
}
