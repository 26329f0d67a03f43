//! Names that users, Kubernetes and the other processes see: namespaces, containers, labels, annotations.
//! Used by every crate so that a name is spelled once. Knows nothing of what is done with them.

/// Namespace of the operator, the webhook and the container patches.
pub const SYSTEM_NAMESPACE: &str = "kuma-system";
/// Name of the injected proxy container.
pub const SIDECAR: &str = "kuma-sidecar";
/// Name of the injected init container that sets up redirection.
pub const INIT: &str = "kuma-init";
/// The Mesh a pod or a Dataplane belongs to when it names none.
pub const DEFAULT_MESH: &str = "default";
/// The operator's Service, and the audience of the tokens that proxies show it.
pub const OPERATOR: &str = "weir-operator";
/// ConfigMap with the authority (key [`OPERATOR_CA_KEY`]) that signs the operator's serving certificate.
pub const OPERATOR_CA: &str = "weir-operator-ca";
/// See [`OPERATOR_CA`].
pub const OPERATOR_CA_KEY: &str = "ca.crt";
/// User id of the proxy; redirection lets its traffic pass.
pub const PROXY_UID: i64 = 5678;

/// API group of the resources.
pub const GROUP: &str = "kuma.io";
/// API version of the resources, without the group.
pub const VERSION: &str = "v1alpha1";

/// The tag that names a service.
pub const SERVICE_TAG: &str = "kuma.io/service";
/// The tag that names a protocol.
pub const PROTOCOL_TAG: &str = "kuma.io/protocol";
/// The tags of a generated inbound that name the Service it belongs to, and its port.
pub const NAMESPACE_TAG: &str = "k8s.kuma.io/namespace";
/// See [`NAMESPACE_TAG`].
pub const SERVICE_NAME_TAG: &str = "k8s.kuma.io/service-name";
/// See [`NAMESPACE_TAG`].
pub const SERVICE_PORT_TAG: &str = "k8s.kuma.io/service-port";
/// Default value of [`SERVICE_TAG`] on the metrics endpoint (the Kuma page).
pub const METRICS_SERVICE: &str = "dataplane-metrics";

/// Label on a namespace or a pod that asks for injection.
pub const INJECTION: &str = "kuma.io/sidecar-injection";
/// Annotation on a namespace or a pod that asks for injection, Linkerd's spelling.
pub const LINKERD_INJECT: &str = "linkerd.io/inject";
/// Annotation (or label) that chooses the Mesh.
pub const MESH: &str = "kuma.io/mesh";
/// Kuma's annotation on a Mesh whose initial policies were created, where it is `true`.
pub const DEFAULTS_GENERATED: &str = "k8s.kuma.io/mesh-defaults-generated";
/// Annotation on an injected pod.
pub const INJECTED: &str = "kuma.io/sidecar-injected";
/// Annotation holding [`PROXY_UID`].
pub const SIDECAR_UID: &str = "kuma.io/sidecar-uid";

/// Label: the namespace of the control plane of an injected pod.
pub const CONTROL_PLANE_NS: &str = "linkerd.io/control-plane-ns";
/// Label: the namespace of an injected pod.
pub const WORKLOAD_NS: &str = "linkerd.io/workload-ns";
/// Owner labels of an injected pod; exactly one of the six is set.
pub const PROXY_DAEMONSET: &str = "linkerd.io/proxy-daemonset";
/// See [`PROXY_DAEMONSET`].
pub const PROXY_DEPLOYMENT: &str = "linkerd.io/proxy-deployment";
/// See [`PROXY_DAEMONSET`].
pub const PROXY_JOB: &str = "linkerd.io/proxy-job";
/// See [`PROXY_DAEMONSET`].
pub const PROXY_REPLICASET: &str = "linkerd.io/proxy-replicaset";
/// See [`PROXY_DAEMONSET`].
pub const PROXY_REPLICATIONCONTROLLER: &str = "linkerd.io/proxy-replicationcontroller";
/// See [`PROXY_DAEMONSET`].
pub const PROXY_STATEFULSET: &str = "linkerd.io/proxy-statefulset";

/// Label of what a program made; [`OPERATOR`] on the Dataplanes that are generated from pods.
pub const MANAGED_BY: &str = "app.kubernetes.io/managed-by";

/// Annotation: the injection decision, `injected: enabled by <who>` or `skipped: <reason>`.
pub const DECISION: &str = "weir.io/injection";

/// Annotation of a pod, or of its namespace for those in it: what redirects its traffic, `init` or `cni`.
pub const REDIRECTION: &str = "weir.io/redirection";
/// Annotation of a pod that the CNI plugin redirects: the arguments of `weir-proxy init`, each after a space.
pub const INIT_ARGUMENTS: &str = "weir.io/init-arguments";

/// Annotation of a pod, or of its namespace for those in it: requests without a route are answered 404.
pub const CLOSED_ROUTES: &str = "weir.io/closed-routes";

/// Annotation: inbound ports that are not redirected.
pub const EXCLUDE_INBOUND_PORTS: &str = "traffic.kuma.io/exclude-inbound-ports";
/// Annotation: outbound ports that are not redirected.
pub const EXCLUDE_OUTBOUND_PORTS: &str = "traffic.kuma.io/exclude-outbound-ports";
/// Prefix of the annotations that configure Linkerd's proxy; three of them mean something to Weir.
pub const LINKERD_CONFIG_PREFIX: &str = "config.linkerd.io/";
/// Annotation: inbound ports that are not redirected, Linkerd's spelling.
pub const SKIP_INBOUND_PORTS: &str = "config.linkerd.io/skip-inbound-ports";
/// Annotation: outbound ports that are not redirected, Linkerd's spelling.
pub const SKIP_OUTBOUND_PORTS: &str = "config.linkerd.io/skip-outbound-ports";
/// Annotation of a Service or a pod: ports whose bytes are not looked at.
pub const OPAQUE_PORTS: &str = "config.linkerd.io/opaque-ports";
/// Flag of `weir-proxy init`: inbound ports that are not redirected.
pub const EXCLUDE_INBOUND_FLAG: &str = "--exclude-inbound-ports";

/// Prefix of the annotations that configure a pod's metrics endpoint.
pub const METRICS_PREFIX: &str = "prometheus.metrics.kuma.io/";
/// Annotation: overrides the Mesh's metrics port.
pub const METRICS_PORT: &str = "prometheus.metrics.kuma.io/port";
/// Annotation: overrides the Mesh's metrics path.
pub const METRICS_PATH: &str = "prometheus.metrics.kuma.io/path";
/// Prefix of the annotations that configure an aggregated application: `<prefix><name>-<field>`.
pub const METRICS_AGGREGATE_PREFIX: &str = "prometheus.metrics.kuma.io/aggregate-";
