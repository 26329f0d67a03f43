//! What the index says of pods and addresses: owners, labels, identities, opaque ports.

#![allow(clippy::unwrap_used, reason = "what fails here fails the test")]

use serde_json::{Value, json};
use weir_operator::index::{Caller, Profile};

use crate::owners::OWNERS;
use crate::scene::{
    NAMESPACE, Scene, endpoint, injected, key, node, pod, secure_mesh, service, slice, with,
};

fn owned(api: &str, kind: &str, name: &str, hash: Option<&str>) -> Value {
    let owner =
        json!({"apiVersion": api, "kind": kind, "name": name, "controller": true, "uid": "u"});
    let pod = with(
        pod("p", "10.0.0.1"),
        json!({"metadata": {"ownerReferences": [owner]}}),
    );
    match hash {
        Some(hash) => with(
            pod,
            json!({"metadata": {"labels": {"pod-template-hash": hash}}}),
        ),
        None => pod,
    }
}

fn labels(scene: &Scene, address: &str) -> Vec<(String, String)> {
    let endpoint = scene.pod_behind(address);
    let labels = endpoint.labels(&Caller::default());
    labels
        .into_iter()
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .collect()
}

fn label(scene: &Scene, address: &str, key: &str) -> Option<String> {
    let mut labels = labels(scene, address).into_iter();
    labels
        .find(|(known, _)| known == key)
        .map(|(_, value)| value)
}

#[test]
fn every_owner_gives_one_label() {
    const KEYS: [&str; 6] = [
        "daemonset",
        "deployment",
        "k8s_job",
        "replicaset",
        "replicationcontroller",
        "statefulset",
    ];
    for (api, kind, name, hash, want) in OWNERS {
        let mut scene = Scene::default();
        scene.pod(owned(api, kind, name, hash));
        let found: Vec<_> = labels(&scene, "10.0.0.1:80")
            .into_iter()
            .filter(|(key, _)| KEYS.contains(&key.as_str()))
            .collect();
        let want: Vec<_> = want
            .into_iter()
            .map(|(key, value)| (key.into(), value.into()))
            .collect();
        assert_eq!(found, want, "{kind} {name}");
    }
}

#[test]
fn a_pod_has_every_label_that_is_known() {
    let mut scene = Scene::default();
    scene.node(node("node-a", "east"));
    scene.pod(with(
        injected(
            owned("apps/v1", "ReplicaSet", "web-5d8f", Some("5d8f")),
            "default",
        ),
        json!({}),
    ));
    let endpoint = scene.pod_behind("10.0.0.1:80");
    let client = |zone: &str| Caller {
        zone: Some(zone.into()),
        ..Caller::default()
    };
    assert_eq!(
        endpoint.labels(&client("east")),
        [
            ("namespace", NAMESPACE),
            ("pod", "p"),
            ("serviceaccount", "web"),
            ("deployment", "web"),
            ("control_plane_ns", "kuma-system"),
            ("pod_template_hash", "5d8f"),
            ("zone", "east"),
            ("zone_locality", "local"),
        ]
    );
    assert!(
        endpoint
            .labels(&client("west"))
            .contains(&("zone_locality", "remote"))
    );
    assert!(
        endpoint
            .labels(&Caller::default())
            .contains(&("zone_locality", "unknown"))
    );
}

#[test]
fn the_labels_of_a_bare_pod_are_few() {
    let mut scene = Scene::default();
    scene.pod(with(
        pod("bare", "10.0.0.1"),
        json!({"spec": {"serviceAccountName": null}}),
    ));
    let found = labels(&scene, "10.0.0.1:80");
    let found: Vec<_> = found
        .iter()
        .map(|(key, value)| (key.as_str(), value.as_str()))
        .collect();
    assert_eq!(
        found,
        [
            ("namespace", NAMESPACE),
            ("pod", "bare"),
            ("serviceaccount", "default"),
            ("zone_locality", "unknown"),
        ]
    );
}

