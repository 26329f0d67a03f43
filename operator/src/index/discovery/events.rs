//! How events change the index: what each kind of object concerns, and the watched views that are made again.

use std::collections::{BTreeSet, HashSet};
use std::sync::Arc;

use kube::ResourceExt;
use weir_crds::Mesh;

use super::{ANSWERING, Cluster, Discovery, ProfileKey, Source, Subject, profile_of};
use crate::index::Indexed;
use crate::index::facts::{Concerned, find};
use crate::index::pod::{ObjectKey, Pod};
use crate::index::service::{Node, Service, Slice, has_identity};

impl Cluster {
    pub(super) fn show(&self, concerned: &Concerned) {
        let facts = &self.facts;
        let profile = |subject: &Subject, key: &ProfileKey| profile_of(facts, subject, key);
        for service in &concerned.services {
            let make = |service: &ObjectKey, port: &u16| facts.service_view(service, *port);
            self.services.refresh(service, make);
            self.profiles
                .refresh(&Subject::Service(service.clone()), profile);
        }
        for address in &concerned.addresses {
            self.profiles.refresh(&Subject::Address(*address), profile);
        }
    }

    fn set_pod(&mut self, pod: Pod) {
        let key = pod.workload.pod.clone();
        let known = find(&self.facts.pods, &key);
        if known.is_some_and(|known| **known == pod) {
            return;
        }
        if pod.injected.is_some() || known.is_some_and(|known| known.injected.is_some()) {
            self.touched.touch(key);
        }
        let concerned = self.facts.set_pod(pod);
        self.show(&concerned);
    }

    fn remove_pod(&mut self, key: &ObjectKey) {
        let known = find(&self.facts.pods, key);
        if known.is_some_and(|pod| pod.injected.is_some()) {
            self.touched.touch(key.clone());
        }
        let concerned = self.facts.remove_pod(key);
        self.show(&concerned);
    }

    fn set_service(&mut self, service: Service) {
        let key = service.key.clone();
        if let Some(before) = self.facts.set_service(service) {
            self.service_changed(&key, before.as_deref());
        }
    }

    fn remove_service(&mut self, key: &ObjectKey) {
        if let Some(before) = self.facts.remove_service(key) {
            self.service_changed(key, Some(&before));
        }
    }

    fn service_changed(&mut self, key: &ObjectKey, before: Option<&Service>) {
        let now = find(&self.facts.services, key).cloned();
        let both = || before.into_iter().chain(now.as_deref());
        let addresses = both().flat_map(|service| service.addresses.iter().copied());
        let concerned = Concerned {
            services: vec![key.clone()],
            addresses: addresses.collect(),
        };
        self.touched
            .touch_selected(&self.facts, &key.namespace, both());
        self.show(&concerned);
        if !is_same_backend(before, now.as_deref()) {
            self.backend_changed(key);
        }
    }

    fn slice_changed(&self, services: Vec<ObjectKey>) {
        self.show(&Concerned {
            services,
            addresses: Vec::new(),
        });
    }

    fn set_node(&mut self, node: Node) {
        let name = node.name.clone();
        if self.facts.nodes.get(&name) == Some(&node) {
            return;
        }
        self.facts.nodes.insert(name.clone(), node);
        self.node_changed(&name);
    }

    fn node_changed(&mut self, name: &str) {
        let watched = self.profiles.groups().filter_map(|subject| match subject {
            Subject::Address(address) => Some(*address),
            Subject::Service(_) => None,
        });
        let addresses = self.facts.on_node(name, watched).collect();
        self.touched.touch_where(&self.facts, |pod| {
            pod.workload.node.as_deref() == Some(name)
        });
        self.show(&Concerned {
            services: Vec::new(),
            addresses,
        });
    }

    fn set_mesh(&mut self, mesh: Mesh) {
        let name: Arc<str> = mesh.name_any().into();
        let known = self.facts.meshes.get(&name);
        if known.is_none_or(|known| known.spec != mesh.spec) {
            let before = self.facts.meshes.insert(name.clone(), Arc::new(mesh));
            self.mesh_changed(&name, before.as_deref());
        }
    }

    fn remove_mesh(&mut self, name: &str) {
        if let Some(before) = self.facts.meshes.remove(name) {
            self.mesh_changed(name, Some(&before));
        }
    }

    /// Of a Mesh views show only whether its pods have an identity.
    fn mesh_changed(&mut self, name: &str, before: Option<&Mesh>) {
        self.touched.touch_where(&self.facts, |pod| {
            pod.workload.mesh.as_deref() == Some(name)
        });
        let now = self.facts.meshes.get(name).map(|mesh| &**mesh);
        if before.is_some_and(has_identity) != now.is_some_and(has_identity) {
            self.show(&self.facts.of_mesh(name));
        }
    }

    pub(super) fn has_listed(&mut self, source: Source) {
        self.assumed.remove(&source);
        self.answers_without(source);
    }

    pub(super) fn cannot_list(&mut self, source: Source) {
        if !self.listed.contains(&source) {
            self.assumed.insert(source);
            self.answers_without(source);
        }
    }

