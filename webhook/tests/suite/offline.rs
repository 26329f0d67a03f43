//! `weir-webhook inject` as its users start it.

use std::io::Write as _;
use std::process::{Command, Output, Stdio};

fn inject(document: &str, flags: &[&str]) -> Output {
    let mut child = Command::new(env!("CARGO_BIN_EXE_weir-webhook"))
        .args(["inject", "--file", "-"])
        .args(flags)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut input = child.stdin.take().unwrap();
    input.write_all(document.as_bytes()).unwrap();
    drop(input);
    child.wait_with_output().unwrap()
}

#[test]
fn a_pod_is_in_the_namespace_that_it_names_unless_a_flag_says_otherwise() {
    let pod = "{kind: Pod, metadata: {namespace: shop}, spec: {containers: [{name: web}]}}";
    for (flags, namespace) in [(&[][..], "shop"), (&["--namespace=other"], "other")] {
        let output = inject(pod, flags);
        let text = String::from_utf8(output.stdout).unwrap();
        let label = format!("linkerd.io/workload-ns: {namespace}\n");
        assert!(text.contains(&label), "{text}");
    }
}

#[test]
fn what_is_no_pod_is_refused_by_its_kind() {
    let output = inject("{kind: Deployment, spec: {template: {}}}", &[]);
    let errors = String::from_utf8(output.stderr).unwrap();
    assert!(!output.status.success());
    assert!(
        errors.contains("kind: \"Deployment\" is not a Pod"),
        "{errors}"
    );
}

#[test]
fn what_cannot_be_injected_is_the_users_to_mend() {
    for (document, told) in [
        ("", "- is empty: give a document of kind Pod"),
        ("{kind: Service}", "kind: \"Service\" is not a Pod"),
        ("{", "- is neither YAML nor JSON"),
    ] {
        let output = inject(document, &[]);
        let errors = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(64), "{errors}");
        assert!(errors.contains(told), "{errors}");
    }
}

#[test]
fn annotations_that_do_nothing_are_warned_about() {
    let pod = "{kind: Pod, metadata: {annotations: {config.linkerd.io/proxy-cpu-request: '1', \
               config.linkerd.io/skip-inbound-ports: '1', config.linkerd.io/opaque-ports: '1'}}, spec: {containers: [{name: web}]}}";
    let output = inject(pod, &[]);
    let errors = String::from_utf8(output.stderr).unwrap();
    assert!(
        errors.contains("config.linkerd.io/proxy-cpu-request configures Linkerd's proxy"),
        "{errors}"
    );
    assert!(!errors.contains("skip-inbound-ports"), "{errors}");
    assert!(!errors.contains("opaque-ports"), "{errors}");
}
