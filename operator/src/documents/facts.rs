//! What all documents say together: the Meshes, the permissions, the workloads and the endpoints. Where two documents
//! contradict each other the first counts, in the order of the files, and the other is a problem. Called by `documents`
//! at every look; `hosts` knows the addresses of names.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use weir_crds::dataplane::{DataplaneSpec, Networking};
use weir_crds::merge::{self, MetricsOverride};
use weir_crds::mesh::MeshSpec;
use weir_crds::names::DEFAULT_MESH;
use weir_crds::permission::Candidate;
use weir_crds::settings::MtlsMode;
use weir_crds::traffic_permission::TrafficPermissionSpec;
use weir_crds::universal::{Document, Entry};
use weir_crds::{Mesh, Violation};

use super::hosts::Hosts;
use super::shelf::{Key, Problem, Shelf};
use crate::index::{MeshSet, Offer, OfferSet};
use crate::workload::{PermissionSet, StatedKey, Workload};

/// What all documents say.
#[derive(Default)]
pub(super) struct Facts {
    pub(super) meshes: MeshSet,
    pub(super) permissions: PermissionSet,
    pub(super) workloads: HashMap<StatedKey, Workload>,
    pub(super) offers: OfferSet,
    pub(super) problems: Vec<Problem>,
    /// Documents that are in force.
    pub(super) count: usize,
}

/// Whether Mesh `default` is the initial one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Initial {
    /// Not yet: what is said of it may be in what is wrong.
    #[default]
    Unknown,
    /// Nothing was ever said of it.
    InForce,
    /// A document said what it is.
    Said,
}

/// A document that counts, and the file it is in.
struct Placed<'a, S> {
    file: &'a str,
    entry: &'a Entry<S>,
}

/// Everything that counts, by what it is known by.
#[derive(Default)]
struct Sorted<'a> {
    dataplanes: BTreeMap<&'a Key, Placed<'a, DataplaneSpec>>,
    overrides: BTreeMap<&'a Key, Placed<'a, DataplaneSpec>>,
    permissions: Vec<Placed<'a, TrafficPermissionSpec>>,
}

impl Facts {
    /// What the shelf says; `initial` is what Mesh `default` was before, and from then on is.
    pub(super) fn of(shelf: &Shelf, hosts: &mut Hosts, initial: &mut Initial) -> Self {
        let mut facts = Self {
            problems: shelf.problems().cloned().collect(),
            ..Self::default()
        };
        let sorted = facts.sort(shelf);
        facts.begin(initial);
        for permission in &sorted.permissions {
            facts.permit(permission);
        }
        hosts.begin();
        for (key, placed) in &sorted.dataplanes {
            let over = match key {
                Key::Dataplane(mesh, name) => sorted
                    .overrides
                    .get(&Key::Override(mesh.clone(), name.clone())),
                _ => None,
            };
            facts.describe(placed, over, hosts);
        }
        hosts.end();
        facts
    }

