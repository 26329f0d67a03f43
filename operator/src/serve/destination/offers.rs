//! The same API of an operator without Kubernetes: a name is the value of a tag `kuma.io/service`, with or without
//! `.mesh`, and its endpoints are the inbounds of the Dataplanes that have it. Each stream follows the offers and tells
//! what differs from what it told. It reads no document.

use std::collections::{HashMap, VecDeque};
use std::net::SocketAddr;
use std::sync::Arc;

use axum::body::Body;
use axum::http::Response;
use linkerd2_proxy_api::destination::update::Update as Change;
use linkerd2_proxy_api::destination::{
    DestinationProfile, GetDestination, Update, WeightedAddr, WeightedAddrSet, destination_server,
};
use serde::Deserialize;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tonic::Status;
use weir_crds::identity::service_name;
use weir_crds::names::DEFAULT_MESH;
use weir_crds::traffic_permission::Selector;

use super::message;
use super::target::{LONGEST_NAME, TargetError, split};
use crate::index::{Offer, OfferSet, OfferView, Wanted};
use crate::serve::streaming::{CallRequest, Follow, Streaming, Streams};

/// Longest context token that is read: names, and the tags of an outbound.
const LONGEST_CONTEXT: usize = 8 * 1024;
/// The zone that names of services may have.
const ZONE: &str = ".mesh";

/// The service.
#[derive(Clone, Debug)]
pub struct Offers {
    view: watch::Receiver<OfferView>,
    streams: Arc<Semaphore>,
}

/// The service on these offers. `streams` is how many there are at once, [`super::MAX_STREAMS`] by default.
#[must_use]
pub fn service(view: watch::Receiver<OfferView>, streams: usize) -> Streaming<Offers> {
    let offers = Offers {
        view,
        streams: Arc::new(Semaphore::new(streams)),
    };
    Streaming(offers)
}

/// What is asked about.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Asked {
    Address(String, SocketAddr),
    Service(Wanted),
}

/// What our proxies say of themselves and of an outbound: `{"mesh":"..","dataplane":"..","tags":{..}}`. One that cannot
/// be read says nothing.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Context {
    mesh: String,
    dataplane: String,
    tags: Selector,
}

impl Asked {
    fn parse(request: &GetDestination) -> Result<Self, TargetError> {
        let path = &request.path;
        let wrong = || TargetError::Authority(path.chars().take(LONGEST_NAME).collect());
        let (host, port) = split(path).ok_or_else(wrong)?;
        let token = &request.context_token;
        let context = match token.len() <= LONGEST_CONTEXT {
            true => serde_json::from_str(token).unwrap_or_default(),
            false => Context::default(),
        };
        let mesh = match context.mesh.is_empty() {
            true => DEFAULT_MESH.to_owned(),
            false => context.mesh,
        };
        if let Ok(ip) = host.parse() {
            return Ok(Self::Address(mesh, SocketAddr::new(ip, port)));
        }
        let host = host.strip_suffix('.').unwrap_or(host).to_ascii_lowercase();
        let service = host.strip_suffix(ZONE).unwrap_or(&host);
        if host.len() > LONGEST_NAME || service.is_empty() {
            return Err(wrong());
        }
        Ok(Self::Service(Wanted {
            mesh,
            service: service.to_owned(),
            tags: context.tags,
            dataplane: context.dataplane,
        }))
    }

    fn endpoints(&self, offers: &OfferSet) -> Vec<Arc<Offer>> {
        match self {
            Self::Service(wanted) => offers.of(wanted),
            Self::Address(mesh, address) => {
                offers.at(mesh, *address).cloned().into_iter().collect()
            }
        }
    }

    /// Whether there is such a thing at all.
    fn exists(&self, offers: &OfferSet) -> bool {
        match self {
            Self::Service(wanted) => offers.has(wanted),
            Self::Address(mesh, address) => offers.at(mesh, *address).is_some(),
        }
    }

