//! Whether a pod gets the proxy, and the reason. Called by `serve` before `inject`; pure.
//!
//! Who asks, first answer wins: the pod's label `kuma.io/sidecar-injection`, the pod's annotation `linkerd.io/inject`,
//! the namespace's label, the namespace's annotation. A pod nobody asks for stays exactly as it is. One that is
//! asked for and cannot be injected is skipped: it runs unmeasured and an annotation says why.

use std::fmt;

use clap::ValueEnum;
use serde_json::Value;
use weir_crds::{env, names, ports};

use crate::{
    namespace::Namespace,
    pod::{Pod, is_native_sidecar},
    redirection::{self, Redirection},
    refusal::Refusal,
};

/// Namespaces whose pods are never touched, though the webhook's selector should keep them away already.
const EXCLUDED_NAMESPACES: [&str; 2] = ["kube-system", names::SYSTEM_NAMESPACE];
/// Labels of OpenShift's build and deployer pods, which run to completion on their own terms.
const OPENSHIFT_LABELS: [&str; 2] = [
    "openshift.io/build.name",
    "openshift.io/deployer-pod-for.name",
];
/// Containers of other meshes: two redirections in one pod break each other.
const OTHER_PROXIES: [&str; 3] = [names::SIDECAR, "linkerd-proxy", "istio-proxy"];
const POD_SECURITY: &str = "pod-security.kubernetes.io/enforce";
/// Label of a node, by which pods choose one.
const NODE_OS: &str = "kubernetes.io/os";

/// What holds in the whole cluster where neither pod nor namespace says anything else.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Defaults {
    /// Whether the API server has native sidecars.
    pub native_sidecars: bool,
    /// What redirects a pod's traffic.
    pub redirection: Redirection,
    /// The Pod Security level that is enforced.
    pub pod_security: PodSecurity,
}

/// A level of Kubernetes' Pod Security Standards.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum PodSecurity {
    /// Nothing is forbidden.
    Privileged,
    /// NET_ADMIN and other ways to the node are forbidden.
    Baseline,
    /// What is not hardened is forbidden, too.
    Restricted,
}

/// What happens to a pod.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decision {
    /// It gets the proxy (again, where it has ours already); who asks for it.
    Inject(String),
    /// It was asked for, or declined, and runs without; the reason becomes an annotation.
    Skip(Skip),
    /// Nobody asked: no byte of it changes.
    Leave,
}

/// Why a pod that was spoken of runs without the proxy. The text tells the remedy where there is one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Skip {
    /// A label or annotation says no; whose it is.
    Disabled(String),
    /// The label of one of OpenShift's own pods.
    OpenShift(&'static str),
    /// The pod is for a node with Windows.
    Windows,
    /// The pod shares the node's network.
    HostNetwork,
    /// A container of this name is there already and is not ours.
    OtherProxy(&'static str),
    /// The namespace's Pod Security level forbids what redirection needs.
    PodSecurity(String),
    /// A container declares a port that is the proxy's.
    OwnPort {
        /// The container.
        container: String,
        /// The port.
        port: u16,
    },
    /// The pod runs to completion, and no sidecar of this API server's kind would end with it.
    NeverCompletes,
}

impl Skip {
    /// A word for the metric label; one of a fixed few.
    pub fn class(&self) -> &'static str {
        match self {
            Self::Disabled(_) => "disabled",
            Self::OpenShift(_) => "openshift",
            Self::Windows => "windows",
            Self::HostNetwork => "host_network",
            Self::OtherProxy(_) => "other_proxy",
            Self::PodSecurity(_) => "pod_security",
            Self::OwnPort { .. } => "own_port",
            Self::NeverCompletes => "never_completes",
        }
    }

    /// Whether the author asked for the proxy and should hear that there is none.
    pub fn is_a_surprise(&self) -> bool {
        !matches!(self, Self::Disabled(_) | Self::OpenShift(_))
    }
}

impl fmt::Display for Skip {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Disabled(by) => write!(f, "disabled by {by}"),
            Self::OpenShift(label) => write!(f, "the label {label} marks one of OpenShift's own pods"),
            Self::Windows => f.write_str("the pod is for Windows, and the proxy for Linux"),
            Self::HostNetwork => f.write_str("hostNetwork: redirection would take the node's traffic"),
            Self::OtherProxy(name) => write!(f, "the pod has a container {name} of another mesh"),
            Self::PodSecurity(level) => write!(
                f,
                "the namespace enforces the Pod Security level {level}, which forbids the capability NET_ADMIN that \
                 redirection needs: install the CNI plugin (manifests/cni) and annotate the namespace \
                 {}=cni, or label it {POD_SECURITY}=privileged",
                names::REDIRECTION
            ),
            Self::OwnPort { container, port } => write!(
                f,
                "container {container} declares port {port}, which the proxy needs: let it listen on another port"
            ),
            Self::NeverCompletes => f.write_str(
                "the pod runs to completion and this API server has no native sidecars (Kubernetes 1.29): the proxy would keep it running",
            ),
        }
    }
}

/// Decides on one pod.
pub fn decide(pod: &Pod, namespace: &Namespace, defaults: &Defaults) -> Result<Decision, Refusal> {
    if EXCLUDED_NAMESPACES.contains(&namespace.name.as_str()) {
        return Ok(Decision::Leave);
    }
    let Some((wanted, by)) = asked(pod, namespace)? else {
        return Ok(Decision::Leave);
    };
    if !wanted {
        return Ok(Decision::Skip(Skip::Disabled(by)));
    }
    if let Some(skip) = obstacle(pod, namespace, defaults) {
        return Ok(Decision::Skip(skip));
    }
    let same_uid = containers_as_proxy(pod);
    if !same_uid.is_empty() {
        return Err(Refusal::ProxyUid(same_uid));
    }
    Ok(Decision::Inject(by))
}

