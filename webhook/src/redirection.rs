//! What brings a pod's traffic to its proxy: the init container kuma-init, or the CNI plugin of its node, which needs
//! no capability in the pod. Asked by `decide` and `inject`. It must not know how either is told what to do.

use clap::ValueEnum;
use weir_crds::{Violation, names};

use crate::{namespace::Namespace, pod::Pod};

/// Who installs the rules that redirect a pod's traffic.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Redirection {
    /// The init container kuma-init, with the capability NET_ADMIN.
    Init,
    /// The CNI plugin of the node (manifests/cni): pods need no capability and start sooner.
    Cni,
}

/// What the pod's annotation says, else its namespace's, else `default`.
pub fn chosen(
    pod: &Pod,
    namespace: &Namespace,
    default: Redirection,
) -> Result<Redirection, Violation> {
    let key = names::REDIRECTION;
    let Some(said) = pod.annotation(key).or_else(|| namespace.annotation(key)) else {
        return Ok(default);
    };
    Redirection::from_str(said, false)
        .map_err(|_| Violation::new(key, format!("unknown value {said:?}: use init or cni")))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_pod_chooses_before_its_namespace() {
        let pod = |annotations: serde_json::Value| {
            Pod::parse(
                json!({"metadata": {"annotations": annotations}, "spec": {"containers": []}}),
            )
            .unwrap()
        };
        let asks = |value: &str| pod(json!({names::REDIRECTION: value}));
        let mut namespace = Namespace::default();
        let default = Redirection::Init;
        let of = |pod: &Pod, namespace: &Namespace| chosen(pod, namespace, default);
        assert_eq!(of(&pod(json!({})), &namespace), Ok(Redirection::Init));
        let key = names::REDIRECTION.to_owned();
        namespace.annotations.insert(key, "cni".to_owned());
        assert_eq!(of(&pod(json!({})), &namespace), Ok(Redirection::Cni));
        assert_eq!(of(&asks("init"), &namespace), Ok(Redirection::Init));
        let error = of(&asks("ebpf"), &namespace).unwrap_err().to_string();
        assert_eq!(
            error,
            "weir.io/redirection: unknown value \"ebpf\": use init or cni"
        );
    }
}
