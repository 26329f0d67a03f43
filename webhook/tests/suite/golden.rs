//! Golden injections: pods as controllers make them, beside what becomes of them. Each golden shows the labels and
//! annotations first, side by side with those the pod came with, then the changed containers.

use clap::Parser;
use serde_json::{Map, Value, json};
use weir_crds::mesh::MeshSpec;
use weir_webhook::{
    decide::{Decision, Defaults, PodSecurity, decide},
    inject::{Config, Context, Injected, Operator, inject, mesh_of},
    namespace::Namespace,
    pod::Pod,
    redirection::Redirection,
};

mod again;

#[derive(Parser)]
struct Flags {
    #[command(flatten)]
    config: Config,
}

fn config() -> Config {
    Flags::parse_from(["test", "--proxy-image=weir-proxy:dev"]).config
}

fn namespace(annotations: Value) -> Namespace {
    Namespace {
        name: "emojivoto".to_owned(),
        labels: [("kuma.io/sidecar-injection".to_owned(), "enabled".to_owned())].into(),
        annotations: serde_json::from_value(annotations).unwrap(),
    }
}

fn injected(pod: &Value, namespace: &Namespace, native_sidecars: bool) -> Injected {
    injected_of(pod, namespace, native_sidecars, &MeshSpec::initial())
}

fn injected_of(
    pod: &Value,
    namespace: &Namespace,
    native_sidecars: bool,
    spec: &MeshSpec,
) -> Injected {
    let pod = Pod::parse(pod.clone()).unwrap();
    let decided = decide(
        &pod,
        namespace,
        &Defaults {
            native_sidecars,
            redirection: Redirection::Init,
            pod_security: PodSecurity::Privileged,
        },
    );
    let Ok(Decision::Inject(asked_by)) = &decided else {
        panic!("{decided:?}");
    };
    let (mesh, _) = mesh_of(&pod, namespace);
    let context = Context {
        namespace,
        asked_by,
        mesh: &mesh,
        spec,
        native_sidecars,
        config: &config(),
        operator: Some(Operator {
            url: &config().control_plane_url,
            authority: "-----BEGIN CERTIFICATE-----",
        }),
    };
    inject(pod, &context).unwrap()
}

/// What a golden shows of a pod that came as `before`.
fn shown(before: &Value, injected: &Injected) -> Value {
    let after = injected.pod.value();
    let side_by_side = |map: &str| {
        let (old, new) = (&before["metadata"][map], &after["metadata"][map]);
        let keys = old
            .as_object()
            .into_iter()
            .chain(new.as_object())
            .flat_map(Map::keys);
        let rows = keys.map(|key| {
            let cell = |side: &Value| side[key].as_str().unwrap_or("-").to_owned();
            (
                key.clone(),
                json!(format!("{} => {}", cell(old), cell(new))),
            )
        });
        Value::Object(rows.collect())
    };
    json!({
        "1 labels": side_by_side("labels"),
        "2 annotations": side_by_side("annotations"),
        "3 initContainers": after["spec"]["initContainers"],
        "4 containers": after["spec"]["containers"],
        "5 volumes": after["spec"]["volumes"],
        "6 warnings": injected.warnings,
    })
}

fn owned(owner: Value, labels: Value) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"generateName": "x-", "labels": labels, "ownerReferences": [owner]},
        "spec": {"containers": [{"name": "app", "image": "app:1"}]},
    })
}

fn owner(api_version: &str, kind: &str, name: &str) -> Value {
    json!({"apiVersion": api_version, "kind": kind, "name": name, "controller": true, "uid": "u"})
}

/// Labels and annotations only: the containers are those of the Deployment's golden.
fn metadata_only(pod: &Value) -> Value {
    let injected = injected(pod, &namespace(json!({})), true);
    let mut shown = shown(pod, &injected);
    let fields = shown.as_object_mut().unwrap();
    fields.retain(|key, _| key.starts_with('1') || key.starts_with('2'));
    shown
}

#[test]
fn deployment() {
    let mut pod = owned(
        owner("apps/v1", "ReplicaSet", "vote-bot-7d5c6f9b4c"),
        json!({"app": "vote-bot", "pod-template-hash": "7d5c6f9b4c", "test": "vote-bot-test"}),
    );
    pod["spec"]["initContainers"] = json!([{"name": "migrate", "image": "migrate:1"}]);
    insta::assert_yaml_snapshot!(shown(&pod, &injected(&pod, &namespace(json!({})), true)));
}

#[test]
fn before_native_sidecars() {
    let mut pod = owned(owner("apps/v1", "StatefulSet", "db"), json!({"app": "db"}));
    pod["spec"]["initContainers"] = json!([{"name": "migrate", "image": "migrate:1"}]);
    insta::assert_yaml_snapshot!(shown(&pod, &injected(&pod, &namespace(json!({})), false)));
}