    fn profile(&self, offers: &OfferSet) -> DestinationProfile {
        match self {
            Self::Service(wanted) if offers.has(wanted) => DestinationProfile {
                fully_qualified_name: service_name(&wanted.service),
                ..DestinationProfile::default()
            },
            Self::Service(_) => DestinationProfile::default(),
            Self::Address(mesh, address) => DestinationProfile {
                endpoint: offers.at(mesh, *address).map(|offer| weighted(offer)),
                ..DestinationProfile::default()
            },
        }
    }
}

fn weighted(offer: &Offer) -> WeightedAddr {
    WeightedAddr {
        addr: Some(message::tcp_address(offer.address)),
        weight: message::WEIGHT,
        metric_labels: offer.labels.clone().into_iter().collect(),
        tls_identity: offer.identity.as_deref().map(message::tls_identity),
        ..WeightedAddr::default()
    }
}

/// One stream.
struct Following {
    view: watch::Receiver<OfferView>,
    asked: Asked,
    _slot: OwnedSemaphorePermit,
}

impl Offers {
    fn admit(&self, request: &GetDestination) -> Result<Following, Status> {
        let asked = Asked::parse(request)?;
        if self.view.borrow().is_none() {
            return Err(Status::unavailable(
                "the documents are not read yet: try again",
            ));
        }
        let slot = self.streams.clone().try_acquire_owned();
        Ok(Following {
            view: self.view.clone(),
            asked,
            _slot: slot.map_err(|_| Status::resource_exhausted("too many streams: try again"))?,
        })
    }
}

impl Following {
    /// The offers now.
    fn latest(&mut self) -> Arc<OfferSet> {
        self.view.borrow_and_update().clone().unwrap_or_default()
    }
}

/// A stream of `Get`.
struct Endpoints {
    following: Following,
    told: Told,
}

impl Follow for Endpoints {
    type Message = Update;

    async fn next(&mut self) -> Result<Option<Update>, Status> {
        let Self { following, told } = self;
        loop {
            if let Some(update) = told.waiting.pop_front() {
                return Ok(Some(update));
            }
            if told.endpoints.is_some() && following.view.changed().await.is_err() {
                return Ok(None);
            }
            let offers = following.latest();
            let exists = following.asked.exists(&offers);
            told.tell(following.asked.endpoints(&offers), exists);
        }
    }
}

/// A stream of `GetProfile`.
struct Profiles {
    following: Following,
    told: Option<DestinationProfile>,
}

impl Profiles {
    /// The profile, where it is not what was told.
    fn take(&mut self) -> Option<DestinationProfile> {
        let offers = self.following.latest();
        let profile = self.following.asked.profile(&offers);
        let is_told = self.told.as_ref() == Some(&profile);
        (!is_told).then(|| self.told.insert(profile).clone())
    }
}

impl Follow for Profiles {
    type Message = DestinationProfile;

    async fn next(&mut self) -> Result<Option<DestinationProfile>, Status> {
        loop {
            if let Some(profile) = self.take() {
                return Ok(Some(profile));
            }
            if self.following.view.changed().await.is_err() {
                return Ok(None);
            }
        }
    }
}

/// What a client was told of endpoints.
#[derive(Default)]
struct Told {
    /// `None` before the first message.
    endpoints: Option<Vec<Arc<Offer>>>,
    exists: bool,
    waiting: VecDeque<Update>,
}

impl Told {
    /// Queues what differs.
    fn tell(&mut self, now: Vec<Arc<Offer>>, exists: bool) {
        let is_first = self.endpoints.is_none();
        let before = self.endpoints.take().unwrap_or_default();
        let mut before: HashMap<_, _> = before
            .into_iter()
            .map(|offer| (offer.address, offer))
            .collect();
        let mut new = now.clone();
        new.retain(|offer| before.remove(&offer.address).as_ref() != Some(offer));
        let mut gone: Vec<SocketAddr> = before.into_keys().collect();
        gone.sort();
        if now.is_empty() {
            if is_first || !gone.is_empty() || self.exists != exists {
                self.waiting.push_back(message::no_endpoints(exists));
            }
        } else {
            if !new.is_empty() {
                let addrs = new.iter().map(|offer| weighted(offer)).collect();
                let set = WeightedAddrSet {
                    addrs,
                    ..WeightedAddrSet::default()
                };
                self.waiting.push_back(message::update(Change::Add(set)));
            }
            if !gone.is_empty() {
                self.waiting.push_back(message::remove(&gone));
            }
        }
        self.endpoints = Some(now);
        self.exists = exists;
    }
}

