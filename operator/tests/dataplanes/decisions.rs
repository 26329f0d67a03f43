//! When a Dataplane is written, when it is deleted, what its status says, and what a pod's author is told.

#![allow(clippy::unwrap_used, reason = "what fails here fails the test")]

use serde_json::{Value, json};
use weir_operator::index::Dataplane;
use weir_operator::reconcile::DataplaneChange;

use crate::{Given, apply};

fn pod(annotations: Value, status: Value) -> Value {
    let mut all = json!({"kuma.io/sidecar-injected": "true", "kuma.io/mesh": "default"});
    all.as_object_mut()
        .unwrap()
        .extend(annotations.as_object().unwrap().clone());
    json!({
        "kind": "Pod", "apiVersion": "v1",
        "metadata": {"name": "p", "namespace": "shop", "uid": "u1", "annotations": all, "labels": {"app": "web"}},
        "spec": {
            "initContainers": [{"name": "kuma-sidecar", "restartPolicy": "Always", "env": [{"name": "WEIR_SETTINGS"}]}],
            "containers": [{"name": "app", "ports": [{"containerPort": 8080}]}],
        },
        "status": status,
    })
}

fn running() -> Value {
    json!({"phase": "Running", "podIP": "10.1.1.1"})
}

fn mesh(spec: Value) -> Value {
    json!({"kind": "Mesh", "metadata": {"name": "default"}, "spec": spec})
}

fn metrics() -> Value {
    json!({"metrics": {"enabledBackend": "p", "backends": [{"name": "p", "type": "prometheus"}]}})
}

fn provided_tls() -> Value {
    let mut spec = metrics();
    spec["metrics"]["backends"][0]["conf"] = json!({"tls": {"mode": "providedTLS"}});
    spec
}

/// A pod whose Dataplane was written already.
fn written(documents: &[Value]) -> Given {
    let mut given = Given::read(documents);
    let DataplaneChange::Apply(object) = given.change(None) else {
        panic!("it is new");
    };
    store(&mut given, object);
    given
}

/// Stores what was written, as the API server shows it then.
fn store(given: &mut Given, mut object: Value) {
    object["kind"] = "Dataplane".into();
    object["metadata"]["resourceVersion"] = "7".into();
    apply(&mut given.index, object);
}

/// Stores a status beside the spec that is there.
fn store_status(given: &mut Given, object: &Value, status: &Value) {
    let mut object = object.clone();
    object["status"] = status.clone();
    store(given, object);
}

fn object(given: &Given) -> Value {
    let mut fresh = given.ingredients();
    fresh.known = None;
    match weir_operator::reconcile::dataplane_change(&fresh, None, crate::now()) {
        DataplaneChange::Apply(object) => object,
        other => panic!("{other:?}"),
    }
}

fn status(given: &Given) -> (Value, Option<String>) {
    match given.change(None) {
        DataplaneChange::Status(status, note) => (
            serde_json::to_value(status).unwrap(),
            note.map(|note| note.reason.to_owned()),
        ),
        other => panic!("{other:?}"),
    }
}

#[test]
fn nothing_is_written_where_nothing_changed() {
    let mut given = written(&[mesh(metrics()), pod(json!({}), running())]);
    let (said, note) = status(&given);
    assert_eq!(note, None);
    assert_eq!(
        said,
        json!({
            "conditions": [{
                "type": "Ready", "status": "True", "reason": "InForce",
                "message": "metrics are exposed at 10.1.1.1:5670/metrics",
                "lastTransitionTime": "2026-11-27T10:00:00Z",
            }],
            "metrics": {"address": "10.1.1.1:5670", "path": "/metrics"},
        })
    );
    let object = object(&given);
    store_status(&mut given, &object, &said);
    assert_eq!(given.change(None), DataplaneChange::Nothing);
    // What the API server adds, and others' conditions, change nothing.
    let mut more = said.clone();
    more["conditions"][0]["observedGeneration"] = 3.into();
    let other = json!({"type": "Theirs", "status": "True", "reason": "R", "message": "", "lastTransitionTime": "2026-01-01T00:00:00Z"});
    more["conditions"].as_array_mut().unwrap().push(other);
    store_status(&mut given, &object, &more);
    assert_eq!(given.change(None), DataplaneChange::Nothing);
    // A label of the pod is a tag.
    let mut changed = pod(json!({}), running());
    changed["metadata"]["labels"]["version"] = "v2".into();
    apply(&mut given.index, changed);
    assert!(matches!(given.change(None), DataplaneChange::Apply(_)));
}

