//! Keeps a certificate in force: asks for the first, renews it in time, and asks for another whenever the mesh says that
//! this proxy is somebody else. What fails is tried again with back-off, and while nobody can be asked nothing is tried; a
//! certificate stays in force until it ends.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::sync::watch;
use tokio::time::{Instant, sleep_until, timeout};
use tokio_util::sync::CancellationToken;
use weir_crds::settings::{IdentitySettings, MtlsMode, Settings};

use super::{Certified, Certifier, CertifyError, Identity, IdentityError, Key, Request, Trust};
use crate::telemetry::Certificates;

/// When certificates are asked for.
#[derive(Clone, Copy, Debug)]
pub struct Config {
    /// The part of a certificate's life after which it is renewed. Default 0.7, as in Linkerd.
    pub renew_at: f64,
    /// A renewal is earlier by a random part of that time, at most this, so that the proxies of a mesh do not come all
    /// at once. Default 0.1.
    pub jitter: f64,
    /// Shortest time between two certificates. Default 1 s.
    pub shortest: Duration,
    /// After a change of the mesh's authorities or of this proxy's tags a new certificate is asked for within this
    /// time, at random. Default 3 s.
    pub spread: Duration,
    /// Longest time for an answer, once it can be asked for. Default 10 s.
    pub timeout: Duration,
    /// Pause after the first failure; each further one doubles it. Default 500 ms.
    pub retry_min: Duration,
    /// Longest pause after a failure, its random part of a half left out. Default 30 s.
    pub retry_max: Duration,
    /// While there is no certificate to be had, that is warned of this often. Default 5 minutes.
    pub remind: Duration,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            renew_at: 0.7,
            jitter: 0.1,
            shortest: Duration::from_secs(1),
            spread: Duration::from_secs(3),
            timeout: Duration::from_secs(10),
            retry_min: Duration::from_millis(500),
            retry_max: Duration::from_secs(30),
            remind: Duration::from_secs(300),
        }
    }
}

