//! The authorities of a mesh, and the judgement of a peer's chain by them: at a full handshake by rustls, of a resumed
//! session by us, because rustls does not look at its chain again.

use std::sync::Arc;

use rustls::RootCertStore;
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::ServerCertVerifier;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::ClientCertVerifier;

use super::{IdentityError, provider, split};

/// The authorities that peers' certificates are verified with.
#[derive(Debug)]
pub struct Trust {
    servers: Arc<WebPkiServerVerifier>,
    clients: Arc<dyn ClientCertVerifier>,
}

impl Trust {
    /// From a bundle of certificates, PEM.
    ///
    /// # Errors
    /// When it cannot be read, or holds none that is an authority.
    pub fn from_pem(bundle: &str) -> Result<Self, IdentityError> {
        let mut roots = RootCertStore::empty();
        let read: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(bundle.as_bytes()).collect();
        let (added, _unusable) =
            roots.add_parsable_certificates(read.map_err(IdentityError::Bundle)?);
        if added == 0 {
            return Err(IdentityError::NoAuthority);
        }
        let roots = Arc::new(roots);
        let servers =
            WebPkiServerVerifier::builder_with_provider(Arc::clone(&roots), provider()).build();
        // A peer has one certificate: to tell it which authorities there are would be for nothing.
        let clients = WebPkiClientVerifier::builder_with_provider(roots, provider())
            .clear_root_hint_subjects()
            .build();
        // Both fail for want of authorities alone.
        Ok(Self {
            servers: servers.map_err(|_| IdentityError::NoAuthority)?,
            clients: clients.map_err(|_| IdentityError::NoAuthority)?,
        })
    }

    pub(super) fn of_servers(&self) -> Arc<WebPkiServerVerifier> {
        Arc::clone(&self.servers)
    }

    pub(super) fn of_clients(&self) -> Arc<dyn ClientCertVerifier> {
        Arc::clone(&self.clients)
    }

    /// Judges the chain of a server: who signed it, its dates, and its name.
    ///
    /// # Errors
    /// What does not hold.
    pub fn judge_server(
        &self,
        chain: &[CertificateDer<'static>],
        name: &ServerName<'_>,
        now: UnixTime,
    ) -> Result<(), rustls::Error> {
        let (leaf, rest) = split(chain)?;
        self.servers
            .verify_server_cert(leaf, rest, name, &[], now)
            .map(drop)
    }

    /// Judges the chain of a client: who signed it, and its dates.
    ///
    /// # Errors
    /// What does not hold.
    pub fn judge_client(
        &self,
        chain: &[CertificateDer<'static>],
        now: UnixTime,
    ) -> Result<(), rustls::Error> {
        let (leaf, rest) = split(chain)?;
        self.clients.verify_client_cert(leaf, rest, now).map(drop)
    }
}
