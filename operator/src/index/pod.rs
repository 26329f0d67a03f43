//! What the index keeps of a Pod; the rest is dropped as soon as the watch hands the object over.
//! Made by `cluster`, read by `view` and, for the Dataplane of an injected pod, by `reconcile`; what its scrapers are told
//! is in `scrape`. It knows no client.

use std::net::IpAddr;
use std::sync::Arc;

use k8s_openapi::api::core::v1;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use weir_crds::{annotations, names};

use super::container::{self, Container};
use super::interner::Interner;
use super::ports::Ports;
use super::scrape::Scrape;

/// Label with the hash of a ReplicaSet's template.
const TEMPLATE_HASH: &str = "pod-template-hash";

/// Namespace and name of an object.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ObjectKey {
    /// `metadata.namespace`.
    pub namespace: Arc<str>,
    /// `metadata.name`.
    pub name: Arc<str>,
}

/// Names and their values.
pub type Pairs = Box<[(Arc<str>, Arc<str>)]>;

/// The value of a name.
#[must_use]
pub fn value_of<'a>(pairs: &'a [(Arc<str>, Arc<str>)], name: &str) -> Option<&'a str> {
    let found = pairs.iter().find(|(key, _)| **key == *name);
    found.map(|(_, value)| &**value)
}

/// The kinds of workload that metrics name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OwnerKind {
    /// `apps` DaemonSet.
    DaemonSet,
    /// `apps` Deployment, found through the name of its ReplicaSet.
    Deployment,
    /// `batch` Job; a CronJob's pod has its Job.
    Job,
    /// `apps` ReplicaSet of no Deployment.
    ReplicaSet,
    /// ReplicationController.
    ReplicationController,
    /// `apps` StatefulSet.
    StatefulSet,
}

impl OwnerKind {
    /// The key of its metric label, without `dst_`.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::DaemonSet => "daemonset",
            Self::Deployment => "deployment",
            Self::Job => "k8s_job",
            Self::ReplicaSet => "replicaset",
            Self::ReplicationController => "replicationcontroller",
            Self::StatefulSet => "statefulset",
        }
    }
}

/// What discovery says of a pod. It seldom changes in a pod's life.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Workload {
    /// Namespace and name of the pod.
    pub pod: ObjectKey,
    /// The workload that owns it.
    pub owner: Option<(OwnerKind, Arc<str>)>,
    /// Its service account.
    pub service_account: Arc<str>,
    /// The node it runs on.
    pub node: Option<Arc<str>>,
    /// Hash of its ReplicaSet's template.
    pub template_hash: Option<Arc<str>>,
    /// Namespace of the control plane that injected it.
    pub control_plane: Option<Arc<str>>,
    /// The Mesh, where it has our proxy.
    pub mesh: Option<Arc<str>>,
    /// Ports it says are opaque; `None` where it says nothing.
    pub opaque: Option<Ports>,
    /// Ports that do not reach its proxy.
    pub excluded: Ports,
}

/// What the Dataplane of an injected pod is made of, and what scrapers of its proxy are told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Injected {
    /// `metadata.uid`.
    pub uid: Arc<str>,
    /// `metadata.labels`.
    pub labels: Pairs,
    /// The annotations that configure metrics.
    pub annotations: Pairs,
    /// Requests without a route are refused.
    pub closed_routes: bool,
    /// Its containers that live as long as it does, native sidecars last, without the proxy.
    pub containers: Box<[Container]>,
    /// The proxy's readiness; `None` where the kubelet has not said.
    pub proxy_ready: Option<bool>,
    /// What only scrapers are told.
    pub scrape: Scrape,
}

/// One Pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pod {
    /// What discovery says of it.
    pub workload: Arc<Workload>,
    /// Its addresses; none where it is done, or shares its node's.
    pub addresses: Box<[IpAddr]>,
    /// When it was created, in seconds since the epoch.
    pub created: i64,
    /// It is being deleted.
    pub terminating: bool,
    /// It ended, by itself or by eviction.
    pub done: bool,
    /// Where it has our proxy.
    pub injected: Option<Box<Injected>>,
}

impl Pod {
    /// Keeps of an object what is used.
    pub(super) fn keep(pod: v1::Pod, names: &mut Interner) -> Self {
        let spec = pod.spec.unwrap_or_default();
        let status = pod.status.unwrap_or_default();
        let phase = status.phase.as_deref().unwrap_or_default();
        let evicted = status.reason.as_deref() == Some("Evicted");
        let done = evicted || ["Succeeded", "Failed"].contains(&phase);
        let meta = &pod.metadata;
        let workload = Workload::keep(meta, &spec, names);
        let is_injected = workload.mesh.is_some();
        let addresses = match done || spec.host_network == Some(true) {
            true => Box::default(),
            false => addresses(&status),
        };
        Self {
            addresses,
            created: created(meta),
            terminating: meta.deletion_timestamp.is_some(),
            done,
            injected: is_injected.then(|| Box::new(Injected::keep(meta, (&spec, &status), names))),
            workload: Arc::new(workload),
        }
    }
}

fn created(meta: &ObjectMeta) -> i64 {
    let created = meta.creation_timestamp.as_ref();
    created.map_or(0, |time| time.0.as_second())
}

fn addresses(status: &v1::PodStatus) -> Box<[IpAddr]> {
    let all = status.pod_ips.iter().flatten().map(|one| one.ip.as_str());
    let mut addresses: Vec<IpAddr> = all.filter_map(|ip| ip.parse().ok()).collect();
    let first = status.pod_ip.as_ref().and_then(|ip| ip.parse().ok());
    if let Some(first) = first.filter(|first| !addresses.contains(first)) {
        addresses.insert(0, first);
    }
    addresses.into()
}

