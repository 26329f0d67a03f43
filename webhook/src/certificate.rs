//! The certificate that the webhook serves: read from PEM, and checked as the API server will check it.
//! Used by `cluster` (from the Secret), `server` (handshakes) and `ready`. It knows no Kubernetes object.

use std::sync::Arc;

use jiff::Timestamp;
use rustls::{
    RootCertStore,
    client::{WebPkiServerVerifier, danger::ServerCertVerifier},
    crypto::CryptoProvider,
    pki_types::{
        CertificateDer, InvalidDnsNameError, PrivateKeyDer, ServerName, UnixTime,
        pem::{self, PemObject},
    },
    server::VerifierBuilderError,
    sign::CertifiedKey,
};
use thiserror::Error;
use x509_parser::prelude::{FromDer, X509Certificate};

/// Why a certificate, or the trust in it, is not usable. Each text names the part at fault.
#[derive(Debug, Error)]
pub enum CertificateError {
    /// `tls.crt` holds no certificate that can be read.
    #[error("tls.crt: {0}")]
    Chain(pem::Error),
    /// `tls.key` holds no private key that can be read.
    #[error("tls.key: {0}")]
    Key(pem::Error),
    /// The key is of an unknown kind or does not belong to the certificate.
    #[error("tls.crt and tls.key: {0}")]
    Pair(#[source] rustls::Error),
    /// The first certificate is not X.509.
    #[error("tls.crt: the first certificate cannot be read")]
    Leaf,
    /// The caBundle holds no certificate that can be read.
    #[error("caBundle: {0}")]
    Bundle(String),
    /// The Service's name is no DNS name.
    #[error("service name: {0}")]
    Name(#[from] InvalidDnsNameError),
    /// The bundle does not verify the certificate for that name at that time.
    #[error("caBundle does not verify the certificate being served: {0}")]
    Untrusted(#[source] rustls::Error),
}

/// A certificate with its key, ready to be served.
#[derive(Debug)]
pub struct Serving {
    /// For the TLS handshake.
    pub key: Arc<CertifiedKey>,
    /// End of the leaf's validity, in seconds since 1970.
    pub expires: i64,
}

impl Serving {
    /// Reads a PEM chain, leaf first, and its PEM key.
    pub fn parse(
        chain: &[u8],
        key: &[u8],
        provider: &CryptoProvider,
    ) -> Result<Self, CertificateError> {
        let chain = CertificateDer::pem_slice_iter(chain)
            .collect::<Result<Vec<_>, _>>()
            .map_err(CertificateError::Chain)?;
        let leaf = chain
            .first()
            .ok_or(CertificateError::Chain(pem::Error::NoItemsFound))?;
        let (_, parsed) = X509Certificate::from_der(leaf).map_err(|_| CertificateError::Leaf)?;
        let expires = parsed.validity().not_after.timestamp();
        let key = PrivateKeyDer::from_pem_slice(key).map_err(CertificateError::Key)?;
        let key = CertifiedKey::from_der(chain, key, provider).map_err(CertificateError::Pair)?;
        Ok(Self {
            key: Arc::new(key),
            expires,
        })
    }

    /// A certificate that nobody trusts, so that `/live` answers before the operator has made the real one.
    pub fn placeholder(provider: &CryptoProvider) -> Self {
        let made = rcgen::generate_simple_self_signed(["weir-webhook.invalid".to_owned()])
            .expect("a fresh key signs a certificate for a valid name");
        let pem = made.cert.pem();
        let key = made.signing_key.serialize_pem();
        Self::parse(pem.as_bytes(), key.as_bytes(), provider)
            .expect("rcgen writes what rustls reads")
    }

    /// Whether a client that trusts the PEM `bundle` takes this certificate for `name` at `now`.
    pub fn verify(
        &self,
        bundle: &[u8],
        name: &str,
        now: Timestamp,
    ) -> Result<(), CertificateError> {
        let mut roots = RootCertStore::empty();
        for root in CertificateDer::pem_slice_iter(bundle) {
            let root = root.map_err(|e| CertificateError::Bundle(e.to_string()))?;
            roots
                .add(root)
                .map_err(|e| CertificateError::Bundle(e.to_string()))?;
        }
        if roots.is_empty() {
            return Err(CertificateError::Bundle("it is empty".to_owned()));
        }
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider)
            .build()
            .map_err(|e: VerifierBuilderError| CertificateError::Bundle(e.to_string()))?;
        let name = ServerName::try_from(name.to_owned())?;
        let seconds = u64::try_from(now.as_second()).unwrap_or_default();
        let now = UnixTime::since_unix_epoch(std::time::Duration::from_secs(seconds));
        let (leaf, intermediates) = self.key.cert.split_first().expect("parse has seen a leaf");
        verifier
            .verify_server_cert(leaf, intermediates, &name, &[], now)
            .map_err(CertificateError::Untrusted)?;
        Ok(())
    }
}
