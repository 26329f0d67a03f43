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
    // Who refuses the flags reads nothing.
    let _written = input.write_all(document.as_bytes());
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

#[test]
fn a_limit_below_its_request_is_refused_with_both_flags_and_the_remedy() {
    let pod = "{kind: Pod, spec: {containers: [{name: web}]}}";
    for (flags, told) in [
        (
            // The request is the default one.
            &["--proxy-memory-limit=16Mi"][..],
            &[
                "--proxy-memory-limit (WEIR_PROXY_MEMORY_LIMIT) is 16Mi, less than --proxy-memory-request \
                 (WEIR_PROXY_MEMORY_REQUEST), which is 20Mi",
                "lower the request",
            ][..],
        ),
        (
            // The limit is.
            &["--proxy-memory-request=1Gi"],
            &["is 256Mi", "which is 1Gi", "Raise the limit"],
        ),
        (
            &[
                "--proxy-cpu-limit=0.2",
                "--proxy-cpu-request=300m",
                "--proxy-memory-limit=1M",
            ],
            &["--proxy-cpu-request", "--proxy-memory-request"],
        ),
    ] {
        let output = inject(pod, flags);
        let errors = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(64), "{flags:?}: {errors}");
        for told in told {
            assert!(errors.contains(told), "{flags:?}: {errors}");
        }
    }
    for flags in [
        &["--proxy-memory-limit="][..],
        &["--proxy-memory-limit=20Mi"],
        &["--proxy-memory-request=", "--proxy-memory-limit=1Mi"],
        &["--proxy-cpu-limit=10m"],
    ] {
        let output = inject(pod, flags);
        let errors = String::from_utf8(output.stderr).unwrap();
        assert!(output.status.success(), "{flags:?}: {errors}");
    }
}
