//! Why a request for a certificate is refused: the gRPC status, the words, and what it counts as.
//! Made by `identity`. Every text names the field and the remedy.

use tonic::{Code, Status};
use weir_crds::Violation;

use super::gate::Crowded;
use super::request::RequestError;
use crate::mesh_ca::{NotReady, RootError};
use crate::metrics::server::Certified;
use crate::token::{NotGranted, TokenError};
use crate::workload::Unknown;

/// Why a request is refused.
#[derive(Debug, thiserror::Error)]
pub enum CertifyError {
    /// No identity was asked for.
    #[error(
        "identity: is empty: ask for <service account>.<namespace>.serviceaccount.identity.<control plane namespace>.<trust domain>, outside Kubernetes for <service>.mesh"
    )]
    NoIdentity,
    /// No token came with it.
    #[error("token: is empty: send {0}")]
    NoToken(&'static str),
    /// Something else came in its place.
    #[error("token: is not text: send the contents of the token file")]
    TokenText,
    /// The token was not accepted, or could not be checked.
    #[error("token: {0}")]
    Token(#[from] TokenError),
    /// The identity is another's.
    #[error("identity: {asked} is not the caller's: the token is for {own}, ask for that")]
    OtherIdentity {
        /// What was asked for.
        asked: String,
        /// What the token is for.
        own: String,
    },
    /// The token is bound to no pod.
    #[error(
        "token: is bound to no pod, and tags are a pod's: use a projected service account token"
    )]
    NoPod,
    /// The pod, or the Dataplane, is not known.
    #[error("token: {0}")]
    Unknown(#[from] Unknown),
    /// Neither its token nor its workload says what it is called.
    #[error(
        "identity: nothing says which one is the caller's: its Dataplane has no tag kuma.io/service"
    )]
    Unnamed,
    /// The Dataplane is tagged with what the token does not allow.
    #[error("token: {0}")]
    NotGranted(#[from] NotGranted),
    /// The request cannot be used.
    #[error("certificate_signing_request: {0}")]
    Request(#[from] RequestError),
    /// The request asks for a name that is not the caller's.
    #[error(
        "certificate_signing_request: asks for {asked}, which is not the caller's: ask for {own}, or for no name"
    )]
    OtherName {
        /// What was asked for.
        asked: String,
        /// The caller's DNS name.
        own: String,
    },
    /// The Mesh has no mutual TLS.
    #[error(
        "Mesh {0:?}: mtls.enabledBackend: names no certificate authority: enable one, or run the proxy without identity"
    )]
    NoMtls(String),
    /// The Mesh's authority cannot be used.
    #[error("Mesh {0:?}: {1}")]
    Unusable(String, Violation),
    /// The Mesh's authority is not ready.
    #[error(
        "Mesh {0:?}: its certificate authority is being made or told to its proxies: ask again"
    )]
    Soon(String),
    /// Too many at once.
    #[error(transparent)]
    Crowded(#[from] Crowded),
    /// It could not be signed.
    #[error("cannot sign: {0}")]
    Sign(#[from] RootError),
    /// The operator ends.
    #[error("the operator ends: ask again")]
    Interrupted,
}

impl CertifyError {
    pub(super) fn not_ready(mesh: &str, why: NotReady) -> Self {
        match why {
            NotReady::Off => Self::NoMtls(mesh.to_owned()),
            NotReady::Soon => Self::Soon(mesh.to_owned()),
            NotReady::Unusable(violation) => Self::Unusable(mesh.to_owned(), violation),
        }
    }

    /// The gRPC status.
    #[must_use]
    pub fn code(&self) -> Code {
        match self {
            Self::NoIdentity | Self::Request(_) => Code::InvalidArgument,
            Self::NoToken(_) | Self::TokenText | Self::Token(TokenError::Rejected(_)) => {
                Code::Unauthenticated
            }
            Self::OtherIdentity { .. } | Self::OtherName { .. } | Self::NotGranted(_) => {
                Code::PermissionDenied
            }
            Self::NoPod | Self::Unnamed | Self::NoMtls(_) | Self::Unusable(..) => {
                Code::FailedPrecondition
            }
            Self::Token(TokenError::Unavailable(_))
            | Self::Unknown(_)
            | Self::Soon(_)
            | Self::Crowded(_)
            | Self::Interrupted => Code::Unavailable,
            Self::Sign(_) => Code::Internal,
        }
    }

    /// What it counts as.
    #[must_use]
    pub fn outcome(&self) -> Certified {
        match self {
            Self::NoToken(_)
            | Self::TokenText
            | Self::NoPod
            | Self::Token(TokenError::Rejected(_)) => Certified::Token,
            Self::OtherIdentity { .. }
            | Self::OtherName { .. }
            | Self::NotGranted(_)
            | Self::Unnamed => Certified::Identity,
            Self::NoIdentity | Self::Request(_) => Certified::Request,
            Self::NoMtls(_) | Self::Unusable(..) | Self::Sign(_) => Certified::Mesh,
            Self::Token(TokenError::Unavailable(_))
            | Self::Unknown(_)
            | Self::Soon(_)
            | Self::Crowded(_)
            | Self::Interrupted => Certified::Unavailable,
        }
    }
}

impl From<CertifyError> for Status {
    fn from(error: CertifyError) -> Self {
        Self::new(error.code(), error.to_string())
    }
}
