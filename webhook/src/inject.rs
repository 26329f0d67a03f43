//! Gives a pod the proxy: a pure function from a pod and its surroundings to the pod with labels, annotations, its
//! containers and rewritten probes. Called by `serve` and by `weir-webhook inject` once `decide` has said yes.
//! It must not know how reviews arrive or where Meshes and Namespaces come from.

use std::time::Duration;

use serde_json::Value;
use weir_crds::{
    Settings, annotations, duration, merge, mesh::MeshSpec, names, ports, probe::Probe,
    settings::MtlsMode,
};

use crate::{
    decide::{application_containers, declared_ports, is_ours},
    namespace::Namespace,
    pod::{Pod, is_native_sidecar},
    redirection::{self, Redirection},
    refusal::Refusal,
};

mod config;
mod containers;
mod exclusions;
mod labels;
mod operator;
mod origin;
mod probes;
mod quantity;

pub use config::{Config, PullPolicy};
use containers::Documents;
use exclusions::Exclusions;
pub use operator::Operator;
use origin::Origin;

/// The annotation that tells kubectl which container a command means.
const DEFAULT_CONTAINER: &str = "kubectl.kubernetes.io/default-container";
/// Kubernetes' default of `terminationGracePeriodSeconds`.
const DEFAULT_GRACE_SECONDS: u32 = 30;
/// Traffic is led to a proxy until its heartbeat (every 0.5 s) is 2 s old.
const PLAIN_STAY: Duration = Duration::from_secs(3);
/// What a proxy that stays leaves of its pod's grace period, to end in.
const LAST_SECONDS: Duration = Duration::from_secs(2);

/// Everything beside the pod that injection depends on.
#[derive(Debug, Clone, Copy)]
pub struct Context<'a> {
    /// The pod's namespace.
    pub namespace: &'a Namespace,
    /// Who asks for the proxy, as the pod is told.
    pub asked_by: &'a str,
    /// Name of the pod's Mesh; see [`mesh_of`].
    pub mesh: &'a str,
    /// Content of that Mesh.
    pub spec: &'a MeshSpec,
    /// Whether the API server has native sidecars (Kubernetes 1.29).
    pub native_sidecars: bool,
    /// How the containers look.
    pub config: &'a Config,
    /// The operator; without it the proxy runs on its settings alone.
    pub operator: Option<Operator<'a>>,
}

/// A pod with the proxy, and what its author should hear.
#[derive(Debug, Clone, PartialEq)]
pub struct Injected {
    /// The pod.
    pub pod: Pod,
    /// Sentences for the warnings of the answer.
    pub warnings: Vec<String>,
}

/// The name of a pod's Mesh and the field that says so: label, then annotation, of the pod, then of the namespace. What is
/// empty says nothing, as in Kuma.
pub fn mesh_of(pod: &Pod, namespace: &Namespace) -> (String, String) {
    let of_namespace = |kind: &str| {
        format!(
            "{kind} {} of the namespace {:?}",
            names::MESH,
            namespace.name
        )
    };
    let sources = [
        (
            pod.label(names::MESH),
            format!("metadata.labels[{:?}]", names::MESH),
        ),
        (
            pod.annotation(names::MESH),
            format!("metadata.annotations[{:?}]", names::MESH),
        ),
        (namespace.label(names::MESH), of_namespace("label")),
        (
            namespace.annotation(names::MESH),
            of_namespace("annotation"),
        ),
    ];
    let named = sources
        .into_iter()
        .find_map(|(name, field)| Some((name.filter(|name| !name.is_empty())?.to_owned(), field)));
    named.unwrap_or_else(|| (names::DEFAULT_MESH.to_owned(), names::MESH.to_owned()))
}