impl Workload {
    fn keep(meta: &ObjectMeta, spec: &v1::PodSpec, names: &mut Interner) -> Self {
        let annotation = |key: &str| meta.annotations.as_ref()?.get(key).map(String::as_str);
        let label = |key: &str| meta.labels.as_ref()?.get(key).map(String::as_str);
        // A template may have the annotation of a pod that it was copied from.
        let is_injected =
            annotation(names::INJECTED) == Some("true") && container::proxy(spec).is_some();
        let mesh = annotation(names::MESH).or_else(|| label(names::MESH));
        let mesh = mesh.unwrap_or(names::DEFAULT_MESH);
        let service_account = spec.service_account_name.as_deref().unwrap_or("default");
        let port = |name: &str| {
            let ports = container::application(spec).flat_map(|one| one.ports.iter().flatten());
            let mut ports = ports.filter(|port| port.name.as_deref() == Some(name));
            ports
                .next()
                .and_then(|port| u16::try_from(port.container_port).ok())
        };
        Self {
            pod: ObjectKey {
                namespace: names.name(meta.namespace.as_deref().unwrap_or_default()),
                name: meta.name.as_deref().unwrap_or_default().into(),
            },
            owner: owner(meta).map(|(kind, name)| (kind, names.name(name))),
            service_account: names.name(service_account),
            node: spec.node_name.as_deref().map(|node| names.name(node)),
            template_hash: label(TEMPLATE_HASH).map(|hash| names.name(hash)),
            control_plane: label(names::CONTROL_PLANE_NS).map(|name| names.name(name)),
            mesh: is_injected.then(|| names.name(mesh)),
            opaque: annotation(names::OPAQUE_PORTS).map(|list| Ports::parse(list, port)),
            excluded: excluded(annotation(names::INIT_ARGUMENTS), spec),
        }
    }
}

/// What redirection leaves out, as the CNI plugin (`told`) or the init container was told: namespaces may have had a say
/// in it.
fn excluded(told: Option<&str>, spec: &v1::PodSpec) -> Ports {
    let mut containers = spec.init_containers.iter().flatten();
    let init = containers.find(|one| one.name == names::INIT);
    let arguments = init.into_iter().flat_map(|init| init.args.iter().flatten());
    let mut words = told
        .into_iter()
        .flat_map(str::split_whitespace)
        .chain(arguments.map(String::as_str));
    let list = words.find_map(|word| {
        word.strip_prefix(names::EXCLUDE_INBOUND_FLAG)?
            .strip_prefix('=')
    });
    Ports::parse(list.unwrap_or_default(), |_| None)
}

/// The kind and name of the workload that owns a pod; a ReplicaSet made by a Deployment is named after it.
fn owner(meta: &ObjectMeta) -> Option<(OwnerKind, &str)> {
    let mut owners = meta.owner_references.iter().flatten();
    let owner = owners.find(|owner| owner.controller == Some(true))?;
    let name = owner.name.as_str();
    let group = owner
        .api_version
        .rsplit_once('/')
        .map_or("", |(group, _)| group);
    let kind = match (group, owner.kind.as_str()) {
        ("apps", "ReplicaSet") => {
            let hash = meta
                .labels
                .as_ref()
                .and_then(|labels| labels.get(TEMPLATE_HASH));
            let deployment = hash
                .and_then(|hash| name.strip_suffix(hash.as_str())?.strip_suffix('-'))
                .filter(|deployment| !deployment.is_empty());
            if let Some(deployment) = deployment {
                return Some((OwnerKind::Deployment, deployment));
            }
            OwnerKind::ReplicaSet
        }
        ("apps", "StatefulSet") => OwnerKind::StatefulSet,
        ("apps", "DaemonSet") => OwnerKind::DaemonSet,
        ("batch", "Job") => OwnerKind::Job,
        ("", "ReplicationController") => OwnerKind::ReplicationController,
        _ => return None,
    };
    Some((kind, name))
}

impl Injected {
    fn keep(
        meta: &ObjectMeta,
        (spec, status): (&v1::PodSpec, &v1::PodStatus),
        names: &mut Interner,
    ) -> Self {
        let ready = |name: &str| {
            let statuses = status
                .container_statuses
                .iter()
                .chain(&status.init_container_statuses);
            let mut statuses = statuses.flatten().filter(|status| status.name == name);
            statuses.next().map(|status| status.ready)
        };
        let closed = meta
            .annotations
            .as_ref()
            .map_or(Ok(false), annotations::closed_routes);
        let labels = meta.labels.iter().flatten();
        let annotations = meta.annotations.iter().flatten();
        let annotations = annotations.filter(|(key, _)| key.starts_with(names::METRICS_PREFIX));
        Self {
            uid: meta.uid.as_deref().unwrap_or_default().into(),
            labels: pairs(labels, names),
            annotations: pairs(annotations, names),
            // What cannot be read closes nothing: the webhook has told its author.
            closed_routes: closed.is_ok_and(|closed| closed),
            containers: container::application(spec)
                .map(|one| Container::keep(one, ready(&one.name), names))
                .collect(),
            proxy_ready: ready(names::SIDECAR),
            scrape: Scrape::keep(meta, (spec, status), names),
        }
    }
}

pub(super) fn pairs<'a>(
    pairs: impl Iterator<Item = (&'a String, &'a String)>,
    names: &mut Interner,
) -> Pairs {
    pairs
        .map(|(key, value)| (names.name(key), names.name(value)))
        .collect()
}
