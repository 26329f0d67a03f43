//! What the index keeps of ServiceProfiles and HTTPRoutes, and the tables that Services have by them. Part of `facts`;
//! made anew for the Services that an event names. It knows no client and no request.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use kube::api::DynamicObject;
use serde_json::{Value, json};
use tokio::sync::watch;
use weir_crds::routes::http_route::{self, HttpRoute as Rules, Parent, ParentRef};
use weir_crds::routes::service_profile;
use weir_crds::violation::Violation;

use super::backends::{Around, Backends, Leads, detach, service_of};
use super::fault::RouteFault;
use super::pod::ObjectKey;
use super::view::{RouteKind, Routes, Table};

/// A port that no parent names: what is said of all ports is said of it.
const ANY_PORT: u16 = 0;

/// What is kept of a ServiceProfile.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServiceProfile {
    /// Namespace and name.
    pub key: ObjectKey,
    /// The Service that it is about; none where its name is that of no Service.
    pub service: Option<ObjectKey>,
    /// What it says; none where it says nothing about any request.
    pub table: Option<Arc<Table>>,
    /// What is wrong with it.
    pub fault: Option<Arc<RouteFault>>,
    uid: Arc<str>,
}

/// What is kept of an HTTPRoute.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HttpRoute {
    /// Namespace and name.
    pub key: ObjectKey,
    /// The Services that are its parents.
    pub parents: Box<[ObjectKey]>,
    /// What is wrong with it.
    pub fault: Option<Arc<RouteFault>>,
    uid: Arc<str>,
    created: i64,
    /// `parentRefs` and `rules` of its `spec`; null where it has no Service for a parent.
    spec: Value,
}

fn key_of(object: &DynamicObject) -> ObjectKey {
    let meta = &object.metadata;
    ObjectKey {
        namespace: meta.namespace.as_deref().unwrap_or_default().into(),
        name: meta.name.as_deref().unwrap_or_default().into(),
    }
}

impl ServiceProfile {
    /// Keeps of an object what is used. Its name is `<service>.<namespace>.svc.<cluster domain>`.
    pub(super) fn keep(object: &DynamicObject, domain: &str) -> Self {
        let key = key_of(object);
        let service = service_of(&key.name, domain);
        let (table, problems) = service_profile::compile(&object.data["spec"]);
        let of = (object, &key);
        let fault = RouteFault::of(RouteKind::ServiceProfile, of, &problems);
        let says = service.is_some() && !(table.routes.is_empty() && table.backends.is_empty());
        Self {
            table: says.then(|| {
                let (kind, of) = (RouteKind::ServiceProfile, key.clone());
                Arc::new(Table { kind, of, table })
            }),
            service,
            fault,
            uid: object.metadata.uid.as_deref().unwrap_or_default().into(),
            key,
        }
    }
}

impl HttpRoute {
    /// Keeps of an object what is used.
    pub(super) fn keep(object: &DynamicObject, domain: &str) -> Self {
        let key = key_of(object);
        let spec = &object.data["spec"];
        let named = http_route::parents(spec, &key.namespace);
        let mut parents: Vec<ObjectKey> = named
            .iter()
            .map(|parent| ObjectKey {
                namespace: parent.namespace.as_str().into(),
                name: parent.name.as_str().into(),
            })
            .collect();
        parents.sort();
        parents.dedup();
        let created = object.metadata.creation_timestamp.as_ref();
        let mut kept = Self {
            fault: None,
            uid: object.metadata.uid.as_deref().unwrap_or_default().into(),
            created: created.map_or(0, |time| time.0.as_second()),
            spec: match parents.is_empty() {
                true => Value::Null,
                false => json!({"parentRefs": spec["parentRefs"], "rules": spec["rules"]}),
            },
            parents: parents.into(),
            key,
        };
        if let Some(parent) = named.first() {
            let problems = kept.problems(parent, domain);
            let of = (object, &kept.key);
            kept.fault = RouteFault::of(RouteKind::HttpRoute, of, &problems);
        }
        kept
    }

    /// What is wrong in it, and what is not obeyed.
    fn problems(&self, parent: &ParentRef, domain: &str) -> Vec<Violation> {
        let port = parent.port.and_then(|port| u16::try_from(port).ok());
        let parent = Parent {
            name: &parent.name,
            namespace: &parent.namespace,
            port: port.unwrap_or(ANY_PORT),
            domain,
        };
        let (_table, problems) = http_route::compile(&[self.rules()], parent);
        problems
    }

    fn rules(&self) -> Rules<'_> {
        Rules {
            name: &self.key.name,
            namespace: &self.key.namespace,
            created: self.created,
            spec: &self.spec,
        }
    }
}

fn parent_of<'a>(service: &'a ObjectKey, domain: &'a str, port: u16) -> Parent<'a> {
    Parent {
        name: &service.name,
        namespace: &service.namespace,
        port,
        domain,
    }
}

