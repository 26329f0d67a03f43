//! Where the operator is and how it is known: read from the variables of a pod. `config` parses it before anything is
//! started; it resolves and connects nothing.

use std::net::IpAddr;
use std::sync::Arc;

use hyper::Uri;
use rustls::client::Resumption;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::version::TLS13;
use rustls::{ClientConfig, RootCertStore};

use crate::telemetry::{NoTlsReason, Tls};

/// Sessions that are kept to be resumed: there is one server.
const SESSIONS: usize = 4;

/// An operator.
#[derive(Clone, Debug)]
pub struct Target {
    pub(super) host: String,
    pub(super) port: u16,
    /// Scheme and authority of its calls.
    pub(super) origin: Uri,
    /// `None` where it is spoken to in plain text.
    pub(super) tls: Option<Secured>,
}

/// How the operator proves that it is the one.
#[derive(Clone, Debug)]
pub(super) struct Secured {
    pub(super) name: ServerName<'static>,
    pub(super) config: Arc<ClientConfig>,
}

/// What is wrong with an operator's address, or its certificate authority.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum TargetError {
    #[error("expected a URL such as https://weir-operator.kuma-system.svc:8086, found {0:?}")]
    Url(String),
    #[error("http:// is only for an operator on this host; {0:?} needs https://")]
    Plaintext(String),
    #[error("{0:?} is neither a DNS name nor an IP address, so no certificate can be for it")]
    Name(String),
    #[error("holds no certificate in PEM: {0}")]
    Authority(String),
    #[error(
        "has to be set where the operator is reached by https://: the certificates that its own is signed by, in PEM"
    )]
    NoAuthority,
}

impl TargetError {
    /// Whether it is about the certificate authority, and not about the URL.
    pub fn is_of_authority(&self) -> bool {
        matches!(self, Self::Authority(_) | Self::NoAuthority)
    }
}

impl Target {
    /// The operator at `url`, whose certificate one of those in `authority` (PEM) has signed.
    ///
    /// # Errors
    /// What of either cannot be used.
    pub fn parse(url: &str, authority: Option<&str>) -> Result<Self, TargetError> {
        let wrong = || TargetError::Url(url.to_owned());
        let origin: Uri = url.trim().parse().map_err(|_| wrong())?;
        let host = origin.host().ok_or_else(wrong)?;
        let host = host.trim_start_matches('[').trim_end_matches(']');
        let host = host.trim_end_matches('.').to_owned();
        let is_plain = match origin.scheme_str() {
            Some("https") => false,
            Some("http") => true,
            _ => return Err(wrong()),
        };
        if host.is_empty() || !matches!(origin.path(), "" | "/") || origin.query().is_some() {
            return Err(wrong());
        }
        if is_plain && !is_here(&host) {
            return Err(TargetError::Plaintext(host));
        }
        let port = origin.port_u16().unwrap_or(if is_plain { 80 } else { 443 });
        let tls = match (is_plain, authority) {
            (true, _) => None,
            (false, None) => return Err(TargetError::NoAuthority),
            (false, Some(authority)) => Some(Secured::new(&host, authority)?),
        };
        Ok(Self {
            host,
            port,
            origin,
            tls,
        })
    }

    /// The label `addr`: host and port, as configured.
    pub fn addr(&self) -> String {
        match self.host.contains(':') {
            true => format!("[{}]:{}", self.host, self.port),
            false => format!("{}:{}", self.host, self.port),
        }
    }

    /// How calls to it are secured, as they are counted.
    pub fn labels(&self) -> Tls {
        match &self.tls {
            None => Tls::NoIdentity(NoTlsReason::Loopback),
            Some(_) => Tls::Mutual {
                id: self.host.as_str().into(),
            },
        }
    }
}

impl Secured {
    fn new(host: &str, authority: &str) -> Result<Self, TargetError> {
        let name = ServerName::try_from(host.to_owned());
        let name = name.map_err(|_| TargetError::Name(host.to_owned()))?;
        let unusable = |reason: String| TargetError::Authority(reason);
        let mut roots = RootCertStore::empty();
        for certificate in CertificateDer::pem_slice_iter(authority.as_bytes()) {
            let certificate = certificate.map_err(|error| unusable(error.to_string()))?;
            let added = roots.add(certificate);
            added.map_err(|error| unusable(error.to_string()))?;
        }
        if roots.is_empty() {
            return Err(unusable("there is none in it".to_owned()));
        }
        let provider = Arc::new(aws_lc_rs::default_provider());
        let mut config = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&TLS13])
            .expect("the provider supports TLS 1.3")
            .with_root_certificates(roots)
            .with_no_client_auth();
        config.alpn_protocols = vec![b"h2".to_vec()];
        config.resumption = Resumption::in_memory_sessions(SESSIONS);
        let config = Arc::new(config);
        Ok(Self { name, config })
    }
}

/// Whether a host is this one: what is said to it does not leave.
fn is_here(host: &str) -> bool {
    host == "localhost" || host.parse().is_ok_and(|ip: IpAddr| ip.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn authority() -> String {
        let key = rcgen::generate_simple_self_signed(vec!["ca".to_owned()]);
        key.expect("a certificate").cert.pem()
    }

    #[test]
    fn an_operator_is_known_by_its_url_and_its_authority() {
        let url = "https://weir-operator.kuma-system.svc.:8086";
        let target = Target::parse(url, Some(&authority())).expect("an operator");
        assert_eq!(target.addr(), "weir-operator.kuma-system.svc:8086");
        let id = "weir-operator.kuma-system.svc".into();
        assert_eq!(target.labels(), Tls::Mutual { id });
        assert!(target.tls.is_some());
    }

    #[test]
    fn plain_text_is_only_for_this_host() {
        for (url, addr) in [
            ("http://127.0.0.1:8086", "127.0.0.1:8086"),
            ("http://[::1]:8086/", "[::1]:8086"),
            ("http://localhost", "localhost:80"),
        ] {
            let target = Target::parse(url, None).expect(url);
            assert_eq!(target.addr(), addr);
            assert_eq!(target.labels(), Tls::NoIdentity(NoTlsReason::Loopback));
        }
        let far = Target::parse("http://operator:8086", None).expect_err("it is far away");
        assert_eq!(far, TargetError::Plaintext("operator".to_owned()));
    }

    #[test]
    fn what_cannot_be_used_is_told_with_its_remedy() {
        let https = "https://operator:8086";
        for (url, authority, about) in [
            ("operator:8086", None, "expected a URL"),
            ("ftp://operator", None, "expected a URL"),
            ("https://operator/path", None, "expected a URL"),
            (https, None, "has to be set"),
            (https, Some(""), "there is none in it"),
            (
                https,
                Some("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"),
                "no certificate",
            ),
        ] {
            let error = Target::parse(url, authority).expect_err(url);
            assert!(error.to_string().contains(about), "{error}");
            assert_eq!(error.is_of_authority(), url == https, "{error}");
        }
    }
}
