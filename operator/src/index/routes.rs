//! What the index keeps of ServiceProfiles and HTTPRoutes, and the tables that Services have by them. Part of `facts`;
//! made anew for the Services that an event names. It knows no client and no request.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use kube::api::DynamicObject;
use serde_json::{Value, json};
use weir_crds::routes::http_route::{self, HttpRoute as Rules, Parent, ParentRef};
use weir_crds::routes::{RouteTable, service_profile};
use weir_crds::violation::Violation;

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
}

/// What is kept of an HTTPRoute.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HttpRoute {
    /// Namespace and name.
    pub key: ObjectKey,
    /// The Services that are its parents.
    pub parents: Box<[ObjectKey]>,
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

fn report(kind: &str, key: &ObjectKey, problems: &[Violation]) {
    let ObjectKey { namespace, name } = key;
    for problem in problems {
        tracing::warn!(%namespace, %name, %problem, "a {kind} is not obeyed in all it says");
    }
}

impl ServiceProfile {
    /// Keeps of an object what is used. Its name is `<service>.<namespace>.svc.<cluster domain>`.
    pub(super) fn keep(object: &DynamicObject, domain: &str) -> Self {
        let key = key_of(object);
        let labels = key.name.strip_suffix(domain);
        let labels = labels.and_then(|labels| labels.strip_suffix(".svc."));
        let service = labels.and_then(|labels| labels.split_once('.'));
        let service = service.filter(|(_, namespace)| !namespace.contains('.'));
        let service = service.map(|(name, namespace)| ObjectKey {
            namespace: namespace.into(),
            name: name.into(),
        });
        let (table, problems) = service_profile::compile(&object.data["spec"]);
        report("ServiceProfile", &key, &problems);
        let says = service.is_some() && !(table.routes.is_empty() && table.backends.is_empty());
        Self {
            table: says.then(|| table_of(RouteKind::ServiceProfile, key.clone(), table)),
            service,
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
        let kept = Self {
            created: created.map_or(0, |time| time.0.as_second()),
            spec: match parents.is_empty() {
                true => Value::Null,
                false => json!({"parentRefs": spec["parentRefs"], "rules": spec["rules"]}),
            },
            parents: parents.into(),
            key,
        };
        if let Some(parent) = named.first() {
            kept.tell(parent, domain);
        }
        kept
    }

    /// Tells of what is wrong in it, and of what is not obeyed.
    fn tell(&self, parent: &ParentRef, domain: &str) {
        let port = parent.port.and_then(|port| u16::try_from(port).ok());
        let parent = Parent {
            name: &parent.name,
            namespace: &parent.namespace,
            port: port.unwrap_or(ANY_PORT),
            domain,
        };
        let (_table, problems) = http_route::compile(&[self.rules()], parent);
        report("HTTPRoute", &self.key, &problems);
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

fn table_of(kind: RouteKind, of: ObjectKey, table: RouteTable) -> Arc<Table> {
    Arc::new(Table { kind, of, table })
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
    /// What Services with routes have, for the ports that HTTPRoutes name and for any other.
    tables: HashMap<ObjectKey, HashMap<u16, Arc<Routes>>>,
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
        domain: &str,
    ) -> Option<ObjectKey> {
        if self.profiles.get(&profile.key) == Some(&profile) {
            return None;
        }
        let service = profile.service.clone();
        if let Some(service) = &service {
            let profiles = self.profiles_of.entry(service.clone()).or_default();
            profiles.insert(profile.key.clone());
        }
        self.profiles.insert(profile.key.clone(), profile);
        service.inspect(|service| self.renew(service, domain))
    }

    /// Forgets a ServiceProfile; the Service it concerns.
    pub(super) fn remove_profile(&mut self, key: &ObjectKey, domain: &str) -> Option<ObjectKey> {
        let service = self.profiles.remove(key)?.service?;
        detach(&mut self.profiles_of, &service, key);
        self.renew(&service, domain);
        Some(service)
    }

    /// Takes an HTTPRoute over; the Services it concerns.
    pub(super) fn set_route(&mut self, route: HttpRoute, domain: &str) -> Vec<ObjectKey> {
        if self.http_routes.get(&route.key) == Some(&route) {
            return Vec::new();
        }
        let key = route.key.clone();
        let mut concerned: HashSet<ObjectKey> = self.forget(&key).into_iter().collect();
        for service in &route.parents {
            let routes = self.routes_of.entry(service.clone()).or_default();
            routes.insert(key.clone());
            concerned.insert(service.clone());
        }
        self.http_routes.insert(key, route);
        self.renew_all(concerned, domain)
    }

    /// Forgets an HTTPRoute; the Services it concerns.
    pub(super) fn remove_route(&mut self, key: &ObjectKey, domain: &str) -> Vec<ObjectKey> {
        let concerned = self.forget(key);
        self.renew_all(concerned, domain)
    }

    fn forget(&mut self, key: &ObjectKey) -> Vec<ObjectKey> {
        let parents = self.http_routes.remove(key).map(|route| route.parents);
        let parents = parents.unwrap_or_default().into_vec();
        for service in &parents {
            detach(&mut self.routes_of, service, key);
        }
        parents
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
        domain: &str,
    ) -> Vec<ObjectKey> {
        let services: Vec<ObjectKey> = services.into_iter().collect();
        for service in &services {
            self.renew(service, domain);
        }
        services
    }

    /// Makes the tables of a Service again.
    fn renew(&mut self, service: &ObjectKey, domain: &str) {
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
        let tables = numbers.into_iter().map(|port| {
            let mut all = profiles.clone();
            all.extend(by_namespace(&routes, parent_of(service, domain, port)));
            (port, Arc::new(Routes(all.into())))
        });
        let tables: HashMap<u16, Arc<Routes>> = tables.collect();
        if tables.values().all(|routes| routes.0.is_empty()) {
            self.tables.remove(service);
        } else {
            self.tables.insert(service.clone(), tables);
        }
    }
}

/// One table for the HTTPRoutes of each namespace: those of the Service's own are for everybody, those of another one
/// for the clients in it (Gateway API, "producer" and "consumer" routes).
fn by_namespace(routes: &[&HttpRoute], parent: Parent<'_>) -> Vec<Arc<Table>> {
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
        Some(table_of(RouteKind::HttpRoute, of, table))
    });
    tables.collect()
}

fn detach(of: &mut HashMap<ObjectKey, HashSet<ObjectKey>>, service: &ObjectKey, key: &ObjectKey) {
    if let Some(keys) = of.get_mut(service) {
        keys.remove(key);
        if keys.is_empty() {
            of.remove(service);
        }
    }
}
