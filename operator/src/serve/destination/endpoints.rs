//! One `Get` stream: follows the view of a Service, or what stands behind an address, and tells the difference to
//! what it told before. Between two messages it holds views of the index and nothing of its own.

use std::collections::{HashMap, VecDeque};
use std::net::SocketAddr;
use std::sync::Arc;

use futures::Stream;
use linkerd2_proxy_api::destination::Update;
use tokio::sync::OwnedSemaphorePermit;
use tonic::Status;

use super::target::{Target, TargetError};
use super::{Admitted, message};
use crate::index::{
    Caller, Destination, Discovery, Endpoint, ObjectKey, Profile, ServiceView, Watched,
};

/// A stream.
pub(super) struct Following {
    index: Discovery,
    subject: Subject,
    caller: Caller,
    /// The name of the one pod that is asked for.
    instance: Option<String>,
    /// What was told; `None` before the first message.
    shown: Option<Shown>,
    /// Where a client of a sticky Service was sent.
    held: Option<SocketAddr>,
    waiting: VecDeque<Update>,
    _slot: OwnedSemaphorePermit,
}

enum Subject {
    Service(Watched<ServiceView>),
    Address(Watched<Profile>, Option<(ObjectKey, Watched<ServiceView>)>),
}

/// What there is to tell.
enum Shown {
    Nothing,
    Pod(Arc<Profile>),
    Service(Arc<ServiceView>),
}

impl Following {
    /// Starts to follow a target.
    ///
    /// # Errors
    /// Where the target is a name of no Service, or of one that has no endpoints by its nature.
    pub(super) fn new(index: Discovery, admitted: Admitted) -> Result<Self, Status> {
        let (subject, instance) = match admitted.target {
            Target::Address(address, port) => {
                (Subject::Address(index.address(address, port), None), None)
            }
            Target::Name {
                service,
                instance,
                port,
            } => {
                let name = format!("{}.{}", service.name, service.namespace);
                let mut view = index.service(service, port);
                match &view.latest().destination {
                    None => return Err(TargetError::NotFound(name).into()),
                    Some(one) if one.external => return Err(TargetError::External(name).into()),
                    Some(_) => {}
                }
                (Subject::Service(view), instance)
            }
        };
        Ok(Self {
            index,
            subject,
            caller: admitted.caller,
            instance,
            shown: None,
            held: None,
            waiting: VecDeque::new(),
            _slot: admitted.slot,
        })
    }

    /// The messages, for as long as somebody listens.
    pub(super) fn messages(self) -> impl Stream<Item = Result<Update, Status>> + Send {
        // Boxed, because a stream has the room twice for what it holds.
        futures::stream::unfold(Box::new(self), async |mut following| {
            let update = following.next().await?;
            Some((Ok(update), following))
        })
    }

    async fn next(&mut self) -> Option<Update> {
        loop {
            if let Some(update) = self.waiting.pop_front() {
                if self.waiting.is_empty() {
                    // Most streams wait most of the time, and have no need of its room then.
                    self.waiting = VecDeque::new();
                }
                return Some(update);
            }
            if self.shown.is_some() && !self.subject.changed().await {
                return None;
            }
            let now = self.subject.latest(&self.index);
            self.tell(now);
        }
    }

    /// Queues what differs from what was told.
    fn tell(&mut self, now: Shown) {
        let shown = self.shown.take();
        let is_first = shown.is_none();
        let existed = shown.as_ref().is_some_and(Shown::exists);
        let before = shown.iter().flat_map(|shown| self.selected(shown));
        let mut before: HashMap<SocketAddr, &Endpoint> = before
            .map(|endpoint| (endpoint.address, endpoint))
            .collect();
        let chosen = self.selected(&now);
        let mut new = chosen.clone();
        new.retain(|endpoint| before.remove(&endpoint.address) != Some(*endpoint));
        let mut gone: Vec<SocketAddr> = before.into_keys().collect();
        gone.sort();
        let mut waiting = VecDeque::new();
        if chosen.is_empty() {
            if is_first || !gone.is_empty() || existed != now.exists() {
                waiting.push_back(message::no_endpoints(now.exists()));
            }
        } else {
            if !new.is_empty() {
                waiting.push_back(message::add(&new, now.destination(), &self.caller));
            }
            if !gone.is_empty() {
                waiting.push_back(message::remove(&gone));
            }
        }
        self.held = match chosen[..] {
            [one] => Some(one.address),
            _ => None,
        };
        self.waiting = waiting;
        self.shown = Some(now);
    }

    fn selected<'a>(&self, shown: &'a Shown) -> Vec<&'a Endpoint> {
        let mut endpoints = match shown {
            Shown::Nothing => Vec::new(),
            Shown::Pod(profile) => match &**profile {
                Profile::Endpoint(endpoint) => vec![&**endpoint],
                _ => Vec::new(),
            },
            Shown::Service(view) => view.endpoints_for(&self.caller, self.held),
        };
        if self.instance.is_some() {
            endpoints.retain(|endpoint| endpoint.hostname.as_deref() == self.instance.as_deref());
        }
        endpoints
    }
}

impl Shown {
    fn destination(&self) -> Option<&Destination> {
        match self {
            Self::Service(view) => view.destination.as_deref(),
            _ => None,
        }
    }

    /// Whether there is something of this cluster; a client resolves what there is not by other means.
    fn exists(&self) -> bool {
        match self {
            Self::Nothing => false,
            Self::Pod(_) => true,
            Self::Service(view) => view.destination.as_ref().is_some_and(|one| !one.external),
        }
    }
}

impl Subject {
    async fn changed(&mut self) -> bool {
        match self {
            Self::Service(view) => view.changed().await,
            Self::Address(profile, None) => profile.changed().await,
            Self::Address(profile, Some((_, view))) => tokio::select! {
                changed = profile.changed() => changed,
                changed = view.changed() => changed,
            },
        }
    }

    fn latest(&mut self, index: &Discovery) -> Shown {
        let (profile, service) = match self {
            Self::Service(view) => return Shown::Service(view.latest()),
            Self::Address(profile, service) => (profile.latest(), service),
        };
        match &*profile {
            Profile::Unknown => {
                *service = None;
                Shown::Nothing
            }
            Profile::Endpoint(_) => {
                *service = None;
                Shown::Pod(profile)
            }
            Profile::Service(destination, _) => {
                let followed = service.as_ref();
                // The address may have gone to another Service.
                if followed.is_none_or(|(key, _)| *key != destination.service) {
                    let key = destination.service.clone();
                    *service = Some((key.clone(), index.service(key, destination.port)));
                }
                let view = service.as_mut().map(|(_, view)| view.latest());
                view.map_or(Shown::Nothing, Shown::Service)
            }
        }
    }
}
