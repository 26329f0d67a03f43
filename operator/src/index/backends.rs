//! The Services that HTTPRoutes and ServiceProfiles lead to: which there are, which are missed, and whose routes lead to
//! one. Part of `routes`, which asks for every table. It knows no watch and no event.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use weir_crds::routes::{Backend, Route};

use super::facts::{Namespaced, find};
use super::pod::ObjectKey;
use super::service::Service;
use super::view::RouteKind;

/// What tables are made of beside the routes.
#[derive(Clone, Copy)]
pub(super) struct Around<'a> {
    /// The cluster's DNS domain.
    pub(super) domain: &'a str,
    pub(super) services: &'a Namespaced<Service>,
}

impl Around<'_> {
    /// Why a backend cannot be dialed; none where it is a Service that has this port, or a headless one, whose pods may
    /// have any.
    fn gone(self, backend: &Backend) -> Option<Gone> {
        if !backend.authority.contains(':') {
            return Some(Gone::Portless);
        }
        let named = self.named(backend);
        let found = named.and_then(|(key, port)| Some((find(self.services, &key)?, port)));
        match found {
            Some((service, _)) if service.external_name.is_some() => Some(Gone::External),
            Some((service, port)) if service.headless || service.port(port).is_some() => None,
            _ => Some(Gone::Missing),
        }
    }

    /// The Service that a backend names, and its port.
    fn named(self, backend: &Backend) -> Option<(ObjectKey, u16)> {
        let (host, port) = backend.authority.rsplit_once(':')?;
        Some((service_of(host, self.domain)?, port.parse().ok()?))
    }
}

/// Why a backend is not there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Gone {
    /// There is no such Service, or it has not this port.
    Missing,
    /// The Service is a name outside, which nobody resolves for a proxy.
    External,
    /// It is a name without a port.
    Portless,
}

impl Gone {
    fn told(self, kind: RouteKind, authority: &str) -> String {
        let (field, effect) = match kind {
            RouteKind::ServiceProfile => ("spec.dstOverrides", "it gets nothing"),
            RouteKind::HttpRoute => (
                "spec.rules: backendRefs",
                "its part of the requests is answered 500",
            ),
        };
        match self {
            Self::Missing => format!(
                "{field}: there is no Service with the port {authority}: {effect}, create it or name another"
            ),
            Self::External => format!(
                "{field}: the Service of {authority} is an ExternalName, to which no proxy sends: {effect}, name another"
            ),
            Self::Portless => format!(
                "{field}: {authority} names no port: {effect}, name one as in {authority}:80"
            ),
        }
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

/// The backends that the routes of one Service name.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Leads {
    named: HashSet<ObjectKey>,
    /// By ServiceProfile and HTTPRoute, those that are not there.
    missing: BTreeMap<(RouteKind, ObjectKey), BTreeMap<String, Gone>>,
}

impl Leads {
    /// Takes the backends that are not there off a route of an HTTPRoute of a namespace, and notes all of them.
    pub(super) fn judge(&mut self, namespace: &Arc<str>, route: &mut Route, around: Around<'_>) {
        // A route is called by its HTTPRoute and its rule.
        let of = route.name.split('/').next().unwrap_or_default();
        let of = ObjectKey {
            namespace: namespace.clone(),
            name: of.into(),
        };
        self.note((RouteKind::HttpRoute, of), &route.backends, around);
        route.keep_backends(|one| around.gone(one).is_none());
    }

    /// Notes the backends of a ServiceProfile or an HTTPRoute.
    pub(super) fn note(
        &mut self,
        of: (RouteKind, ObjectKey),
        backends: &[Backend],
        around: Around<'_>,
    ) {
        let named = backends.iter().filter_map(|one| around.named(one));
        self.named.extend(named.map(|(key, _)| key));
        let gone = backends
            .iter()
            .filter_map(|one| Some((one.authority.clone(), around.gone(one)?)));
        let gone: BTreeMap<String, Gone> = gone.collect();
        if !gone.is_empty() {
            self.missing.entry(of).or_default().extend(gone);
        }
    }
}

/// The backends of the routes of all Services.
#[derive(Debug, Default)]
pub(super) struct Backends {
    /// The Services whose routes lead to a Service.
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
        if leads != Leads::default() {
            self.leads.insert(service.clone(), leads);
        }
        is_other
    }

    /// The Services whose routes lead to a Service.
    pub(super) fn users(&self, backend: &ObjectKey) -> Vec<ObjectKey> {
        let users = self.users.get(backend).into_iter().flatten();
        users.cloned().collect()
    }

    /// What is missing of the backends of a ServiceProfile or an HTTPRoute of these Services, each with the remedy.
    pub(super) fn missing(
        &self,
        of: &(RouteKind, ObjectKey),
        services: &[ObjectKey],
    ) -> BTreeSet<String> {
        let leads = services.iter().filter_map(|one| self.leads.get(one));
        let missing = leads.filter_map(|leads| leads.missing.get(of));
        let told = missing.flatten();
        told.map(|(authority, gone)| gone.told(of.0, authority))
            .collect()
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
