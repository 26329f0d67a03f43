//! `Identity.Certify` of Linkerd's API: a certificate for the proxy whose token asks. Served by `serve`.
//! Who asks is `token`'s to say, what it is tagged with `workload`'s, and who signs `mesh_ca`'s. It
//! holds no key and knows no Secret.

mod error;
mod gate;
pub mod request;

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use linkerd2_proxy_api::identity::identity_server::Identity as Served;
use linkerd2_proxy_api::identity::{CertifyRequest, CertifyResponse};
use tokio::sync::watch;
use tonic::{Response, Status};
use weir_crds::identity::Identity;

pub use error::CertifyError;
pub use gate::{PRESENT, WAIT, WORKING};
pub use linkerd2_proxy_api::identity::identity_server::IdentityServer;

use self::gate::{Gate, Place};
use self::request::Request;
use crate::mesh_ca::{Leaf, NotReady, Signer, View};
use crate::metrics::server::{Certified, Server as ServerMetrics};
use crate::token::{Caller, Tokens};
use crate::workload::{Unknown, Workload, Workloads};

/// How long a request waits for what it needs: the pod that has just been created to be known, or
/// its Mesh's root to be told to everyone. Below the deadlines of clients.
pub const PATIENCE: Duration = Duration::from_secs(6);

/// What the service needs.
#[derive(Clone)]
pub struct Certifier {
    /// Checks the tokens.
    pub tokens: Arc<dyn Tokens>,
    /// Knows the callers' Meshes and tags.
    pub workloads: Arc<dyn Workloads>,
    /// Who signs.
    pub authorities: watch::Receiver<View>,
    /// The last labels of every DNS name in a certificate.
    pub trust_domain: Arc<str>,
    /// Where requests are counted.
    pub metrics: ServerMetrics,
}

/// [`Certifier`] with its way in.
pub struct Service {
    certifier: Certifier,
    gate: Gate,
}

impl Certifier {
    /// The service, to be added to a server.
    #[must_use]
    pub fn service(self) -> IdentityServer<Service> {
        let service = Service {
            certifier: self,
            gate: Gate::default(),
        };
        IdentityServer::new(service)
            .max_decoding_message_size(super::MAX_MESSAGE)
            .max_encoding_message_size(super::MAX_MESSAGE)
    }

    async fn certify(&self, asked: CertifyRequest, place: &Place) -> Result<Leaf, CertifyError> {
        let caller = {
            let _turn = place.turn().await?;
            self.caller(&asked).await?
        };
        let workload = self.workload(&caller).await?;
        caller.allows(&workload.tags)?;
        if let Some(own) = &workload.name {
            check_identity(&asked.identity, own)?;
        } else if caller.own_name(&self.trust_domain).is_none() {
            // Whatever was asked for would be signed.
            return Err(CertifyError::Unnamed);
        }
        let signer = self.signer(&workload.mesh).await?;
        let _turn = place.turn().await?;
        let request = request::read(&asked.certificate_signing_request)?;
        let identity = Identity {
            name: asked.identity,
            mesh: workload.mesh.clone(),
            tags: workload.tags.clone(),
        };
        check_names(&request, &identity)?;
        sign(signer, identity, request).await
    }

    /// The caller, where the identity that it asks for is its own as far as its token tells.
    async fn caller(&self, asked: &CertifyRequest) -> Result<Caller, CertifyError> {
        if asked.identity.is_empty() {
            return Err(CertifyError::NoIdentity);
        }
        // What is projected into a file may end with a line break.
        let token = std::str::from_utf8(&asked.token)
            .map_err(|_| CertifyError::TokenText)?
            .trim();
        if token.is_empty() {
            return Err(CertifyError::NoToken(self.tokens.wanted()));
        }
        let caller = self.tokens.check(token).await?;
        if let Some(own) = caller.own_name(&self.trust_domain) {
            check_identity(&asked.identity, &own)?;
        }
        Ok(caller)
    }

