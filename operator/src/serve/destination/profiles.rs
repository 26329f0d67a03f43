//! One `GetProfile` stream: follows what stands behind a name or an address and tells it anew whenever it changed.

use futures::Stream;
use linkerd2_proxy_api::destination::DestinationProfile;
use tokio::sync::OwnedSemaphorePermit;
use tonic::Status;

use super::{Admitted, message};
use crate::index::{Caller, Profile, Watched};

/// A stream.
pub(super) struct Following {
    profile: Watched<Profile>,
    caller: Caller,
    has_told: bool,
    _slot: OwnedSemaphorePermit,
}

impl Following {
    /// Follows the profile of what was asked for.
    pub(super) fn new(profile: Watched<Profile>, admitted: Admitted) -> Self {
        Self {
            profile,
            caller: admitted.caller,
            has_told: false,
            _slot: admitted.slot,
        }
    }

    /// The messages, for as long as somebody listens.
    pub(super) fn messages(self) -> impl Stream<Item = Result<DestinationProfile, Status>> + Send {
        futures::stream::unfold(Box::new(self), async |mut following| {
            let profile = following.next().await?;
            Some((Ok(profile), following))
        })
    }

    async fn next(&mut self) -> Option<DestinationProfile> {
        if self.has_told && !self.profile.changed().await {
            return None;
        }
        self.has_told = true;
        Some(message::profile(&self.profile.latest(), &self.caller))
    }
}
