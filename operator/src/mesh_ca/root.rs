//! A root: made, read, judged, and used to sign the certificates of proxies. Called by `resolve` and
//! `keeper`, and to sign by `serve`. Time is a parameter; it knows no Mesh resource and no Secret.

use jiff::{SignedDuration, Timestamp};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair, KeyUsagePurpose, PKCS_ECDSA_P256_SHA256, PublicKeyData, SanType, SerialNumber,
};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use weir_crds::identity::Identity;
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::ca::material::{BACKDATE, calendar, timestamp};
use crate::ca::{CertificateError, Pair};

/// A root that does not live long begins earlier by at most this part of its life, because the time
/// of its renewal counts from where it begins.
const BACKDATED_PART: i32 = 10;
/// Most certificates in what a user provides.
const LONGEST_CHAIN: usize = 8;

/// Why a certificate and a key are no authority, or sign nothing.
#[derive(Debug, thiserror::Error)]
pub enum RootError {
    /// No certificate in PEM.
    #[error("holds no certificate in PEM (-----BEGIN CERTIFICATE-----)")]
    NoCertificate,
    /// It cannot be read.
    #[error("is not an X.509 certificate: {0}")]
    Unreadable(String),
    /// More than can be of use.
    #[error("holds more than {LONGEST_CHAIN} certificates: give the signing one, then its parents")]
    LongChain,
    /// It may not sign.
    #[error(
        "is not the certificate of an authority: it needs the basic constraint CA:TRUE and, where it has a key usage, keyCertSign"
    )]
    NotAuthority,
    /// One does not sign the one before it.
    #[error(
        "certificate {0} does not sign the one before it: give the signing one, then its parents, or the signing one alone"
    )]
    BrokenChain(usize),
    /// Not yet valid.
    #[error("is valid only from {0}")]
    NotYetValid(Timestamp),
    /// No longer valid.
    #[error("expired at {0}: provide a new one")]
    Expired(Timestamp),
    /// The key cannot be read.
    #[error("is not a private key in PEM (PKCS#8, PKCS#1 or SEC1; RSA, P-256, P-384 or Ed25519)")]
    Key,
    /// The key is another certificate's.
    #[error(
        "does not belong to the certificate: provide the key whose public half the certificate has"
    )]
    Mismatch,
    /// A name that a certificate cannot hold.
    #[error("the name {0:?} cannot be written into a certificate")]
    Name(String),
    /// Making it failed.
    #[error(transparent)]
    Make(#[from] CertificateError),
}

impl RootError {
    /// Whether the key is to blame, not the certificate.
    #[must_use]
    pub fn is_of_key(&self) -> bool {
        matches!(self, Self::Key | Self::Mismatch)
    }
}

impl From<rcgen::Error> for RootError {
    fn from(error: rcgen::Error) -> Self {
        Self::Make(error.into())
    }
}

/// An authority that signs.
pub struct Root {
    issuer: Issuer<'static, KeyPair>,
    /// What is sent with a leaf: certificates between it and the anchor.
    intermediates: Vec<CertificateDer<'static>>,
    /// What proxies trust, PEM.
    anchor: String,
    not_before: Timestamp,
    not_after: Timestamp,
}

impl std::fmt::Debug for Root {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Root")
            .field("anchor", &self.anchor)
            .field("not_after", &self.not_after)
            .finish_non_exhaustive()
    }
}

/// A proxy's certificate.
#[derive(Clone, Debug)]
pub struct Leaf {
    /// DER.
    pub certificate: Vec<u8>,
    /// The certificates between it and the anchor, DER, from below.
    pub intermediates: Vec<Vec<u8>>,
    /// End of its validity, and of that of everything above it.
    pub not_after: Timestamp,
}

/// A new key for a root, PEM (PKCS#8, P-256).
///
/// # Errors
/// When there is no randomness.
pub(super) fn new_key() -> Result<String, RootError> {
    Ok(KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?.serialize_pem())
}

