//! Everything the index knows, and the views that follow from it. Changed by `discovery` alone, event by event; each
//! change returns what it concerns. It knows nobody who watches.

mod views;

use std::collections::{HashMap, HashSet};
use std::net::IpAddr;
use std::sync::Arc;

use weir_crds::{Mesh, identity};

use super::backends::Around;
use super::pod::{ObjectKey, Pod};
use super::ports::Ports;
use super::routes::RouteFacts;
use super::service::{Node, Service, Slice};

/// What the index is told.
#[derive(Clone, Debug)]
pub struct Config {
    /// The cluster's DNS domain.
    pub cluster_domain: Arc<str>,
    /// The last labels of every name in a certificate.
    pub trust_domain: Arc<str>,
    /// Ports that are opaque where neither the Service nor the pod says anything (Linkerd's list).
    pub opaque_ports: Ports,
}

/// Linkerd's default list of opaque ports: SMTP, MySQL, Galera, PostgreSQL, Redis, Elasticsearch, Memcached.
pub const DEFAULT_OPAQUE_PORTS: &str = "25,587,3306,4444,5432,6379,9300,11211";

impl Default for Config {
    fn default() -> Self {
        Self {
            cluster_domain: "cluster.local".into(),
            trust_domain: identity::TRUST_DOMAIN.into(),
            opaque_ports: Ports::parse(DEFAULT_OPAQUE_PORTS, |_| None),
        }
    }
}

/// Objects by namespace and name.
pub(super) type Namespaced<T> = HashMap<Arc<str>, HashMap<Arc<str>, Arc<T>>>;

/// Everything the index knows.
#[derive(Debug, Default)]
pub(super) struct Facts {
    pub(super) config: Config,
    pub(super) pods: Namespaced<Pod>,
    pub(super) services: Namespaced<Service>,
    pub(super) nodes: HashMap<Arc<str>, Node>,
    pub(super) meshes: HashMap<Arc<str>, Arc<Mesh>>,
    pub(super) routes: RouteFacts,
    /// The slices of each Service.
    slices: HashMap<ObjectKey, Vec<Arc<Slice>>>,
    /// The Service of each slice.
    owners: HashMap<ObjectKey, ObjectKey>,
    /// The Services whose slices name a pod, once a slice.
    users: HashMap<ObjectKey, Vec<ObjectKey>>,
    /// The pod that has an address.
    pod_addresses: HashMap<IpAddr, ObjectKey>,
    /// The Service that has an address.
    service_addresses: HashMap<IpAddr, ObjectKey>,
}

/// What a change concerns.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Concerned {
    pub(super) services: Vec<ObjectKey>,
    pub(super) addresses: Vec<IpAddr>,
}

pub(super) fn find<'a, T>(objects: &'a Namespaced<T>, key: &ObjectKey) -> Option<&'a Arc<T>> {
    objects.get(&key.namespace)?.get(&key.name)
}

fn put<T>(objects: &mut Namespaced<T>, key: &ObjectKey, object: Arc<T>) {
    let names = objects.entry(key.namespace.clone()).or_default();
    names.insert(key.name.clone(), object);
}

fn take<T>(objects: &mut Namespaced<T>, key: &ObjectKey) -> Option<Arc<T>> {
    let names = objects.get_mut(&key.namespace)?;
    let taken = names.remove(&key.name);
    if names.is_empty() {
        objects.remove(&key.namespace);
    }
    taken
}

impl Facts {
    /// Nothing is known yet.
    pub(super) fn new(config: Config) -> Self {
        Self {
            config,
            ..Self::default()
        }
    }

    /// The routes, and what their tables are made of beside them.
    pub(super) fn routes(&mut self) -> (&mut RouteFacts, Around<'_>) {
        let around = Around {
            domain: &self.config.cluster_domain,
            services: &self.services,
        };
        (&mut self.routes, around)
    }

    /// Takes a Pod over; nothing is concerned where discovery says the same of it as before.
    pub(super) fn set_pod(&mut self, mut pod: Pod) -> Concerned {
        let key = pod.workload.pod.clone();
        let known = find(&self.pods, &key).cloned();
        let is_same = known
            .as_ref()
            .is_some_and(|known| known.workload == pod.workload);
        if let Some(known) = known.as_ref().filter(|_| is_same) {
            pod.workload = known.workload.clone();
        }
        let mut concerned = Concerned::default();
        if !is_same {
            concerned.services = self.users_of(&key);
        }
        let before = known.as_ref().map_or(&[][..], |known| &known.addresses);
        let pod = Arc::new(pod);
        for address in before.iter().filter(|one| !pod.addresses.contains(one)) {
            self.free(*address, &key);
            concerned.addresses.push(*address);
        }
        put(&mut self.pods, &key, pod.clone());
        for address in &pod.addresses {
            if self.claim(*address, &pod) || !is_same {
                concerned.addresses.push(*address);
            }
        }
        concerned
    }

    pub(super) fn remove_pod(&mut self, key: &ObjectKey) -> Concerned {
        let Some(pod) = take(&mut self.pods, key) else {
            return Concerned::default();
        };
        for address in &pod.addresses {
            self.free(*address, key);
        }
        Concerned {
            services: self.users_of(key),
            addresses: pod.addresses.to_vec(),
        }
    }

