//! The index of the cluster: takes the events of Pods, Services, EndpointSlices, Nodes and Meshes, and shows a view of
//! everything that somebody watches. Fed by `watch`, watched by `serve`; the writer of Dataplanes asks it what to do.
//! Every call returns at once; it knows no client and no protobuf.

mod events;
mod routing;
mod scraping;
mod writing;

use std::collections::{HashMap, HashSet};
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, Weak};

use k8s_openapi::api::core::v1;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::api::{DynamicObject, PartialObjectMeta};
use tokio::sync::watch;

use super::dataplane::Dataplane;
use super::facts::{Config, Facts};
use super::fault::RouteFault;
use super::interner::Interner;
use super::pod::{ObjectKey, Pod};
use super::publish::Published;
use super::routes::{HttpRoute, ServiceProfile};
use super::service::{Node, Service, Slice};
use super::touched::Touched;
use super::view::{Caller, Profile, RouteKind, ServiceView};

/// What a profile is of.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Subject {
    /// An address.
    Address(IpAddr),
    /// A Service's name.
    Service(ObjectKey),
}

/// The port of a profile, and the name of one pod below a Service.
type ProfileKey = (u16, Option<Arc<str>>);

/// The kinds of object.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Source {
    Pods,
    Services,
    Slices,
    Nodes,
    Meshes,
    ServiceProfiles,
    HttpRoutes,
    Dataplanes,
}

/// How many [`Source`]s answers need; Dataplanes are only written.
const ANSWERING: usize = 7;

pub use self::writing::Ingredients;

/// A handle on the index; clones are the same index.
#[derive(Clone, Debug, Default)]
pub struct Discovery(Arc<Mutex<Cluster>>);

#[derive(Debug, Default)]
struct Cluster {
    facts: Facts,
    touched: Touched,
    names: Interner,
    services: Published<ObjectKey, u16, ServiceView>,
    profiles: Published<Subject, ProfileKey, Profile>,
    listed: HashSet<Source>,
    /// Those of them that cannot be listed: there may be some.
    assumed: HashSet<Source>,
    complete: watch::Sender<bool>,
    certain: watch::Sender<bool>,
    dataplanes: HashMap<ObjectKey, Dataplane>,
}

/// A view that is kept up to date; dropping it forgets what nobody else watches.
#[derive(Debug)]
pub struct Watched<V> {
    receiver: watch::Receiver<Arc<V>>,
    index: Weak<Mutex<Cluster>>,
    place: Place,
}

#[derive(Debug)]
enum Place {
    Service(ObjectKey, u16),
    Profile(Subject, ProfileKey),
}

impl<V> Watched<V> {
    /// The view now; a later [`Watched::changed`] waits for the next.
    pub fn latest(&mut self) -> Arc<V> {
        self.receiver.borrow_and_update().clone()
    }

    /// Waits until there is a view that was not seen; `false` when there will be none.
    pub async fn changed(&mut self) -> bool {
        self.receiver.changed().await.is_ok()
    }

    /// Whether there is a view that was not seen.
    #[must_use]
    pub fn has_changed(&self) -> bool {
        self.receiver.has_changed().unwrap_or(false)
    }
}

impl<V> Drop for Watched<V> {
    fn drop(&mut self) {
        let Some(index) = self.index.upgrade() else {
            return;
        };
        let mut cluster = lock(&index);
        match &self.place {
            Place::Service(service, port) => cluster.services.release(service, port),
            Place::Profile(subject, key) => cluster.profiles.release(subject, key),
        }
    }
}

fn lock(cluster: &Mutex<Cluster>) -> MutexGuard<'_, Cluster> {
    cluster
        .lock()
        .expect("nothing panics while it holds the index")
}

impl Discovery {
    /// An index that knows nothing yet.
    #[must_use]
    pub fn new(config: Config) -> Self {
        let facts = Facts::new(config);
        Self(Arc::new(Mutex::new(Cluster {
            facts,
            ..Cluster::default()
        })))
    }

