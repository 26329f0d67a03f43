//! `Settings.Watch` (weir.settings.v1): the settings of the pod that asks, at once and at every change.
//! Served by `serve`. `source` makes the settings, `closed` its part about routes, `version` writes them as the caller reads them. It
//! knows no resource.

mod closed;
mod source;
mod version;

use std::pin::Pin;
use std::sync::Arc;

use futures::Stream;
use tonic::metadata::MetadataMap;
use tonic::{Request, Response, Status};
use weir_crds::grpc::v1::settings_server::{Settings as Served, SettingsServer};
use weir_crds::grpc::v1::{Document, WatchRequest};

pub use source::{PATIENCE, Sources};
pub use version::{BACK, VersionError, choose};

use self::source::Following;
use crate::token::{Caller, NotGranted, TokenError, Tokens};
use crate::workload::Unknown;

/// What `authorization` begins with (RFC 6750, section 2.1).
const BEARER: &str = "bearer ";

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
            WatchError::NoPod | WatchError::Version(VersionError::Old { .. }) => {
                Self::failed_precondition(text)
            }
            WatchError::Version(VersionError::Unsaid) => Self::invalid_argument(text),
        }
    }
}

/// The service.
pub struct Service {
    tokens: Arc<dyn Tokens>,
    sources: Sources,
}

impl Service {
    /// To be added to a server.
    #[must_use]
    pub fn server(tokens: Arc<dyn Tokens>, sources: Sources) -> SettingsServer<Self> {
        SettingsServer::new(Self { tokens, sources }).max_decoding_message_size(super::MAX_MESSAGE)
    }

    async fn begin(
        &self,
        request: &WatchRequest,
        metadata: &MetadataMap,
    ) -> Result<(Following, u32), WatchError> {
        let version = choose(request.newest_version)?;
        let caller = self.caller(metadata).await?;
        tracing::debug!(?caller, version, "watches its settings");
        let following = self.sources.follow(&caller);
        following.check()?;
        Ok((following, version))
    }

    async fn caller(&self, metadata: &MetadataMap) -> Result<Caller, WatchError> {
        let value = metadata
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

#[tonic::async_trait]
impl Served for Service {
    type WatchStream = Pin<Box<dyn Stream<Item = Result<Document, Status>> + Send>>;

    async fn watch(
        &self,
        request: Request<WatchRequest>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        let begun = self.begin(request.get_ref(), request.metadata()).await;
        let (following, version) =
            begun.inspect_err(|error| tracing::info!(%error, "refused settings"))?;
        let begun = Some(Box::new(following));
        let documents = futures::stream::unfold(begun, move |following| async move {
            let mut following = following?;
            match following.next().await {
                Ok(settings) => {
                    let json = version::write(&settings, version);
                    Some((Ok(Document { version, json }), Some(following)))
                }
                Err(error) => {
                    tracing::info!(%error, "ended a stream of settings");
                    Some((Err(error.into()), None))
                }
            }
        });
        Ok(Response::new(Box::pin(documents)))
    }
}