    /// Gives an address to a pod, unless a pod has it that came later or is not ending; whether it is a new one.
    fn claim(&mut self, address: IpAddr, pod: &Pod) -> bool {
        let key = &pod.workload.pod;
        let holder = self
            .pod_addresses
            .get(&address)
            .filter(|holder| *holder != key);
        let holder = holder.and_then(|holder| find(&self.pods, holder));
        let rank = |pod: &Pod| (!pod.terminating, pod.created);
        if holder
            .is_some_and(|holder| holder.addresses.contains(&address) && rank(holder) > rank(pod))
        {
            return false;
        }
        self.pod_addresses.insert(address, key.clone()).as_ref() != Some(key)
    }

    fn free(&mut self, address: IpAddr, key: &ObjectKey) {
        if self.pod_addresses.get(&address) == Some(key) {
            self.pod_addresses.remove(&address);
        }
    }

    fn users_of(&self, pod: &ObjectKey) -> Vec<ObjectKey> {
        let services: HashSet<&ObjectKey> = self.users.get(pod).into_iter().flatten().collect();
        services.into_iter().cloned().collect()
    }

    /// Takes a Service over; the one before it comes back where it differs.
    pub(super) fn set_service(&mut self, service: Service) -> Option<Option<Arc<Service>>> {
        let key = service.key.clone();
        let known = find(&self.services, &key).cloned();
        if known.as_ref().is_some_and(|known| **known == service) {
            return None;
        }
        self.free_service(known.as_deref());
        for address in &service.addresses {
            self.service_addresses.insert(*address, key.clone());
        }
        put(&mut self.services, &key, Arc::new(service));
        Some(known)
    }

    pub(super) fn remove_service(&mut self, key: &ObjectKey) -> Option<Arc<Service>> {
        let service = take(&mut self.services, key)?;
        self.free_service(Some(&service));
        Some(service)
    }

    fn free_service(&mut self, service: Option<&Service>) {
        for address in service.iter().flat_map(|service| &service.addresses) {
            if self.service_addresses.get(address) == service.map(|service| &service.key) {
                self.service_addresses.remove(address);
            }
        }
    }

    /// Takes a slice over; the Services it concerns.
    pub(super) fn set_slice(&mut self, slice: Slice) -> Vec<ObjectKey> {
        let (key, service) = (slice.key.clone(), slice.service.clone());
        let known = self.slices.get(&service).into_iter().flatten();
        let mut known = known.filter(|known| known.key == key);
        if known.next().is_some_and(|known| **known == slice) {
            return Vec::new();
        }
        let mut concerned = self.remove_slice(&key);
        for pod in slice.endpoints.iter().filter_map(|one| one.pod.as_ref()) {
            self.users
                .entry(pod.clone())
                .or_default()
                .push(service.clone());
        }
        self.slices
            .entry(service.clone())
            .or_default()
            .push(Arc::new(slice));
        self.owners.insert(key, service.clone());
        concerned.push(service);
        concerned.dedup();
        concerned
    }

    pub(super) fn remove_slice(&mut self, key: &ObjectKey) -> Vec<ObjectKey> {
        let Some(service) = self.owners.remove(key) else {
            return Vec::new();
        };
        let slices = self.slices.entry(service.clone()).or_default();
        let place = slices.iter().position(|slice| slice.key == *key);
        let slice = place.map(|place| slices.swap_remove(place));
        if slices.is_empty() {
            self.slices.remove(&service);
        }
        let endpoints = slice.iter().flat_map(|slice| &slice.endpoints);
        for pod in endpoints.filter_map(|one| one.pod.as_ref()) {
            let Some(users) = self.users.get_mut(pod) else {
                continue;
            };
            if let Some(place) = users.iter().position(|user| *user == service) {
                users.swap_remove(place);
            }
            if users.is_empty() {
                self.users.remove(pod);
            }
        }
        vec![service]
    }

    /// The keys of all slices.
    pub(super) fn slice_keys(&self) -> Vec<ObjectKey> {
        self.owners.keys().cloned().collect()
    }

    /// The addresses of the pods on a node that are watched, of those given.
    pub(super) fn on_node<'a>(
        &'a self,
        node: &'a str,
        addresses: impl Iterator<Item = IpAddr> + 'a,
    ) -> impl Iterator<Item = IpAddr> + 'a {
        addresses.filter(move |address| {
            let pod = self.pod_at(*address);
            pod.is_some_and(|pod| pod.workload.node.as_deref() == Some(node))
        })
    }

    /// What shows something of the pods of a Mesh.
    pub(super) fn of_mesh(&self, name: &str) -> Concerned {
        let pods = self.pods.values().flat_map(HashMap::values);
        let pods = pods.filter(|pod| pod.workload.mesh.as_deref() == Some(name));
        let (mut services, mut addresses) = (HashSet::new(), Vec::new());
        for pod in pods {
            let users = self.users.get(&pod.workload.pod);
            services.extend(users.into_iter().flatten());
            addresses.extend(&pod.addresses);
        }
        Concerned {
            services: services.into_iter().cloned().collect(),
            addresses,
        }
    }

    fn pod_at(&self, address: IpAddr) -> Option<&Arc<Pod>> {
        find(&self.pods, self.pod_addresses.get(&address)?)
    }
}
