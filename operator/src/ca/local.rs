//! The serving certificate of an operator without Kubernetes: signed by an authority in its state directory, or given in
//! two files that somebody else keeps. Made and run by `app`; `serve` serves the newest. It knows no Mesh and no cluster.

use std::path::PathBuf;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::material::{CertificateError, Facts, Pair};
use crate::metrics::{Certificate, Metrics};
use crate::state::{StateDir, StateError};

/// The authority in the state directory, PEM: what proxies are given to verify the operator.
pub const AUTHORITY: &str = "operator-ca.pem";
/// Its key.
const AUTHORITY_KEY: &str = "operator-ca-key.pem";
/// How long that authority is valid: 10 years.
const AUTHORITY_LIFE: SignedDuration = SignedDuration::from_hours(24 * 3650);
/// How often files that somebody else keeps are looked at, and whether a certificate is due.
pub(crate) const LOOK: Duration = Duration::from_secs(10);
/// Longest file that is read, in bytes.
const FILE_SIZE: u64 = 1024 * 1024;

/// Where the certificate comes from.
#[derive(Clone, Debug)]
pub enum Source {
    /// Signed here, for these DNS names and IP addresses, and valid for so long.
    Own {
        /// The names by which proxies reach the operator.
        names: Vec<String>,
        /// How long it is valid; it is replaced after two thirds of that.
        validity: SignedDuration,
    },
    /// Two files, PEM.
    Files {
        /// The certificate, and what it is signed by after it.
        certificate: PathBuf,
        /// Its key.
        key: PathBuf,
    },
}

/// Why there is no certificate to serve.
#[derive(Debug, thiserror::Error)]
pub enum LocalError {
    /// The state directory failed.
    #[error(transparent)]
    State(#[from] StateError),
    /// The authority cannot sign any more, or never could.
    #[error(
        "--state-dir: {AUTHORITY} and {AUTHORITY_KEY} are no authority: {0}; remove both, and give proxies the new one"
    )]
    Authority(String),
    /// It could not be made.
    #[error("--serving-name: {0}")]
    Make(#[from] CertificateError),
    /// A file cannot be read.
    #[error("{flag}: {path}: {error}")]
    Read {
        /// The setting that names it.
        flag: &'static str,
        /// The file.
        path: PathBuf,
        /// Why.
        error: std::io::Error,
    },
    /// The files do not belong together.
    #[error(
        "--tls-cert-file and --tls-key-file: the key is not the certificate's, or one of them is not PEM"
    )]
    Mismatch,
}

/// Keeps the serving certificate.
pub struct Local {
    source: Source,
    authority: Option<Pair>,
    metrics: Metrics,
    serving: watch::Sender<Option<Pair>>,
}

impl Local {
    /// With a first certificate, so that what is wrong is told before anything is served.
    ///
    /// # Errors
    /// When there is none.
    pub fn open(source: Source, state: &StateDir, metrics: Metrics) -> Result<Self, LocalError> {
        let authority = match &source {
            Source::Own { .. } => Some(authority(state)?),
            Source::Files { .. } => None,
        };
        let mut local = Self {
            source,
            authority,
            metrics,
            serving: watch::Sender::new(None),
        };
        local.renew(Timestamp::now())?;
        Ok(local)
    }

    /// The certificate to serve.
    #[must_use]
    pub fn serving(&self) -> watch::Receiver<Option<Pair>> {
        self.serving.subscribe()
    }

    /// Keeps it until `stop`; what cannot be used changes nothing.
    pub async fn run(mut self, stop: CancellationToken) {
        let mut is_told = false;
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(LOOK) => {}
            }
            match self.renew(Timestamp::now()) {
                Ok(()) => is_told = false,
                Err(error) if !std::mem::replace(&mut is_told, true) => {
                    tracing::error!(%error, "the serving certificate of before stands; looked at again");
                }
                Err(_) => {}
            }
        }
    }

    /// Serves another certificate where one is due.
    fn renew(&mut self, now: Timestamp) -> Result<(), LocalError> {
        let current = self.serving.borrow().clone();
        let pair = match (&self.source, &self.authority) {
            (Source::Own { names, validity }, Some(authority)) => {
                let is_good = |pair: &Pair| {
                    Facts::read(&pair.certificate).is_ok_and(|facts| facts.renew_at() > now)
                };
                match current.as_ref().filter(|pair| is_good(pair)) {
                    Some(pair) => pair.clone(),
                    None => authority.sign_serving(names, now, *validity)?,
                }
            }
            (Source::Files { certificate, key }, _) => Pair {
                certificate: read("--tls-cert-file", certificate)?,
                key: read("--tls-key-file", key)?,
            },
            (Source::Own { .. }, None) => unreachable!("`open` has read the authority"),
        };
        if current.as_ref() == Some(&pair) {
            return Ok(());
        }
        if !pair.fits() {
            return Err(LocalError::Mismatch);
        }
        if let Ok(facts) = Facts::read(&pair.certificate) {
            self.metrics
                .set_expiry(Certificate::Operator, facts.not_after);
        }
        tracing::info!("a new serving certificate is in force");
        self.serving.send_replace(Some(pair));
        Ok(())
    }
}

