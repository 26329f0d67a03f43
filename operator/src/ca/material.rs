//! Makes and reads the certificates: P-256 keys, PEM in and out. Called by `plan` and `keeper`.
//! It knows neither the cluster nor when a certificate is due.

use jiff::{SignedDuration, Timestamp};
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, PKCS_ECDSA_P256_SHA256,
};
use x509_parser::prelude::{FromDer, GeneralName, Pem, X509Certificate};

/// Certificates are valid from this long before they were made, for clocks that run behind.
pub(crate) const BACKDATE: SignedDuration = SignedDuration::from_hours(1);

/// Why a certificate could not be made or read.
#[derive(Debug, thiserror::Error)]
pub enum CertificateError {
    /// The library that makes certificates refused.
    #[error("cannot make the certificate: {0}")]
    Make(#[from] rcgen::Error),
    /// A time outside of what X.509 can say.
    #[error("the time {0} cannot be written into a certificate")]
    Time(Timestamp),
    /// Not PEM, or no certificate inside.
    #[error("not a PEM certificate: {0}")]
    Read(String),
}

/// A certificate and its private key, both PEM (the key PKCS#8).
#[derive(Clone, PartialEq, Eq)]
pub struct Pair {
    /// The certificate.
    pub certificate: String,
    /// The private key.
    pub key: String,
}

impl std::fmt::Debug for Pair {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pair")
            .field("certificate", &self.certificate)
            .field("key", &"(not shown)")
            .finish()
    }
}

impl Pair {
    /// Makes a self-signed authority of `server` that is valid for `validity` from `now`.
    ///
    /// # Errors
    /// When the time does not fit into a certificate.
    pub fn authority(
        server: &str,
        now: Timestamp,
        validity: SignedDuration,
    ) -> Result<Self, CertificateError> {
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?.serialize_pem();
        Ok(Self {
            certificate: Self::authority_of(&key, server, now, validity)?,
            key,
        })
    }

    /// The certificate of such an authority for this key, PEM.
    ///
    /// # Errors
    /// When the key is none, or the time does not fit into a certificate.
    pub(super) fn authority_of(
        key: &str,
        server: &str,
        now: Timestamp,
        validity: SignedDuration,
    ) -> Result<String, CertificateError> {
        let mut params = CertificateParams::default();
        set_validity(&mut params, now, validity)?;
        // The time in the name keeps two authorities of one overlap apart.
        let name = format!("Weir {server} authority {now:.0}");
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let key = KeyPair::from_pem(key)?;
        Ok(params.self_signed(&key)?.pem())
    }

    /// Makes a serving certificate for the DNS names, signed by this authority. It never outlives
    /// the authority.
    ///
    /// # Errors
    /// When this pair is no authority, or a name is not a DNS name.
    pub fn sign_serving(
        &self,
        names: &[String],
        now: Timestamp,
        validity: SignedDuration,
    ) -> Result<Self, CertificateError> {
        let signer = Facts::read(&self.certificate)?;
        let mut params = CertificateParams::new(names)?;
        set_validity(
            &mut params,
            now,
            validity.min(signer.not_after.duration_since(now)),
        )?;
        if let Some(name) = names.first() {
            params.distinguished_name.push(DnType::CommonName, name);
        }
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        params.use_authority_key_identifier_extension = true;
        let issuer = Issuer::from_ca_cert_pem(&self.certificate, KeyPair::from_pem(&self.key)?)?;
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
        let certificate = params.signed_by(&key, &issuer)?;
        Ok(Self {
            certificate: certificate.pem(),
            key: key.serialize_pem(),
        })
    }

    /// Whether the key is the certificate's.
    #[must_use]
    pub fn fits(&self) -> bool {
        let (Ok(key), Ok(facts)) = (KeyPair::from_pem(&self.key), Facts::read(&self.certificate))
        else {
            return false;
        };
        facts.public_key == key.public_key_raw()
    }
}

/// What a certificate says about itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Facts {
    /// Start of validity.
    pub not_before: Timestamp,
    /// End of validity.
    pub not_after: Timestamp,
    /// DNS subject alternative names.
    pub names: Vec<String>,
    /// Whether it may sign others.
    pub is_authority: bool,
    public_key: Vec<u8>,
}

impl Facts {
    /// Reads the first certificate of a PEM text.
    ///
    /// # Errors
    /// When there is none.
    pub fn read(pem: &str) -> Result<Self, CertificateError> {
        let der = first_der(pem)?;
        let certificate = parse(&der)?;
        let validity = certificate.validity();
        let names = match certificate.subject_alternative_name() {
            Ok(Some(extension)) => extension
                .value
                .general_names
                .iter()
                .filter_map(|name| match name {
                    GeneralName::DNSName(name) => Some((*name).to_owned()),
                    _ => None,
                })
                .collect(),
            _ => Vec::new(),
        };
        Ok(Self {
            not_before: timestamp(validity.not_before.timestamp())?,
            not_after: timestamp(validity.not_after.timestamp())?,
            names,
            is_authority: certificate.is_ca(),
            public_key: certificate.public_key().subject_public_key.data.to_vec(),
        })
    }