#[test]
fn a_dataplane_says_that_its_pod_refuses_requests_without_a_route() {
    let closed = |value: &str| pod(json!({"weir.io/closed-routes": value}), running());
    let mut given = written(&[mesh(metrics()), closed("yes")]);
    assert_eq!(
        object(&given)["metadata"]["annotations"],
        json!({"weir.io/closed-routes": "true"})
    );
    assert!(matches!(given.change(None), DataplaneChange::Status(..)));
    apply(&mut given.index, closed("false"));
    let DataplaneChange::Apply(open) = given.change(None) else {
        panic!("it says the contrary");
    };
    assert_eq!(open["metadata"]["annotations"], Value::Null);
}

#[test]
fn a_condition_that_stays_keeps_its_time() {
    let mut given = written(&[mesh(metrics()), pod(json!({}), running())]);
    let mut said = status(&given).0;
    said["conditions"][0]["lastTransitionTime"] = "2026-01-01T00:00:00Z".into();
    let object = object(&given);
    store_status(&mut given, &object, &said);
    let mut other = metrics();
    other["metrics"]["backends"][0]["conf"] = json!({"port": 6000});
    apply(&mut given.index, mesh(other));
    let (said, _) = status(&given);
    assert_eq!(said["metrics"]["address"], "10.1.1.1:6000");
    assert_eq!(
        said["conditions"][0]["lastTransitionTime"],
        "2026-01-01T00:00:00Z"
    );
    apply(
        &mut given.index,
        mesh(
            json!({"metrics": {"enabledBackend": "p", "backends": [{"name": "p", "type": "prometheus", "conf": {"port": 8080}}]}}),
        ),
    );
    let (said, note) = status(&given);
    assert_eq!(
        said["conditions"][0]["lastTransitionTime"],
        "2026-11-27T10:00:00Z"
    );
    assert_eq!(note.as_deref(), Some("MetricsPortClash"));
}

#[test]
fn the_status_says_why_there_are_no_metrics() {
    for (what, documents, annotations, want) in [
        (
            "no Mesh",
            vec![],
            json!({}),
            ("False", "MeshNotFound", Some("MeshNotFound")),
        ),
        (
            "no metrics",
            vec![mesh(json!({}))],
            json!({}),
            ("True", "NoMetrics", None),
        ),
        (
            "the application's port",
            vec![mesh(metrics())],
            json!({"prometheus.metrics.kuma.io/port": "8080"}),
            ("False", "MetricsPortClash", Some("MetricsPortClash")),
        ),
        (
            "TLS by a certificate that is provided",
            vec![mesh(provided_tls())],
            json!({}),
            (
                "False",
                "ProvidedTLSNotServed",
                Some("ProvidedTLSNotServed"),
            ),
        ),
    ] {
        let mut documents = documents;
        documents.push(pod(annotations, running()));
        let (said, note) = status(&written(&documents));
        let condition = &said["conditions"][0];
        let found = (
            condition["status"].as_str().unwrap(),
            condition["reason"].as_str().unwrap(),
            note.as_deref(),
        );
        assert_eq!(found, want, "{what}");
        assert!(said.get("metrics").is_none(), "{what}");
    }
}

#[test]
fn a_dataplane_goes_when_its_pod_is_done() {
    for status in [
        json!({"phase": "Succeeded", "podIP": "10.1.1.1"}),
        json!({"phase": "Failed", "podIP": "10.1.1.1"}),
        json!({"phase": "Failed", "reason": "Evicted"}),
        json!({"phase": "Running"}),
    ] {
        let mut given = written(&[pod(json!({}), running())]);
        apply(&mut given.index, pod(json!({}), status.clone()));
        assert_eq!(given.change(None), DataplaneChange::Delete, "{status}");
        let never = Given::read(&[pod(json!({}), status.clone())]);
        assert_eq!(never.change(None), DataplaneChange::Nothing, "{status}");
    }
    let mut given = written(&[pod(json!({}), running())]);
    apply(
        &mut given.index,
        pod(json!({"kuma.io/sidecar-injected": "false"}), running()),
    );
    assert_eq!(
        given.change(None),
        DataplaneChange::Delete,
        "it has no proxy any more"
    );
}

