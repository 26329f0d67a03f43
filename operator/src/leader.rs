//! Which replica writes: one Lease, held by renewing it. Spawned by `app`; the writers read the
//! `watch` it publishes. `election` decides, this module talks to the API server.
//! A replica that stops gives the Lease back, so the next one need not wait for it to expire.
//! Every replica asks for it all the time, so here it is known, too, whether the API server answers.

mod contact;
mod election;

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use kube::api::ObjectMeta;
use kube::{Api, Client};
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use self::contact::Contact;
use self::election::{Election, Step};
use crate::call::{CallError, within_time};
use crate::metrics::Metrics;
use crate::object::written_by_us;

/// Pause between two looks at a Lease that another replica holds, and between failed tries.
const RETRY: Duration = Duration::from_secs(1);
/// Longest wait for one answer about the Lease; two of them fit between renewal and deadline.
const ANSWER: Duration = Duration::from_secs(2);
/// How often the Lease is asked for, at the least, within [`Config::silence`].
const ASKS: u32 = 3;

/// Which Lease, and for how long.
#[derive(Clone, Debug)]
pub struct Config {
    /// Namespace of the Lease.
    pub namespace: String,
    /// Name of the Lease.
    pub lease: String,
    /// Who we are; unique among the replicas.
    pub identity: String,
    /// How long a Lease is respected after its holder fell silent. It is renewed after a third of
    /// that; after two thirds without a renewal the holder stops writing.
    pub duration: Duration,
    /// After how long without an answer of the API server what is known of the cluster counts as
    /// stale. Default 60 s.
    pub silence: Duration,
}

/// Takes part in the election.
pub struct Leader {
    leases: Api<Lease>,
    config: Config,
    election: Election,
    sender: watch::Sender<bool>,
    contact: Contact,
    metrics: Metrics,
}

impl Leader {
    /// A candidate that does not lead yet.
    #[must_use]
    pub fn new(client: Client, config: Config, metrics: Metrics) -> Self {
        metrics.set_leader(false);
        Self {
            leases: Api::namespaced(client, &config.namespace),
            election: Election::new(config.identity.clone(), config.duration),
            contact: Contact::new(config.silence),
            config,
            sender: watch::Sender::new(false),
            metrics,
        }
    }

    /// Whether this replica may write, now and at every change.
    #[must_use]
    pub fn leading(&self) -> watch::Receiver<bool> {
        self.sender.subscribe()
    }

    /// Whether the API server has answered within [`Config::silence`], now and at every change.
    #[must_use]
    pub fn contact(&self) -> watch::Receiver<bool> {
        self.contact.view()
    }

    /// Campaigns until `stop`, then gives the Lease back.
    pub async fn run(mut self, stop: CancellationToken) {
        let mut renewed = Instant::now();
        loop {
            let asked = Instant::now();
            let pause = match self.campaign().await {
                Ok(true) => {
                    renewed = asked;
                    self.publish(true);
                    (self.config.duration / 3).min(self.config.silence / ASKS)
                }
                Ok(false) => {
                    self.publish(false);
                    RETRY
                }
                Err(error) => {
                    if renewed.elapsed() >= self.config.duration * 2 / 3 {
                        self.publish(false);
                    }
                    tracing::warn!(%error, lease = %self.config.lease, "cannot hold the lease, trying again");
                    RETRY
                }
            };
            tokio::select! {
                () = stop.cancelled() => break,
                () = tokio::time::sleep(pause) => {}
            }
        }
        let led = *self.sender.borrow();
        self.publish(false);
        if led && let Err(error) = self.release().await {
            tracing::warn!(%error, "cannot give the lease back, the next leader waits until it expires");
        }
    }

    /// One look at the Lease and, where it is ours to take or to renew, one write.
    async fn campaign(&mut self) -> Result<bool, CallError> {
        let lease = within_time(ANSWER, self.leases.get_opt(&self.config.lease)).await;
        // Who can be read is there, whether or not it takes what is written.
        self.contact.asked(lease.as_ref().err());
        let lease = lease?;
        let spec = lease.as_ref().and_then(|lease| lease.spec.as_ref());
        let step = self.election.step(spec, Instant::now());
        if step == Step::Wait {
            return Ok(false);
        }
        let next = self.election.held(step, spec, MicroTime(Timestamp::now()));
        match self.write(lease, next).await {
            Ok(()) => Ok(true),
            // Another replica was faster.
            Err(error) if error.is_conflict() => Ok(false),
            Err(error) => Err(error),
        }
    }

    async fn release(&self) -> Result<(), CallError> {
        let lease = within_time(ANSWER, self.leases.get_opt(&self.config.lease)).await?;
        let Some(spec) = lease.as_ref().and_then(|lease| lease.spec.as_ref()) else {
            return Ok(());
        };
        if spec.holder_identity.as_deref() != Some(&self.config.identity) {
            return Ok(());
        }
        let next = LeaseSpec {
            holder_identity: None,
            renew_time: Some(MicroTime(Timestamp::now())),
            ..spec.clone()
        };
        self.write(lease, next).await?;
        tracing::info!(lease = %self.config.lease, "gave the lease back");
        Ok(())
    }

    /// Writes with the version that was read, so that of two writers one gets a conflict.
    async fn write(&self, read: Option<Lease>, spec: LeaseSpec) -> Result<(), CallError> {
        let params = written_by_us();
        match read {
            Some(lease) => {
                let next = Lease {
                    spec: Some(spec),
                    ..lease
                };
                within_time(
                    ANSWER,
                    self.leases.replace(&self.config.lease, &params, &next),
                )
                .await?;
            }
            None => {
                let next = Lease {
                    metadata: ObjectMeta {
                        name: Some(self.config.lease.clone()),
                        ..ObjectMeta::default()
                    },
                    spec: Some(spec),
                };
                within_time(ANSWER, self.leases.create(&params, &next)).await?;
            }
        }
        Ok(())
    }

    fn publish(&self, leads: bool) {
        self.metrics.set_leader(leads);
        let changed = self.sender.send_if_modified(|value| {
            let changed = *value != leads;
            *value = leads;
            changed
        });
        if changed {
            tracing::info!(leads, identity = %self.config.identity, "leadership changed");
        }
    }
}