/// Makes the certificate of a builtin root for `key`, valid for `life` from `now`, PEM.
///
/// # Errors
/// When `key` is no key, or the time does not fit into a certificate.
pub(super) fn new_certificate(
    mesh: &str,
    key: &str,
    now: Timestamp,
    life: SignedDuration,
) -> Result<String, RootError> {
    let mut params = CertificateParams::default();
    params.not_before = calendar(now - BACKDATE.min(life / BACKDATED_PART))?;
    params.not_after = calendar(now + life)?;
    params.serial_number = Some(random_serial()?);
    params.distinguished_name = DistinguishedName::new();
    // The time in the name keeps two roots of one overlap apart.
    params
        .distinguished_name
        .push(DnType::OrganizationName, "Weir");
    params
        .distinguished_name
        .push(DnType::CommonName, format!("Mesh {mesh} {now:.0}"));
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params.subject_alt_names = vec![uri(format!("spiffe://{mesh}"))?];
    Ok(params.self_signed(&read_key(key)?)?.pem())
}

impl Root {
    /// Reads an authority: the signing certificate first, then its parents; the last is what proxies
    /// trust.
    ///
    /// # Errors
    /// Says which of the two is to blame, and what would be right.
    pub fn read(pair: &Pair, now: Timestamp) -> Result<Self, RootError> {
        let chain = read_chain(&pair.certificate)?;
        let key = read_key(&pair.key)?;
        let [mut not_before, mut not_after] = [Timestamp::MIN, Timestamp::MAX];
        for (index, der) in chain.iter().enumerate() {
            let certificate = parse(der)?;
            judge(&certificate)?;
            if index == 0
                && certificate.public_key().subject_public_key.data != key.public_key_raw()
            {
                return Err(RootError::Mismatch);
            }
            if let Some(child) = index.checked_sub(1).and_then(|below| chain.get(below))
                && parse(child)?
                    .verify_signature(Some(certificate.public_key()))
                    .is_err()
            {
                return Err(RootError::BrokenChain(index + 1));
            }
            let validity = certificate.validity();
            not_before = not_before.max(timestamp(validity.not_before.timestamp())?);
            not_after = not_after.min(timestamp(validity.not_after.timestamp())?);
        }
        if now < not_before {
            return Err(RootError::NotYetValid(not_before));
        }
        if not_after <= now {
            return Err(RootError::Expired(not_after));
        }
        let (last, rest) = chain.split_last().ok_or(RootError::NoCertificate)?;
        let signing = chain.first().ok_or(RootError::NoCertificate)?;
        Ok(Self {
            issuer: Issuer::from_ca_cert_der(signing, key)?,
            intermediates: rest.to_vec(),
            anchor: pem(last),
            not_before,
            not_after,
        })
    }

    /// What proxies trust, PEM.
    #[must_use]
    pub fn anchor(&self) -> &str {
        &self.anchor
    }

    /// End of validity of the root and of everything above it.
    #[must_use]
    pub fn not_after(&self) -> Timestamp {
        self.not_after
    }

    /// When two thirds of its life are over.
    #[must_use]
    pub fn renew_at(&self) -> Timestamp {
        self.not_before + self.not_after.duration_since(self.not_before) * 2 / 3
    }

    /// Whether a signature takes milliseconds and not microseconds.
    #[must_use]
    pub fn is_slow(&self) -> bool {
        !self.issuer.key().is_compatible(&PKCS_ECDSA_P256_SHA256)
    }

