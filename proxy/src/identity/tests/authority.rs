//! A certificate authority for tests: of this crate, and of `tests/mtls`.

use std::time::{Duration, SystemTime};

use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, DnType,
    ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, SanType, date_time_ymd,
};
use rustls::pki_types::CertificateSigningRequestDer;

use super::Certified;

/// Signs whatever it is asked to.
pub(crate) struct Authority {
    issuer: Issuer<'static, KeyPair>,
    bundle: String,
}

impl Authority {
    pub(crate) fn new(name: &str) -> Self {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().expect("a key");
        let bundle = params.self_signed(&key).expect("an authority").pem();
        let issuer = Issuer::new(params, key);
        Self { issuer, bundle }
    }

    pub(crate) fn bundle(&self) -> String {
        self.bundle.clone()
    }

    /// The certificate asked for, with these URIs as well, valid from a minute ago for so long from now.
    pub(crate) fn sign(&self, csr: &[u8], uris: &[String], life: Duration) -> Certified {
        let begins = SystemTime::now() - Duration::from_secs(60);
        self.sign_from(begins, csr, uris, life)
    }

    /// The same, valid from a time that is given.
    pub(crate) fn sign_from(
        &self,
        begins: SystemTime,
        csr: &[u8],
        uris: &[String],
        life: Duration,
    ) -> Certified {
        let csr = CertificateSigningRequestDer::from(csr);
        let mut asked = CertificateSigningRequestParams::from_der(&csr).expect("a request");
        let uris = uris
            .iter()
            .map(|uri| SanType::URI(uri.as_str().try_into().expect("ASCII")));
        asked.params.subject_alt_names.extend(uris);
        asked.params.extended_key_usages = vec![
            ExtendedKeyUsagePurpose::ServerAuth,
            ExtendedKeyUsagePurpose::ClientAuth,
        ];
        let now = SystemTime::now();
        let since = |at: SystemTime| {
            let since = at.duration_since(SystemTime::UNIX_EPOCH);
            since.expect("after 1970")
        };
        let epoch = date_time_ymd(1970, 1, 1);
        asked.params.not_before = epoch + since(begins);
        asked.params.not_after = epoch + since(now) + life;
        let leaf = asked.signed_by(&self.issuer).expect("signed");
        Certified {
            chain: vec![leaf.der().clone()],
            valid_until: now + life,
        }
    }
}