impl Offers {
    fn get(&self, asked: &GetDestination) -> Result<Endpoints, Status> {
        let (following, told) = (self.admit(asked)?, Told::default());
        Ok(Endpoints { following, told })
    }

    fn profile(&self, asked: &GetDestination) -> Result<Profiles, Status> {
        let (following, told) = (self.admit(asked)?, None);
        Ok(Profiles { following, told })
    }
}

impl Streams for Offers {
    const NAME: &'static str = destination_server::SERVICE_NAME;

    async fn answer(self, method: &str, request: CallRequest) -> Response<Body> {
        super::by_method(
            method,
            request,
            |asked| self.get(asked),
            |asked| self.profile(asked),
        )
        .await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(path: &str, context: &str) -> Option<Asked> {
        let request = GetDestination {
            path: path.to_owned(),
            context_token: context.to_owned(),
            ..GetDestination::default()
        };
        Asked::parse(&request).ok()
    }

    #[test]
    fn a_name_is_a_service_with_or_without_its_zone() {
        let web = |mesh: &str| {
            Some(Asked::Service(Wanted {
                mesh: mesh.to_owned(),
                service: "web".to_owned(),
                ..Wanted::default()
            }))
        };
        for path in ["web", "web:80", "web.mesh:8080", "WEB.Mesh.:80"] {
            assert_eq!(asked(path, ""), web("default"), "{path}");
        }
        assert_eq!(asked("web", r#"{"mesh":"m"}"#), web("m"));
        let address = Asked::Address("default".to_owned(), ([10, 0, 0, 1], 80).into());
        assert_eq!(asked("10.0.0.1:80", "rubbish"), Some(address));
        for path in ["", ".mesh:80", "web:0", "web:http"] {
            assert_eq!(asked(path, ""), None, "{path}");
        }
        let long = format!(r#"{{"mesh":"{}"}}"#, "m".repeat(LONGEST_CONTEXT));
        assert_eq!(asked("web", &long), web("default"));
    }

    fn offer(port: u16, zone: &str) -> Arc<Offer> {
        Arc::new(Offer {
            dataplane: "web-1".into(),
            address: ([10, 0, 0, 1], port).into(),
            tags: Selector::new(),
            labels: [("zone".to_owned(), zone.to_owned())].into(),
            identity: None,
        })
    }

    fn words(told: &mut Told) -> Vec<String> {
        let words = |update: Update| match update.update.expect("said") {
            Change::Add(set) => format!("+{}", set.addrs.len()),
            Change::Remove(set) => format!("-{}", set.addrs.len()),
            Change::NoEndpoints(none) => format!("none {}", none.exists),
        };
        told.waiting.drain(..).map(words).collect()
    }

    #[test]
    fn a_stream_tells_what_differs() {
        let mut told = Told::default();
        told.tell(Vec::new(), false);
        assert_eq!(words(&mut told), ["none false"]);
        told.tell(Vec::new(), false);
        assert!(words(&mut told).is_empty());
        told.tell(vec![offer(1, "a"), offer(2, "a")], true);
        assert_eq!(words(&mut told), ["+2"]);
        told.tell(vec![offer(1, "b"), offer(2, "a")], true);
        assert_eq!(words(&mut told), ["+1"]);
        told.tell(vec![offer(3, "a"), offer(2, "a")], true);
        assert_eq!(words(&mut told), ["+1", "-1"]);
        told.tell(Vec::new(), true);
        assert_eq!(words(&mut told), ["none true"]);
    }
}
