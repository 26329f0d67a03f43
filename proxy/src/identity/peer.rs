//! Who a peer is, read from its verified certificate.

use std::sync::Arc;

use rustls::pki_types::CertificateDer;
use weir_crds::identity;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer, X509Certificate};

use super::IdentityError;

/// The other side of a connection with mesh TLS.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Peer {
    /// Its Linkerd-style name, the first DNS name of its certificate; empty without one.
    pub name: Arc<str>,
    /// Everything that its certificate says of it.
    pub identity: Arc<identity::Identity>,
}

impl Peer {
    /// Of a certificate that has been verified.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn of(leaf: &CertificateDer<'_>) -> Result<Self, IdentityError> {
        let unreadable =
            |error: &dyn std::fmt::Display| IdentityError::Certificate(error.to_string());
        let (_, certificate) = X509Certificate::from_der(leaf).map_err(|e| unreadable(&e))?;
        let names = certificate
            .subject_alternative_name()
            .map_err(|e| unreadable(&e))?;
        let names = names.map_or(&[][..], |names| &names.value.general_names);
        let dns = names.iter().filter_map(|name| match name {
            GeneralName::DNSName(name) => Some(*name),
            _ => None,
        });
        let uris = names.iter().filter_map(|name| match name {
            GeneralName::URI(uri) => Some(*uri),
            _ => None,
        });
        let identity = identity::Identity::read(dns, uris);
        Ok(Self {
            name: identity.name.as_str().into(),
            identity: Arc::new(identity),
        })
    }
}
