//! A second review of a pod, after another webhook has changed it: what is ours is brought up to date, and what others made
//! stays.

use serde_json::{Value, json};
use weir_crds::mesh::MeshSpec;

use super::{injected, injected_of, namespace, with_probes};

#[test]
fn a_second_review_changes_nothing() {
    for native_sidecars in [true, false] {
        let mut pod = with_probes();
        pod["spec"]["initContainers"][0]["x-newer-than-our-types"] = json!({"kept": [1, 2]});
        let once = injected(&pod, &namespace(json!({})), native_sidecars).pod;
        let twice = injected(once.value(), &namespace(json!({})), native_sidecars).pod;
        assert_eq!(once.value(), twice.value());
        assert!(once.value().to_string().contains("x-newer-than-our-types"));
    }
}

/// Another webhook has added a container with a probe, changed our resources and put its init container first.
#[test]
fn a_second_review_measures_what_another_webhook_added() {
    let mut once = injected(&with_probes(), &namespace(json!({})), true)
        .pod
        .into_value();
    let late =
        json!({"name": "late", "readinessProbe": {"httpGet": {"port": 6060, "path": "/late"}}});
    once["spec"]["containers"]
        .as_array_mut()
        .unwrap()
        .push(late);
    let init_containers = once["spec"]["initContainers"].as_array_mut().unwrap();
    init_containers[1]["resources"] = json!({"requests": {"cpu": "1"}});
    init_containers.insert(0, json!({"name": "first"}));

    let twice = injected(&once, &namespace(json!({})), true)
        .pod
        .into_value();
    let init_containers = twice["spec"]["initContainers"].as_array().unwrap();
    let names: Vec<&str> = init_containers
        .iter()
        .map(|c| c["name"].as_str().unwrap())
        .collect();
    assert_eq!(
        names,
        ["first", "kuma-init", "kuma-sidecar", "once", "native"]
    );
    assert_eq!(
        init_containers[2]["resources"],
        json!({"requests": {"cpu": "1"}})
    );
    let containers = &twice["spec"]["containers"];
    assert_eq!(
        containers[1]["readinessProbe"]["httpGet"],
        json!({"path": "/probe/5", "port": 4191, "scheme": "HTTP"})
    );
    assert_eq!(containers[0], once["spec"]["containers"][0]);
    let variables = init_containers[2]["env"].as_array().unwrap();
    let probes: Vec<&Value> = variables
        .iter()
        .filter(|v| v["name"] == "WEIR_PROBES")
        .collect();
    assert_eq!(probes.len(), 1);
    let text = probes[0]["value"].as_str().unwrap().replace("$$", "$");
    let probes = weir_crds::probe::parse(&text).unwrap();
    assert_eq!(probes.len(), 6);
    assert!(format!("{:?}", probes[5]).contains("6060"), "{probes:?}");
    assert!(
        text.contains("$(HOME) costs $5"),
        "not doubled again: {text}"
    );
}

/// Another webhook has given the pod to a Mesh whose mode is another, and excluded a port: the proxy is as it would be had
/// the pod come so.
#[test]
fn a_second_review_follows_what_another_webhook_decided() {
    let strict =
        json!({"mtls": {"enabledBackend": "ca", "backends": [{"name": "ca", "type": "builtin"}]}});
    let (relaxed, strict) = (MeshSpec::initial(), MeshSpec(strict));
    let skipped = |pod: &Value| {
        let mut pod = pod.clone();
        pod["metadata"]["annotations"]["config.linkerd.io/skip-outbound-ports"] = json!("3306");
        pod
    };
    for native_sidecars in [true, false] {
        for redirection in ["init", "cni"] {
            let pod = json!({
                "metadata": {"name": "pod", "annotations": {"weir.io/redirection": redirection}},
                "spec": {"containers": [{"name": "app"}]},
            });
            for (first, second) in [(&relaxed, &strict), (&strict, &relaxed)] {
                let of = |pod: &Value, mesh| {
                    let namespace = namespace(json!({}));
                    injected_of(pod, &namespace, native_sidecars, mesh)
                        .pod
                        .into_value()
                };
                let twice = of(&skipped(&of(&pod, first)), second);
                let once = of(&skipped(&pod), second);
                assert_eq!(twice, once);
            }
        }
    }
}

/// What somebody else has taken from the proxy is not made up again, half.
#[test]
fn a_second_review_leaves_what_others_made_of_the_hooks() {
    let pod = json!({"metadata": {"name": "pod"}, "spec": {"containers": [{"name": "app"}]}});
    let mut once = injected(&pod, &namespace(json!({})), true).pod.into_value();
    let theirs = json!({"exec": {"command": ["/ready"]}});
    let sidecar = &mut once["spec"]["initContainers"][1];
    assert_eq!(sidecar["name"], "kuma-sidecar");
    sidecar["readinessProbe"] = theirs.clone();
    sidecar.as_object_mut().unwrap().remove("lifecycle");
    let twice = injected(&once, &namespace(json!({})), true)
        .pod
        .into_value();
    assert_eq!(twice, once);
}