/// The routes of all Services.
#[derive(Debug, Default)]
pub(super) struct RouteFacts {
    profiles: HashMap<ObjectKey, ServiceProfile>,
    http_routes: HashMap<ObjectKey, HttpRoute>,
    /// The ServiceProfiles about a Service.
    profiles_of: HashMap<ObjectKey, HashSet<ObjectKey>>,
    /// The HTTPRoutes whose parent is a Service.
    routes_of: HashMap<ObjectKey, HashSet<ObjectKey>>,
    backends: Backends,
    /// What Services with routes have, for the ports that HTTPRoutes name and for any other.
    tables: HashMap<ObjectKey, HashMap<u16, Arc<Routes>>>,
    faulty: watch::Sender<u64>,
}

impl RouteFacts {
    /// The routes of a Service's port.
    pub(super) fn of(&self, service: &ObjectKey, port: u16) -> Option<&Arc<Routes>> {
        let ports = self.tables.get(service)?;
        ports.get(&port).or_else(|| ports.get(&ANY_PORT))
    }

    /// Takes a ServiceProfile over; the Service it concerns.
    pub(super) fn set_profile(
        &mut self,
        profile: ServiceProfile,
        around: Around<'_>,
    ) -> Option<ObjectKey> {
        let known = self.profiles.get(&profile.key);
        if known == Some(&profile) {
            return None;
        }
        let before = known.and_then(|known| known.fault.clone());
        self.found(before.as_deref(), profile.fault.as_deref());
        let service = profile.service.clone();
        if let Some(service) = &service {
            let profiles = self.profiles_of.entry(service.clone()).or_default();
            profiles.insert(profile.key.clone());
        }
        self.profiles.insert(profile.key.clone(), profile);
        service.inspect(|service| self.renew(service, around))
    }

    /// Forgets a ServiceProfile; the Service it concerns.
    pub(super) fn remove_profile(
        &mut self,
        key: &ObjectKey,
        around: Around<'_>,
    ) -> Option<ObjectKey> {
        let ServiceProfile { service, fault, .. } = self.profiles.remove(key)?;
        self.found(fault.as_deref(), None);
        let service = service?;
        detach(&mut self.profiles_of, &service, key);
        self.renew(&service, around);
        Some(service)
    }

    /// Takes an HTTPRoute over; the Services it concerns.
    pub(super) fn set_route(&mut self, route: HttpRoute, around: Around<'_>) -> Vec<ObjectKey> {
        let known = self.http_routes.get(&route.key);
        if known == Some(&route) {
            return Vec::new();
        }
        let before = known.and_then(|known| known.fault.clone());
        self.found(before.as_deref(), route.fault.as_deref());
        let key = route.key.clone();
        let mut concerned: HashSet<ObjectKey> = self.forget(&key).into_iter().collect();
        for service in &route.parents {
            let routes = self.routes_of.entry(service.clone()).or_default();
            routes.insert(key.clone());
            concerned.insert(service.clone());
        }
        self.http_routes.insert(key, route);
        self.renew_all(concerned, around)
    }

    /// Forgets an HTTPRoute; the Services it concerns.
    pub(super) fn remove_route(&mut self, key: &ObjectKey, around: Around<'_>) -> Vec<ObjectKey> {
        let known = self.http_routes.get(key);
        let fault = known.and_then(|known| known.fault.clone());
        self.found(fault.as_deref(), None);
        let concerned = self.forget(key);
        self.renew_all(concerned, around)
    }

    fn forget(&mut self, key: &ObjectKey) -> Vec<ObjectKey> {
        let parents = self.http_routes.remove(key).map(|route| route.parents);
        let parents = parents.unwrap_or_default().into_vec();
        for service in &parents {
            detach(&mut self.routes_of, service, key);
        }
        parents
    }

    /// What is wrong with a route is another thing now.
    fn found(&self, before: Option<&RouteFault>, now: Option<&RouteFault>) {
        if before != now {
            self.ring();
        }
    }

    /// Wakes whoever wants to know what is wrong.
    pub(super) fn ring(&self) {
        self.faulty.send_modify(|count| *count += 1);
    }

    /// Moves when something else is wrong with a route.
    pub(super) fn faulty(&self) -> watch::Receiver<u64> {
        self.faulty.subscribe()
    }

    /// What is wrong with all routes, backends that are not there included.
    pub(super) fn faults(&self) -> Vec<Arc<RouteFault>> {
        let profiles = self.profiles.values();
        let profiles = profiles.filter_map(|profile| self.fault_of_profile(profile));
        let routes = self.http_routes.values();
        let routes = routes.filter_map(|route| self.fault_of_route(route));
        profiles.chain(routes).collect()
    }

    /// The same of one route.
    pub(super) fn fault(&self, kind: RouteKind, key: &ObjectKey) -> Option<Arc<RouteFault>> {
        match kind {
            RouteKind::ServiceProfile => self.fault_of_profile(self.profiles.get(key)?),
            RouteKind::HttpRoute => self.fault_of_route(self.http_routes.get(key)?),
        }
    }