    fn sort<'a>(&mut self, shelf: &'a Shelf) -> Sorted<'a> {
        let mut sorted = Sorted::default();
        let mut first: BTreeMap<&Key, &str> = BTreeMap::new();
        for (file, key, document) in shelf.documents() {
            if let Some(first) = first.get(key) {
                let what = format!("{key} stands in {first} already, which counts: remove one");
                self.problems.push(Problem::of(file, what));
                continue;
            }
            first.insert(key, file);
            self.count += 1;
            match document {
                Document::Mesh(entry) => {
                    let mesh = Mesh::new(&entry.name, entry.spec.clone());
                    self.meshes.insert(entry.name.clone(), Arc::new(mesh));
                }
                Document::Dataplane(entry) => {
                    let placed = Placed { file, entry };
                    let of_kind = match key {
                        Key::Override(..) => &mut sorted.overrides,
                        _ => &mut sorted.dataplanes,
                    };
                    of_kind.insert(key, placed);
                }
                Document::TrafficPermission(entry) => {
                    sorted.permissions.push(Placed { file, entry });
                }
            }
        }
        sorted
    }

    /// Where nothing was ever said of Mesh `default` it is the initial one, as for a proxy on files that is given no Mesh.
    /// One that is gone, or may be the wrong document, is not: the initial one has no mutual TLS.
    fn begin(&mut self, initial: &mut Initial) {
        if self.meshes.contains_key(DEFAULT_MESH) {
            *initial = Initial::Said;
        } else if *initial == Initial::Unknown && self.problems.is_empty() {
            *initial = Initial::InForce;
        }
        if *initial == Initial::InForce {
            let mesh = Mesh::new(DEFAULT_MESH, MeshSpec::initial());
            self.meshes.insert(DEFAULT_MESH.to_owned(), Arc::new(mesh));
        }
    }

    /// A permission as it is selected among others; documents have no time of creation, so of equals the first by name
    /// wins.
    fn permit(&mut self, placed: &Placed<'_, TrafficPermissionSpec>) {
        let entry = placed.entry;
        let candidate = || -> Result<Candidate, Violation> {
            Ok(Candidate {
                name: entry.name.clone(),
                created: 0,
                sources: entry.spec.sources()?,
                destinations: entry.spec.destinations()?,
            })
        };
        match candidate() {
            Ok(candidate) => {
                let of_mesh = self.permissions.entry(entry.mesh.clone()).or_default();
                of_mesh.push(candidate);
            }
            Err(violation) => {
                let what = format!("TrafficPermission {:?}: {violation}", entry.name);
                self.problems.push(Problem::of(placed.file, what));
            }
        }
    }

    fn describe(
        &mut self,
        placed: &Placed<'_, DataplaneSpec>,
        over: Option<&Placed<'_, DataplaneSpec>>,
        hosts: &mut Hosts,
    ) {
        let entry = placed.entry;
        let networking = match entry.spec.networking() {
            Ok(networking) => networking.unwrap_or_default(),
            Err(violation) => return self.wrong(placed, &violation),
        };
        let mesh = self.meshes.get(&entry.mesh).cloned();
        let metrics = self.metrics(placed, over, mesh.as_deref());
        match &mesh {
            Some(mesh) => self.offer(placed, &networking, mesh, hosts),
            // Whether it is to be spoken to in plain text is not known.
            None => {
                let message = format!("there is no document of Mesh {:?}: add one", entry.mesh);
                self.wrong(placed, &Violation::new("mesh", message));
            }
        }
        self.state(placed, networking, metrics);
    }

    /// Offers its inbounds as endpoints.
    fn offer(
        &mut self,
        placed: &Placed<'_, DataplaneSpec>,
        networking: &Networking,
        mesh: &Mesh,
        hosts: &mut Hosts,
    ) {
        let entry = placed.entry;
        let has_identity = mesh.spec.mtls_mode() != MtlsMode::Disabled;
        let identity: Arc<str> = networking.identity_name().into();
        for (index, inbound) in networking.inbound.iter().enumerate() {
            match hosts.resolve(networking.host_of(inbound), inbound.port) {
                Ok(address) => self.offers.add(
                    &entry.mesh,
                    Offer {
                        dataplane: entry.name.as_str().into(),
                        address,
                        tags: inbound.tags.clone(),
                        labels: inbound.labels(),
                        identity: has_identity.then(|| identity.clone()),
                    },
                ),
                Err(error) => {
                    let field = format!("networking.inbound[{index}].address");
                    let host = networking.host_of(inbound);
                    let message = format!("cannot resolve {host:?}, so it is no endpoint: {error}");
                    self.wrong(placed, &Violation::new(field, message));
                }
            }
        }
    }

    fn state(
        &mut self,
        placed: &Placed<'_, DataplaneSpec>,
        networking: Networking,
        metrics: Option<MetricsOverride>,
    ) {
        let entry = placed.entry;
        let name = networking.identity_name();
        let workload = Workload::new(&entry.mesh, networking, metrics);
        let workload = Workload {
            name: Some(name),
            ..workload
        };
        let key = (entry.mesh.clone(), entry.name.clone());
        self.workloads.insert(key, workload);
    }

    /// What a Dataplane changes of its Mesh's metrics, there or in a document of that name without networking.
    fn metrics(
        &mut self,
        placed: &Placed<'_, DataplaneSpec>,
        over: Option<&Placed<'_, DataplaneSpec>>,
        mesh: Option<&Mesh>,
    ) -> Option<MetricsOverride> {
        let own = placed.entry.spec.metrics_override().ok().flatten();
        let other = over.and_then(|over| over.entry.spec.metrics_override().ok().flatten());
        if let (Some(_), Some(_), Some(over)) = (&own, &other, over) {
            let message = format!("{} gives it, too, and counts: remove one", placed.file);
            self.wrong(over, &Violation::new("metrics", message));
        }
        let (metrics, of) = match (own, other, over) {
            (None, Some(other), Some(over)) => (other, over),
            (Some(own), _, _) => (own, placed),
            _ => return None,
        };
        let missing = mesh.map(|mesh| merge::check(&mesh.spec, &metrics));
        let missing = missing.unwrap_or_default();
        for violation in &missing {
            self.wrong(of, violation);
        }
        // What cannot be merged is left out, so that the Mesh's metrics are in force.
        missing.is_empty().then_some(metrics)
    }

    fn wrong(&mut self, placed: &Placed<'_, DataplaneSpec>, violation: &Violation) {
        let what = format!("Dataplane {:?}: {violation}", placed.entry.name);
        self.problems.push(Problem::of(placed.file, what));
    }
}