    /// The caller's workload, once it is known.
    async fn workload(&self, caller: &Caller) -> Result<Arc<Workload>, CertifyError> {
        if !caller.is_bound() {
            return Err(CertifyError::NoPod);
        }
        let mut workload = self.workloads.follow(caller);
        let known = tokio::time::timeout(PATIENCE, workload.wait_for(Option::is_some)).await;
        match known {
            Ok(Ok(workload)) => Ok(workload.clone().expect("it was waited for")),
            Ok(Err(_)) | Err(_) => Err(Unknown::of(caller).into()),
        }
    }

    /// Who signs for a Mesh, once it may.
    async fn signer(&self, mesh: &str) -> Result<Signer, CertifyError> {
        let mut authorities = self.authorities.clone();
        let ready = async {
            loop {
                let state = signer(authorities.borrow_and_update().as_deref(), mesh);
                let wait = match state {
                    Ok(signer) => {
                        match Duration::try_from(signer.from.duration_since(Timestamp::now())) {
                            Ok(wait) if !wait.is_zero() => wait,
                            // Its time has come.
                            _ => return Ok(signer),
                        }
                    }
                    Err(NotReady::Soon) => PATIENCE,
                    Err(why) => return Err(CertifyError::not_ready(mesh, why)),
                };
                // Either what is known changes, or the root's time comes.
                let _ = tokio::time::timeout(wait, authorities.changed()).await;
            }
        };
        let given_up = |_| CertifyError::not_ready(mesh, NotReady::Soon);
        tokio::time::timeout(PATIENCE, ready)
            .await
            .map_err(given_up)?
    }
}

fn signer(
    authorities: Option<&crate::mesh_ca::Authorities>,
    mesh: &str,
) -> Result<Signer, NotReady> {
    let Some(authorities) = authorities else {
        return Err(NotReady::Soon);
    };
    authorities
        .get(mesh)
        .map_or(Err(NotReady::Off), |authority| authority.signer.clone())
}

fn check_identity(asked: &str, own: &str) -> Result<(), CertifyError> {
    match asked == own {
        true => Ok(()),
        false => Err(CertifyError::OtherIdentity {
            asked: asked.to_owned(),
            own: own.to_owned(),
        }),
    }
}

/// Whether a request asks for nothing that its certificate will not have.
fn check_names(request: &Request, identity: &Identity) -> Result<(), CertifyError> {
    let (names, uris) = (identity.dns_names(), identity.uris());
    let mut foreign = request
        .names
        .iter()
        .filter(|name| !names.contains(name) && !uris.contains(name));
    match foreign.next() {
        None => Ok(()),
        Some(name) => Err(CertifyError::OtherName {
            asked: name.clone(),
            own: identity.name.clone(),
        }),
    }
}

/// A P-256 signature takes less than handing it to another thread; an RSA one holds up everyone.
async fn sign(signer: Signer, identity: Identity, request: Request) -> Result<Leaf, CertifyError> {
    let is_slow = signer.root.is_slow();
    let sign = move || {
        signer
            .root
            .sign(&identity, &request.key, Timestamp::now(), signer.leaf_life)
    };
    if !is_slow {
        return Ok(sign()?);
    }
    let signed = tokio::task::spawn_blocking(sign).await;
    Ok(signed.map_err(|_| CertifyError::Interrupted)??)
}

#[tonic::async_trait]
impl Served for Service {
    async fn certify(
        &self,
        request: tonic::Request<CertifyRequest>,
    ) -> Result<Response<CertifyResponse>, Status> {
        let metrics = &self.certifier.metrics;
        let asked = request.into_inner();
        let identity = asked.identity.clone();
        let result = match self.gate.enter() {
            Ok(place) => self.certifier.certify(asked, &place).await,
            Err(crowded) => Err(crowded.into()),
        };
        match result {
            Ok(leaf) => {
                metrics.count_certificate(Certified::Issued);
                tracing::debug!(identity, until = %leaf.not_after, "issued a certificate");
                Ok(Response::new(CertifyResponse {
                    leaf_certificate: leaf.certificate,
                    intermediate_certificates: leaf.intermediates,
                    valid_until: Some(prost_types::Timestamp {
                        seconds: leaf.not_after.as_second(),
                        nanos: 0,
                    }),
                }))
            }
            Err(error) => {
                metrics.count_certificate(error.outcome());
                tracing::info!(identity, %error, "refused a certificate");
                Err(error.into())
            }
        }
    }
}