#[test]
fn an_address_is_a_service_where_it_has_the_port() {
    let mut scene = Scene::default();
    scene.service(service("web", "10.96.0.1"));
    match scene.behind("10.96.0.1:80") {
        Profile::Service(destination, _) => {
            assert_eq!(&*destination.name, "web.shop.svc.cluster.local");
            assert_eq!(
                (destination.port, destination.service.clone()),
                (80, key("web"))
            );
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(scene.behind("10.96.0.1:81"), Profile::Unknown);
    assert_eq!(scene.behind("10.96.0.2:80"), Profile::Unknown);
    scene.delete_service(service("web", "10.96.0.1"));
    assert_eq!(scene.behind("10.96.0.1:80"), Profile::Unknown);
}

#[test]
fn only_a_pod_with_an_address_of_its_own_is_found_by_it() {
    for (what, over) in [
        ("done", json!({"status": {"phase": "Succeeded"}})),
        ("failed", json!({"status": {"phase": "Failed"}})),
        ("evicted", json!({"status": {"reason": "Evicted"}})),
        (
            "on its node's network",
            json!({"spec": {"hostNetwork": true}}),
        ),
        (
            "without an address",
            json!({"status": {"podIP": null, "podIPs": null}}),
        ),
    ] {
        let mut scene = Scene::default();
        scene.pod(pod("p", "10.0.0.1"));
        assert_eq!(label(&scene, "10.0.0.1:80", "pod").as_deref(), Some("p"));
        scene.pod(with(pod("p", "10.0.0.1"), over));
        assert_eq!(scene.behind("10.0.0.1:80"), Profile::Unknown, "{what}");
    }
}

#[test]
fn an_address_that_is_used_again_is_the_newer_pods() {
    let ending = with(
        pod("old", "10.0.0.1"),
        json!({"metadata": {"deletionTimestamp": "2026-11-02T00:00:00Z"}}),
    );
    let newer = with(
        pod("new", "10.0.0.1"),
        json!({"metadata": {"creationTimestamp": "2026-11-02T00:00:00Z"}}),
    );
    let mut scene = Scene::default();
    scene.pod(ending.clone());
    scene.pod(newer.clone());
    // A late event of the one that ends.
    scene.pod(with(
        ending.clone(),
        json!({"spec": {"nodeName": "node-b"}}),
    ));
    assert_eq!(label(&scene, "10.0.0.1:80", "pod").as_deref(), Some("new"));
    scene.delete_pod(ending);
    assert_eq!(label(&scene, "10.0.0.1:80", "pod").as_deref(), Some("new"));
    scene.delete_pod(newer);
    assert_eq!(scene.behind("10.0.0.1:80"), Profile::Unknown);
}

#[test]
fn a_pod_has_all_its_addresses() {
    let mut scene = Scene::default();
    scene.pod(with(
        pod("p", "10.0.0.1"),
        json!({"status": {"podIPs": [{"ip": "10.0.0.1"}, {"ip": "fd00::1"}]}}),
    ));
    assert_eq!(label(&scene, "[fd00::1]:80", "pod").as_deref(), Some("p"));
    scene.pod(pod("p", "10.0.0.1"));
    assert_eq!(scene.behind("[fd00::1]:80"), Profile::Unknown);
}

#[test]
fn a_proxy_of_a_secured_mesh_has_an_identity() {
    const NAME: &str = "web.shop.serviceaccount.identity.kuma-system.cluster.local";
    let mut scene = Scene::default();
    scene.mesh(secure_mesh("secure"));
    scene.mesh(json!({"metadata": {"name": "plain"}, "spec": {}}));
    scene.pod(injected(pod("a", "10.0.0.1"), "secure"));
    scene.pod(injected(pod("b", "10.0.0.2"), "plain"));
    scene.pod(injected(pod("c", "10.0.0.3"), "missing"));
    scene.pod(pod("d", "10.0.0.4"));
    let by_plugin = json!({"metadata": {"annotations": {
        "weir.io/init-arguments": "--proxy-uid=5678 --exclude-inbound-ports=7100,7200-7210",
    }}});
    scene.pod(with(injected(pod("e", "10.0.0.5"), "secure"), by_plugin));
    // Kuma's own proxy, and a template that says what it was copied from.
    let sidecars = [json!([{"name": "kuma-sidecar"}]), json!([])];
    for (ip, sidecar) in ["10.0.0.6", "10.0.0.7"].into_iter().zip(sidecars) {
        let other = json!({"spec": {"initContainers": sidecar}});
        scene.pod(with(injected(pod(ip, ip), "secure"), other));
    }
    for (address, want) in [
        ("10.0.0.1:8080", Some(NAME)),
        // Ports that redirection leaves out never reach the proxy.
        ("10.0.0.1:7005", None),
        ("10.0.0.5:7205", None),
        ("10.0.0.5:8080", Some(NAME)),
        ("10.0.0.2:8080", None),
        ("10.0.0.3:8080", None),
        ("10.0.0.4:8080", None),
        ("10.0.0.6:8080", None),
        ("10.0.0.7:8080", None),
    ] {
        let endpoint = scene.pod_behind(address);
        assert_eq!(endpoint.identity_for(&Caller::default()), want, "{address}");
    }
    let endpoint = scene.pod_behind("10.0.0.1:8080");
    let of_mesh = |mesh: &str| Caller {
        mesh: Some(mesh.into()),
        ..Caller::default()
    };
    assert_eq!(endpoint.identity_for(&of_mesh("secure")), Some(NAME));
    assert_eq!(
        endpoint.identity_for(&of_mesh("plain")),
        None,
        "another authority signs there"
    );
}

#[test]
fn identities_follow_their_mesh() {
    let mut scene = Scene::default();
    scene.pod(injected(pod("a", "10.0.0.1"), "secure"));
    let mut watched = scene.index.address("10.0.0.1".parse().unwrap(), 8080);
    let mut has_identity = || match &*watched.latest() {
        Profile::Endpoint(endpoint) => endpoint.identity.is_some(),
        other => panic!("{other:?}"),
    };
    assert!(!has_identity());
    scene.mesh(secure_mesh("secure"));
    assert!(has_identity());
    scene.mesh(json!({"metadata": {"name": "secure"}, "spec": {}}));
    assert!(!has_identity());
}

/// What a Service says of its port (its protocol, its annotation) and what the pod's annotation says, and whether the
/// Service's port and the pod's are opaque then.
type Said = (
    Option<&'static str>,
    Option<&'static str>,
    Option<&'static str>,
    (bool, bool),
);

const SAID: [Said; 11] = [
    (None, None, None, (false, false)),
    (None, Some("80"), None, (true, true)),
    (None, Some("http"), None, (true, true)),
    (None, Some("81"), None, (false, false)),
    (None, None, Some("8080"), (false, true)),
    (None, None, Some("http"), (false, true)),
    (Some("tcp"), None, None, (true, true)),
    (Some("linkerd.io/opaque"), None, None, (true, true)),
    (Some("kubernetes.io/h2c"), None, None, (false, false)),
    (Some("gopher"), None, None, (false, false)),
    (Some("tcp"), Some(""), None, (false, false)),
];

#[test]
fn opaque_is_what_the_service_the_pod_or_the_port_says() {
    let annotated = |ports: Option<&str>| json!({"metadata": {"annotations": {"config.linkerd.io/opaque-ports": ports}}});
    for (protocol, of_service, of_pod, want) in SAID {
        let what = format!("{protocol:?} {of_service:?} {of_pod:?}");
        let ports = json!({"spec": {"ports": [{"name": "http", "port": 80, "targetPort": 8080, "appProtocol": protocol}]}});
        let mut scene = Scene::default();
        scene.service(with(
            with(service("web", "10.96.0.1"), ports),
            annotated(of_service),
        ));
        scene.pod(with(pod("p", "10.0.0.1"), annotated(of_pod)));
        scene.slice(slice("web-1", "web", vec![endpoint("p", "10.0.0.1")]));
        let view = scene.view("web", 80);
        let found = (
            view.destination.as_ref().unwrap().opaque,
            view.endpoints[0].opaque,
        );
        assert_eq!(found, want, "{what}");
    }
}

#[test]
fn an_opaque_port_may_have_the_name_that_a_native_sidecar_gives_it() {
    let container = |name: &str, port: u16, policy: Option<&str>| {
        let ports = json!([{"name": "db", "containerPort": port}]);
        json!({"name": name, "restartPolicy": policy, "ports": ports})
    };
    let init = [
        container("migrate", 6001, None),
        container("tunnel", 6002, Some("Always")),
    ];
    let annotations = json!({"config.linkerd.io/opaque-ports": "db"});
    let over = json!({"metadata": {"annotations": annotations}, "spec": {"initContainers": init}});
    let mut scene = Scene::default();
    scene.pod(with(pod("p", "10.0.0.1"), over));
    assert!(scene.pod_behind("10.0.0.1:6002").opaque);
    assert!(!scene.pod_behind("10.0.0.1:6001").opaque);
}

#[test]
fn some_ports_are_opaque_unless_something_is_said() {
    let port = |protocol: Value| json!({"spec": {"ports": [{"name": "http", "port": 3306, "targetPort": 8080, "appProtocol": protocol}]}});
    for (protocol, want) in [
        (Value::Null, true),
        (json!("http"), false),
        (json!("mysql"), true),
    ] {
        let mut scene = Scene::default();
        scene.service(with(service("db", "10.96.0.1"), port(protocol.clone())));
        scene.pod(pod("p", "10.0.0.1"));
        scene.slice(slice("db-1", "db", vec![endpoint("p", "10.0.0.1")]));
        let view = scene.view("db", 3306);
        assert_eq!(
            view.destination.as_ref().unwrap().opaque,
            want,
            "{protocol}"
        );
        assert_eq!(view.endpoints[0].opaque, want, "{protocol}");
    }
    let mut scene = Scene::default();
    scene.pod(pod("p", "10.0.0.1"));
    assert!(scene.pod_behind("10.0.0.1:6379").opaque);
    assert!(!scene.pod_behind("10.0.0.1:8080").opaque);
}
