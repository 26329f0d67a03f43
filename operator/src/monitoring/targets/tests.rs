//! Pods as the API server writes them go in, what Prometheus reads comes out.

use serde_json::{Value, json};

use super::*;
use crate::index::{Discovery, Indexed};

/// Lays `over` on `base`, object by object.
fn with(mut base: Value, over: &Value) -> Value {
    match over {
        Value::Object(fields) => {
            for (field, value) in fields {
                base[field] = with(base[field].take(), value);
            }
            base
        }
        other => other.clone(),
    }
}

/// The container with our proxy.
fn proxy(ports: &Value) -> Value {
    let env = json!([{"name": "POD_NAME"}, {"name": "WEIR_SETTINGS", "value": "{}"}]);
    json!({"name": "kuma-sidecar", "env": env, "ports": ports})
}

/// A running pod with the proxy as a native sidecar.
fn pod(name: &str, over: &Value) -> Value {
    let mut sidecar = proxy(&json!([
        {"name": "linkerd-proxy", "containerPort": 4143, "protocol": "TCP"},
        {"name": "linkerd-admin", "containerPort": 4191, "protocol": "TCP"},
    ]));
    sidecar["restartPolicy"] = "Always".into();
    let base = json!({
        "metadata": {
            "name": name, "namespace": "shop", "uid": format!("uid-{name}"),
            "annotations": {"kuma.io/sidecar-injected": "true", "secret": "of the annotations"},
        },
        "spec": {
            "nodeName": "node-a",
            "containers": [{"name": "app", "ports": [{"name": "http", "containerPort": 8080}]}],
            "initContainers": [{"name": "kuma-init"}, sidecar],
        },
        "status": {
            "phase": "Running", "podIP": "10.1.2.3", "podIPs": [{"ip": "10.1.2.3"}, {"ip": "fd00::3"}],
            "conditions": [{"type": "Initialized", "status": "True"}, {"type": "Ready", "status": "False"}],
        },
    });
    with(base, over)
}

fn index(pods: Vec<Value>) -> Discovery {
    let mut index = Discovery::default();
    let keep = |pod| index.keep_pod(serde_json::from_value(pod).unwrap());
    let pods: Vec<Pod> = pods.into_iter().map(keep).collect();
    index.reset(pods);
    index
}

fn text(pods: Vec<Value>) -> String {
    pieces(index(pods).proxies().unwrap()).collect()
}

fn listed(pods: Vec<Value>) -> Vec<Value> {
    serde_json::from_str(&text(pods)).unwrap()
}

/// The labels of the only target.
fn labels(over: Value) -> Value {
    let mut listed = listed(vec![pod("web-1", &over)]);
    assert_eq!(listed.len(), 1, "{listed:?}");
    listed[0]["labels"].take()
}

