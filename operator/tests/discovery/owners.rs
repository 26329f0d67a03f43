//! Every kind of owner a pod may have, and the label that it gives: a table for the index and for what is told of it.

/// API version, kind, name and template hash of an owner, and the label it gives.
pub(crate) type Owned = (
    &'static str,
    &'static str,
    &'static str,
    Option<&'static str>,
    Option<(&'static str, &'static str)>,
);

pub(crate) const OWNERS: [Owned; 13] = [
    (
        "apps/v1",
        "ReplicaSet",
        "web-5d8f",
        Some("5d8f"),
        Some(("deployment", "web")),
    ),
    (
        "apps/v1",
        "ReplicaSet",
        "web-5d8f",
        None,
        Some(("replicaset", "web-5d8f")),
    ),
    (
        "apps/v1",
        "ReplicaSet",
        "web",
        Some("5d8f"),
        Some(("replicaset", "web")),
    ),
    (
        "apps/v1",
        "ReplicaSet",
        "-5d8f",
        Some("5d8f"),
        Some(("replicaset", "-5d8f")),
    ),
    (
        "apps/v1",
        "StatefulSet",
        "db",
        None,
        Some(("statefulset", "db")),
    ),
    (
        "apps/v1",
        "DaemonSet",
        "log",
        None,
        Some(("daemonset", "log")),
    ),
    ("batch/v1", "Job", "once", None, Some(("k8s_job", "once"))),
    // A CronJob's pod is owned by its Job.
    (
        "batch/v1",
        "Job",
        "nightly-29103",
        None,
        Some(("k8s_job", "nightly-29103")),
    ),
    (
        "v1",
        "ReplicationController",
        "old",
        None,
        Some(("replicationcontroller", "old")),
    ),
    ("argoproj.io/v1alpha1", "Rollout", "x", None, None),
    ("other.io/v1", "Job", "x", None, None),
    (
        "apps/v1",
        "ReplicaSet",
        "bare",
        None,
        Some(("replicaset", "bare")),
    ),
    ("example.com/v1", "Thing", "x", None, None),
];