    /// Signs a certificate of `identity` for `key`: server and client, valid for `life` from `now`
    /// and never longer than the root.
    ///
    /// # Errors
    /// When a name cannot be written into a certificate.
    pub fn sign(
        &self,
        identity: &Identity,
        key: &impl PublicKeyData,
        now: Timestamp,
        life: SignedDuration,
    ) -> Result<Leaf, RootError> {
        let not_after = now
            .saturating_add(life)
            .unwrap_or(Timestamp::MAX)
            .min(self.not_after);
        let mut params = CertificateParams::default();
        params.not_before = calendar((now - BACKDATE).max(self.not_before))?;
        params.not_after = calendar(not_after)?;
        params.serial_number = Some(random_serial()?);
        // Empty, as Kuma's: who it is stands in the alternative names, which are critical then
        // (RFC 5280, section 4.2.1.6).
        params.distinguished_name = DistinguishedName::new();
        for name in identity.dns_names() {
            let text = name
                .as_str()
                .try_into()
                .map_err(|_| RootError::Name(name.clone()))?;
            params.subject_alt_names.push(SanType::DnsName(text));
        }
        for name in identity.uris() {
            params.subject_alt_names.push(uri(name)?);
        }
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![
            ExtendedKeyUsagePurpose::ServerAuth,
            ExtendedKeyUsagePurpose::ClientAuth,
        ];
        params.is_ca = IsCa::ExplicitNoCa;
        params.use_authority_key_identifier_extension = true;
        let certificate = params.signed_by(key, &self.issuer)?;
        Ok(Leaf {
            certificate: certificate.der().to_vec(),
            intermediates: self.intermediates.iter().map(|der| der.to_vec()).collect(),
            not_after: Timestamp::from_second(not_after.as_second()).unwrap_or(not_after),
        })
    }
}

fn read_chain(pem: &str) -> Result<Vec<CertificateDer<'static>>, RootError> {
    let mut chain = Vec::new();
    for certificate in CertificateDer::pem_slice_iter(pem.as_bytes()) {
        let certificate = certificate.map_err(|error| RootError::Unreadable(error.to_string()))?;
        if chain.len() == LONGEST_CHAIN {
            return Err(RootError::LongChain);
        }
        chain.push(certificate);
    }
    if chain.is_empty() {
        return Err(RootError::NoCertificate);
    }
    Ok(chain)
}

fn read_key(pem: &str) -> Result<KeyPair, RootError> {
    let key = PrivateKeyDer::from_pem_slice(pem.as_bytes()).map_err(|_| RootError::Key)?;
    KeyPair::try_from(&key).map_err(|_| RootError::Key)
}

fn parse<'a>(der: &'a CertificateDer<'_>) -> Result<X509Certificate<'a>, RootError> {
    let parsed = X509Certificate::from_der(der);
    let (_, certificate) = parsed.map_err(|error| RootError::Unreadable(error.to_string()))?;
    Ok(certificate)
}

/// Whether it may sign certificates (RFC 5280, sections 4.2.1.3 and 4.2.1.9).
fn judge(certificate: &X509Certificate<'_>) -> Result<(), RootError> {
    let signs = match certificate.key_usage() {
        Ok(Some(usage)) => usage.value.key_cert_sign(),
        Ok(None) => true,
        Err(_) => false,
    };
    if certificate.is_ca() && signs {
        Ok(())
    } else {
        Err(RootError::NotAuthority)
    }
}

fn uri(name: String) -> Result<SanType, RootError> {
    let text = name
        .as_str()
        .try_into()
        .map_err(|_| RootError::Name(name.clone()))?;
    Ok(SanType::URI(text))
}

/// 16 random bytes, positive and not empty (RFC 5280, section 4.1.2.2).
fn random_serial() -> Result<SerialNumber, RootError> {
    let mut bytes = [0; 16];
    aws_lc_rs::rand::fill(&mut bytes).map_err(|_| rcgen::Error::RingUnspecified)?;
    bytes[0] = bytes[0] & 0x7f | 0x40;
    Ok(SerialNumber::from_slice(&bytes))
}

/// One certificate in PEM (RFC 7468).
fn pem(der: &CertificateDer<'_>) -> String {
    let block = pem::Pem::new("CERTIFICATE", der.to_vec());
    let config = pem::EncodeConfig::new().set_line_ending(pem::LineEnding::LF);
    pem::encode_config(&block, config)
}

#[cfg(test)]
mod tests;
