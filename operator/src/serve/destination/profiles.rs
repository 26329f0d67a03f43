//! One `GetProfile` stream: follows what stands behind a name or an address and tells it anew whenever it changed.

use linkerd2_proxy_api::destination::DestinationProfile;
use tokio::sync::OwnedSemaphorePermit;
use tonic::Status;

use super::{Admitted, message};
use crate::index::{Caller, Profile, Watched};
use crate::serve::streaming::Follow;

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
}

impl Follow for Following {
    type Message = DestinationProfile;

    async fn next(&mut self) -> Result<Option<DestinationProfile>, Status> {
        if self.has_told && !self.profile.changed().await {
            return Ok(None);
        }
        self.has_told = true;
        let profile = self.profile.latest();
        Ok(Some(message::profile(&profile, &self.caller)))
    }
}
