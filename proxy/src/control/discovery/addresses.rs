//! The endpoints of one service by name and port, as the operator lists them (`Get`). Followed by `follow`, for the service
//! that a destination is and for those that its requests are divided among.

use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::task::Poll;

use linkerd2_proxy_api::destination::Update;
use tokio::sync::mpsc;
use tonic::{Status, Streaming};

use super::follow::Lookup;
use super::wire::Endpoints;
use crate::control::operator::Retry;
use crate::control::stream::{Event, Watch, watch};
use crate::endpoints::Listed;

/// `Get`: the endpoints of a service, by name and port.
struct Updates(Lookup, String);

impl Watch for Updates {
    type Message = Update;

    async fn open(&self) -> Result<Streaming<Update>, Status> {
        self.0.get(self.1.clone()).await
    }

    /// A service may be named before it is there.
    fn again(&self) -> Option<Retry> {
        Some(self.0.absence())
    }
}

/// The next thing that is said about any of them is taken over.
pub(super) async fn next_of(followed: &mut [Addresses]) {
    poll_fn(|cx| {
        let mut followed = followed.iter_mut();
        // What is waited for stays where it is: a future that was dropped has lost nothing.
        let said = followed.any(|one| pin!(one.next()).poll(cx).is_ready());
        if said { Poll::Ready(()) } else { Poll::Pending }
    })
    .await;
}

/// A service whose endpoints are followed.
pub(super) struct Addresses {
    path: String,
    following: Pin<Box<dyn Future<Output = ()> + Send>>,
    updates: mpsc::Receiver<Event<Update>>,
    endpoints: Endpoints,
    is_said: bool,
    /// Nobody tells of them at the moment.
    is_stale: bool,
}

impl Addresses {
    /// Begins to follow those of `name:port`.
    pub(super) fn new(lookup: &Lookup, path: String) -> Self {
        let (events, updates) = mpsc::channel(1);
        let of = Updates(lookup.clone(), path.clone());
        let following = watch(of, lookup.source(), events);
        Self {
            path,
            following: Box::pin(following),
            updates,
            endpoints: Endpoints::default(),
            is_said: false,
            is_stale: false,
        }
    }

    /// Whose they are.
    pub(super) fn path(&self) -> &str {
        &self.path
    }

    /// Whether anything was said.
    pub(super) fn is_said(&self) -> bool {
        self.is_said
    }

    /// Whether there may be others by now, because nobody tells of them at the moment.
    pub(super) fn is_stale(&self) -> bool {
        self.is_stale
    }

    /// What was last said; none where the operator cannot resolve the service.
    pub(super) fn listed(&self) -> Option<Vec<Listed>> {
        (!self.endpoints.is_unknown).then(|| self.endpoints.listed())
    }

    /// Whether there are any.
    pub(super) fn is_empty(&self) -> bool {
        self.endpoints.is_empty()
    }

    /// Whether nothing is to be read into the bytes of connections to them.
    pub(super) fn is_opaque(&self) -> bool {
        self.endpoints.is_opaque()
    }

    /// The next thing that is said is taken over.
    pub(super) async fn next(&mut self) {
        let event = tokio::select! {
            () = &mut self.following => None,
            event = self.updates.recv() => event,
        };
        match event {
            Some(Event::Message { message, is_first }) => {
                let mut endpoints = std::mem::take(&mut self.endpoints);
                if is_first {
                    endpoints = Endpoints::default();
                }
                self.is_said |= endpoints.take(message);
                self.endpoints = endpoints;
                self.is_stale = false;
            }
            Some(Event::Broken) => self.is_stale = true,
            Some(Event::Refused) => {
                self.is_said = true;
                self.endpoints = Endpoints::default();
                self.endpoints.is_unknown = true;
            }
            None => std::future::pending().await,
        }
    }
}