#[test]
fn a_pod_that_only_says_that_it_was_injected_has_none() {
    let pod_with = |init: Value| {
        let mut pod = pod(json!({}), running());
        pod["spec"]["initContainers"] = init;
        pod
    };
    for init in [
        json!([]),
        json!([{"name": "kuma-sidecar", "env": [{"name": "KUMA_DATAPLANE_MESH"}]}]),
        json!([{"name": "app-2", "env": [{"name": "WEIR_SETTINGS"}]}]),
    ] {
        let given = Given::read(&[pod_with(init.clone())]);
        assert_eq!(given.change(None), DataplaneChange::Nothing, "{init}");
    }
}

#[test]
fn a_native_sidecar_has_ports_like_any_container() {
    let mut pod = pod(json!({}), running());
    let init = pod["spec"]["initContainers"].as_array_mut().unwrap();
    let port = |number: u16| json!([{"name": "tunnel", "containerPort": number}]);
    init.push(json!({"name": "migrate", "ports": port(6001)}));
    init.push(json!({"name": "tunnel", "restartPolicy": "Always", "ports": port(6002)}));
    pod["status"]["initContainerStatuses"] = json!([
        {"name": "tunnel", "ready": false, "image": "", "imageID": "", "restartCount": 0},
    ]);
    let service = json!({
        "kind": "Service", "metadata": {"name": "web", "namespace": "shop"},
        "spec": {"selector": {"app": "web"}, "ports": [{"port": 80, "targetPort": "tunnel"}]},
    });
    let given = written(&[pod.clone(), service]);
    let inbound = object(&given)["spec"]["networking"]["inbound"][0].take();
    assert_eq!(inbound["port"], 6002);
    assert_eq!(inbound["state"], "NotReady");
    for (number, want) in [(6001, "InForce"), (6002, "MetricsPortClash")] {
        pod["metadata"]["annotations"]["prometheus.metrics.kuma.io/port"] =
            number.to_string().into();
        let (said, _) = status(&written(&[mesh(metrics()), pod.clone()]));
        assert_eq!(said["conditions"][0]["reason"], want, "{number}");
    }
}

#[test]
fn what_a_user_wrote_is_left_alone() {
    let users = |metadata: Value| json!({"kind": "Dataplane", "metadata": metadata, "mesh": "default", "spec": {"metrics": {}}});
    let owners = json!([{"apiVersion": "v1", "kind": "Pod", "name": "p", "uid": "u1"}]);
    for metadata in [
        json!({"name": "p", "namespace": "shop"}),
        json!({"name": "p", "namespace": "shop", "ownerReferences": owners}),
        json!({"name": "p", "namespace": "shop", "labels": {"app.kubernetes.io/managed-by": "weir-operator"}}),
    ] {
        let done = pod(json!({}), json!({"phase": "Succeeded"}));
        let given = Given::read(&[done, users(metadata.clone())]);
        assert_eq!(given.change(None), DataplaneChange::Nothing, "{metadata}");
        let given = Given::read(&[pod(json!({}), running()), users(metadata.clone())]);
        let DataplaneChange::Tell(note) = given.change(None) else {
            panic!("{metadata}: a pod without a Dataplane of its own is told");
        };
        assert_eq!(note.reason, "FailedToGenerateKumaDataplane");
        assert_eq!(
            note.text,
            "Failed to generate Kuma Dataplane: Dataplane p is somebody else's and left alone: delete it, and the pod gets its own, with settings and a certificate"
        );
    }
}

