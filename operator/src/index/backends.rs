//! The Services that HTTPRoutes name as backends: which there are, which are missed, and whose routes lead to one. Part of
//! `routes`, which asks for every route of a table. It knows no watch and no event.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use weir_crds::routes::{Backend, Route};

use super::facts::{Namespaced, find};
use super::pod::ObjectKey;
use super::service::Service;

/// What tables are made of beside the routes.
#[derive(Clone, Copy)]
pub(super) struct Around<'a> {
    /// The cluster's DNS domain.
    pub(super) domain: &'a str,
    pub(super) services: &'a Namespaced<Service>,
}

impl Around<'_> {
    /// Whether a backend is there: a Service that has this port.
    fn has(self, backend: &Backend) -> bool {
        let named = self.named(backend);
        named.is_some_and(|(key, port)| {
            let service = find(self.services, &key);
            service.is_some_and(|service| service.headless || service.port(port).is_some())
        })
    }

    /// The Service that a backend names, and its port.
    fn named(self, backend: &Backend) -> Option<(ObjectKey, u16)> {
        let (host, port) = backend.authority.rsplit_once(':')?;
        Some((service_of(host, self.domain)?, port.parse().ok()?))
    }
}

/// The Service of a name `<service>.<namespace>.svc.<cluster domain>`.
pub(super) fn service_of(host: &str, domain: &str) -> Option<ObjectKey> {
    let labels = host.strip_suffix(domain)?.strip_suffix(".svc.")?;
    let (name, namespace) = labels.split_once('.')?;
    (!namespace.contains('.')).then(|| ObjectKey {
        namespace: namespace.into(),
        name: name.into(),
    })
}

/// The backends that the HTTPRoutes of one Service name.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Leads {
    named: HashSet<ObjectKey>,
    /// By HTTPRoute, those that are not there.
    missing: BTreeMap<ObjectKey, BTreeSet<String>>,
}

impl Leads {
    /// Takes the backends that are not there off a route of a namespace, and notes all of them.
    pub(super) fn judge(&mut self, namespace: &Arc<str>, route: &mut Route, around: Around<'_>) {
        let named = route.backends.iter().filter_map(|one| around.named(one));
        self.named.extend(named.map(|(key, _)| key));
        let gone = route.backends.iter().filter(|one| !around.has(one));
        let gone: BTreeSet<String> = gone.map(|one| one.authority.clone()).collect();
        if gone.is_empty() {
            return;
        }
        route.keep_backends(|one| !gone.contains(&one.authority));
        // A route is called by its HTTPRoute and its rule.
        let of = route.name.split('/').next().unwrap_or_default();
        let of = ObjectKey {
            namespace: namespace.clone(),
            name: of.into(),
        };
        self.missing.entry(of).or_default().extend(gone);
    }
}

/// The backends of the HTTPRoutes of all Services.
#[derive(Debug, Default)]
pub(super) struct Backends {
    /// The Services whose HTTPRoutes lead to a Service.
    users: HashMap<ObjectKey, HashSet<ObjectKey>>,
    leads: HashMap<ObjectKey, Leads>,
}

impl Backends {
    /// The routes of a Service lead there from now on. Whether others are missing.
    pub(super) fn set(&mut self, service: &ObjectKey, leads: Leads) -> bool {
        let before = self.leads.remove(service).unwrap_or_default();
        for backend in &before.named {
            detach(&mut self.users, backend, service);
        }
        for backend in &leads.named {
            let users = self.users.entry(backend.clone()).or_default();
            users.insert(service.clone());
        }
        let is_other = before.missing != leads.missing;
        if !leads.named.is_empty() {
            self.leads.insert(service.clone(), leads);
        }
        is_other
    }

    /// The Services whose routes lead to a Service.
    pub(super) fn users(&self, backend: &ObjectKey) -> Vec<ObjectKey> {
        let users = self.users.get(backend).into_iter().flatten();
        users.cloned().collect()
    }

    /// What is missing of the backends of an HTTPRoute of these Services, each with the remedy.
    pub(super) fn missing<'a>(
        &'a self,
        route: &ObjectKey,
        parents: &'a [ObjectKey],
    ) -> BTreeSet<String> {
        let leads = parents.iter().filter_map(|parent| self.leads.get(parent));
        let missing = leads.filter_map(|leads| leads.missing.get(route));
        let told = missing.flatten().map(|authority| {
            format!(
                "spec.rules: backendRefs: there is no Service with the port {authority}: its part of the requests is answered 500, create it or name another"
            )
        });
        told.collect()
    }
}

pub(super) fn detach(
    of: &mut HashMap<ObjectKey, HashSet<ObjectKey>>,
    service: &ObjectKey,
    key: &ObjectKey,
) {
    if let Some(keys) = of.get_mut(service) {
        keys.remove(key);
        if keys.is_empty() {
            of.remove(service);
        }
    }
}
