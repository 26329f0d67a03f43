//! Reads a certificate signing request (PKCS#10, RFC 2986) of a stranger: DER, or PEM as Linkerd's
//! protocol says. Called by `identity`; fuzzed. Of all that a request may ask for, only the key and
//! the names are looked at, and only the key goes into a certificate. It grants nothing.

use rcgen::SubjectPublicKeyInfo;
use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::extensions::{GeneralName, ParsedExtension};
use x509_parser::oid_registry::{
    OID_EC_P256, OID_KEY_TYPE_EC_PUBLIC_KEY, OID_SIG_ECDSA_WITH_SHA256, Oid,
};
use x509_parser::prelude::{FromDer, Pem};

/// Longest request, in bytes; one for a P-256 key with a long name is below 1 KiB.
pub const LONGEST: usize = 16 * 1024;
/// Length of an uncompressed point on P-256 (SEC 1, section 2.3.3).
const POINT: usize = 65;
/// What a request in PEM begins with.
const PEM_START: &[u8] = b"-----BEGIN ";
/// The label of a request in PEM, and the one of old tools.
const LABELS: [&str; 2] = ["CERTIFICATE REQUEST", "NEW CERTIFICATE REQUEST"];

/// Why a request cannot be used. Each text ends with what would be right.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RequestError {
    /// Nothing is there.
    #[error("is empty: send a PKCS#10 request in DER")]
    Empty,
    /// More than can be of use.
    #[error("has {0} bytes, more than {LONGEST}: ask for fewer names")]
    Long(usize),
    /// PEM that is none, or of something else.
    #[error(
        "is not a request in PEM: send DER, or PEM that begins with -----BEGIN CERTIFICATE REQUEST-----"
    )]
    Pem,
    /// No PKCS#10.
    #[error("is not a PKCS#10 request in DER (RFC 2986)")]
    Der,
    /// Bytes behind the end.
    #[error("has {0} bytes behind its end: send the request alone")]
    Trailing(usize),
    /// A key that is not P-256.
    #[error("has a key that is not ECDSA on P-256 (prime256v1): make one of that kind")]
    Key,
    /// Signed otherwise.
    #[error("is not signed with ECDSA and SHA-256: sign it with the P-256 key that it holds")]
    Algorithm,
    /// Not signed by the key.
    #[error(
        "has a signature that its own key did not make: sign it with the key whose public half it holds"
    )]
    Signature,
    /// A name of another kind.
    #[error(
        "asks for a name that is neither DNS name nor URI: ask for the identity's DNS name, or for no name"
    )]
    NameKind,
    /// An extension that cannot be read.
    #[error(
        "has an extension that cannot be read: ask for the identity's DNS name, or for no name"
    )]
    Extension,
}

/// A request that can be granted.
#[derive(Debug)]
pub struct Request {
    /// The key to certify: P-256, held by whoever made the request.
    pub key: SubjectPublicKeyInfo,
    /// The DNS names and URIs it asks for; empty leaves them to us.
    pub names: Vec<String>,
}

/// Reads a request, its signature verified.
///
/// # Errors
/// Says what is wrong with it and what would be right.
pub fn read(bytes: &[u8]) -> Result<Request, RequestError> {
    if bytes.is_empty() {
        return Err(RequestError::Empty);
    }
    if bytes.len() > LONGEST {
        return Err(RequestError::Long(bytes.len()));
    }
    if !bytes.starts_with(PEM_START) {
        return read_der(bytes);
    }
    match Pem::iter_from_buffer(bytes).next() {
        Some(Ok(block)) if LABELS.contains(&block.label.as_str()) => read_der(&block.contents),
        _ => Err(RequestError::Pem),
    }
}

fn read_der(der: &[u8]) -> Result<Request, RequestError> {
    let (rest, request) = X509CertificationRequest::from_der(der).map_err(|_| RequestError::Der)?;
    if !rest.is_empty() {
        return Err(RequestError::Trailing(rest.len()));
    }
    let info = &request.certification_request_info;
    let algorithm = &info.subject_pki.algorithm;
    let point = &info.subject_pki.subject_public_key.data;
    let curve = algorithm
        .parameters
        .as_ref()
        .and_then(|curve| curve.as_oid().ok());
    if algorithm.algorithm != OID_KEY_TYPE_EC_PUBLIC_KEY || !is(&curve, &OID_EC_P256) {
        return Err(RequestError::Key);
    }
    // Uncompressed, as TLS asks of it (RFC 8422, section 5.4.1).
    if point.len() != POINT || point.first() != Some(&4) {
        return Err(RequestError::Key);
    }
    if request.signature_algorithm.algorithm != OID_SIG_ECDSA_WITH_SHA256 {
        return Err(RequestError::Algorithm);
    }
    request
        .verify_signature()
        .map_err(|_| RequestError::Signature)?;
    Ok(Request {
        key: SubjectPublicKeyInfo::from_der(info.subject_pki.raw).map_err(|_| RequestError::Key)?,
        names: names(&request)?,
    })
}

