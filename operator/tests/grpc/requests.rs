//! Requests for a certificate, good and bad, with what the bad ones are answered: one list for the server in this
//! process (`certify`) and for the operator in a cluster (the story `published_client`, which has this file as a module).

use rcgen::{
    CertificateParams, KeyPair, PKCS_ECDSA_P256_SHA256, PKCS_ECDSA_P384_SHA384, PKCS_RSA_SHA256,
    SignatureAlgorithm,
};
use tonic::Code;

/// A request that is refused, with which code and which words.
pub(crate) type Refused = (Vec<u8>, Code, String);

fn key(algorithm: &'static SignatureAlgorithm) -> KeyPair {
    KeyPair::generate_for(algorithm).expect("a key of a known kind")
}

/// A key as it has to be.
pub(crate) fn p256() -> KeyPair {
    key(&PKCS_ECDSA_P256_SHA256)
}

/// A signing request in DER for these names.
pub(crate) fn request(key: &KeyPair, names: &[&str]) -> Vec<u8> {
    let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
    let params = CertificateParams::new(names).expect("they are DNS names");
    let request = params.serialize_request(key).expect("the key signs");
    request.der().to_vec()
}

/// Requests that cannot be used, whoever sends them.
pub(crate) fn unusable() -> Vec<Refused> {
    let mut forged = request(&p256(), &[]);
    if let Some(last) = forged.last_mut() {
        *last ^= 1;
    }
    let wrong = "certificate_signing_request: has a signature";
    let refused = [
        (request(&key(&PKCS_RSA_SHA256), &[]), "P-256"),
        (request(&key(&PKCS_ECDSA_P384_SHA384), &[]), "P-256"),
        (forged, wrong),
        (b"nonsense".to_vec(), "PKCS#10"),
        (Vec::new(), "empty"),
    ];
    let invalid = |(csr, words): (Vec<u8>, &str)| (csr, Code::InvalidArgument, words.to_owned());
    refused.into_iter().map(invalid).collect()
}

/// Requests for names that are not those of `own`, the pod's in its Mesh.
pub(crate) fn foreign(own: &str) -> Vec<Refused> {
    let admin = own.replacen(own.split('.').next().unwrap_or_default(), "admin", 1);
    [admin.as_str(), "metrics.other.mesh", "example.com"]
        .map(|name| {
            let csr = request(&p256(), &[own, name]);
            (csr, Code::PermissionDenied, name.to_owned())
        })
        .into()
}
