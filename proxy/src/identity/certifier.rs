//! Whoever signs this proxy's certificates, as seen from here: a request goes out, a chain comes back.

use std::future::Future;
use std::time::SystemTime;

use rustls::pki_types::CertificateDer;

/// What is asked for.
#[derive(Clone, Debug)]
pub struct Request {
    /// The DNS name of the certificate.
    pub name: String,
    /// The signing request (PKCS#10), DER.
    pub csr: Vec<u8>,
}

/// A certificate.
#[derive(Debug)]
pub struct Certified {
    /// The leaf, then the authorities between it and one of the trust bundle.
    pub chain: Vec<CertificateDer<'static>>,
    /// When it ends.
    pub valid_until: SystemTime,
}

/// Why there is no certificate. What it says is logged.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct CertifyError(pub String);

/// Signs certificates. Asked from one task, one request at a time.
pub trait Certifier {
    /// Waits until it can be asked, however long that is: nothing fails meanwhile.
    fn ready(&self) -> impl Future<Output = ()> + Send;

    /// Has a request signed. Given up after `Config::timeout`.
    fn certify(
        &self,
        request: Request,
    ) -> impl Future<Output = Result<Certified, CertifyError>> + Send;
}