fn is(found: &Option<Oid<'_>>, wanted: &Oid<'_>) -> bool {
    found.as_ref() == Some(wanted)
}

fn names(request: &X509CertificationRequest<'_>) -> Result<Vec<String>, RequestError> {
    let mut names = Vec::new();
    for extension in request.requested_extensions().into_iter().flatten() {
        match extension {
            ParsedExtension::SubjectAlternativeName(list) => {
                for name in &list.general_names {
                    match name {
                        GeneralName::DNSName(name) | GeneralName::URI(name) => {
                            names.push((*name).to_owned());
                        }
                        _ => return Err(RequestError::NameKind),
                    }
                }
            }
            // It might be the names.
            ParsedExtension::ParseError { .. } => return Err(RequestError::Extension),
            _ => {}
        }
    }
    Ok(names)
}

#[cfg(test)]
mod tests {
    use rcgen::{
        CertificateParams, KeyPair, PKCS_ECDSA_P256_SHA256, PKCS_ECDSA_P384_SHA384, PKCS_ED25519,
        PublicKeyData, SanType,
    };

    use super::*;

    fn key() -> KeyPair {
        KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap()
    }

    fn request(key: &KeyPair, names: &[&str]) -> rcgen::CertificateSigningRequest {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        CertificateParams::new(names)
            .unwrap()
            .serialize_request(key)
            .unwrap()
    }

    #[test]
    fn der_and_pem_are_read() {
        let key = key();
        let request = request(&key, &["web.shop"]);
        let pem = request.pem().unwrap();
        for bytes in [request.der().as_ref(), pem.as_bytes()] {
            let read = read(bytes).unwrap();
            assert_eq!(read.names, ["web.shop"]);
            assert_eq!(
                read.key.subject_public_key_info(),
                key.subject_public_key_info()
            );
        }
    }

    #[test]
    fn only_p256_keys_are_taken() {
        for algorithm in [&PKCS_ECDSA_P384_SHA384, &PKCS_ED25519] {
            let key = KeyPair::generate_for(algorithm).unwrap();
            let error = read(request(&key, &[]).der()).unwrap_err();
            assert_eq!(error, RequestError::Key);
        }
        let rsa = KeyPair::generate_for(&rcgen::PKCS_RSA_SHA256).unwrap();
        assert_eq!(
            read(request(&rsa, &[]).der()).unwrap_err(),
            RequestError::Key
        );
    }

    #[test]
    fn what_its_own_key_did_not_sign_is_refused() {
        let (mine, other) = (request(&key(), &[]), request(&key(), &[]));
        // The other's signature below my request: both have the same length or nearly so.
        let mut forged = mine.der().to_vec();
        let last = forged.len() - 1;
        forged[last] ^= 1;
        assert_eq!(read(&forged).unwrap_err(), RequestError::Signature);
        let key = find(mine.der(), other.der());
        assert_eq!(read(&key).unwrap_err(), RequestError::Signature);
    }

    /// `request` with the public key of `other`, which did not sign it.
    fn find(request: &[u8], other: &[u8]) -> Vec<u8> {
        // BIT STRING of 66 bytes, no unused bits, an uncompressed point (RFC 5480).
        let start = [0x03, 0x42, 0x00, 0x04];
        let place = |der: &[u8]| der.windows(4).position(|four| four == start).unwrap() + 4;
        let mut mixed = request.to_vec();
        let (to, from) = (place(request), place(other));
        mixed[to..to + 64].copy_from_slice(&other[from..from + 64]);
        mixed
    }

    #[test]
    fn what_is_no_request_is_named() {
        let good = request(&key(), &[]);
        let mut longer = good.der().to_vec();
        longer.push(0);
        for (bytes, error) in [
            (Vec::new(), RequestError::Empty),
            (vec![0x30; LONGEST + 1], RequestError::Long(LONGEST + 1)),
            (b"hello".to_vec(), RequestError::Der),
            (longer, RequestError::Trailing(1)),
            (
                good.der()[..good.der().len() - 2].to_vec(),
                RequestError::Der,
            ),
            (
                b"-----BEGIN CERTIFICATE REQUEST-----\nx".to_vec(),
                RequestError::Pem,
            ),
            (
                b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n".to_vec(),
                RequestError::Pem,
            ),
        ] {
            assert_eq!(read(&bytes).unwrap_err(), error);
        }
    }

    #[test]
    fn names_of_other_kinds_are_refused() {
        let key = key();
        let mut params = CertificateParams::default();
        params.subject_alt_names = vec![SanType::URI("spiffe://m/s".try_into().unwrap())];
        let uri = params.serialize_request(&key).unwrap();
        assert_eq!(read(uri.der()).unwrap().names, ["spiffe://m/s"]);
        params.subject_alt_names = vec![SanType::IpAddress([10, 0, 0, 1].into())];
        let address = params.serialize_request(&key).unwrap();
        assert_eq!(read(address.der()).unwrap_err(), RequestError::NameKind);
    }
}
