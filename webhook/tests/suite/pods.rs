//! Reviews of pods, from body to body.

use axum::http::StatusCode;
use serde_json::{Value, json};

use crate::{
    exchange::{creation, inject, message, patched, pod, review, send},
    fixture::{api_server, empty, filled, filled_beside},
};

#[tokio::test]
async fn an_asked_for_pod_is_patched_and_a_second_review_adds_nothing() {
    let fixture = filled(json!({}));
    let before = pod(json!({"generateName": "web-"}));
    let response = inject(&fixture, &before).await;
    assert_eq!(response["allowed"], true);
    let after = patched(&before, &response);
    assert_eq!(
        after["metadata"]["annotations"]["weir.io/injection"],
        "injected: enabled by the label kuma.io/sidecar-injection of the namespace \"shop\""
    );
    assert_eq!(after["spec"]["initContainers"][1]["name"], "kuma-sidecar");
    assert_eq!(after["spec"]["containers"], before["spec"]["containers"]);

    let again = inject(&fixture, &after).await;
    assert_eq!(
        (&again["allowed"], &again["patch"]),
        (&json!(true), &Value::Null)
    );
}

#[tokio::test]
async fn the_old_form_patches_containers_and_keeps_unknown_fields() {
    let fixture = filled(json!({}));
    fixture.native_sidecars.send_replace(Some(false));
    let before = pod(json!({"name": "web"}));
    let after = patched(&before, &inject(&fixture, &before).await);
    assert_eq!(after["spec"]["containers"][0]["name"], "kuma-sidecar");
    assert_eq!(
        after["spec"]["containers"][1],
        before["spec"]["containers"][0]
    );
}

#[tokio::test]
async fn a_skipped_pod_tells_why_in_an_annotation_and_a_warning() {
    let fixture = filled(json!({}));
    let mut before = pod(json!({"name": "web"}));
    before["spec"]["hostNetwork"] = json!(true);
    let response = inject(&fixture, &before).await;
    let reason = "hostNetwork: redirection would take the node's traffic";
    let mut want = before.clone();
    want["metadata"]["annotations"] = json!({"weir.io/injection": format!("skipped: {reason}")});
    assert_eq!(patched(&before, &response), want);
    assert_eq!(
        response["warnings"],
        json!([format!("weir: not injected: {reason}")])
    );

    // A copy of an injected pod: without a proxy, nothing may lead its traffic to one.
    let declined = pod(json!({
        "labels": {"kuma.io/sidecar-injection": "disabled"},
        "annotations": {"weir.io/init-arguments": "--strict"},
    }));
    let response = inject(&fixture, &declined).await;
    let after = patched(&declined, &response);
    let decision = &after["metadata"]["annotations"]["weir.io/injection"];
    assert_eq!(
        decision,
        "skipped: disabled by the label kuma.io/sidecar-injection of the pod"
    );
    assert_eq!(
        after["metadata"]["annotations"]["weir.io/init-arguments"],
        Value::Null
    );
    assert_eq!(response["warnings"], Value::Null);
}

#[tokio::test]
async fn malformed_annotations_are_refused_with_their_names() {
    let fixture = filled(json!({"prometheus.metrics.kuma.io/path": "no-slash"}));
    let annotations = json!({
        "prometheus.metrics.kuma.io/port": "123a",
        "traffic.kuma.io/exclude-inbound-ports": "http",
        "weir.io/closed-routes": "closed",
    });
    let response = inject(&fixture, &pod(json!({"annotations": annotations}))).await;
    message(&response);
    let causes = response["status"]["details"]["causes"].as_array().unwrap();
    let fields: Vec<&str> = causes
        .iter()
        .map(|cause| cause["field"].as_str().unwrap())
        .collect();
    assert_eq!(
        fields,
        [
            "annotation prometheus.metrics.kuma.io/path of the namespace \"shop\"",
            "prometheus.metrics.kuma.io/port",
            "traffic.kuma.io/exclude-inbound-ports",
            "weir.io/closed-routes",
        ]
    );
}

#[tokio::test]
async fn a_wrong_annotation_of_the_namespace_is_not_blamed_on_the_pod() {
    let of = |key: &str| format!("annotation {key} of the namespace \"shop\": ");
    for (key, value) in [
        ("prometheus.metrics.kuma.io/port", "123a"),
        ("prometheus.metrics.kuma.io/aggregate-web-path", "/stats"),
        ("traffic.kuma.io/exclude-inbound-ports", "http"),
        ("config.linkerd.io/skip-outbound-ports", "0"),
        ("weir.io/closed-routes", "closed"),
        ("weir.io/redirection", "ebpf"),
    ] {
        let fixture = filled(json!({key: value}));
        let response = inject(&fixture, &pod(json!({}))).await;
        let told = message(&response);
        // What is missing is told by its own name.
        let named = key.replace("-path", "-port");
        assert!(told.starts_with(&of(&named)), "{told}");
    }

    let fixture = filled(json!({
        "prometheus.metrics.kuma.io/prot": "1",
        "config.linkerd.io/opaque-ports": "db",
    }));
    let before = pod(json!({"annotations": {"prometheus.metrics.kuma.io/pth": "/"}}));
    let response = inject(&fixture, &before).await;
    assert_eq!(
        response["warnings"],
        json!([
            "weir: the annotation prometheus.metrics.kuma.io/prot of the namespace \"shop\" is not known and does nothing",
            "weir: the annotation prometheus.metrics.kuma.io/pth is not known and does nothing",
            "weir: annotation config.linkerd.io/opaque-ports of the namespace \"shop\": \"db\" is no port, and no container's \
             port has that name: it is passed over",
        ])
    );
}

