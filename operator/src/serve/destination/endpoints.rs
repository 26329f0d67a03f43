//! One `Get` stream: follows the view of a Service, or what stands behind an address, and tells the difference to
//! what it told before. Between two messages it holds views of the index and nothing of its own.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;

use linkerd2_proxy_api::destination::Update;
use tokio::sync::OwnedSemaphorePermit;
use tonic::Status;

use super::target::{Target, TargetError};
use super::{Admitted, message};
use crate::index::{
    Caller, Destination, Discovery, Endpoint, ObjectKey, Profile, ServiceView, Watched,
};
use crate::serve::streaming::Follow;

/// A stream.
pub(super) struct Following {
    subject: Subject,
    caller: Caller,
    /// The name of the one pod that is asked for.
    instance: Option<Box<str>>,
    /// What was told; `None` before the first message.
    shown: Option<Shown>,
    /// Where a client of a sticky Service was sent.
    held: Option<SocketAddr>,
    /// Endpoints that are gone, which is still to be told.
    gone: Vec<SocketAddr>,
    _slot: OwnedSemaphorePermit,
}

enum Subject {
    Service(Watched<ServiceView>),
    /// In a box, because it is the larger one and few ask for it.
    Address(Box<Address>),
}

/// What stands behind an address, and the Service's endpoints where that is one.
struct Address {
    index: Discovery,
    profile: Watched<Profile>,
    service: Option<(ObjectKey, Watched<ServiceView>)>,
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
    pub(super) fn new(index: &Discovery, admitted: Admitted) -> Result<Self, Status> {
        let (subject, instance) = match admitted.target {
            Target::Address(address, port) => {
                let address = Address {
                    index: index.clone(),
                    profile: index.address(address, port),
                    service: None,
                };
                (Subject::Address(Box::new(address)), None)
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
            subject,
            caller: admitted.caller,
            instance: instance.map(String::into_boxed_str),
            shown: None,
            held: None,
            gone: Vec::new(),
            _slot: admitted.slot,
        })
    }

    /// What is new and what is not what it was; what is gone is kept for the next message.
    fn tell(&mut self, now: Shown) -> Option<Update> {
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
        let update = match chosen.is_empty() {
            true => {
                let is_told = !is_first && gone.is_empty() && existed == now.exists();
                gone = Vec::new();
                (!is_told).then(|| message::no_endpoints(now.exists()))
            }
            false if new.is_empty() => None,
            false => Some(message::add(&new, now.destination(), &self.caller)),
        };
        self.held = match chosen[..] {
            [one] => Some(one.address),
            _ => None,
        };
        self.gone = gone;
        self.shown = Some(now);
        update
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

impl Follow for Following {
    type Message = Update;

    async fn next(&mut self) -> Result<Option<Update>, Status> {
        loop {
            if !self.gone.is_empty() {
                return Ok(Some(message::remove(&std::mem::take(&mut self.gone))));
            }
            if self.shown.is_some() && !self.subject.changed().await {
                return Ok(None);
            }
            let now = self.subject.latest();
            if let Some(update) = self.tell(now) {
                return Ok(Some(update));
            }
        }
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
            // In a box as what it waits for is.
            Self::Address(address) => Box::pin(address.changed()).await,
        }
    }

    fn latest(&mut self) -> Shown {
        match self {
            Self::Service(view) => Shown::Service(view.latest()),
            Self::Address(address) => address.latest(),
        }
    }
}

impl Address {
    async fn changed(&mut self) -> bool {
        match &mut self.service {
            None => self.profile.changed().await,
            Some((_, view)) => tokio::select! {
                changed = self.profile.changed() => changed,
                changed = view.changed() => changed,
            },
        }
    }

    fn latest(&mut self) -> Shown {
        let profile = self.profile.latest();
        match &*profile {
            Profile::Unknown => {
                self.service = None;
                Shown::Nothing
            }
            Profile::Endpoint(_) => {
                self.service = None;
                Shown::Pod(profile)
            }
            Profile::Service(destination, _) => {
                let followed = self.service.as_ref();
                // The address may have gone to another Service.
                if followed.is_none_or(|(key, _)| *key != destination.service) {
                    let key = destination.service.clone();
                    let view = self.index.service(key.clone(), destination.port);
                    self.service = Some((key, view));
                }
                let view = self.service.as_mut().map(|(_, view)| view.latest());
                view.map_or(Shown::Nothing, Shown::Service)
            }
        }
    }
}