    fn fault_of_profile(&self, profile: &ServiceProfile) -> Option<Arc<RouteFault>> {
        let of = (RouteKind::ServiceProfile, profile.key.clone());
        let missing = self.backends.missing(&of, profile.service.as_slice());
        RouteFault::with(profile.fault.as_ref(), (of, &profile.uid), missing)
    }

    fn fault_of_route(&self, route: &HttpRoute) -> Option<Arc<RouteFault>> {
        let of = (RouteKind::HttpRoute, route.key.clone());
        let missing = self.backends.missing(&of, &route.parents);
        RouteFault::with(route.fault.as_ref(), (of, &route.uid), missing)
    }

    /// Whether there is such a route.
    pub(super) fn has(&self, kind: RouteKind, key: &ObjectKey) -> bool {
        match kind {
            RouteKind::ServiceProfile => self.profiles.contains_key(key),
            RouteKind::HttpRoute => self.http_routes.contains_key(key),
        }
    }

    /// The keys of all ServiceProfiles.
    pub(super) fn profile_keys(&self) -> Vec<ObjectKey> {
        self.profiles.keys().cloned().collect()
    }

    /// The keys of all HTTPRoutes.
    pub(super) fn route_keys(&self) -> Vec<ObjectKey> {
        self.http_routes.keys().cloned().collect()
    }

    fn renew_all(
        &mut self,
        services: impl IntoIterator<Item = ObjectKey>,
        around: Around<'_>,
    ) -> Vec<ObjectKey> {
        let services: Vec<ObjectKey> = services.into_iter().collect();
        for service in &services {
            self.renew(service, around);
        }
        services
    }

    /// Makes the tables of a Service again.
    fn renew(&mut self, service: &ObjectKey, around: Around<'_>) {
        let profiles = self.profiles_of.get(service).into_iter().flatten();
        let profiles = profiles.filter_map(|key| self.profiles.get(key)?.table.clone());
        let mut profiles: Vec<Arc<Table>> = profiles.collect();
        profiles.sort_by(|one, other| one.of.cmp(&other.of));
        let routes = self.routes_of.get(service).into_iter().flatten();
        let routes: Vec<&HttpRoute> = routes.filter_map(|key| self.http_routes.get(key)).collect();
        let named = routes
            .iter()
            .flat_map(|route| http_route::parents(&route.spec, &route.key.namespace));
        let named = named.filter_map(|parent| u16::try_from(parent.port?).ok());
        let numbers: HashSet<u16> = named.chain([ANY_PORT]).collect();
        let mut leads = Leads::default();
        for table in &profiles {
            leads.note(
                (table.kind, table.of.clone()),
                &table.table.backends,
                around,
            );
        }
        let tables = numbers.into_iter().map(|port| {
            let mut all = profiles.clone();
            let parent = parent_of(service, around.domain, port);
            for mut table in by_namespace(&routes, parent) {
                for route in &mut table.table.routes {
                    leads.judge(&table.of.namespace, route, around);
                }
                all.push(Arc::new(table));
            }
            (port, Arc::new(Routes(all.into())))
        });
        let tables: HashMap<u16, Arc<Routes>> = tables.collect();
        if tables.values().all(|routes| routes.0.is_empty()) {
            self.tables.remove(service);
        } else {
            self.tables.insert(service.clone(), tables);
        }
        if self.backends.set(service, leads) {
            self.ring();
        }
    }

    /// A Service has come, changed or gone: makes the tables again that lead to it. The Services whose they are.
    pub(super) fn backend_changed(
        &mut self,
        backend: &ObjectKey,
        around: Around<'_>,
    ) -> Vec<ObjectKey> {
        let users = self.backends.users(backend);
        self.renew_all(users, around)
    }
}

/// One table for the HTTPRoutes of each namespace: those of the Service's own are for everybody, those of another one
/// for the clients in it (Gateway API, "producer" and "consumer" routes).
fn by_namespace(routes: &[&HttpRoute], parent: Parent<'_>) -> Vec<Table> {
    let mut namespaces: Vec<&Arc<str>> = routes.iter().map(|route| &route.key.namespace).collect();
    namespaces.sort();
    namespaces.dedup();
    let tables = namespaces.into_iter().filter_map(|namespace| {
        let own = routes
            .iter()
            .filter(|route| route.key.namespace == *namespace);
        let own = own.map(|route| route.rules());
        let mut own: Vec<Rules<'_>> = own
            .filter(|route| http_route::attaches(route, parent))
            .collect();
        own.sort_by_key(|route| (route.created, route.name));
        let first = own.first()?.name.into();
        let of = ObjectKey {
            namespace: namespace.clone(),
            name: first,
        };
        let (table, _reported) = http_route::compile(&own, parent);
        let kind = RouteKind::HttpRoute;
        Some(Table { kind, of, table })
    });
    tables.collect()
}