/// No init container of ours and no capability: what the Pod Security level `restricted` asks for.
#[test]
fn redirected_by_the_cni_plugin() {
    let namespace = namespace(json!({
        "weir.io/redirection": "cni",
        "traffic.kuma.io/exclude-inbound-ports": "80, 443",
        "config.linkerd.io/skip-outbound-ports": "3306",
    }));
    let mut pod = owned(
        owner("apps/v1", "DaemonSet", "logs"),
        json!({"app": "logs"}),
    );
    pod["spec"]["initContainers"] = json!([{"name": "migrate", "image": "migrate:1"}]);
    let once = injected(&pod, &namespace, true);
    insta::assert_yaml_snapshot!(shown(&pod, &once));
    let twice = injected(once.pod.value(), &namespace, true);
    assert_eq!(twice.pod, once.pod);
}

/// Before the application's container, a proxy would have the port and keep the other from starting.
#[test]
fn a_native_sidecar_keeps_the_metrics_port_that_it_declares() {
    let mut pod = owned(owner("apps/v1", "DaemonSet", "logs"), json!({}));
    pod["spec"]["initContainers"] = json!([
        {"name": "agent", "restartPolicy": "Always", "ports": [{"containerPort": 5670}]},
    ]);
    let injected = injected(&pod, &namespace(json!({})), true);
    let sidecar = injected.pod.find_container("kuma-sidecar").unwrap();
    let variable = |name: &str| {
        let mut variables = sidecar["env"].as_array().unwrap().iter();
        variables.find(|one| one["name"] == name).unwrap()["value"].clone()
    };
    assert_eq!(variable("WEIR_APPLICATION_PORTS"), "5670");
    let settings = variable("WEIR_SETTINGS");
    assert!(
        !settings.as_str().unwrap().contains("\"metrics\":{"),
        "{settings}"
    );
    let warnings = injected.warnings.join("\n");
    assert!(
        warnings.contains("container \"agent\" declares port 5670"),
        "{warnings}"
    );
}

#[test]
fn a_copy_of_a_redirected_pod_has_one_redirection() {
    let mut copy = owned(owner("apps/v1", "DaemonSet", "logs"), json!({}));
    copy["metadata"]["annotations"] = json!({"weir.io/init-arguments": "--strict"});
    let injected = injected(&copy, &namespace(json!({})), true);
    assert_eq!(injected.pod.annotation("weir.io/init-arguments"), None);
    assert_eq!(injected.pod.init_containers()[0]["name"], "kuma-init");
}

#[test]
fn other_owners() {
    let job = |name: &str| owned(owner("batch/v1", "Job", name), json!({"job-name": name}));
    let apps = |kind: &str, name: &str| owned(owner("apps/v1", kind, name), json!({}));
    let bare = json!({"metadata": {"name": "bare"}, "spec": {"containers": [{"name": "app"}]}});
    let old = owned(owner("v1", "ReplicationController", "old"), json!({}));
    insta::assert_yaml_snapshot!(json!({
        "job": metadata_only(&job("import")),
        "the Job of a CronJob": metadata_only(&job("nightly-29012345")),
        "statefulset": metadata_only(&apps("StatefulSet", "db")),
        "daemonset": metadata_only(&apps("DaemonSet", "logs")),
        "bare replicaset": metadata_only(&apps("ReplicaSet", "web")),
        "replicationcontroller": metadata_only(&old),
        "no owner": metadata_only(&bare),
    }));
}

#[test]
fn annotations_of_the_namespace_are_copied_and_the_pod_wins() {
    let namespace = namespace(json!({
        "prometheus.metrics.kuma.io/port": "1234",
        "prometheus.metrics.kuma.io/path": "/non-standard-path",
        "prometheus.metrics.kuma.io/aggregate-side-port": "9000",
        "prometheus.metrics.kuma.io/agregate-typo-port": "9000",
        "config.linkerd.io/skip-outbound-ports": "3306,5432-5433",
        "config.linkerd.io/opaque-ports": "6000",
        "weir.io/closed-routes": "true",
        "unrelated": "stays",
    }));
    let mut pod = owned(owner("apps/v1", "DaemonSet", "logs"), json!({}));
    pod["metadata"]["annotations"] = json!({
        "prometheus.metrics.kuma.io/path": "/mine",
        "prometheus.metrics.kuma.io/aggregate-app-port": "8080",
        "prometheus.metrics.kuma.io/aggregate-app-path": "/stats",
        "traffic.kuma.io/exclude-inbound-ports": "9999",
        "kubectl.kubernetes.io/default-container": "other",
        "kuma.io/sidecar-injection": "enabled",
    });
    pod["spec"]["containers"][0]["ports"] = json!([{"containerPort": 1234}]);
    insta::assert_yaml_snapshot!(shown(&pod, &injected(&pod, &namespace, true)));
}