#[test]
fn a_pod_with_several_ports_is_one_target_with_every_label_of_pod_discovery() {
    let owner = json!({"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "web-5d8f", "uid": "r", "controller": true});
    let labels =
        json!({"app": "web", "pod-template-hash": "5d8f", "linkerd.io/proxy-deployment": "web"});
    let over = json!({"metadata": {"labels": labels, "ownerReferences": [owner]}});
    let expected = json!([{
        "targets": ["10.1.2.3:4191"],
        "labels": {
            "__meta_kubernetes_namespace": "shop",
            "__meta_kubernetes_pod_container_init": "true",
            "__meta_kubernetes_pod_container_name": "kuma-sidecar",
            "__meta_kubernetes_pod_container_port_name": "linkerd-admin",
            "__meta_kubernetes_pod_container_port_number": "4191",
            "__meta_kubernetes_pod_container_port_protocol": "TCP",
            "__meta_kubernetes_pod_controller_kind": "ReplicaSet",
            "__meta_kubernetes_pod_controller_name": "web-5d8f",
            "__meta_kubernetes_pod_ip": "10.1.2.3",
            "__meta_kubernetes_pod_label_app": "web",
            "__meta_kubernetes_pod_label_linkerd_io_proxy_deployment": "web",
            "__meta_kubernetes_pod_label_pod_template_hash": "5d8f",
            "__meta_kubernetes_pod_labelpresent_app": "true",
            "__meta_kubernetes_pod_labelpresent_linkerd_io_proxy_deployment": "true",
            "__meta_kubernetes_pod_labelpresent_pod_template_hash": "true",
            "__meta_kubernetes_pod_name": "web-1",
            "__meta_kubernetes_pod_node_name": "node-a",
            "__meta_kubernetes_pod_phase": "Running",
            "__meta_kubernetes_pod_ready": "false",
            "__meta_kubernetes_pod_uid": "uid-web-1",
        },
    }]);
    assert_eq!(json!(listed(vec![pod("web-1", &over)])), expected);
}

#[test]
fn keys_of_labels_become_names_and_values_stay() {
    let odd = json!({"a.b/c-d_e": "", "9lives": "0", "UPPER": "Ünï \"q\" \\ \n"});
    let labels = labels(json!({"metadata": {"labels": odd}}));
    for (name, value) in [
        ("a_b_c_d_e", ""),
        ("9lives", "0"),
        ("UPPER", "Ünï \"q\" \\ \n"),
    ] {
        assert_eq!(labels[format!("{PREFIX}pod_label_{name}")], value, "{name}");
        let present = &labels[format!("{PREFIX}pod_labelpresent_{name}")];
        assert_eq!(present, "true", "{name}");
    }
}

#[test]
fn the_proxy_is_told_from_one_that_is_an_ordinary_container() {
    let proxy = proxy(&json!([{"name": "linkerd-admin", "containerPort": 9999}]));
    let labels = labels(json!({"spec": {
        "containers": [{"name": "app"}, proxy], "initContainers": [{"name": "kuma-init"}],
    }}));
    assert_eq!(labels["__meta_kubernetes_pod_container_init"], "false");
    assert_eq!(
        labels["__meta_kubernetes_pod_container_port_number"],
        "9999"
    );
}

#[test]
fn state_is_told_as_discovery_tells_it() {
    let ready = |status: &str| json!([{"type": "Ready", "status": status}]);
    for (conditions, word) in [
        (ready("True"), "true"),
        (ready("False"), "false"),
        (ready("Unknown"), "unknown"),
        (json!([]), "unknown"),
    ] {
        let labels = labels(json!({"status": {"conditions": conditions, "phase": "Pending"}}));
        assert_eq!(labels["__meta_kubernetes_pod_ready"], word, "{conditions}");
        assert_eq!(labels["__meta_kubernetes_pod_phase"], "Pending");
    }
    let other = json!({"apiVersion": "example.com/v1", "kind": "Rollout", "name": "r", "uid": "r"});
    let controls = with(other.clone(), &json!({"controller": true}));
    let owned = |owner: &Value| labels(json!({"metadata": {"ownerReferences": [owner]}}));
    assert_eq!(
        owned(&other)["__meta_kubernetes_pod_controller_kind"],
        Value::Null
    );
    let labels = owned(&controls);
    assert_eq!(labels["__meta_kubernetes_pod_controller_kind"], "Rollout");
    assert_eq!(labels["__meta_kubernetes_pod_controller_name"], "r");
}

#[test]
fn only_a_proxy_that_may_answer_is_listed() {
    let other = json!([{"name": "http-envoy-admin", "containerPort": 4191}]);
    let admin = json!([{"name": "linkerd-admin", "containerPort": 4191}]);
    let mut kumas = proxy(&admin);
    kumas["env"] = json!([{"name": "KUMA_DATAPLANE_MESH", "value": "default"}]);
    let kept: Vec<Value> = listed(vec![
        pod("failed", &json!({"status": {"phase": "Failed"}})),
        pod("ended", &json!({"status": {"phase": "Succeeded"}})),
        pod("lost", &json!({"status": {"phase": "Unknown"}})),
        pod(
            "early",
            &json!({"status": {"podIP": null, "podIPs": null, "phase": "Pending"}}),
        ),
        pod("plain", &json!({"metadata": {"annotations": null}})),
        pod(
            "without the port",
            &json!({"spec": {"initContainers": [proxy(&other)]}}),
        ),
        pod("kuma's", &json!({"spec": {"initContainers": [kumas]}})),
        pod(
            "not injected",
            &json!({"spec": {"initContainers": [{"name": "kuma-init"}]}}),
        ),
        pod(
            "kept",
            &json!({"metadata": {"deletionTimestamp": "2026-11-28T00:00:00Z"}}),
        ),
    ]);
    let names: Vec<&Value> = kept
        .iter()
        .map(|one| &one["labels"]["__meta_kubernetes_pod_name"])
        .collect();
    assert_eq!(names, ["kept"]);
}

#[test]
fn an_ipv6_address_is_in_brackets_as_a_target_only() {
    let over =
        json!({"status": {"podIP": "fd00::7", "podIPs": [{"ip": "fd00::7"}, {"ip": "10.1.2.3"}]}});
    let listed = listed(vec![pod("web-1", &over)]);
    assert_eq!(listed[0]["targets"], json!(["[fd00::7]:4191"]));
    assert_eq!(listed[0]["labels"]["__meta_kubernetes_pod_ip"], "fd00::7");
}

#[test]
fn the_list_is_sorted_and_whole_whatever_its_length() {
    assert_eq!(text(Vec::new()), "[]\n");
    for count in [1, PIECE - 1, PIECE, PIECE + 1, 3 * PIECE] {
        let name = |number: usize| format!("web-{number:04}");
        let over = |number: usize| json!({"metadata": {"namespace": if number < 2 { "zoo" } else { "shop" }}});
        let pods = |numbers: Vec<usize>| -> Vec<Value> {
            numbers
                .iter()
                .map(|number| pod(&name(*number), &over(*number)))
                .collect()
        };
        let one = text(pods((0..count).collect()));
        assert_eq!(one, text(pods((0..count).rev().collect())));
        let listed: Vec<Value> = serde_json::from_str(&one).unwrap();
        let found: Vec<&str> = listed
            .iter()
            .map(|one| {
                one["labels"]["__meta_kubernetes_pod_name"]
                    .as_str()
                    .unwrap()
            })
            .collect();
        let order = (2..count)
            .chain(0..count.min(2))
            .map(name)
            .collect::<Vec<_>>();
        assert_eq!(found, order);
    }
}

#[test]
fn nothing_is_listed_before_the_pods_are_known() {
    let mut index = Discovery::default();
    assert!(index.proxies().is_none());
    let one = index.keep_pod(serde_json::from_value(pod("web-1", &json!({}))).unwrap());
    index.apply(one);
    assert!(index.proxies().is_none());
    index.reset(Vec::<Pod>::new());
    assert!(index.proxies().is_some_and(|pods| pods.is_empty()));
}
