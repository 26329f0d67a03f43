//! The page at `/`: this proxy's traffic as it goes, in one document without any other resource. It reads `/metrics`
//! and `/ready` itself, in the browser; here it is only handed out, under a policy that lets it do nothing else. Called
//! by `controls`.

use super::body::Body;
use hyper::Response;
use hyper::header::{
    CONTENT_SECURITY_POLICY, CONTENT_TYPE, HeaderName, HeaderValue, REFERRER_POLICY,
};

const PAGE: &str = include_str!("page/page.html");

/// The digests are those of the page's one `style` and one `script` element; a test prints what they have to be.
static POLICY: HeaderValue = HeaderValue::from_static(
    "default-src 'none'; connect-src 'self'; img-src data:; \
     style-src 'sha256-XhJenAnj4rCCGDZVMi/PHDtwL6JMf7DhYMeQXGQV+Rs='; \
     script-src 'sha256-+mCR5bN+uqG4dchnXsmlAk2z1Cl2iW/PSGLKROE+MUQ='; \
     base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
);

const RESOURCE_POLICY: HeaderName = HeaderName::from_static("cross-origin-resource-policy");

/// The page, with its headers.
pub(super) fn answer() -> Response<Body> {
    let mut page = Response::new(Body::text(PAGE));
    let headers = page.headers_mut();
    headers.insert(
        CONTENT_TYPE,
        HeaderValue::from_static("text/html; charset=utf-8"),
    );
    headers.insert(CONTENT_SECURITY_POLICY, POLICY.clone());
    headers.insert(REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    headers.insert(RESOURCE_POLICY, HeaderValue::from_static("same-origin"));
    page
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

    /// What is between the only such tags of the page.
    fn element(name: &str) -> &'static str {
        let (_, rest) = PAGE.split_once(&format!("<{name}>")).unwrap();
        let (text, rest) = rest.split_once(&format!("</{name}>")).unwrap();
        assert!(!rest.contains(&format!("<{name}")), "one {name} only");
        text
    }

    /// SHA-256 in base64, as the policy wants it.
    fn digest(text: &str) -> String {
        let suite = &rustls::crypto::aws_lc_rs::cipher_suite::TLS13_AES_128_GCM_SHA256;
        let hash = suite.tls13().unwrap().common.hash_provider;
        let hash = hash.hash(text.as_bytes());
        let mut encoded = String::new();
        for three in hash.as_ref().chunks(3) {
            let bits = three
                .iter()
                .fold(0_u32, |bits, byte| bits << 8 | u32::from(*byte));
            let bits = bits << (8 * (3 - three.len()));
            for at in 0..4 {
                let six = (bits >> (18 - 6 * at)) & 63;
                let end = at > three.len();
                encoded.push(if end {
                    '='
                } else {
                    char::from(ALPHABET[six as usize])
                });
            }
        }
        encoded
    }

    #[test]
    fn the_policy_allows_what_is_in_the_page() {
        let policy = POLICY.to_str().unwrap();
        for name in ["style", "script"] {
            let source = format!("{name}-src 'sha256-{}'", digest(element(name)));
            assert!(policy.contains(&source), "the policy needs {source}");
        }
    }

    #[test]
    fn the_page_needs_nothing_from_elsewhere() {
        for word in [
            "http:", "https:", "src=", "@import", "url(", "style=\"", " onclick", "eval(",
        ] {
            assert!(!PAGE.contains(word), "{word}");
        }
    }
}