    fn lock(&self) -> MutexGuard<'_, Cluster> {
        lock(&self.0)
    }

    /// Whether every kind of object was listed once: before, what is not known may exist.
    #[must_use]
    pub fn complete(&self) -> watch::Receiver<bool> {
        self.lock().complete.subscribe()
    }

    /// The same of routes, too, which an answer does not wait for where they cannot be listed.
    #[must_use]
    pub fn certain(&self) -> watch::Receiver<bool> {
        self.lock().certain.subscribe()
    }

    /// The cluster's DNS domain.
    #[must_use]
    pub fn cluster_domain(&self) -> Arc<str> {
        self.lock().facts.config.cluster_domain.clone()
    }

    /// Watches a port of a Service.
    #[must_use]
    pub fn service(&self, service: ObjectKey, port: u16) -> Watched<ServiceView> {
        let cluster = &mut *self.lock();
        let facts = &cluster.facts;
        let make = |service: &ObjectKey, port: &u16| facts.service_view(service, *port);
        let (service, receiver) = cluster.services.watch(service, port, make);
        Watched {
            receiver,
            index: Arc::downgrade(&self.0),
            place: Place::Service(service, port),
        }
    }

    /// Watches what stands behind an address.
    #[must_use]
    pub fn address(&self, address: IpAddr, port: u16) -> Watched<Profile> {
        self.profile(Subject::Address(address), (port, None))
    }

    /// Watches what stands behind a Service's name, or behind that of one of its pods.
    #[must_use]
    pub fn name(&self, service: ObjectKey, instance: Option<&str>, port: u16) -> Watched<Profile> {
        self.profile(Subject::Service(service), (port, instance.map(Into::into)))
    }

    fn profile(&self, subject: Subject, key: ProfileKey) -> Watched<Profile> {
        let cluster = &mut *self.lock();
        let facts = &cluster.facts;
        let make = |subject: &Subject, key: &ProfileKey| profile_of(facts, subject, key);
        let (subject, receiver) = cluster.profiles.watch(subject, key.clone(), make);
        Watched {
            receiver,
            index: Arc::downgrade(&self.0),
            place: Place::Profile(subject, key),
        }
    }

    /// Who asks, by what it says of itself.
    #[must_use]
    pub fn caller(&self, pod: Option<ObjectKey>, node: Option<&str>) -> Caller {
        self.lock().facts.caller(pod, node)
    }

    /// How many views are watched.
    #[must_use]
    pub fn watched(&self) -> usize {
        let cluster = self.lock();
        cluster.services.len() + cluster.profiles.len()
    }

    /// What is kept of a Pod.
    #[must_use]
    pub fn keep_pod(&self, pod: v1::Pod) -> Pod {
        Pod::keep(pod, &mut self.lock().names)
    }

    /// What is kept of a Service.
    #[must_use]
    pub fn keep_service(&self, service: v1::Service) -> Service {
        Service::keep(service, &mut self.lock().names)
    }

    /// What is kept of an EndpointSlice.
    #[must_use]
    pub fn keep_slice(&self, slice: EndpointSlice) -> Slice {
        Slice::keep(slice, &mut self.lock().names)
    }

    /// What is kept of a Node.
    #[must_use]
    pub fn keep_node(&self, node: &PartialObjectMeta<v1::Node>) -> Node {
        Node::keep(&node.metadata, &mut self.lock().names)
    }
}

impl Discovery {
    /// What is kept of a ServiceProfile.
    #[must_use]
    pub fn keep_profile(&self, profile: &DynamicObject) -> ServiceProfile {
        ServiceProfile::keep(profile, &self.cluster_domain())
    }

    /// Moves when something else is wrong with a ServiceProfile or an HTTPRoute.
    #[must_use]
    pub fn faulty(&self) -> watch::Receiver<u64> {
        self.lock().facts.routes.faulty()
    }

    /// What is wrong with all of them; nothing before everything was listed once.
    #[must_use]
    pub fn faults(&self) -> Vec<Arc<RouteFault>> {
        let cluster = self.lock();
        match *cluster.complete.borrow() {
            true => cluster.facts.routes.faults(),
            false => Vec::new(),
        }
    }

    /// What is wrong with one of them; as little before everything was listed once.
    #[must_use]
    pub fn fault(&self, kind: RouteKind, key: &ObjectKey) -> Option<Arc<RouteFault>> {
        let cluster = self.lock();
        let is_complete = *cluster.complete.borrow();
        let fault = is_complete.then(|| cluster.facts.routes.fault(kind, key));
        fault.flatten()
    }

    /// Whether there is such a route.
    #[must_use]
    pub fn has_route(&self, kind: RouteKind, key: &ObjectKey) -> bool {
        self.lock().facts.routes.has(kind, key)
    }

    /// What is kept of an HTTPRoute.
    #[must_use]
    pub fn keep_route(&self, route: &DynamicObject) -> HttpRoute {
        HttpRoute::keep(route, &self.cluster_domain())
    }
}

fn profile_of(facts: &Facts, subject: &Subject, (port, instance): &ProfileKey) -> Profile {
    match (subject, instance) {
        (Subject::Address(address), _) => facts.address_view(*address, *port),
        (Subject::Service(service), None) => facts.name_view(service, *port),
        (Subject::Service(service), Some(name)) => facts.instance_view(service, name, *port),
    }
}
