//! An identity that somebody else keeps in files: a certificate, its key and the authorities of the mesh, as a tool
//! that issues certificates leaves them on a machine. `app` runs [`follow`] for a proxy outside Kubernetes that is
//! given them; `config` reads them once, so that what is wrong is told before anything listens.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use x509_parser::prelude::{FromDer, X509Certificate};

use super::{Certified, Identity, IdentityError, Trust};
use crate::telemetry::Certificates;

/// How often the files are looked at. Certificates are replaced long before they end, so this may be slow.
pub const LOOK: Duration = Duration::from_secs(10);

/// Most that is read of a file, in bytes.
const FILE_SIZE: u64 = 1024 * 1024;

/// Where an identity lies, PEM all three.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Files {
    /// The certificate, and after it the authorities between it and one of the mesh's.
    pub cert: PathBuf,
    /// Its key: PKCS#8, PKCS#1 or SEC1.
    pub key: PathBuf,
    /// The authorities of the mesh.
    pub authority: PathBuf,
}

/// Why files are no identity.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    #[error("{path} cannot be read: {error}")]
    Read { path: PathBuf, error: io::Error },
    #[error("{path} is longer than {FILE_SIZE} bytes")]
    Long { path: PathBuf },
    #[error("{path} holds no PEM block of the kind {kind}: {error}")]
    Pem {
        path: PathBuf,
        kind: &'static str,
        error: pem::Error,
    },
    #[error("{path}: {error}")]
    Identity { path: PathBuf, error: IdentityError },
    #[error(
        "{path}: the certificate is to be for {name} (a DNS name in its subjectAltName): {error}"
    )]
    Refused {
        path: PathBuf,
        name: Arc<str>,
        error: IdentityError,
    },
}

/// The bytes of all three files.
#[derive(Clone, PartialEq, Eq)]
struct Contents([Vec<u8>; 3]);

impl Files {
    /// The identity that the files hold now. It is to be for `name`.
    ///
    /// # Errors
    /// When they cannot be read, do not belong together or have ended.
    pub fn read(&self, name: &Arc<str>) -> Result<Identity, FileError> {
        self.parse(&self.contents()?, name)
    }

    fn contents(&self) -> Result<Contents, FileError> {
        Ok(Contents([
            read(&self.cert)?,
            read(&self.key)?,
            read(&self.authority)?,
        ]))
    }

    fn parse(&self, contents: &Contents, name: &Arc<str>) -> Result<Identity, FileError> {
        let Contents([cert, key, authority]) = contents;
        let of = |path: &Path| {
            let path = path.to_owned();
            move |error| FileError::Identity { path, error }
        };
        let no_pem = |path: &Path, kind| {
            let path = path.to_owned();
            move |error| FileError::Pem { path, kind, error }
        };
        let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(cert).collect();
        let chain = chain.and_then(|chain| match chain.is_empty() {
            true => Err(pem::Error::NoItemsFound),
            false => Ok(chain),
        });
        let chain = chain.map_err(no_pem(&self.cert, "CERTIFICATE"))?;
        let key = PrivateKeyDer::from_pem_slice(key).map_err(no_pem(&self.key, "PRIVATE KEY"))?;
        let authority = String::from_utf8_lossy(authority);
        let trust = Trust::from_pem(&authority).map_err(of(&self.authority))?;
        let valid_until = end_of(&chain[0]).map_err(of(&self.cert))?;
        let certified = Certified { chain, valid_until };
        let identity = Identity::of_key((name, key), &certified, &Arc::new(trust));
        identity.map_err(|error| FileError::Refused {
            path: self.cert.clone(),
            name: Arc::clone(name),
            error,
        })
    }
}

fn read(path: &Path) -> Result<Vec<u8>, FileError> {
    let failed = |error| FileError::Read {
        path: path.to_owned(),
        error,
    };
    let file = std::fs::File::open(path).map_err(failed)?;
    let mut bytes = Vec::new();
    io::Read::read_to_end(&mut io::Read::take(file, FILE_SIZE + 1), &mut bytes).map_err(failed)?;
    if bytes.len() as u64 > FILE_SIZE {
        return Err(FileError::Long {
            path: path.to_owned(),
        });
    }
    Ok(bytes)
}

/// When a certificate ends (RFC 5280 section 4.1.2.5).
fn end_of(leaf: &CertificateDer<'_>) -> Result<SystemTime, IdentityError> {
    let unreadable = |error: &dyn std::fmt::Display| IdentityError::Certificate(error.to_string());
    let (_, certificate) = X509Certificate::from_der(leaf).map_err(|e| unreadable(&e))?;
    let seconds = certificate.validity().not_after.timestamp();
    let seconds = u64::try_from(seconds).map_err(|_| unreadable(&"it ends before 1970"))?;
    Ok(SystemTime::UNIX_EPOCH + Duration::from_secs(seconds))
}

/// Keeps `force` as the files have it, until `stop`: looks at them once in a while, and takes over what is new and
/// holds. What does not hold changes nothing, but a certificate that has ended is no identity.
pub async fn follow(
    (files, name): (Files, Arc<str>),
    look: Duration,
    (force, figures): (watch::Sender<Option<Arc<Identity>>>, Certificates),
    stop: CancellationToken,
) {
    figures.known();
    let mut taken: Option<Contents> = None;
    let mut is_told = false;
    loop {
        let now = match files.contents() {
            Ok(contents) if taken.as_ref() == Some(&contents) => Ok(None),
            Ok(contents) => files
                .parse(&contents, &name)
                .map(|identity| Some((contents, identity))),
            Err(error) => Err(error),
        };
        match now {
            Ok(None) => is_told = false,
            Ok(Some((contents, identity))) => {
                tracing::info!(name = %identity.name, "the certificate in the files is in force");
                figures.renewed(identity.expires);
                force.send_replace(Some(Arc::new(identity)));
                taken = Some(contents);
                is_told = false;
            }
            Err(error) => {
                figures.failed();
                if !std::mem::replace(&mut is_told, true) {
                    tracing::error!(%error, "the identity's files are not taken over; looked at again");
                }
            }
        }
        let ends = force.borrow().as_ref().map(|identity| identity.expires);
        let left = ends.map(|ends| ends.duration_since(SystemTime::now()).unwrap_or_default());
        if left.is_some_and(|left| left.is_zero()) {
            tracing::error!("the certificate has ended and there is no other in the files");
            force.send_replace(None);
        }
        let pause = left
            .filter(|left| !left.is_zero())
            .map_or(look, |left| left.min(look));
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(pause) => {}
        }
    }
}

#[cfg(test)]
mod tests;