/// Injects the proxy. A pod that carries ours already (a second review after another webhook's change) is brought up
/// to date and keeps what others changed in it, so that the function is idempotent.
pub fn inject(mut pod: Pod, context: &Context<'_>) -> Result<Injected, Refusal> {
    let mut warnings: Vec<String> = ignored_annotations(&pod);
    annotate(&mut pod, context);
    let Said {
        mut settings,
        exclusions,
        redirection,
    } = read(&pod, context)?;
    let origin = Origin {
        pod: &pod,
        namespace: context.namespace,
    };
    warnings.extend(unknown_annotations(origin));
    let opaque_ports = origin.field(names::OPAQUE_PORTS);
    warnings.extend(exclusions::unreadable_opaque_ports(&pod, &opaque_ports));
    if let Some(clash) = port_clash(&pod, &settings) {
        warnings.push(clash);
        settings.metrics = None;
    }
    warnings.extend(labels::set(&mut pod, &context.namespace.name));

    let has_budget = has_resources(pod.spec());
    let carried = pod.find_container(names::SIDECAR).filter(|c| is_ours(c));
    let mut probes = carried.map(containers::carried_probes).unwrap_or_default();
    let present = carried.is_some();
    warnings.extend(rewrite_probes(&mut pod, &mut probes));
    let ports = application_containers(&pod).flat_map(declared_ports);
    let is_strict = settings.mtls == MtlsMode::Strict;
    let documents = Documents {
        ports: list(ports),
        shares: has_budget,
        stay: (!context.native_sidecars).then(|| stay(&pod, context.config, is_strict)),
        mesh: context.mesh,
        settings: settings.to_json(),
        probes: &probes,
        strict: is_strict,
        operator: context.operator,
    };
    let arguments = containers::init_arguments(&exclusions, documents.strict);
    if present {
        refresh(&mut pod, &documents);
        redirect_again(&mut pod, &arguments);
    } else {
        add(&mut pod, context, &documents, (redirection, &arguments));
    }
    Ok(Injected { pod, warnings })
}

/// Adds the proxy, and what redirects the pod's traffic to it.
fn add(
    pod: &mut Pod,
    context: &Context<'_>,
    documents: &Documents<'_>,
    (redirection, arguments): (Redirection, &[String]),
) {
    let mut sidecar = containers::sidecar(context.config, documents, context.native_sidecars);
    if redirection == Redirection::Cni {
        containers::restrict(&mut sidecar);
    }
    place(pod, sidecar);
    match redirection {
        Redirection::Cni => redirect_by_plugin(pod, arguments),
        Redirection::Init => {
            let init = containers::init(context.config, documents, arguments);
            redirect_by_container(pod, init);
        }
    }
    if documents.operator.is_some() {
        operator::add_token(pod);
    }
}

/// What a pod's annotations, and those of its namespace, say of its proxy.
struct Said {
    settings: Settings,
    exclusions: Exclusions,
    redirection: Redirection,
}

/// Reads every annotation that injection obeys, and tells all that is wrong with them at once.
fn read(pod: &Pod, context: &Context<'_>) -> Result<Said, Refusal> {
    let origin = Origin {
        pod,
        namespace: context.namespace,
    };
    let refused = |violations| Err(Refusal::Annotations(origin.place(violations)));
    let over = annotations::metrics_override(&pod.annotations());
    let exclusions = exclusions::read(pod, context.namespace);
    let closed = annotations::closed_routes(&pod.annotations());
    let by = redirection::chosen(pod, context.namespace, context.config.redirection);
    match (over, exclusions, closed, by) {
        // Which routes there are is the operator's to say.
        (Ok(over), Ok(exclusions), Ok(_closed), Ok(redirection)) => {
            let incomplete = merge::check(context.spec, &over);
            if !incomplete.is_empty() {
                return refused(incomplete);
            }
            let settings = merge::settings(context.mesh, context.spec, Some(&over));
            Ok(Said {
                settings,
                exclusions,
                redirection,
            })
        }
        (over, exclusions, closed, by) => {
            let lists = over.err().into_iter().chain(exclusions.err());
            let single = closed.err().into_iter().chain(by.err());
            refused(lists.flatten().chain(single).collect())
        }
    }
}