/// The first answer to whether the proxy is wanted, and whose it is; `None` when nobody says anything.
fn asked(pod: &Pod, namespace: &Namespace) -> Result<Option<(bool, String)>, Refusal> {
    let of_namespace = format!("the namespace {:?}", namespace.name);
    let sources = [
        (
            names::INJECTION,
            "label",
            pod.label(names::INJECTION),
            "the pod",
        ),
        (
            names::LINKERD_INJECT,
            "annotation",
            pod.annotation(names::LINKERD_INJECT),
            "the pod",
        ),
        (
            names::INJECTION,
            "label",
            namespace.label(names::INJECTION),
            &of_namespace,
        ),
        (
            names::LINKERD_INJECT,
            "annotation",
            namespace.annotation(names::LINKERD_INJECT),
            &of_namespace,
        ),
    ];
    for (field, kind, value, owner) in sources {
        let Some(value) = value else { continue };
        let wanted = match value {
            "enabled" | "true" | "yes" => true,
            "disabled" | "false" | "no" => false,
            "ingress" if field == names::LINKERD_INJECT => true,
            _ => {
                return Err(Refusal::UnknownValue {
                    field,
                    value: value.to_owned(),
                    owner: format!(" in the {kind} of {owner}"),
                });
            }
        };
        return Ok(Some((wanted, format!("the {kind} {field} of {owner}"))));
    }
    Ok(None)
}

fn obstacle(pod: &Pod, namespace: &Namespace, defaults: &Defaults) -> Option<Skip> {
    if let Some(label) = OPENSHIFT_LABELS
        .into_iter()
        .find(|label| pod.label(label).is_some())
    {
        return Some(Skip::OpenShift(label));
    }
    if is_for_windows(pod.spec()) {
        return Some(Skip::Windows);
    }
    if pod.spec()["hostNetwork"] == true {
        return Some(Skip::HostNetwork);
    }
    let other = OTHER_PROXIES.into_iter().find(|name| {
        pod.find_container(name)
            .is_some_and(|found| !is_ours(found))
    });
    if let Some(name) = other {
        return Some(Skip::OtherProxy(name));
    }
    // What cannot be read is refused by `inject`, with all else that is wrong.
    let redirection =
        redirection::chosen(pod, namespace, defaults.redirection).unwrap_or(defaults.redirection);
    if redirection == Redirection::Init
        && let Some(level) = forbidding(namespace, defaults.pod_security)
    {
        return Some(Skip::PodSecurity(level));
    }
    let completes = matches!(
        pod.spec()["restartPolicy"].as_str(),
        Some("Never" | "OnFailure")
    );
    if completes && !defaults.native_sidecars {
        return Some(Skip::NeverCompletes);
    }
    own_port(pod)
}

fn is_for_windows(spec: &Value) -> bool {
    spec["os"]["name"] == "windows" || spec["nodeSelector"][NODE_OS] == "windows"
}

/// The Pod Security level in force, in words, where it forbids what kuma-init needs.
fn forbidding(namespace: &Namespace, default: PodSecurity) -> Option<String> {
    match (namespace.label(POD_SECURITY), default) {
        (Some(level @ ("baseline" | "restricted")), _) => Some(level.to_owned()),
        (Some(_), _) | (None, PodSecurity::Privileged) => None,
        (None, PodSecurity::Baseline) => Some("baseline (the cluster's default)".to_owned()),
        (None, PodSecurity::Restricted) => Some("restricted (the cluster's default)".to_owned()),
    }
}

/// Whether a container of the sidecar's name is one that this webhook injected.
pub fn is_ours(container: &Value) -> bool {
    container["name"] == names::SIDECAR
        && container["env"]
            .as_array()
            .is_some_and(|env| env.iter().any(|variable| variable["name"] == env::SETTINGS))
}

/// Containers that live as long as the pod, without our own.
pub fn application_containers(pod: &Pod) -> impl Iterator<Item = &Value> {
    let sidecars = pod
        .init_containers()
        .iter()
        .filter(|c| is_native_sidecar(c));
    pod.containers()
        .iter()
        .chain(sidecars)
        .filter(|container| container["name"] != names::SIDECAR)
}

/// The TCP ports that a container declares.
pub fn declared_ports(container: &Value) -> impl Iterator<Item = u16> {
    let declared = container["ports"].as_array().into_iter().flatten();
    declared
        .filter(|port| port["protocol"].as_str().is_none_or(|p| p == "TCP"))
        .filter_map(|port| u16::try_from(port["containerPort"].as_u64()?).ok())
}

/// A declared port that the proxy listens on too. Declaring is optional in Kubernetes, so this finds only those who say.
fn own_port(pod: &Pod) -> Option<Skip> {
    application_containers(pod).find_map(|container| {
        let port = declared_ports(container).find(|port| ports::OWN.contains(port))?;
        let container = container["name"].as_str().unwrap_or_default().to_owned();
        Some(Skip::OwnPort { container, port })
    })
}

/// Names of the application containers that would run with the proxy's uid.
fn containers_as_proxy(pod: &Pod) -> Vec<String> {
    let of_pod = &pod.spec()["securityContext"]["runAsUser"];
    application_containers(pod)
        .filter(|container| {
            let own = &container["securityContext"]["runAsUser"];
            let uid = if own.is_null() { of_pod } else { own };
            uid.as_i64() == Some(names::PROXY_UID)
        })
        .map(|container| container["name"].as_str().unwrap_or_default().to_owned())
        .collect()
}

#[cfg(test)]
mod tests;
