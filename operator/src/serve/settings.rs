//! `Settings.Watch` (weir.settings.v1): the settings of the pod that asks, at once and at every change.
//! Served by `serve`. `source` makes the settings, `closed` its part about routes. It knows no resource.

mod closed;
mod source;

use std::sync::Arc;

use axum::body::Body;
use axum::http::{HeaderMap, Response};
use tonic::Status;
use weir_crds::grpc::v1::{Document, WatchRequest, settings_server};
use weir_crds::settings::SETTINGS_VERSION;

pub use source::{PATIENCE, Sources};

use self::source::Following;
use super::streaming::{CallRequest, Follow, Streaming, Streams, read, respond, unknown};
use super::version::{VersionError, Versions};
use crate::token::{Caller, NotGranted, TokenError, Tokens};
use crate::workload::Unknown;

/// What `authorization` begins with (RFC 6750, section 2.1).
const BEARER: &str = "bearer ";
/// The versions of the document that are written.
const VERSIONS: Versions = Versions::new(SETTINGS_VERSION, &[]);

/// Why a stream does not begin, or ends.
#[derive(Debug, thiserror::Error)]
pub enum WatchError {
    /// No token came with it.
    #[error("authorization: has no token: send `Bearer <token>` with {0}")]
    NoToken(&'static str),
    /// The token was not accepted, or could not be checked.
    #[error("authorization: {0}")]
    Token(#[from] TokenError),
    /// The token is bound to no pod.
    #[error("authorization: the token is bound to no pod: use a projected service account token")]
    NoPod,
    /// The Dataplane is tagged with what the token does not allow.
    #[error("authorization: {0}")]
    NotGranted(#[from] NotGranted),
    /// The pod, or the Dataplane, is not known.
    #[error("authorization: {0}")]
    Unknown(#[from] Unknown),
    /// The document cannot be written for this caller.
    #[error(transparent)]
    Version(#[from] VersionError),
}

impl From<WatchError> for Status {
    fn from(error: WatchError) -> Self {
        let text = error.to_string();
        match error {
            WatchError::NoToken(_) | WatchError::Token(TokenError::Rejected(_)) => {
                Self::unauthenticated(text)
            }
            WatchError::Token(TokenError::Unavailable(_)) | WatchError::Unknown(_) => {
                Self::unavailable(text)
            }
            WatchError::NotGranted(_) => Self::permission_denied(text),
            WatchError::NoPod => Self::failed_precondition(text),
            WatchError::Version(error) => error.into(),
        }
    }
}

/// The service.
#[derive(Clone)]
pub struct Service {
    tokens: Arc<dyn Tokens>,
    sources: Sources,
}

impl Service {
    /// To be added to a server.
    #[must_use]
    pub fn server(tokens: Arc<dyn Tokens>, sources: Sources) -> Streaming<Self> {
        Streaming(Self { tokens, sources })
    }

    async fn watch(
        &self,
        asked: WatchRequest,
        headers: &HeaderMap,
    ) -> Result<Documents, WatchError> {
        let version = VERSIONS.choose(asked.newest_version)?;
        let caller = self.caller(headers).await?;
        tracing::debug!(?caller, version, "watches its settings");
        let following = self.sources.follow(&caller);
        following.check()?;
        Ok(Documents { following, version })
    }

    async fn caller(&self, headers: &HeaderMap) -> Result<Caller, WatchError> {
        let value = headers
            .get("authorization")
            .and_then(|value| value.to_str().ok());
        let Some(token) = value.and_then(bearer) else {
            return Err(WatchError::NoToken(self.tokens.wanted()));
        };
        let caller = self.tokens.check(token).await?;
        if !caller.is_bound() {
            return Err(WatchError::NoPod);
        }
        Ok(caller)
    }
}

/// The token in `authorization`; the scheme is written in any case (RFC 9110, section 11.1).
fn bearer(value: &str) -> Option<&str> {
    let (scheme, token) = value.split_at_checked(BEARER.len())?;
    let token = token.trim();
    (scheme.eq_ignore_ascii_case(BEARER) && !token.is_empty()).then_some(token)
}

impl Streams for Service {
    const NAME: &'static str = settings_server::SERVICE_NAME;

    async fn answer(self, method: &str, request: CallRequest) -> Response<Body> {
        match method {
            "Watch" => {
                let headers = request.headers().clone();
                let begun = match read(request).await {
                    Ok(asked) => self.watch(asked, &headers).await,
                    Err(status) => return status.into_http(),
                };
                let refused = |error: &WatchError| tracing::info!(%error, "refused settings");
                respond(begun.inspect_err(refused).map_err(Status::from))
            }
            _ => unknown(),
        }
    }
}

/// One stream.
struct Documents {
    following: Following,
    version: u32,
}

impl Follow for Documents {
    type Message = Document;

    async fn next(&mut self) -> Result<Option<Document>, Status> {
        let version = self.version;
        let settings = self
            .following
            .next()
            .await
            .inspect_err(|error| tracing::info!(%error, "ended a stream of settings"))?;
        let json = VERSIONS.write(&settings, version);
        Ok(Some(Document { version, json }))
    }
}
