use serde_json::json;

use super::*;

fn namespace(labels: Value, annotations: Value) -> Namespace {
    Namespace {
        name: "shop".to_owned(),
        labels: serde_json::from_value(labels).unwrap(),
        annotations: serde_json::from_value(annotations).unwrap(),
    }
}

fn enabled() -> Namespace {
    namespace(json!({"kuma.io/sidecar-injection": "enabled"}), json!({}))
}

fn pod(metadata: Value, spec: Value) -> Pod {
    let mut document = json!({"metadata": metadata, "spec": {"containers": [{"name": "app"}]}});
    for (key, value) in spec.as_object().unwrap() {
        document["spec"][key] = value.clone();
    }
    Pod::parse(document).unwrap()
}

fn plain() -> Pod {
    pod(json!({}), json!({}))
}

fn defaults(native_sidecars: bool) -> Defaults {
    Defaults {
        native_sidecars,
        redirection: Redirection::Init,
        pod_security: PodSecurity::Privileged,
    }
}

/// The decision in the words of the annotation.
fn verdict(pod: &Pod, namespace: &Namespace) -> String {
    match decide(pod, namespace, &defaults(true)) {
        Ok(Decision::Inject(_)) => "injected".to_owned(),
        Ok(Decision::Leave) => "left".to_owned(),
        Ok(Decision::Skip(skip)) => format!("skipped: {skip}"),
        Err(refusal) => format!("refused: {refusal}"),
    }
}

#[test]
fn the_first_of_pod_and_namespace_label_and_annotation_decides() {
    const LABEL: &str = "kuma.io/sidecar-injection";
    const ANNOTATION: &str = "linkerd.io/inject";
    let of = |key: &str, value: Option<&str>| value.map_or(json!({}), |value| json!({key: value}));
    let of_pod_label = "skipped: disabled by the label kuma.io/sidecar-injection of the pod";
    let of_pod = "skipped: disabled by the annotation linkerd.io/inject of the pod";
    let of_label =
        "skipped: disabled by the label kuma.io/sidecar-injection of the namespace \"shop\"";
    let of_namespace =
        "skipped: disabled by the annotation linkerd.io/inject of the namespace \"shop\"";
    // Pod's label, pod's annotation, namespace's label, namespace's annotation, verdict.
    let table = [
        (None, None, None, None, "left"),
        (Some("enabled"), None, None, None, "injected"),
        (Some("true"), None, None, None, "injected"),
        (
            Some("yes"),
            Some("disabled"),
            Some("disabled"),
            Some("disabled"),
            "injected",
        ),
        (
            Some("disabled"),
            Some("enabled"),
            Some("enabled"),
            Some("enabled"),
            of_pod_label,
        ),
        (Some("false"), None, None, None, of_pod_label),
        (Some("no"), None, None, None, of_pod_label),
        (None, Some("enabled"), Some("disabled"), None, "injected"),
        (None, Some("ingress"), None, None, "injected"),
        (None, Some("disabled"), Some("enabled"), None, of_pod),
        (None, None, Some("enabled"), Some("disabled"), "injected"),
        (None, None, Some("disabled"), Some("enabled"), of_label),
        (None, None, None, Some("enabled"), "injected"),
        (None, None, None, Some("disabled"), of_namespace),
    ];
    for (pod_label, pod_annotation, label, annotation, want) in table {
        let metadata =
            json!({"labels": of(LABEL, pod_label), "annotations": of(ANNOTATION, pod_annotation)});
        let namespace = namespace(of(LABEL, label), of(ANNOTATION, annotation));
        let case = format!("{pod_label:?} {pod_annotation:?} {label:?} {annotation:?}");
        assert_eq!(
            verdict(&pod(metadata, json!({})), &namespace),
            want,
            "{case}"
        );
    }
}

#[test]
fn an_unknown_value_is_refused_with_its_name_and_owner() {
    let labelled = pod(
        json!({"labels": {"kuma.io/sidecar-injection": "Enabled"}}),
        json!({}),
    );
    assert_eq!(
        verdict(&labelled, &enabled()),
        "refused: kuma.io/sidecar-injection: unknown value \"Enabled\" in the label of the pod: use enabled or disabled"
    );
    let kuma_knows_no_ingress = pod(
        json!({"labels": {"kuma.io/sidecar-injection": "ingress"}}),
        json!({}),
    );
    assert!(verdict(&kuma_knows_no_ingress, &enabled()).starts_with("refused: "));
    let annotated = namespace(json!({}), json!({"linkerd.io/inject": "on"}));
    assert_eq!(
        verdict(&plain(), &annotated),
        "refused: linkerd.io/inject: unknown value \"on\" in the annotation of the namespace \"shop\": use enabled or disabled"
    );
}

