//! How ServiceProfiles and HTTPRoutes change the index: the Services they are about are shown with other routes.

use std::net::IpAddr;

use super::events::gone;
use super::{Cluster, Discovery, Source};
use crate::index::Indexed;
use crate::index::facts::{Concerned, find};
use crate::index::pod::ObjectKey;
use crate::index::routes::{HttpRoute, ServiceProfile};

impl Cluster {
    fn set_profile(&mut self, profile: ServiceProfile) {
        let (routes, around) = self.facts.routes();
        let service = routes.set_profile(profile, around);
        self.routes_changed(service);
    }

    fn remove_profile(&mut self, key: &ObjectKey) {
        let (routes, around) = self.facts.routes();
        let service = routes.remove_profile(key, around);
        self.routes_changed(service);
    }

    fn set_route(&mut self, route: HttpRoute) {
        let (routes, around) = self.facts.routes();
        let services = routes.set_route(route, around);
        self.routes_changed(services);
    }

    fn remove_route(&mut self, key: &ObjectKey) {
        let (routes, around) = self.facts.routes();
        let services = routes.remove_route(key, around);
        self.routes_changed(services);
    }

    /// A Service is another, or gone: so may be the backends of others' routes.
    pub(super) fn backend_changed(&mut self, key: &ObjectKey) {
        let (routes, around) = self.facts.routes();
        let services = routes.backend_changed(key, around);
        self.routes_changed(services);
    }

    fn routes_changed(&self, services: impl IntoIterator<Item = ObjectKey>) {
        for service in services {
            let known = find(&self.facts.services, &service);
            let addresses: Vec<IpAddr> =
                known.map_or_else(Vec::new, |service| service.addresses.to_vec());
            self.show(&Concerned {
                services: vec![service],
                addresses,
            });
        }
    }
}

impl Indexed<ServiceProfile> for Discovery {
    fn apply(&mut self, profile: ServiceProfile) {
        self.lock().set_profile(profile);
    }

    fn delete(&mut self, profile: &ServiceProfile) {
        self.lock().remove_profile(&profile.key);
    }

    fn reset(&mut self, profiles: Vec<ServiceProfile>) {
        let mut cluster = self.lock();
        let known = cluster.facts.routes.profile_keys();
        for key in gone(known, profiles.iter().map(|profile| &profile.key)) {
            cluster.remove_profile(&key);
        }
        for profile in profiles {
            cluster.set_profile(profile);
        }
        cluster.has_listed(Source::ServiceProfiles);
    }

    fn unlisted(&mut self) {
        self.lock().cannot_list(Source::ServiceProfiles);
    }
}

impl Indexed<HttpRoute> for Discovery {
    fn apply(&mut self, route: HttpRoute) {
        self.lock().set_route(route);
    }

    fn delete(&mut self, route: &HttpRoute) {
        self.lock().remove_route(&route.key);
    }

    fn reset(&mut self, routes: Vec<HttpRoute>) {
        let mut cluster = self.lock();
        let known = cluster.facts.routes.route_keys();
        for key in gone(known, routes.iter().map(|route| &route.key)) {
            cluster.remove_route(&key);
        }
        for route in routes {
            cluster.set_route(route);
        }
        cluster.has_listed(Source::HttpRoutes);
    }

    fn unlisted(&mut self) {
        self.lock().cannot_list(Source::HttpRoutes);
    }
}