/// Sets our annotations and copies those of the namespace that are about its pods and that the pod lacks.
fn annotate(pod: &mut Pod, context: &Context<'_>) {
    for (key, value) in &context.namespace.annotations {
        let is_copied = key.starts_with(names::METRICS_PREFIX)
            || [names::CLOSED_ROUTES, names::OPAQUE_PORTS].contains(&key.as_str());
        if is_copied && pod.annotation(key).is_none() {
            pod.set_annotation(key, value);
        }
    }
    pod.set_annotation(names::MESH, context.mesh);
    pod.set_annotation(names::INJECTED, "true");
    pod.set_annotation(names::SIDECAR_UID, &names::PROXY_UID.to_string());
    pod.set_annotation(
        names::DECISION,
        &format!("injected: enabled by {}", context.asked_by),
    );
    let application = pod
        .containers()
        .iter()
        .find(|c| c["name"] != names::SIDECAR);
    let application = application
        .and_then(|c| c["name"].as_str())
        .map(str::to_owned);
    if let Some(name) = application.filter(|_| pod.annotation(DEFAULT_CONTAINER).is_none()) {
        pod.set_annotation(DEFAULT_CONTAINER, &name);
    }
}

/// Annotations that look as if they did something.
fn ignored_annotations(pod: &Pod) -> Vec<String> {
    let ignored = pod.annotation(names::INJECTION).map(|_| {
        format!(
            "{} is read as a label; the annotation of that name does nothing",
            names::INJECTION
        )
    });
    ignored.into_iter().collect()
}

/// Annotations of the metrics prefix with a name that means nothing, most often a slip of the pen, and those by which
/// Linkerd's proxy is configured.
fn unknown_annotations(origin: Origin<'_>) -> Vec<String> {
    let annotations = origin.pod.annotations();
    let unknown = annotations::unknown(&annotations).into_iter();
    let unknown = unknown.map(|key| {
        let named = origin.named(key);
        format!("the annotation {named} is not known and does nothing")
    });
    let linkerds = annotations.keys().map(String::as_str).filter(|key| {
        key.starts_with(names::LINKERD_CONFIG_PREFIX)
            && ![
                names::SKIP_INBOUND_PORTS,
                names::SKIP_OUTBOUND_PORTS,
                names::OPAQUE_PORTS,
            ]
            .contains(key)
    });
    let linkerds = linkerds.map(|key| {
        format!("the annotation {key} configures Linkerd's proxy and does nothing here")
    });
    unknown.chain(linkerds).collect()
}

/// A container that declares the metrics port in force. It has the port: a proxy that took it, being there first,
/// would keep the application from starting.
fn port_clash(pod: &Pod, settings: &Settings) -> Option<String> {
    let port = settings.metrics.as_ref()?.port;
    let clash = application_containers(pod)
        .find(|one| declared_ports(one).any(|declared| declared == port))?;
    Some(format!(
        "container {} declares port {port}, the metrics port of its Mesh, and keeps it: this pod's metrics are at port {} \
         alone, unless {} is set to another port",
        clash["name"],
        ports::ADMIN,
        names::METRICS_PORT
    ))
}

fn grace_seconds(pod: &Pod) -> u32 {
    let grace = pod.spec()["terminationGracePeriodSeconds"].as_u64();
    grace
        .and_then(|s| u32::try_from(s).ok())
        .unwrap_or(DEFAULT_GRACE_SECONDS)
}

/// How long a proxy stays at least that is told to end together with its application, not after it: for as long as traffic
/// is led to it; in a STRICT Mesh, where nothing passes a proxy that is gone, as long as the application may need it. Either
/// way it ends by itself before the kubelet ends it.
fn stay(pod: &Pod, config: &Config, is_strict: bool) -> String {
    let drain = duration::parse(&config.proxy_drain_time).unwrap_or(PLAIN_STAY);
    let wanted = if is_strict { drain } else { PLAIN_STAY };
    let grace = Duration::from_secs(grace_seconds(pod).into());
    let stay = wanted.min(grace.saturating_sub(LAST_SECONDS));
    match stay.subsec_millis() {
        0 => format!("{}s", stay.as_secs()),
        _ => format!("{}ms", stay.as_millis()),
    }
}

