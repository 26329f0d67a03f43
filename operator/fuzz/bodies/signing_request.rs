//! Requests for certificates: nothing that a stranger sends does harm, and whatever is taken holds a
//! P-256 key and asks for names.
//!
//! The input: a byte that says whose the rest is, and the rest: a whole request, or the names or an
//! attribute in one that is signed properly, because no fuzzer finds a signature. Run by the fuzzer,
//! and by `tests/corpora` on what is in `corpus`.

use std::sync::OnceLock;

use rcgen::{Attribute, CertificateParams, CustomExtension, KeyPair, PublicKeyData};

use crate::request;

/// subjectAltName (RFC 5280, section 4.2.1.6).
const NAMES: [u64; 4] = [2, 5, 29, 17];
/// extensionRequest (RFC 2985, section 5.4.2).
const EXTENSIONS: &[u64] = &[1, 2, 840, 113_549, 1, 9, 14];

fn key() -> &'static KeyPair {
    static KEY: OnceLock<KeyPair> = OnceLock::new();
    KEY.get_or_init(|| KeyPair::generate().expect("there is randomness"))
}

/// A request with these bytes as its names.
fn with_names(content: &[u8]) -> Option<Vec<u8>> {
    let mut params = CertificateParams::default();
    let names = CustomExtension::from_oid_content(&NAMES, content.to_vec());
    params.custom_extensions = vec![names];
    Some(params.serialize_request(key()).ok()?.der().to_vec())
}

/// A request with these bytes as the values of its extensions.
fn with_extensions(content: &[u8]) -> Option<Vec<u8>> {
    let attribute = Attribute {
        oid: EXTENSIONS,
        values: content.to_vec(),
    };
    let params = CertificateParams::default();
    let request = params.serialize_request_with_attributes(key(), vec![attribute]);
    Some(request.ok()?.der().to_vec())
}

/// One input.
pub(crate) fn run(input: &[u8]) {
    let Some((kind, rest)) = input.split_first() else {
        return;
    };
    let bytes = match kind % 3 {
        0 => Some(rest.to_vec()),
        1 => with_names(rest),
        _ => with_extensions(rest),
    };
    let Some(Ok(request)) = bytes.map(|bytes| request::read(&bytes)) else {
        return;
    };
    let point = request.key.der_bytes();
    assert_eq!((point.len(), point[0]), (65, 4), "an uncompressed point");
    assert!(
        request
            .names
            .iter()
            .all(|name| name.len() < request::LONGEST)
    );
}
