//! The labels by which collection names a pod's workload: Linkerd's control plane, namespace and owner labels.
//! Called by `inject`. The owner needs no cache and no call: a ReplicaSet made by a Deployment is named after it.

use aws_lc_rs::digest::{SHA256, digest};
use weir_crds::names;

use crate::pod::Pod;

/// Longest value the API server takes for a label.
pub(super) const LABEL_VALUE_LIMIT: usize = 63;
/// Hex digits of the hash that keeps shortened names apart.
const HASH_DIGITS: usize = 10;
const OWNER_LABELS: [&str; 6] = [
    names::PROXY_DAEMONSET,
    names::PROXY_DEPLOYMENT,
    names::PROXY_JOB,
    names::PROXY_REPLICASET,
    names::PROXY_REPLICATIONCONTROLLER,
    names::PROXY_STATEFULSET,
];

/// Sets the three kinds of labels; a stale owner label (of a copied pod) goes. Returns a warning when the owner's
/// name had to be shortened.
pub(super) fn set(pod: &mut Pod, namespace: &str) -> Option<String> {
    pod.set_label(names::CONTROL_PLANE_NS, names::SYSTEM_NAMESPACE);
    pod.set_label(names::WORKLOAD_NS, namespace);
    let owner = owner(pod);
    for label in OWNER_LABELS {
        if owner.as_ref().is_none_or(|(key, _)| *key != label) {
            pod.remove_label(label);
        }
    }
    let (key, name) = owner?;
    let value = fit(&name);
    pod.set_label(key, &value);
    (value != name).then(|| {
        format!("{key}: the owner's name is longer than {LABEL_VALUE_LIMIT} characters, its metrics carry {value:?}")
    })
}

/// The label and name of the workload that owns the pod. A CronJob's pod belongs to its Job. An owner of another
/// kind, or of another API group, has no label.
fn owner(pod: &Pod) -> Option<(&'static str, String)> {
    let (api_version, kind, name) = pod.controller()?;
    let group = api_version.rsplit_once('/').map_or("", |(group, _)| group);
    let label = match (group, kind) {
        ("apps", "ReplicaSet") => {
            let deployment = pod
                .label("pod-template-hash")
                .and_then(|hash| name.strip_suffix(hash)?.strip_suffix('-'))
                .filter(|deployment| !deployment.is_empty());
            if let Some(deployment) = deployment {
                return Some((names::PROXY_DEPLOYMENT, deployment.to_owned()));
            }
            names::PROXY_REPLICASET
        }
        ("apps", "StatefulSet") => names::PROXY_STATEFULSET,
        ("apps", "DaemonSet") => names::PROXY_DAEMONSET,
        ("batch", "Job") => names::PROXY_JOB,
        ("", "ReplicationController") => names::PROXY_REPLICATIONCONTROLLER,
        _ => return None,
    };
    Some((label, name.to_owned()))
}

/// A name that fits a label value: as it is, or its beginning and a hash of the whole, so that two long names
/// stay two workloads and the same name gives the same series on every pod.
fn fit(name: &str) -> String {
    if name.len() <= LABEL_VALUE_LIMIT {
        return name.to_owned();
    }
    let hash = digest(&SHA256, name.as_bytes());
    let hash: String = hash.as_ref().iter().map(|b| format!("{b:02x}")).collect();
    let keep = LABEL_VALUE_LIMIT - HASH_DIGITS - 1;
    let head: String = name.chars().take(keep).collect();
    let head = head.trim_end_matches(|c: char| !c.is_ascii_alphanumeric());
    format!("{head}-{}", &hash[..HASH_DIGITS])
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn labelled(
        api: &str,
        kind: &str,
        name: &str,
        hash: Option<&str>,
    ) -> Option<(&'static str, String)> {
        let labels = hash.map_or(json!({}), |hash| json!({"pod-template-hash": hash}));
        let pod = json!({
            "metadata": {"labels": labels, "ownerReferences": [
                {"apiVersion": "example.com/v1", "kind": "Other", "name": "no", "controller": false},
                {"apiVersion": api, "kind": kind, "name": name, "controller": true},
            ]},
            "spec": {"containers": []},
        });
        owner(&Pod::parse(pod).unwrap())
    }

    #[test]
    fn owners_give_linkerds_labels() {
        let cases = [
            (
                "apps/v1",
                "ReplicaSet",
                "web-5d9c",
                Some("5d9c"),
                Some(("linkerd.io/proxy-deployment", "web")),
            ),
            (
                "apps/v1",
                "ReplicaSet",
                "web-5d9c",
                None,
                Some(("linkerd.io/proxy-replicaset", "web-5d9c")),
            ),
            (
                "apps/v1",
                "ReplicaSet",
                "web",
                Some("5d9c"),
                Some(("linkerd.io/proxy-replicaset", "web")),
            ),
            (
                "apps/v1",
                "StatefulSet",
                "db",
                None,
                Some(("linkerd.io/proxy-statefulset", "db")),
            ),
            (
                "apps/v1",
                "DaemonSet",
                "log",
                None,
                Some(("linkerd.io/proxy-daemonset", "log")),
            ),
            (
                "batch/v1",
                "Job",
                "nightly-29",
                None,
                Some(("linkerd.io/proxy-job", "nightly-29")),
            ),
            (
                "v1",
                "ReplicationController",
                "old",
                None,
                Some(("linkerd.io/proxy-replicationcontroller", "old")),
            ),
            ("v1", "Node", "n1", None, None),
            ("example.com/v1", "Job", "x", None, None),
        ];
        for (api, kind, name, hash, want) in cases {
            let want = want.map(|(key, value)| (key, value.to_owned()));
            assert_eq!(labelled(api, kind, name, hash), want, "{kind} {name}");
        }
    }

    #[test]
    fn long_names_fit_and_stay_apart() {
        let long = format!("{}.{}", "a".repeat(51), "b".repeat(60));
        let fitted = fit(&long);
        assert!(fitted.len() <= LABEL_VALUE_LIMIT, "{fitted}");
        assert!(
            fitted.starts_with(&format!("{}-", "a".repeat(51))),
            "no dot before the dash: {fitted}"
        );
        assert_ne!(fitted, fit(&format!("{long}c")));
        assert_eq!(fit(&"x".repeat(63)), "x".repeat(63));
    }

    #[test]
    fn a_copied_pods_owner_label_does_not_stay() {
        let pod = json!({"metadata": {"labels": {"linkerd.io/proxy-job": "was"}}, "spec": {"containers": []}});
        let mut pod = Pod::parse(pod).unwrap();
        assert_eq!(set(&mut pod, "shop"), None);
        assert_eq!(pod.label("linkerd.io/proxy-job"), None);
        assert_eq!(pod.label("linkerd.io/workload-ns"), Some("shop"));
    }
}