#[test]
fn what_cannot_be_injected_is_skipped_with_its_reason() {
    let table = [
        (
            json!({"hostNetwork": true}),
            "skipped: hostNetwork: redirection would take the node's traffic",
        ),
        (
            json!({"containers": [{"name": "a"}, {"name": "linkerd-proxy"}]}),
            "skipped: the pod has a container linkerd-proxy of another mesh",
        ),
        (
            json!({"initContainers": [{"name": "kuma-sidecar", "env": [{"name": "KUMA_X"}]}]}),
            "skipped: the pod has a container kuma-sidecar of another mesh",
        ),
        (
            json!({"initContainers": [{"name": "kuma-sidecar", "env": [{"name": "WEIR_SETTINGS"}]}]}),
            "injected",
        ),
        (
            json!({"containers": [{"name": "a", "ports": [{"containerPort": 80}, {"containerPort": 4143}]}]}),
            "skipped: container a declares port 4143, which the proxy needs: let it listen on another port",
        ),
        (
            json!({"initContainers": [{"name": "s", "restartPolicy": "Always", "ports": [{"containerPort": 4191}]}]}),
            "skipped: container s declares port 4191, which the proxy needs: let it listen on another port",
        ),
        (
            json!({"initContainers": [{"name": "once", "ports": [{"containerPort": 4191}]}]}),
            "injected",
        ),
        (
            json!({"containers": [{"name": "a", "ports": [{"containerPort": 4143, "protocol": "UDP"}]}]}),
            "injected",
        ),
    ];
    for (spec, want) in table {
        assert_eq!(
            verdict(&pod(json!({}), spec.clone()), &enabled()),
            want,
            "{spec}"
        );
    }
    let build = pod(
        json!({"labels": {"openshift.io/build.name": "x"}}),
        json!({}),
    );
    assert_eq!(
        verdict(&build, &enabled()),
        "skipped: the label openshift.io/build.name marks one of OpenShift's own pods"
    );
}

#[test]
fn pod_security_levels_that_forbid_redirection_are_skipped_with_the_remedy() {
    for (level, skipped) in [
        ("privileged", false),
        ("baseline", true),
        ("restricted", true),
    ] {
        let namespace = namespace(
            json!({"kuma.io/sidecar-injection": "enabled", "pod-security.kubernetes.io/enforce": level}),
            json!({}),
        );
        let want = format!(
            "skipped: the namespace enforces the Pod Security level {level}, which forbids the capability NET_ADMIN that \
             redirection needs: install the CNI plugin (manifests/cni) and annotate the namespace \
             weir.io/redirection=cni, or label it pod-security.kubernetes.io/enforce=privileged"
        );
        let want = if skipped { &want } else { "injected" };
        assert_eq!(verdict(&plain(), &namespace), *want);
        // The plugin needs nothing of the pod.
        let redirected = pod(
            json!({"annotations": {"weir.io/redirection": "cni"}}),
            json!({}),
        );
        assert_eq!(verdict(&redirected, &namespace), "injected");
    }
}

#[test]
fn our_namespace_and_the_systems_are_left() {
    for name in ["kube-system", "kuma-system"] {
        let namespace = Namespace {
            name: name.to_owned(),
            ..enabled()
        };
        let asking = pod(
            json!({"labels": {"kuma.io/sidecar-injection": "enabled"}}),
            json!({"hostNetwork": true}),
        );
        assert_eq!(verdict(&asking, &namespace), "left");
    }
}

#[test]
fn an_application_with_the_proxys_uid_is_refused() {
    let spec = json!({
        "securityContext": {"runAsUser": 5678},
        "containers": [
            {"name": "inherits"},
            {"name": "own", "securityContext": {"runAsUser": 1000}},
            {"name": "same", "securityContext": {"runAsUser": 5678}},
        ],
        "initContainers": [{"name": "once", "securityContext": {"runAsUser": 5678}}],
    });
    assert_eq!(
        verdict(&pod(json!({}), spec), &enabled()),
        "refused: spec.containers: containers \"inherits\", \"same\" would run as uid 5678, which is the proxy's and whose \
         traffic is not measured: choose another runAsUser"
    );
}

#[test]
fn a_pod_that_completes_needs_native_sidecars() {
    for policy in ["Never", "OnFailure"] {
        let job = pod(json!({}), json!({"restartPolicy": policy}));
        assert_eq!(
            decide(&job, &enabled(), &defaults(false)),
            Ok(Decision::Skip(Skip::NeverCompletes))
        );
        assert_eq!(verdict(&job, &enabled()), "injected");
    }
    let by = "the label kuma.io/sidecar-injection of the namespace \"shop\"";
    assert_eq!(
        decide(&plain(), &enabled(), &defaults(false)),
        Ok(Decision::Inject(by.to_owned()))
    );
}

#[test]
fn a_pod_for_windows_gets_no_proxy() {
    for spec in [
        json!({"os": {"name": "windows"}}),
        json!({"nodeSelector": {"kubernetes.io/os": "windows"}}),
    ] {
        assert_eq!(
            verdict(&pod(json!({}), spec), &enabled()),
            "skipped: the pod is for Windows, and the proxy for Linux"
        );
    }
    let linux = json!({"os": {"name": "linux"}, "nodeSelector": {"kubernetes.io/os": "linux"}});
    assert_eq!(verdict(&pod(json!({}), linux), &enabled()), "injected");
}

#[test]
fn a_level_of_pod_security_may_be_the_clusters() {
    let strict = Defaults {
        pod_security: PodSecurity::Baseline,
        ..defaults(true)
    };
    let by_default = Skip::PodSecurity("baseline (the cluster's default)".to_owned());
    assert_eq!(
        decide(&plain(), &enabled(), &strict),
        Ok(Decision::Skip(by_default))
    );
    // The namespace's own level comes first, and the CNI plugin needs nothing.
    let mut own = enabled();
    own.labels
        .insert(POD_SECURITY.to_owned(), "privileged".to_owned());
    let by_plugin = Defaults {
        redirection: Redirection::Cni,
        ..strict
    };
    for (namespace, defaults) in [(own, strict), (enabled(), by_plugin)] {
        let decided = decide(&plain(), &namespace, &defaults);
        assert!(matches!(decided, Ok(Decision::Inject(_))), "{decided:?}");
    }
}
