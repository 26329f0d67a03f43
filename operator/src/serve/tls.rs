//! The TLS settings of the server, which always serve the newest certificate that can be used.
//! Built by `app` and by tests from the pairs that `ca` keeps. It knows neither Secret nor Mesh.

use std::sync::Arc;

use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, NoServerSessionStorage, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::ca::Pair;

/// Why a pair cannot be served.
#[derive(Debug, thiserror::Error)]
pub enum PairError {
    /// The certificate cannot be read.
    #[error("tls.crt: {0}")]
    Certificate(rustls::pki_types::pem::Error),
    /// The key cannot be read.
    #[error("tls.key: {0}")]
    Key(rustls::pki_types::pem::Error),
    /// The key is of an unknown kind or does not belong to the certificate.
    #[error("tls.crt and tls.key: {0}")]
    Mismatch(#[from] rustls::Error),
}

/// The certificate of the moment.
type Current = Option<Arc<CertifiedKey>>;

#[derive(Debug)]
struct Newest(watch::Receiver<Current>);

impl ResolvesServerCert for Newest {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.0.borrow().clone()
    }
}

/// Follows the pairs that are to be served.
#[derive(Debug)]
pub struct Certificates {
    pairs: watch::Receiver<Option<Pair>>,
    current: watch::Sender<Current>,
}

impl Certificates {
    /// Nothing is served before the first pair.
    #[must_use]
    pub fn new(pairs: watch::Receiver<Option<Pair>>) -> Self {
        let mut certificates = Self {
            pairs,
            current: watch::Sender::new(None),
        };
        certificates.take();
        certificates
    }

    /// TLS 1.3 for HTTP/2, with no certificate asked of the client: it has a token.
    #[must_use]
    pub fn config(&self) -> Arc<ServerConfig> {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])
            .expect("the provider has suites for TLS 1.3")
            .with_no_client_auth()
            .with_cert_resolver(Arc::new(Newest(self.current.subscribe())));
        config.alpn_protocols = vec![b"h2".to_vec()];
        // A proxy that comes back resumes; what for is in its ticket and not here, where thousands would be kept.
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 1;
        if let Ok(ticketer) = rustls::crypto::aws_lc_rs::Ticketer::new() {
            config.ticketer = ticketer;
        }
        Arc::new(config)
    }

    /// Waits until there is a certificate to serve.
    pub fn served(&self) -> impl Future<Output = ()> + Send + use<> {
        let mut current = self.current.subscribe();
        async move {
            // The sender ends only with the process; then nobody waits.
            let _ = current.wait_for(Option::is_some).await;
        }
    }

    /// Takes over every new pair until `stop`.
    pub async fn run(mut self, stop: CancellationToken) {
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                changed = self.pairs.changed() => match changed {
                    Ok(()) => self.take(),
                    // Whoever kept them has ended; the last one stands.
                    Err(_) => return stop.cancelled().await,
                },
            }
        }
    }

    fn take(&mut self) {
        let Some(pair) = self.pairs.borrow_and_update().clone() else {
            return;
        };
        match certified(&pair) {
            Ok(key) => {
                self.current.send_replace(Some(Arc::new(key)));
            }
            Err(error) => {
                tracing::error!(%error, "the new serving certificate cannot be used, the old one stands");
            }
        }
    }
}

fn certified(pair: &Pair) -> Result<CertifiedKey, PairError> {
    let chain = CertificateDer::pem_slice_iter(pair.certificate.as_bytes())
        .collect::<Result<Vec<_>, _>>()
        .map_err(PairError::Certificate)?;
    let key = PrivateKeyDer::from_pem_slice(pair.key.as_bytes()).map_err(PairError::Key)?;
    let provider = rustls::crypto::aws_lc_rs::default_provider();
    Ok(CertifiedKey::from_der(chain, key, &provider)?)
}
