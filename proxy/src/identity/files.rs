//! A certificate from files, for a proxy without an operator: somebody else puts a key and a chain there, and new ones
//! before they end.

use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use x509_parser::prelude::{FromDer, X509Certificate};

use super::{Certified, Certifier, CertifyError, Key, Request};

/// Reads the files whenever a certificate is due. They are small, and local.
#[derive(Clone, Debug)]
pub struct Files {
    /// The chain, leaf first, PEM.
    pub certificate: PathBuf,
    /// Its key, PKCS#8, PEM.
    pub key: PathBuf,
}

impl Files {
    fn read(&self) -> Result<Certified, CertifyError> {
        let key = Key::from_pem(&text(&self.key)?).map_err(|e| at(&self.key, &e))?;
        let pem = text(&self.certificate)?;
        let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem.as_bytes()).collect();
        let chain = chain.map_err(|e| at(&self.certificate, &e))?;
        let valid_until = chain.iter().map(|certificate| ends(certificate)).min();
        let valid_until = valid_until
            .flatten()
            .ok_or_else(|| at(&self.certificate, &"no certificate that can be read"))?;
        Ok(Certified {
            chain,
            valid_until,
            key: Some(key),
        })
    }
}

impl Certifier for Files {
    async fn certify(&self, _: Request) -> Result<Certified, CertifyError> {
        self.read()
    }
}

/// When a certificate ends.
fn ends(certificate: &[u8]) -> Option<SystemTime> {
    let (_, certificate) = X509Certificate::from_der(certificate).ok()?;
    let ends = u64::try_from(certificate.validity().not_after.timestamp()).ok()?;
    Some(SystemTime::UNIX_EPOCH + Duration::from_secs(ends))
}

fn text(path: &Path) -> Result<String, CertifyError> {
    std::fs::read_to_string(path).map_err(|e| at(path, &e))
}

fn at(path: &Path, error: &dyn std::fmt::Display) -> CertifyError {
    CertifyError(format!("{}: {error}", path.display()))
}