/// The authority in the state directory, made where there is none. The key is kept before the certificate, so what is
/// interrupted goes on from what is there.
fn authority(state: &StateDir) -> Result<Pair, LocalError> {
    let now = Timestamp::now();
    let made = Pair::authority("operator", now, AUTHORITY_LIFE)?;
    let key = state.read_or_make(AUTHORITY_KEY, || Ok::<_, LocalError>(made.key.clone()))?;
    let certificate = state.read_or_make(AUTHORITY, || {
        let of_key = Pair::authority_of(&key, "operator", now, AUTHORITY_LIFE);
        of_key.map_err(|error| LocalError::Authority(error.to_string()))
    })?;
    let pair = Pair { certificate, key };
    let wrong = |why: &str| Err(LocalError::Authority(why.to_owned()));
    match Facts::read(&pair.certificate) {
        Err(error) => wrong(&error.to_string()),
        Ok(facts) if !facts.is_authority => wrong("the certificate may not sign"),
        Ok(facts) if !facts.is_valid(now) => wrong("the certificate is not valid at this time"),
        Ok(_) if !pair.fits() => wrong("the key is not the certificate's"),
        Ok(_) => Ok(pair),
    }
}

fn read(flag: &'static str, path: &PathBuf) -> Result<String, LocalError> {
    let text = || -> std::io::Result<String> {
        let file = std::io::Read::take(std::fs::File::open(path)?, FILE_SIZE);
        std::io::read_to_string(file)
    };
    text().map_err(|error| LocalError::Read {
        flag,
        path: path.clone(),
        error,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ca::material::is_signed_by;
    use crate::folder::Folder;

    const DAY: SignedDuration = SignedDuration::from_hours(24);

    fn own() -> Source {
        Source::Own {
            names: vec!["localhost".to_owned(), "127.0.0.1".to_owned()],
            validity: DAY * 90,
        }
    }

    fn open(folder: &Folder, source: Source) -> Result<Local, LocalError> {
        let state = StateDir::open(folder.path()).unwrap();
        Local::open(source, &state, Metrics::default())
    }

    #[test]
    fn the_authority_stays_and_a_certificate_is_renewed_in_time() {
        let folder = Folder::new("local");
        let mut local = open(&folder, own()).unwrap();
        let authority = std::fs::read_to_string(folder.path().join(AUTHORITY)).unwrap();
        let first = local.serving().borrow().clone().unwrap();
        assert!(is_signed_by(&first.certificate, &authority));
        let facts = Facts::read(&first.certificate).unwrap();
        assert_eq!(facts.names, ["localhost"]);
        local.renew(Timestamp::now() + DAY * 59).unwrap();
        assert_eq!(local.serving().borrow().as_ref(), Some(&first));
        local.renew(Timestamp::now() + DAY * 61).unwrap();
        let second = local.serving().borrow().clone().unwrap();
        assert!(second != first && is_signed_by(&second.certificate, &authority));
        let again = open(&folder, own()).unwrap().serving().borrow().clone();
        assert!(is_signed_by(&again.unwrap().certificate, &authority));
    }

    #[test]
    fn an_authority_that_is_half_made_is_completed() {
        let folder = Folder::new("half");
        drop(open(&folder, own()).unwrap());
        std::fs::remove_file(folder.path().join(AUTHORITY)).unwrap();
        drop(open(&folder, own()).unwrap());
        folder.write(AUTHORITY, "rubbish");
        let error = open(&folder, own()).err().unwrap().to_string();
        assert!(
            error.contains(AUTHORITY) && error.contains("remove both"),
            "{error}"
        );
    }

    #[test]
    fn given_files_are_read_again_and_what_does_not_hold_changes_nothing() {
        let folder = Folder::new("given");
        let now = Timestamp::now();
        let authority = Pair::authority("test", now, DAY * 10).unwrap();
        let names = ["operator.example".to_owned()];
        let pair = || authority.sign_serving(&names, now, DAY).unwrap();
        let put = |pair: &Pair| {
            folder.write("cert", &pair.certificate);
            folder.write("key", &pair.key);
        };
        let source = Source::Files {
            certificate: folder.path().join("cert"),
            key: folder.path().join("key"),
        };
        let error = open(&folder, source.clone()).err().unwrap().to_string();
        assert!(error.starts_with("--tls-cert-file: "), "{error}");
        let (first, second) = (pair(), pair());
        put(&first);
        let mut local = open(&folder, source).unwrap();
        folder.write("cert", &second.certificate);
        assert!(matches!(local.renew(now), Err(LocalError::Mismatch)));
        assert_eq!(local.serving().borrow().as_ref(), Some(&first));
        put(&second);
        local.renew(now).unwrap();
        assert_eq!(local.serving().borrow().as_ref(), Some(&second));
    }
}