    /// Nobody waits for this kind any more.
    fn answers_without(&mut self, source: Source) {
        if self.listed.insert(source) {
            // The writer may start.
            self.touched.ring();
        }
        let answering = self.listed.iter().filter(|one| **one != Source::Dataplanes);
        if answering.count() == ANSWERING {
            let set = |flag: &mut bool| !std::mem::replace(flag, true);
            if self.complete.send_if_modified(set) {
                self.facts.routes.ring();
            }
            if self.assumed.is_empty() {
                self.certain.send_if_modified(set);
            }
        }
    }
}

/// Whether others' routes lead to a Service as before.
fn is_same_backend(before: Option<&Service>, now: Option<&Service>) -> bool {
    let (Some(before), Some(now)) = (before, now) else {
        return false;
    };
    let numbers = |service: &Service| -> BTreeSet<u16> {
        let numbers = service.ports.iter().map(|port| port.port);
        numbers.collect()
    };
    let kind = |service: &Service| (service.headless, service.external_name.is_some());
    kind(before) == kind(now) && numbers(before) == numbers(now)
}

/// The keys that are known and are not in a list.
pub(super) fn gone<'a>(
    known: impl IntoIterator<Item = ObjectKey>,
    listed: impl Iterator<Item = &'a ObjectKey>,
) -> Vec<ObjectKey> {
    let listed: HashSet<&ObjectKey> = listed.collect();
    let known = known.into_iter();
    known.filter(|key| !listed.contains(key)).collect()
}

impl Indexed<Pod> for Discovery {
    fn apply(&mut self, pod: Pod) {
        self.lock().set_pod(pod);
    }

    fn delete(&mut self, pod: &Pod) {
        self.lock().remove_pod(&pod.workload.pod);
    }

    fn reset(&mut self, pods: Vec<Pod>) {
        let mut cluster = self.lock();
        let known = cluster.facts.pods.values().flat_map(|names| names.values());
        let known = known.map(|pod| pod.workload.pod.clone());
        for key in gone(known, pods.iter().map(|pod| &pod.workload.pod)) {
            cluster.remove_pod(&key);
        }
        for pod in pods {
            cluster.set_pod(pod);
        }
        cluster.has_listed(Source::Pods);
    }
}

impl Indexed<Service> for Discovery {
    fn apply(&mut self, service: Service) {
        self.lock().set_service(service);
    }

    fn delete(&mut self, service: &Service) {
        self.lock().remove_service(&service.key);
    }

    fn reset(&mut self, services: Vec<Service>) {
        let mut cluster = self.lock();
        let known = cluster
            .facts
            .services
            .values()
            .flat_map(|names| names.values());
        let known = known.map(|service| service.key.clone());
        for key in gone(known, services.iter().map(|service| &service.key)) {
            cluster.remove_service(&key);
        }
        for service in services {
            cluster.set_service(service);
        }
        cluster.has_listed(Source::Services);
    }
}

impl Indexed<Slice> for Discovery {
    fn apply(&mut self, slice: Slice) {
        let mut cluster = self.lock();
        let services = cluster.facts.set_slice(slice);
        cluster.slice_changed(services);
    }

    fn delete(&mut self, slice: &Slice) {
        let mut cluster = self.lock();
        let services = cluster.facts.remove_slice(&slice.key);
        cluster.slice_changed(services);
    }

    fn reset(&mut self, slices: Vec<Slice>) {
        let mut cluster = self.lock();
        let known = cluster.facts.slice_keys();
        for key in gone(known, slices.iter().map(|slice| &slice.key)) {
            let services = cluster.facts.remove_slice(&key);
            cluster.slice_changed(services);
        }
        for slice in slices {
            let services = cluster.facts.set_slice(slice);
            cluster.slice_changed(services);
        }
        cluster.has_listed(Source::Slices);
    }
}

impl Indexed<Node> for Discovery {
    fn apply(&mut self, node: Node) {
        self.lock().set_node(node);
    }

    fn delete(&mut self, node: &Node) {
        let mut cluster = self.lock();
        if cluster.facts.nodes.remove(&node.name).is_some() {
            cluster.node_changed(&node.name);
        }
    }

    fn reset(&mut self, nodes: Vec<Node>) {
        let mut cluster = self.lock();
        let listed: HashSet<Arc<str>> = nodes.iter().map(|node| node.name.clone()).collect();
        cluster.facts.nodes.retain(|name, _| listed.contains(name));
        for node in nodes {
            cluster.set_node(node);
        }
        cluster.has_listed(Source::Nodes);
    }
}

impl Indexed<Mesh> for Discovery {
    fn apply(&mut self, mesh: Mesh) {
        self.lock().set_mesh(mesh);
    }

    fn delete(&mut self, mesh: &Mesh) {
        self.lock().remove_mesh(&mesh.name_any());
    }

    fn reset(&mut self, meshes: Vec<Mesh>) {
        let mut cluster = self.lock();
        let listed: HashSet<String> = meshes.iter().map(ResourceExt::name_any).collect();
        let known: Vec<Arc<str>> = cluster.facts.meshes.keys().cloned().collect();
        for name in known.iter().filter(|name| !listed.contains(&***name)) {
            cluster.remove_mesh(name);
        }
        for mesh in meshes {
            cluster.set_mesh(mesh);
        }
        cluster.has_listed(Source::Meshes);
    }
}

#[cfg(test)]
mod tests;
