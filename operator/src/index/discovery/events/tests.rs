use serde_json::{Value, json};
use weir_crds::mesh::MeshSpec;

use super::*;

fn read<K: serde::de::DeserializeOwned>(object: Value) -> K {
    serde_json::from_value(object).unwrap()
}

fn mesh(name: &str, is_secure: bool) -> Mesh {
    let spec = match is_secure {
        true => {
            json!({"mtls": {"enabledBackend": "ca", "backends": [{"name": "ca", "type": "builtin"}]}})
        }
        false => json!({}),
    };
    Mesh::new(name, MeshSpec(spec))
}

/// A pod in a Mesh, alone behind a Service of its name.
fn add(index: &mut Discovery, mesh: &str, number: usize) {
    let (name, ip) = (
        format!("{mesh}-{number}"),
        format!("10.0.{}.{number}", mesh.len()),
    );
    let pod = index.keep_pod(read(json!({
        "metadata": {
            "name": name, "namespace": "shop",
            "annotations": {"kuma.io/sidecar-injected": "true", "kuma.io/mesh": mesh},
        },
        "spec": {"containers": [
            {"name": "app"}, {"name": "kuma-sidecar", "env": [{"name": "WEIR_SETTINGS"}]},
        ]},
        "status": {"phase": "Running", "podIP": ip, "podIPs": [{"ip": ip}]},
    })));
    index.apply(pod);
    let service = index.keep_service(read(json!({
        "metadata": {"name": name, "namespace": "shop"},
        "spec": {"clusterIP": "None", "ports": [{"port": 80}]},
    })));
    index.apply(service);
    let slice = index.keep_slice(read(json!({
        "metadata": {
            "name": name, "namespace": "shop", "labels": {"kubernetes.io/service-name": name},
        },
        "addressType": "IPv4", "ports": [{"port": 80}],
        "endpoints": [{
            "addresses": [ip], "conditions": {"ready": true},
            "targetRef": {"kind": "Pod", "name": name, "namespace": "shop"},
        }],
    })));
    index.apply(slice);
}

#[test]
fn a_mesh_has_the_views_of_its_own_pods_made_again_and_no_others() {
    let mut index = Discovery::default();
    index.reset(vec![mesh("one", false), mesh("other", true)]);
    let mut watched = Vec::new();
    for (mesh, number) in [("one", 1), ("one", 2), ("other", 1)] {
        add(&mut index, mesh, number);
        let key = ObjectKey {
            namespace: "shop".into(),
            name: format!("{mesh}-{number}").into(),
        };
        let address = format!("10.0.{}.{number}", mesh.len()).parse().unwrap();
        watched.push((index.service(key, 80), index.address(address, 80)));
    }
    let made = |index: &Discovery| {
        let cluster = index.lock();
        (cluster.services.made.take(), cluster.profiles.made.take())
    };
    made(&index);
    let mut said = mesh("one", false);
    said.spec = MeshSpec(json!({"metrics": {}}));
    index.apply(said);
    assert_eq!(made(&index), (0, 0), "no view shows anything of that");
    index.apply(mesh("one", true));
    assert_eq!(made(&index), (2, 2));
    index.reset(vec![mesh("one", true), mesh("other", true)]);
    assert_eq!(made(&index), (0, 0), "another list of the same");
    let identity = |service: &mut crate::index::Watched<crate::index::ServiceView>| {
        service.latest().endpoints[0].identity.is_some()
    };
    assert!(watched.iter_mut().all(|(service, _)| identity(service)));
    index.reset(vec![mesh("one", true)]);
    assert_eq!(made(&index), (1, 1));
    assert!(!identity(&mut watched[2].0) && identity(&mut watched[0].0));
    index.delete(&mesh("one", true));
    assert_eq!(made(&index), (2, 2));
    assert!(!identity(&mut watched[0].0));
}

#[test]
fn tables_are_made_again_where_a_service_is_another_backend() {
    let mut index = Discovery::default();
    let service = |index: &Discovery, name: &str, over: Value| {
        let mut object = json!({
            "metadata": {"name": name, "namespace": "shop"},
            "spec": {"clusterIP": "10.96.0.1", "ports": [{"port": 80, "name": "http"}]},
        });
        let fields = over.as_object().unwrap().clone();
        object["spec"].as_object_mut().unwrap().extend(fields);
        index.keep_service(read(object))
    };
    let route = index.keep_route(&read(json!({
        "apiVersion": "gateway.networking.k8s.io/v1", "kind": "HTTPRoute",
        "metadata": {"name": "r", "namespace": "shop"},
        "spec": {
            "parentRefs": [{"group": "", "kind": "Service", "name": "web"}],
            "rules": [{"backendRefs": [{"name": "v1", "port": 80}]}],
        },
    })));
    index.apply(route);
    let web = ObjectKey {
        namespace: "shop".into(),
        name: "web".into(),
    };
    let _watched = index.service(web, 80);
    let made = |index: &Discovery| index.lock().services.made.take();
    made(&index);
    for (over, times) in [
        (json!({}), 1),
        (json!({"selector": {"app": "a"}}), 0),
        (json!({"ports": [{"port": 80, "name": "web"}]}), 0),
        (json!({"ports": [{"port": 81}]}), 1),
        (json!({"ports": [{"port": 81}], "clusterIP": "None"}), 1),
        (
            json!({"type": "ExternalName", "externalName": "example.com"}),
            1,
        ),
    ] {
        let v1 = service(&index, "v1", over.clone());
        index.apply(v1);
        assert_eq!(made(&index), times, "{over}");
    }
    let v1 = service(&index, "v1", json!({}));
    index.delete(&v1);
    assert_eq!(made(&index), 1);
}

#[test]
fn a_list_of_dataplanes_touches_the_pods_that_have_none() {
    let mut index = Discovery::default();
    add(&mut index, "one", 1);
    let touched = |index: &Discovery| index.lock().touched.take();
    touched(&index);
    // The kind was taken away and brought again, which no watch tells of.
    index.reset(Vec::<crate::index::Dataplane>::new());
    let names: Vec<String> = touched(&index)
        .iter()
        .map(|key| key.name.to_string())
        .collect();
    assert_eq!(names, ["one-1"]);
}