/// Why a certificate is not taken.
#[derive(Debug, thiserror::Error)]
enum RenewError {
    #[error(transparent)]
    Certify(#[from] CertifyError),
    #[error("not answered within {0:?}")]
    Timeout(Duration),
    #[error(transparent)]
    Identity(#[from] IdentityError),
    #[error("the certificate that was issued has ended already")]
    Ended,
}

/// Longest life that is believed: no timer has to run longer.
const LONGEST: Duration = Duration::from_secs(366 * 24 * 60 * 60);

/// A certificate with its key.
struct Leaf {
    key: Key,
    certified: Certified,
    /// When it ends, on the clock that timers run by.
    ends: Instant,
}

/// Who this proxy is to be, as the settings say.
struct Wanted {
    said: IdentitySettings,
    mode: MtlsMode,
    name: Arc<str>,
    trust: Arc<Trust>,
}

struct Keeper<C> {
    config: Config,
    certifier: C,
    force: watch::Sender<Option<Arc<Identity>>>,
    figures: Certificates,
    wanted: Option<Wanted>,
    leaf: Option<Leaf>,
    /// When to ask next.
    due: Instant,
    failures: u32,
    /// When a failure was last warned of, since the last certificate.
    warned: Option<Instant>,
    random: fastrand::Rng,
}

/// Keeps `force` as the settings say, until `stop`. Without a mesh TLS mode, or an identity in it, there is none.
pub async fn keep<C: Certifier>(
    (config, certifier): (Config, C),
    mut settings: watch::Receiver<Arc<Settings>>,
    (force, figures): (watch::Sender<Option<Arc<Identity>>>, Certificates),
    stop: CancellationToken,
) {
    let mut keeper = Keeper {
        config,
        certifier,
        force,
        figures,
        wanted: None,
        leaf: None,
        due: Instant::now(),
        failures: 0,
        warned: None,
        random: fastrand::Rng::new(),
    };
    loop {
        let said = Arc::clone(&settings.borrow_and_update());
        keeper.take(&said);
        tokio::select! {
            () = stop.cancelled() => return,
            // What was said last stays said.
            Ok(()) = settings.changed() => {}
            () = keeper.turn() => {}
        }
    }
}

impl<C: Certifier> Keeper<C> {
    /// Takes over what the settings say now.
    fn take(&mut self, settings: &Settings) {
        let said = settings.identity.as_ref();
        let Some(said) = said.filter(|_| settings.mtls != MtlsMode::Disabled) else {
            if self.wanted.take().is_some() {
                tracing::info!("the mesh has no mutual TLS any more");
            }
            self.leaf = None;
            return self.enforce(None);
        };
        if let Some(wanted) = self.wanted.as_mut().filter(|wanted| wanted.said == *said) {
            if std::mem::replace(&mut wanted.mode, settings.mtls) != settings.mtls {
                // The sessions of the other mode end with it; the certificate does not.
                self.reissue();
            }
            return;
        }
        let trust = match Trust::from_pem(&said.trust_bundle) {
            Ok(trust) => Arc::new(trust),
            Err(error) => return tracing::error!(%error, "the mesh's identity was not taken over"),
        };
        let is_first = self.wanted.is_none();
        self.wanted = Some(Wanted {
            name: said.name.as_str().into(),
            said: said.clone(),
            mode: settings.mtls,
            trust,
        });
        (self.failures, self.warned) = (0, None);
        self.due = Instant::now();
        if !is_first && self.reissue() {
            self.due += self.config.spread.mul_f64(self.random.f64());
        }
    }

    /// Puts the certificate that there is in force again, without sessions and under the authorities that there are now.
    /// Answers whether it still holds.
    fn reissue(&mut self) -> bool {
        let (Some(wanted), Some(leaf)) = (&self.wanted, &self.leaf) else {
            return false;
        };
        match Identity::new((&wanted.name, &leaf.key), &leaf.certified, &wanted.trust) {
            Ok(identity) => self.force.send_replace(Some(Arc::new(identity))),
            Err(error) => {
                tracing::info!(%error, "another certificate is needed");
                return false;
            }
        };
        true
    }

    fn enforce(&self, identity: Option<Arc<Identity>>) {
        self.force.send_if_modified(|now| {
            let changes = now.is_some() || identity.is_some();
            *now = identity;
            changes
        });
    }

    /// Waits until something is due, and does it. Dropped when the settings change.
    async fn turn(&mut self) {
        let Some(wanted) = &self.wanted else {
            return std::future::pending().await;
        };
        let asked = async {
            sleep_until(self.due).await;
            self.certifier.ready().await;
            renew((&self.config, &self.certifier), wanted).await
        };
        let renewed = tokio::select! {
            biased;
            renewed = asked => renewed,
            () = end_of(self.leaf.as_ref()) => {
                tracing::error!("the certificate has ended and there is no other");
                self.leaf = None;
                return self.enforce(None);
            }
        };
        let now = Instant::now();
        match renewed {
            Ok((leaf, identity)) => {
                self.figures.renewed(identity.expires);
                self.due = now + self.wait_for(leaf.ends.saturating_duration_since(now));
                tracing::info!(name = %identity.name, "a certificate is in force");
                self.leaf = Some(leaf);
                (self.failures, self.warned) = (0, None);
                self.enforce(Some(Arc::new(identity)));
            }
            Err(error) => {
                self.figures.failed();
                let pause = self.pause();
                let since = self.warned.map(|warned| now - warned);
                if since.is_none_or(|since| since >= self.config.remind) {
                    self.warned = Some(now);
                    tracing::warn!(%error, "no certificate; tried again");
                } else {
                    tracing::debug!(%error, ?pause, "no certificate; tried again");
                }
                self.failures = self.failures.saturating_add(1);
                self.due = now + pause;
            }
        }
    }

    /// How long a certificate of so long a life waits for its renewal.
    fn wait_for(&mut self, life: Duration) -> Duration {
        let part = self.config.renew_at * (1.0 - self.config.jitter * self.random.f64());
        life.mul_f64(part.clamp(0.0, 1.0)).max(self.config.shortest)
    }

    fn pause(&mut self) -> Duration {
        let factor = 1u32.checked_shl(self.failures).unwrap_or(u32::MAX);
        let pause = self.config.retry_min.saturating_mul(factor);
        let pause = pause.min(self.config.retry_max);
        pause + pause.mul_f64(0.5 * self.random.f64())
    }
}

/// Waits until a certificate ends; for ever where there is none.
async fn end_of(leaf: Option<&Leaf>) {
    match leaf {
        Some(leaf) => sleep_until(leaf.ends).await,
        None => std::future::pending().await,
    }
}

/// Asks for a certificate once, with a new key.
async fn renew<C: Certifier>(
    (config, certifier): (&Config, &C),
    wanted: &Wanted,
) -> Result<(Leaf, Identity), RenewError> {
    let key = Key::generate()?;
    let request = Request {
        name: wanted.said.name.clone(),
        csr: key.request(&wanted.name)?,
    };
    let certified = timeout(config.timeout, certifier.certify(request)).await;
    let certified = certified.map_err(|_| RenewError::Timeout(config.timeout))??;
    let identity = Identity::new((&wanted.name, &key), &certified, &wanted.trust)?;
    let left = certified.valid_until.duration_since(SystemTime::now());
    let leaf = Leaf {
        key,
        ends: Instant::now() + left.map_err(|_| RenewError::Ended)?.min(LONGEST),
        certified,
    };
    Ok((leaf, identity))
}

#[cfg(test)]
mod tests;