fn rewrite_probes(pod: &mut Pod, probes: &mut Vec<Probe>) -> Vec<String> {
    let grace = grace_seconds(pod);
    let ours =
        |container: &Value| container["name"] == names::SIDECAR || container["name"] == names::INIT;
    let mut warnings = Vec::new();
    for container in pod.containers_mut().iter_mut().filter(|c| !ours(c)) {
        warnings.extend(probes::rewrite(container, grace, probes));
    }
    if !pod.init_containers().is_empty() {
        let sidecars = pod
            .init_containers_mut()
            .iter_mut()
            .filter(|c| is_native_sidecar(c));
        for container in sidecars.filter(|c| !ours(c)) {
            warnings.extend(probes::rewrite(container, grace, probes));
        }
    }
    warnings
}

/// As in `80,443`, each once.
fn list(ports: impl Iterator<Item = u16>) -> String {
    let ports: std::collections::BTreeSet<u16> = ports.collect();
    let ports: Vec<String> = ports.iter().map(u16::to_string).collect();
    ports.join(",")
}

/// Puts the proxy before everything of the user's.
fn place(pod: &mut Pod, sidecar: Value) {
    match is_native_sidecar(&sidecar) {
        true => pod.init_containers_mut().insert(0, sidecar),
        false => pod.containers_mut().insert(0, sidecar),
    }
}

/// Has kuma-init redirect the pod's traffic, before everything.
fn redirect_by_container(pod: &mut Pod, init: Value) {
    remove_init(pod);
    // That of another pod, of which this one is a copy.
    pod.remove_annotation(names::INIT_ARGUMENTS);
    pod.init_containers_mut().insert(0, init);
}

/// Has the CNI plugin redirect it, which reads an annotation.
fn redirect_by_plugin(pod: &mut Pod, arguments: &[String]) {
    remove_init(pod);
    pod.set_annotation(names::INIT_ARGUMENTS, &arguments.join(" "));
}

fn remove_init(pod: &mut Pod) {
    if !pod.init_containers().is_empty() {
        pod.init_containers_mut()
            .retain(|container| container["name"] != names::INIT);
    }
}

/// Tells whoever redirects the pod already what is to be left out, and whether anything may pass the proxy.
fn redirect_again(pod: &mut Pod, arguments: &[String]) {
    if pod.annotation(names::INIT_ARGUMENTS).is_some() {
        pod.set_annotation(names::INIT_ARGUMENTS, &arguments.join(" "));
    }
    if pod.find_container(names::INIT).is_some() {
        let containers = pod.init_containers_mut().iter_mut();
        for init in containers.filter(|container| container["name"] == names::INIT) {
            init["args"] = containers::init_command(arguments);
        }
    }
}

/// Whether the pod as a whole has a budget, of which every container takes its part: one of its own might not fit in it.
fn has_resources(spec: &Value) -> bool {
    ["requests", "limits"].iter().any(|kind| {
        let budget = spec["resources"][kind].as_object();
        budget.is_some_and(|budget| !budget.is_empty())
    })
}

fn refresh(pod: &mut Pod, documents: &Documents<'_>) {
    let has_init = !pod.init_containers().is_empty();
    let native = has_init
        .then(|| pod.init_containers_mut().iter_mut().find(|c| is_ours(c)))
        .flatten();
    if let Some(sidecar) = native {
        containers::refresh(sidecar, documents);
    } else if let Some(sidecar) = pod.containers_mut().iter_mut().find(|c| is_ours(c)) {
        containers::refresh(sidecar, documents);
    }
}