    /// When two thirds of the validity are over.
    #[must_use]
    pub fn renew_at(&self) -> Timestamp {
        let life = self.not_after.duration_since(self.not_before);
        self.not_before + life * 2 / 3
    }

    /// Whether the certificate is valid at `now`.
    #[must_use]
    pub fn is_valid(&self, now: Timestamp) -> bool {
        self.not_before <= now && now < self.not_after
    }
}

/// Whether the first certificate of `pem` was signed by the first certificate of `authority`.
#[must_use]
pub(super) fn is_signed_by(pem: &str, authority: &str) -> bool {
    let (Ok(der), Ok(authority_der)) = (first_der(pem), first_der(authority)) else {
        return false;
    };
    let (Ok(leaf), Ok(signer)) = (parse(&der), parse(&authority_der)) else {
        return false;
    };
    leaf.issuer().as_raw() == signer.subject().as_raw()
        && leaf.verify_signature(Some(signer.public_key())).is_ok()
}

fn first_der(pem: &str) -> Result<Vec<u8>, CertificateError> {
    match Pem::iter_from_buffer(pem.as_bytes()).next() {
        Some(Ok(block)) if block.label == "CERTIFICATE" => Ok(block.contents),
        Some(Ok(block)) => Err(CertificateError::Read(format!("found {}", block.label))),
        Some(Err(error)) => Err(CertificateError::Read(error.to_string())),
        None => Err(CertificateError::Read("the text is empty".to_owned())),
    }
}

fn parse(der: &[u8]) -> Result<X509Certificate<'_>, CertificateError> {
    match X509Certificate::from_der(der) {
        Ok((_, certificate)) => Ok(certificate),
        Err(error) => Err(CertificateError::Read(error.to_string())),
    }
}

pub(crate) fn timestamp(seconds: i64) -> Result<Timestamp, CertificateError> {
    Timestamp::from_second(seconds).map_err(|error| CertificateError::Read(error.to_string()))
}

fn set_validity(
    params: &mut CertificateParams,
    now: Timestamp,
    validity: SignedDuration,
) -> Result<(), CertificateError> {
    params.not_before = calendar(now - BACKDATE)?;
    params.not_after = calendar(now + validity)?;
    Ok(())
}

pub(crate) fn calendar(at: Timestamp) -> Result<time::OffsetDateTime, CertificateError> {
    time::OffsetDateTime::from_unix_timestamp(at.as_second())
        .map_err(|_| CertificateError::Time(at))
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: SignedDuration = SignedDuration::from_hours(24);

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    #[test]
    fn a_serving_certificate_is_signed_by_its_authority_and_by_no_other() {
        let now = at("2026-11-01T00:00:00Z");
        let authority = Pair::authority("webhook", now, DAY * 365).unwrap();
        let other = Pair::authority("webhook", now, DAY * 365).unwrap();
        let names = vec!["weir-webhook.kuma-system.svc".to_owned()];
        let serving = authority.sign_serving(&names, now, DAY * 90).unwrap();
        assert!(is_signed_by(&serving.certificate, &authority.certificate));
        assert!(!is_signed_by(&serving.certificate, &other.certificate));
        assert!(serving.fits());
        let mixed = Pair {
            certificate: serving.certificate.clone(),
            key: other.key,
        };
        assert!(!mixed.fits());
        let facts = Facts::read(&serving.certificate).unwrap();
        assert_eq!(facts.names, names);
        assert!(!facts.is_authority);
        assert!(Facts::read(&authority.certificate).unwrap().is_authority);
    }

    #[test]
    fn a_serving_certificate_never_outlives_its_authority() {
        let now = at("2026-11-01T00:00:00Z");
        let authority = Pair::authority("webhook", now, DAY * 30).unwrap();
        let serving = authority
            .sign_serving(&["a.b.svc".to_owned()], now + DAY * 10, DAY * 90)
            .unwrap();
        assert_eq!(
            Facts::read(&serving.certificate).unwrap().not_after,
            at("2026-12-01T00:00:00Z")
        );
    }

    #[test]
    fn renewal_is_due_at_two_thirds_of_the_life() {
        let now = at("2026-11-01T00:00:00Z") + BACKDATE;
        let authority = Pair::authority("webhook", now, DAY * 30 - BACKDATE).unwrap();
        let facts = Facts::read(&authority.certificate).unwrap();
        assert_eq!(facts.renew_at(), at("2026-11-21T00:00:00Z"));
        assert!(facts.is_valid(now));
        assert!(!facts.is_valid(now + DAY * 31));
        assert!(!facts.is_valid(now - DAY));
    }

    #[test]
    fn what_is_no_certificate_is_refused_by_name() {
        let error = Facts::read("").unwrap_err().to_string();
        assert!(error.contains("empty"), "{error}");
        let key = KeyPair::generate().unwrap().serialize_pem();
        let error = Facts::read(&key).unwrap_err().to_string();
        assert!(error.contains("PRIVATE KEY"), "{error}");
    }

    #[test]
    fn a_key_is_never_printed() {
        let pair = Pair::authority("webhook", at("2026-11-01T00:00:00Z"), DAY).unwrap();
        assert!(!format!("{pair:?}").contains("PRIVATE KEY"));
    }
}