#[test]
fn a_pod_that_ends_gets_no_new_dataplane() {
    let mut ending = pod(json!({}), running());
    ending["metadata"]["deletionTimestamp"] = "2026-11-27T10:00:00Z".into();
    let given = Given::read(&[mesh(metrics()), ending.clone()]);
    assert_eq!(given.change(None), DataplaneChange::Nothing);
    // The one that it has is kept up to date: its connections end only now.
    let mut given = written(&[mesh(metrics()), pod(json!({}), running())]);
    apply(&mut given.index, ending);
    assert_ne!(given.change(None), DataplaneChange::Nothing);
}

#[test]
fn a_pod_that_took_anothers_name_takes_its_dataplane_over() {
    let mut given = written(&[pod(json!({}), running())]);
    let mut successor = pod(json!({}), running());
    successor["metadata"]["uid"] = "u2".into();
    apply(&mut given.index, successor);
    let DataplaneChange::Apply(object) = given.change(None) else {
        panic!("it has another owner");
    };
    assert_eq!(object["metadata"]["ownerReferences"][0]["uid"], "u2");
}

#[test]
fn what_cannot_be_converted_is_told_with_the_remedy() {
    let service = |port: Value| {
        json!({"kind": "Service", "metadata": {"name": "web", "namespace": "shop",
        "annotations": {"80.service.kuma.io/protocol": "gopher"}},
        "spec": {"clusterIP": "10.96.0.1", "selector": {"app": "web"}, "ports": [port]}})
    };
    let wrong = json!({"prometheus.metrics.kuma.io/port": "80a"});
    for (annotations, service, want) in [
        (
            json!({}),
            service(json!({"port": 80, "targetPort": "missing"})),
            "Failed to generate Kuma Dataplane: A service that selects pod p was found, but it doesn't match any container ports: name a port of the container in targetPort",
        ),
        (
            wrong,
            service(json!({"port": 80, "targetPort": 8080, "appProtocol": "http"})),
            "Failed to generate Kuma Dataplane: prometheus.metrics.kuma.io/port: annotation has wrong value \"80a\": port must be in the range [1, 65535]",
        ),
        (
            json!({}),
            service(json!({"port": 80, "targetPort": 8080})),
            "Failed to generate Kuma Dataplane: networking.inbound[0].tags[\"kuma.io/protocol\"]: tag \"kuma.io/protocol\" has an invalid value \"gopher\". Allowed values: grpc, http, http2, kafka, tcp",
        ),
    ] {
        let given = Given::read(&[pod(annotations, running()), service]);
        let DataplaneChange::Tell(note) = given.change(None) else {
            panic!("{want}");
        };
        assert_eq!(note.text, want);
        assert!(note.is_warning);
        assert_eq!(note.reason, "FailedToGenerateKumaDataplane");
    }
}

#[test]
fn a_fingerprint_is_of_what_is_said() {
    let keep = |spec: &str| {
        let object =
            format!(r#"{{"metadata": {{"name": "p"}}, "mesh": "default", "spec": {spec}}}"#);
        Dataplane::keep(&serde_json::from_str(&object).unwrap()).content
    };
    assert_eq!(
        keep(r#"{"a": 1, "b": [1, 2]}"#),
        keep(r#"{"b": [1, 2], "a": 1}"#)
    );
    for other in [
        r#"{"a": 1, "b": [2, 1]}"#,
        r#"{"a": 1}"#,
        r#"{"a": "1", "b": [1, 2]}"#,
        r#"{"a": 1, "b": [[1], 2]}"#,
    ] {
        assert_ne!(keep(r#"{"a": 1, "b": [1, 2]}"#), keep(other), "{other}");
    }
}

#[test]
fn a_late_event_does_not_undo_what_was_written_since() {
    let mut given = written(&[mesh(metrics()), pod(json!({}), running())]);
    let wanted = given.change(None);
    assert!(matches!(wanted, DataplaneChange::Status(..)));
    let mut older = object(&given);
    older["kind"] = "Dataplane".into();
    older["metadata"]["resourceVersion"] = "6".into();
    older["spec"]["networking"]["address"] = "10.9.9.9".into();
    apply(&mut given.index, older.clone());
    assert_eq!(given.change(None), wanted);
    older["metadata"]["resourceVersion"] = "8".into();
    apply(&mut given.index, older);
    assert!(matches!(given.change(None), DataplaneChange::Apply(_)));
}
