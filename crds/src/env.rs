//! Environment variables that the webhook sets on the proxy container and the proxy reads.
//! The `KUMA_*` names are those of Kuma's data plane, so that existing container patches and unit files work.
//! Knows nothing of defaults: each reader owns its own.

/// The settings document, JSON of [`crate::settings::Settings`].
pub const SETTINGS: &str = "WEIR_SETTINGS";
/// The original probes, JSON of `Vec<`[`crate::probe::Probe`]`>`; the index is the `<n>` of `/probe/<n>`.
pub const PROBES: &str = "WEIR_PROBES";
/// The TCP ports that containers of the pod declare, separated by commas: theirs, whatever the settings say.
pub const APPLICATION_PORTS: &str = "WEIR_APPLICATION_PORTS";
/// Log filter in `tracing` syntax.
pub const LOG: &str = "WEIR_LOG";

/// The pod's name (`metadata.name`).
pub const POD_NAME: &str = "POD_NAME";
/// The pod's namespace (`metadata.namespace`).
pub const POD_NAMESPACE: &str = "POD_NAMESPACE";
/// All addresses of the pod, separated by commas (`status.podIPs`).
pub const POD_IPS: &str = "WEIR_POD_IPS";
/// The first address of the pod (`status.podIP`).
pub const INSTANCE_IP: &str = "INSTANCE_IP";

/// The Mesh the proxy belongs to.
pub const MESH: &str = "KUMA_DATAPLANE_MESH";
/// The proxy's name.
pub const NAME: &str = "KUMA_DATAPLANE_NAME";
/// How long a stopping proxy waits for its connections, for example `30s`.
pub const DRAIN_TIME: &str = "KUMA_DATAPLANE_DRAIN_TIME";
/// How long a stopping proxy stays at least, for example `3s`.
pub const DRAIN_TIME_MIN: &str = "WEIR_DRAIN_TIME_MIN";
/// Path of the Dataplane file; `-` is the standard input.
pub const RESOURCE_PATH: &str = "KUMA_DATAPLANE_RUNTIME_RESOURCE_PATH";
/// The Dataplane document itself, instead of a path.
pub const RESOURCE: &str = "KUMA_DATAPLANE_RUNTIME_RESOURCE";
/// Number of worker threads.
pub const CONCURRENCY: &str = "KUMA_DATAPLANE_RUNTIME_CONCURRENCY";
/// URL of the operator, such as `https://weir-operator.kuma-system.svc:8086`.
pub const CONTROL_PLANE_URL: &str = "KUMA_CONTROL_PLANE_URL";
/// The certificates, in PEM, that the operator's serving certificate is signed by.
pub const CONTROL_PLANE_CA_CERT: &str = "KUMA_CONTROL_PLANE_CA_CERT";
/// Path of a file with the same; what is given itself wins, as in Kuma.
pub const CONTROL_PLANE_CA_CERT_FILE: &str = "KUMA_CONTROL_PLANE_CA_CERT_FILE";
/// Path of the token by which the proxy says to the operator who it is.
pub const TOKEN_PATH: &str = "KUMA_DATAPLANE_RUNTIME_TOKEN_PATH";
/// The name of the pod's node (`spec.nodeName`).
pub const NODE_NAME: &str = "WEIR_NODE_NAME";
