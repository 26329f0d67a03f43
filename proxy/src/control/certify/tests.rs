//! The call against a service of the published API, without a transport between them.

use std::time::{Duration, SystemTime};

use linkerd2_proxy_api::identity::identity_server::{Identity, IdentityServer};
use prost_types::Timestamp;
use tonic::{Response, Status};

use super::*;

/// Answers with what it was asked, as the parts of a certificate.
struct Echo;

#[tonic::async_trait]
impl Identity for Echo {
    async fn certify(
        &self,
        request: tonic::Request<CertifyRequest>,
    ) -> Result<Response<CertifyResponse>, Status> {
        let asked = request.into_inner();
        let answer = |parts: &[&[u8]], seconds: Option<i64>| CertifyResponse {
            leaf_certificate: parts[0].to_vec(),
            intermediate_certificates: parts[1..].iter().map(|part| part.to_vec()).collect(),
            valid_until: seconds.map(|seconds| Timestamp { seconds, nanos: 0 }),
        };
        let csr: &[u8] = &asked.certificate_signing_request;
        Ok(Response::new(match asked.identity.as_str() {
            "leafless" => answer(&[b""], Some(1)),
            "endless" => answer(&[csr], None),
            "chained" => answer(&[csr; 9], Some(1)),
            "nobody" => return Err(Status::permission_denied("another pod's name")),
            name => answer(&[csr, name.as_bytes(), &asked.token], Some(1000)),
        }))
    }
}

async fn certify(token: &std::path::Path, name: &str) -> Result<Certified, CertifyError> {
    let operator = (IdentityServer::new(Echo), Uri::default());
    let certify = Certify::new(operator, token.to_owned());
    let asked = certify.ask(Request {
        name: name.to_owned(),
        csr: b"csr".to_vec(),
    });
    tokio::time::timeout(Duration::from_secs(10), asked)
        .await
        .expect("in time")
}

#[tokio::test]
async fn name_token_and_request_go_out_and_a_chain_comes_back() {
    let dir = std::env::temp_dir().join(format!("weir-certify-{}", std::process::id()));
    std::fs::write(&dir, "t0ken").unwrap();
    let certified = certify(&dir, "web.test").await.unwrap();
    let chain: Vec<&[u8]> = certified.chain.iter().map(AsRef::as_ref).collect();
    assert_eq!(chain, [&b"csr"[..], b"web.test", b"t0ken"]);
    let ends = SystemTime::UNIX_EPOCH + Duration::from_secs(1000);
    assert_eq!(certified.valid_until, ends);
    for (name, says) in [
        ("leafless", "`leaf_certificate`"),
        ("endless", "`valid_until`"),
        ("chained", "`intermediate_certificates`"),
        ("nobody", "another pod's name"),
    ] {
        let error = certify(&dir, name).await.unwrap_err().to_string();
        assert!(error.contains(says), "{name}: {error}");
    }
    std::fs::remove_file(&dir).unwrap();
    let error = certify(&dir, "web.test").await.unwrap_err().to_string();
    assert!(
        error.contains("token") && error.contains("weir-certify"),
        "{error}"
    );
}