fn with_probes() -> Value {
    let native = json!({
        "name": "native",
        "restartPolicy": "Always",
        "startupProbe": {"tcpSocket": {"port": 7000}, "periodSeconds": 1},
    });
    let headers = json!([{"name": "X-Probe", "value": "$(HOME) costs $5"}]);
    let start = json!({"path": "/start", "port": "web", "scheme": "HTTPS", "httpHeaders": headers});
    json!({
        "metadata": {"name": "probed"},
        "spec": {
            "terminationGracePeriodSeconds": 45,
            "initContainers": [{"name": "once", "readinessProbe": {"httpGet": {"port": 1}}}, native],
            "containers": [{
                "name": "app",
                "ports": [{"name": "web", "containerPort": 8080}],
                "startupProbe": {"httpGet": start, "failureThreshold": 30},
                "livenessProbe": {"grpc": {"port": 9000, "service": "alive"}, "timeoutSeconds": 4},
                "readinessProbe": {"exec": {"command": ["true"]}},
                "lifecycle": {"postStart": {"httpGet": {"port": 8080, "path": "/started"}},
                              "preStop": {"httpGet": {"port": "web", "path": "/stop"}}},
            }],
        },
    })
}

#[test]
fn probes_and_hooks() {
    let pod = with_probes();
    insta::assert_yaml_snapshot!(shown(&pod, &injected(&pod, &namespace(json!({})), true)));
}

/// Budgets of the pod as a whole hold all its containers: ours take their part of them.
#[test]
fn a_pod_with_a_budget_of_its_own_keeps_it() {
    for (resources, has_own) in [
        (json!({"requests": {"memory": "128Mi"}}), false),
        (json!({"limits": {"cpu": "1"}}), false),
        (json!({}), true),
    ] {
        let pod = json!({
            "metadata": {"name": "pod"},
            "spec": {"containers": [{"name": "app"}], "resources": resources},
        });
        let after = injected(&pod, &namespace(json!({})), true).pod.into_value();
        assert_eq!(after["spec"]["resources"], resources);
        for container in after["spec"]["initContainers"].as_array().unwrap() {
            let own = container["resources"].as_object().unwrap();
            assert_eq!(!own.is_empty(), has_own, "{container}");
        }
    }
}

#[test]
fn a_pod_without_an_operator_has_no_token() {
    let pod = Pod::parse(owned(owner("apps/v1", "DaemonSet", "logs"), json!({}))).unwrap();
    let context = Context {
        namespace: &namespace(json!({})),
        asked_by: "a test",
        mesh: "default",
        spec: &MeshSpec::initial(),
        native_sidecars: true,
        config: &config(),
        operator: None,
    };
    let injected = inject(pod, &context).unwrap();
    let text = injected.pod.value().to_string();
    assert!(
        !text.contains("KUMA_CONTROL_PLANE") && !text.contains("weir-token"),
        "{text}"
    );
}

/// A DaemonSet's pod in a STRICT Mesh.
fn in_a_strict_mesh(native_sidecars: bool) -> Pod {
    let backends = json!([{"name": "ca", "type": "builtin"}]);
    let strict = MeshSpec(json!({"mtls": {"enabledBackend": "ca", "backends": backends}}));
    let pod = Pod::parse(owned(owner("apps/v1", "DaemonSet", "logs"), json!({}))).unwrap();
    let mut config = config();
    config.proxy_drain_time = "45s".to_owned();
    let context = Context {
        namespace: &namespace(json!({})),
        asked_by: "a test",
        mesh: "default",
        spec: &strict,
        native_sidecars,
        config: &config,
        operator: None,
    };
    inject(pod, &context).unwrap().pod
}

#[test]
fn a_strict_mesh_keeps_its_redirection() {
    let pod = in_a_strict_mesh(true);
    let args = &pod.init_containers()[0]["args"];
    assert_eq!(*args, json!(["init", "--proxy-uid=5678", "--strict"]));
}

/// The kubelet tells both to end at once: see the golden of a pod before native sidecars for the other Meshes.
#[test]
fn a_plain_proxy_of_a_strict_mesh_stays_until_its_grace_period_is_nearly_over() {
    let stay = |proxy: &Value| {
        let variables = proxy["env"].as_array().unwrap().iter();
        let mut stay = variables.filter(|variable| variable["name"] == "WEIR_DRAIN_TIME_MIN");
        stay.next().map(|variable| variable["value"].clone())
    };
    let pod = in_a_strict_mesh(false);
    let proxy = pod
        .containers()
        .iter()
        .find(|c| c["name"] == "kuma-sidecar");
    // Its drain time is 45 s, which is more than the grace period of its pod leaves it.
    assert_eq!(stay(proxy.unwrap()), Some(json!("28s")));
    // A native sidecar is told to end after its application.
    let pod = in_a_strict_mesh(true);
    let mut native = pod.init_containers().iter();
    let proxy = native.find(|c| c["name"] == "kuma-sidecar");
    assert_eq!(stay(proxy.unwrap()), None);
}
