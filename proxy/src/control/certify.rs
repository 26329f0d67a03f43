//! The call by which the operator certifies this proxy: `Identity.Certify` of the published API, once there is a
//! connection to it. `app` gives it to the keeper of the identity; nothing of the wire goes further than here.

use std::error::Error;
use std::io;
use std::path::PathBuf;
use std::time::SystemTime;

use hyper::Uri;
use linkerd2_proxy_api::identity::identity_client::IdentityClient;
use linkerd2_proxy_api::identity::{CertifyRequest, CertifyResponse};
use rustls::pki_types::CertificateDer;
use tonic::body::Body;
use tonic::client::GrpcService;
use tonic::codegen::{Body as HttpBody, Bytes, StdError};

use super::operator::Client;
use crate::identity::{Certified, Certifier, CertifyError, Request};

/// Certificates of a chain that are taken at most.
const MAX_CHAIN: usize = 8;

/// Asks the operator for certificates.
#[derive(Clone, Debug)]
pub struct Certify<S> {
    operator: S,
    client: IdentityClient<S>,
    token: PathBuf,
}

impl Certifier for Certify<Client> {
    async fn ready(&self) {
        if !self.operator.connected().await {
            // The proxy ends.
            std::future::pending().await
        }
    }

    async fn certify(&self, request: Request) -> Result<Certified, CertifyError> {
        self.ask(request).await
    }
}

impl<S> Certify<S>
where
    S: GrpcService<Body> + Clone + Send + Sync,
    S::Error: Into<StdError>,
    S::Future: Send,
    S::ResponseBody: HttpBody<Data = Bytes> + Send + 'static,
    <S::ResponseBody as HttpBody>::Error: Into<StdError> + Send,
{
    /// By calls that `operator` makes to this origin, with the token in this file: it is read anew for each, because it is
    /// replaced before it expires.
    pub fn new((operator, origin): (S, Uri), token: PathBuf) -> Self {
        Self {
            client: IdentityClient::with_origin(operator.clone(), origin),
            operator,
            token,
        }
    }

    async fn ask(&self, request: Request) -> Result<Certified, CertifyError> {
        let token = std::fs::read(&self.token);
        let token = token.map_err(|error| {
            let path = self.token.display();
            CertifyError(format!("the token in {path} cannot be read: {error}"))
        })?;
        let asked = CertifyRequest {
            identity: request.name,
            token,
            certificate_signing_request: request.csr,
        };
        let answer = self.client.clone().certify(asked).await;
        let answer = answer.map_err(|status| {
            let cause = status.source().map(|cause| format!(": {cause}"));
            let (code, text) = (status.code(), status.message());
            CertifyError(format!(
                "the operator has not certified it: {code}: {text}{}",
                cause.unwrap_or_default()
            ))
        })?;
        read(answer.into_inner())
            .map_err(|error| CertifyError(format!("the operator's answer: {error}")))
    }
}

/// The certificate in an answer. Its parts are DER, as Linkerd's are in spite of what the API's comments say.
fn read(answer: CertifyResponse) -> io::Result<Certified> {
    let wrong = |what: &str| io::Error::new(io::ErrorKind::InvalidData, what);
    if answer.leaf_certificate.is_empty() {
        return Err(wrong("`leaf_certificate` is empty"));
    }
    if answer.intermediate_certificates.len() >= MAX_CHAIN {
        return Err(wrong("`intermediate_certificates` are too many"));
    }
    let ends = answer
        .valid_until
        .ok_or_else(|| wrong("`valid_until` is missing"))?;
    let valid_until = SystemTime::try_from(ends);
    let chain = std::iter::once(answer.leaf_certificate).chain(answer.intermediate_certificates);
    Ok(Certified {
        chain: chain.map(CertificateDer::from).collect(),
        valid_until: valid_until.map_err(|_| wrong("`valid_until` is no time"))?,
    })
}

#[cfg(test)]
mod tests;