#[tokio::test]
async fn a_pod_of_a_mesh_that_does_not_exist_is_refused_with_its_name() {
    let fixture = filled(json!({}));
    let response = inject(
        &fixture,
        &pod(json!({"annotations": {"kuma.io/mesh": "nowhere"}})),
    )
    .await;
    assert_eq!(
        message(&response),
        "metadata.annotations[\"kuma.io/mesh\"]: Mesh \"nowhere\" does not exist: create it, or name an existing one in kuma.io/mesh"
    );
}

/// The API server cannot be asked for such a Mesh: it would be another part of its address, or an error of ours.
#[tokio::test]
async fn a_pod_of_a_mesh_that_cannot_exist_is_refused_likewise() {
    let fixture = filled_beside(Some(api_server()), json!({}));
    for name in ["my mesh", "default?x", "a/b", "-"] {
        let pod = pod(json!({"annotations": {"kuma.io/mesh": name}}));
        let told = message(&inject(&fixture, &pod).await).to_owned();
        assert!(
            told.starts_with(&format!(
                "metadata.annotations[\"kuma.io/mesh\"]: Mesh {name:?} does not exist"
            )),
            "{told}"
        );
    }
}

#[tokio::test]
async fn an_empty_name_of_a_mesh_says_nothing() {
    let fixture = filled(json!({}));
    let before = pod(json!({"labels": {"kuma.io/mesh": ""}, "annotations": {"kuma.io/mesh": ""}}));
    let after = patched(&before, &inject(&fixture, &before).await);
    assert_eq!(
        after["metadata"]["annotations"]["kuma.io/mesh"],
        json!("default")
    );
}

#[tokio::test]
async fn other_refusals_name_the_field_and_the_remedy() {
    let fixture = filled(json!({}));
    let response = inject(
        &fixture,
        &pod(json!({"labels": {"kuma.io/sidecar-injection": "maybe"}})),
    )
    .await;
    assert_eq!(
        message(&response),
        "kuma.io/sidecar-injection: unknown value \"maybe\" in the label of the pod: use enabled or disabled"
    );
    let mut same_uid = pod(json!({}));
    same_uid["spec"]["containers"][0]["securityContext"] = json!({"runAsUser": 5678});
    assert_eq!(
        message(&inject(&fixture, &same_uid).await),
        "spec.containers: container \"app\" would run as uid 5678, which is the proxy's and whose traffic is not measured: choose another runAsUser"
    );
    let shapeless = json!({"metadata": {}, "spec": {"containers": "none"}});
    assert_eq!(
        message(&inject(&fixture, &shapeless).await),
        "pod: field spec.containers must be a list of objects"
    );
}

#[tokio::test]
async fn what_is_no_creation_of_a_pod_passes() {
    let fixture = filled(json!({}));
    let mut request = creation(&pod(json!({})));
    request["operation"] = json!("UPDATE");
    assert_eq!(
        review(&fixture, "/inject", request.clone()).await,
        json!({"uid": "uid-1", "allowed": true})
    );
    request["operation"] = json!("CREATE");
    request["subResource"] = json!("ephemeralcontainers");
    assert_eq!(
        review(&fixture, "/inject", request).await,
        json!({"uid": "uid-1", "allowed": true})
    );
}

#[tokio::test]
async fn an_unfilled_cache_fails_the_review_instead_of_refusing_the_pod() {
    let fixture = empty(None);
    let body = json!({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview",
                      "request": {"uid": "u", "kind": {"group": "", "version": "v1", "kind": "Pod"},
                                  "operation": "CREATE", "namespace": "shop", "object": pod(json!({}))}});
    let (status, text) = send(&fixture, "POST", "/inject", body.to_string().into_bytes()).await;
    assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
    assert!(text.contains("Namespace \"shop\""), "{text}");
}

#[tokio::test]
async fn what_is_too_new_for_the_caches_is_asked_for() {
    let fixture = empty(Some(api_server()));
    fixture.native_sidecars.send_replace(Some(true));
    let before = pod(json!({}));
    let mut request = creation(&before);
    request["namespace"] = json!("new");
    let after = patched(&before, &review(&fixture, "/inject", request.clone()).await);
    assert_eq!(
        after["metadata"]["annotations"]["weir.io/injection"],
        "injected: enabled by the annotation linkerd.io/inject of the namespace \"new\""
    );
    request["object"]["metadata"]["labels"] = json!({"kuma.io/mesh": "absent"});
    let response = review(&fixture, "/inject", request).await;
    assert!(
        message(&response).contains("Mesh \"absent\" does not exist"),
        "{response}"
    );
}
