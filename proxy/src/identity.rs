//! Who this proxy is in its mesh: a key that never leaves memory, the certificate in force, and the configurations of
//! mutual TLS that are made from both. `app` runs [`keep`], which renews it, or [`follow`]; workers see a
//! `watch::Receiver<Option<Arc<Identity>>>`. It knows no socket, and not who certifies: that is given from outside.

use std::sync::Arc;
use std::time::SystemTime;

use rustls::client::Resumption;
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::version::TLS13;
use rustls::{ClientConfig, CommonState, HandshakeKind, ServerConfig};

mod certifier;
mod files;
mod key;
mod peer;
mod renew;
mod trust;

pub use certifier::{Certified, Certifier, CertifyError, Request};
pub use files::{FileError, Files, LOOK, follow};
pub use key::Key;
pub use peer::Peer;
pub use renew::{Config, keep};
pub use trust::Trust;

/// Sessions with servers that are remembered to be resumed, eight for each server: the names of 64 servers.
pub const SESSIONS: usize = 512;

/// Largest piece of data in one TLS record, in bytes: with its header, type and tag (RFC 8446 section 5.2) it fills one
/// small buffer of a worker.
pub const RECORD: usize = crate::buffer::SMALL - 22;

/// What is wrong with an identity.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    #[error("the trust bundle (`identity.trustBundle`) cannot be read: {0}")]
    Bundle(rustls::pki_types::pem::Error),
    #[error("the trust bundle (`identity.trustBundle`) holds no authority that can be used")]
    NoAuthority,
    #[error("{0:?} is no DNS name: the certificate cannot be for it")]
    Name(String),
    #[error("no key: {0}")]
    Key(#[from] rcgen::Error),
    #[error("the certificate cannot be read: {0}")]
    Certificate(String),
    #[error(
        "the certificate is not valid yet by this machine's clock, which may be behind: set it right ({0})"
    )]
    Early(#[source] rustls::Error),
    #[error("the certificate does not hold: {0}")]
    Refused(#[source] rustls::Error),
}

impl From<rustls::Error> for IdentityError {
    fn from(error: rustls::Error) -> Self {
        use rustls::CertificateError::{NotValidYet, NotValidYetContext};
        match error {
            rustls::Error::InvalidCertificate(NotValidYet | NotValidYetContext { .. }) => {
                Self::Early(error)
            }
            error => Self::Refused(error),
        }
    }
}

/// The identity in force. Each has session stores of its own, so that no session outlives the certificate, the
/// authority or, where [`keep`] made it, the mode that it was begun under.
#[derive(Debug)]
pub struct Identity {
    /// The DNS name that peers verify.
    pub name: Arc<str>,
    /// When its certificate ends.
    pub expires: SystemTime,
    server: Arc<ServerConfig>,
    client: Arc<ClientConfig>,
    trust: Arc<Trust>,
}

impl Identity {
    /// Of a certificate that holds for this key and this name, by these authorities.
    ///
    /// # Errors
    /// When it does not.
    pub fn new(
        (name, key): (&Arc<str>, &Key),
        certified: &Certified,
        trust: &Arc<Trust>,
    ) -> Result<Self, IdentityError> {
        Self::of_key((name, key.private()), certified, trust)
    }

    fn of_key(
        (name, key): (&Arc<str>, PrivateKeyDer<'static>),
        certified: &Certified,
        trust: &Arc<Trust>,
    ) -> Result<Self, IdentityError> {
        let server_name = server_name(name)?;
        trust.judge_server(&certified.chain, &server_name, UnixTime::now())?;
        trust.judge_client(&certified.chain, UnixTime::now())?;
        let provider = provider();
        let chain = || certified.chain.clone();
        let mut server = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_protocol_versions(&[&TLS13])?
            .with_client_cert_verifier(trust.of_clients())
            .with_single_cert(chain(), key.clone_key())?;
        server.ticketer = aws_lc_rs::Ticketer::new()?;
        // Each resumed session brings the next ticket.
        server.send_tls13_tickets = 1;
        server.max_fragment_size = Some(RECORD + HEAD);
        let mut client = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&TLS13])?
            .with_webpki_verifier(trust.of_servers())
            .with_client_auth_cert(chain(), key)?;
        client.resumption = Resumption::in_memory_sessions(SESSIONS);
        client.max_fragment_size = Some(RECORD + HEAD);
        Ok(Self {
            name: Arc::clone(name),
            expires: certified.valid_until,
            server: Arc::new(server),
            client: Arc::new(client),
            trust: Arc::clone(trust),
        })
    }

    /// What mesh TLS is terminated with.
    pub fn server(&self) -> &Arc<ServerConfig> {
        &self.server
    }

    /// What mesh TLS is originated with.
    pub fn client(&self) -> &Arc<ClientConfig> {
        &self.client
    }

    /// Who has opened a connection that was accepted under this identity. A resumed session's chain is judged again, as
    /// if it had been shown now.
    ///
    /// # Errors
    /// When the chain does not hold any more, or cannot be read.
    pub fn client_of(&self, connection: &CommonState) -> Result<Peer, IdentityError> {
        let chain = connection.peer_certificates().unwrap_or_default();
        if connection.handshake_kind() == Some(HandshakeKind::Resumed) {
            self.trust.judge_client(chain, UnixTime::now())?;
        }
        let (leaf, _) = split(chain)?;
        Peer::of(leaf)
    }

    /// Whom peers are verified by.
    pub fn trust(&self) -> &Trust {
        &self.trust
    }
}

/// What `max_fragment_size` counts beside the data: the header of a record (RFC 8446 section 5.1).
const HEAD: usize = 5;

/// A name as it is sent and verified.
///
/// # Errors
/// When it is no DNS name.
pub fn server_name(name: &str) -> Result<ServerName<'static>, IdentityError> {
    match ServerName::try_from(name.to_owned()) {
        Ok(name @ ServerName::DnsName(_)) => Ok(name),
        Ok(_) | Err(_) => Err(IdentityError::Name(name.to_owned())),
    }
}

/// AES-128 comes first: it is as safe as the others, and the fastest where there are instructions for it.
fn provider() -> Arc<CryptoProvider> {
    use aws_lc_rs::cipher_suite::{
        TLS13_AES_128_GCM_SHA256, TLS13_AES_256_GCM_SHA384, TLS13_CHACHA20_POLY1305_SHA256,
    };
    Arc::new(CryptoProvider {
        cipher_suites: vec![
            TLS13_AES_128_GCM_SHA256,
            TLS13_AES_256_GCM_SHA384,
            TLS13_CHACHA20_POLY1305_SHA256,
        ],
        kx_groups: vec![aws_lc_rs::kx_group::X25519, aws_lc_rs::kx_group::SECP256R1],
        ..aws_lc_rs::default_provider()
    })
}

/// The leaf of a chain and what follows it.
fn split<'a>(
    chain: &'a [CertificateDer<'static>],
) -> Result<(&'a CertificateDer<'static>, &'a [CertificateDer<'static>]), rustls::Error> {
    chain
        .split_first()
        .ok_or(rustls::Error::NoCertificatesPresented)
}

#[cfg(test)]
pub(crate) mod tests;
