//! The binary as a CNI plugin: called as a container runtime calls it, on a node that is a network namespace of its own,
//! it makes the table of `init` in the pod's and nowhere else.

use std::io::Write;
use std::process::{Command, Output, Stdio};

use serde_json::{Value, json};

use crate::namespace::{Namespace, is_skipped};
use crate::rules::{EVERYTHING, listed};
use crate::stand_in::redirect;

const RESULT: &str =
    r#"{"cniVersion":"1.0.0","interfaces":[{"name":"eth0"}],"ips":[{"address":"10.1.0.5/16"}]}"#;

/// Calls the plugin on `node`, which is not the pod.
fn call(node: &Namespace, command: &str, pod: &str, annotation: Option<&str>) -> Output {
    let mut config = json!({"cniVersion": "1.0.0", "name": "net", "type": "weir-cni"});
    config["prevResult"] = serde_json::from_str(RESULT).unwrap();
    let annotations = annotation.map(|annotation| json!({"weir.io/init-arguments": annotation}));
    config["runtimeConfig"]["io.kubernetes.cri.pod-annotations"] = annotations.into();
    let mut plugin = Command::new(env!("CARGO_BIN_EXE_weir-proxy"));
    plugin
        .env_clear()
        .env("CNI_COMMAND", command)
        .env("CNI_CONTAINERID", "c1")
        .env("CNI_NETNS", pod)
        .env("CNI_IFNAME", "eth0")
        .env("CNI_ARGS", "K8S_POD_NAMESPACE=shop;K8S_POD_NAME=web-1")
        .env("CNI_PATH", "/opt/cni/bin")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut plugin = node.enter(|| plugin.spawn()).unwrap();
    let mut input = plugin.stdin.take().unwrap();
    // What needs no configuration may have ended without reading it.
    let _written = input.write_all(config.to_string().as_bytes());
    drop(input);
    plugin.wait_with_output().unwrap()
}

/// Adds a pod, which has to succeed with the result before; gives the log.
fn add(node: &Namespace, pod: &str, annotation: Option<&str>) -> String {
    let output = call(node, "ADD", pod, annotation);
    let log = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success(), "{log}");
    let value = |text: &[u8]| serde_json::from_slice::<Value>(text).unwrap();
    assert_eq!(value(&output.stdout), value(RESULT.as_bytes()));
    log
}

#[test]
fn a_pod_has_the_table_that_init_makes_and_the_node_has_none() {
    if is_skipped() {
        return;
    }
    let node = Namespace::new();
    for line in ["--best-effort", "--strict", EVERYTHING] {
        let (pod, prepared) = (Namespace::new(), Namespace::new());
        redirect(&prepared, line);
        let wanted = listed(&prepared);
        assert!(wanted.contains("redirect to :4143"), "{wanted}");
        // A runtime that tries again finds no other pod.
        for _ in 0..2 {
            let log = add(&node, &pod.path(), Some(line));
            assert!(
                log.contains("traffic is redirected") && log.contains("shop/web-1"),
                "{log}"
            );
            assert_eq!(listed(&pod), wanted, "with `{line}`");
        }
        assert_eq!(listed(&node), "");
        let deleted = call(&node, "DEL", &pod.path(), Some(line));
        assert!(deleted.status.success() && deleted.stdout.is_empty());
        assert_eq!(listed(&pod), wanted, "it goes with its namespace");
    }
}

#[test]
fn a_pod_that_does_not_ask_for_it_has_no_table() {
    if is_skipped() {
        return;
    }
    let (node, pod) = (Namespace::new(), Namespace::new());
    let log = add(&node, &pod.path(), None);
    assert_eq!((listed(&pod), log), (String::new(), String::new()));
}

#[test]
fn an_annotation_that_is_broken_fails_no_pod_that_is_not_strict() {
    if is_skipped() {
        return;
    }
    let (node, pod) = (Namespace::new(), Namespace::new());
    let log = add(&node, &pod.path(), Some("--best-effort --proxy-uid=many"));
    assert!(
        log.contains("this pod goes on unmeasured") && log.contains("--proxy-uid"),
        "{log}"
    );
    let refused = call(&node, "ADD", &pod.path(), Some("--strict --proxy-uid=many"));
    let error: Value = serde_json::from_slice(&refused.stdout).unwrap();
    assert_eq!(
        (refused.status.code(), &error["code"]),
        (Some(1), &json!(100))
    );
    let message = error["msg"].as_str().unwrap();
    assert!(
        message.contains("weir.io/init-arguments") && message.contains("--proxy-uid"),
        "{error}"
    );
    assert_eq!(listed(&pod), "");
}

#[test]
fn the_network_of_the_node_is_never_redirected() {
    if is_skipped() {
        return;
    }
    let node = Namespace::new();
    let log = add(&node, &node.path(), Some("--best-effort"));
    assert!(log.contains("never redirected"), "{log}");
    let refused = call(&node, "ADD", &node.path(), Some("--strict"));
    let error: Value = serde_json::from_slice(&refused.stdout).unwrap();
    assert_eq!(
        (refused.status.code(), &error["code"]),
        (Some(1), &json!(4))
    );
    assert_eq!(listed(&node), "");
}

#[test]
fn a_namespace_that_has_gone_fails_no_pod_that_is_not_strict() {
    if is_skipped() {
        return;
    }
    let node = Namespace::new();
    for gone in ["/proc/self/fd/999", "/dev/null", ""] {
        let log = add(&node, gone, Some("--best-effort"));
        assert!(log.contains("CNI_NETNS"), "{log}");
        let refused = call(&node, "ADD", gone, Some("--strict"));
        assert_eq!(refused.status.code(), Some(1), "{gone}");
    }
    assert_eq!(listed(&node), "");
}
