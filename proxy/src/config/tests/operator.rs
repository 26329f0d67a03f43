//! An operator, as the variables of a pod and the flags of any other proxy name it.

use super::*;

/// A pod that is told of an operator.
fn with_operator(url: &'static str, authority: &str) -> impl Fn(&str) -> Option<String> {
    move |name| match name {
        "KUMA_CONTROL_PLANE_URL" => Some(url.to_owned()),
        "KUMA_CONTROL_PLANE_CA_CERT" => Some(authority.to_owned()),
        "KUMA_DATAPLANE_RUNTIME_TOKEN_PATH" => Some("/var/run/token".to_owned()),
        "POD_NAMESPACE" => Some("shop".to_owned()),
        "POD_NAME" => Some("web-1".to_owned()),
        "WEIR_NODE_NAME" => Some("node-1".to_owned()),
        name => pod(name),
    }
}

#[test]
fn a_pod_may_be_told_of_an_operator() {
    assert!(load(parse(&[]), pod).unwrap().operator.is_none());
    let key = rcgen::generate_simple_self_signed(vec!["ca".to_owned()]).unwrap();
    let url = "https://weir-operator.kuma-system.svc:8086";
    let config = load(parse(&[]), with_operator(url, &key.cert.pem())).unwrap();
    let Operator {
        connection,
        discovery,
        ..
    } = config.operator.unwrap();
    assert_eq!(
        connection.target.addr(),
        "weir-operator.kuma-system.svc:8086"
    );
    assert_eq!(connection.token, Some("/var/run/token".into()));
    assert_eq!(
        discovery.context,
        r#"{"nodeName":"node-1","ns":"shop","pod":"web-1"}"#
    );
}

#[test]
fn an_operator_that_cannot_be_used_is_told_by_the_variable_that_is_wrong() {
    let https = "https://operator:8086";
    for (url, authority, name) in [
        ("operator:8086", "", "KUMA_CONTROL_PLANE_URL: expected"),
        ("http://operator:8086", "", "KUMA_CONTROL_PLANE_URL: http:"),
        (https, "", "KUMA_CONTROL_PLANE_CA_CERT: has to be set"),
        (https, "x", "KUMA_CONTROL_PLANE_CA_CERT: holds no"),
    ] {
        let told = problems(&[], with_operator(url, authority));
        assert!(
            told.starts_with(name) && told.lines().count() == 1,
            "{told}"
        );
        // The pod goes on without it.
        let config = load(parse(&["--best-effort"]), with_operator(url, authority)).unwrap();
        assert!(config.operator.is_none() && config.ignored.len() == 1);
    }
}

#[test]
fn how_many_destinations_are_followed_can_be_said() {
    let key = rcgen::generate_simple_self_signed(vec!["ca".to_owned()]).unwrap();
    let url = "https://operator:8086";
    let most = |flags: &[&str]| {
        let config = load(parse(flags), with_operator(url, &key.cert.pem())).unwrap();
        config.operator.unwrap().discovery.most
    };
    assert_eq!(most(&[]), 500);
    assert_eq!(most(&["--max-destinations=1500"]), 1500);
    for (given, expected) in [
        ("0", "expected 1 to 1500, found 0"),
        ("1501", "expected 1 to 1500, found 1501"),
        ("many", "expected a number of destinations, found \"many\""),
    ] {
        let told = problems(
            &[&format!("--max-destinations={given}")],
            with_operator(url, &key.cert.pem()),
        );
        assert_eq!(told, format!("--max-destinations: {expected}"));
        // The default is in force where the proxy does its best.
        assert_eq!(
            most(&["--best-effort", &format!("--max-destinations={given}")]),
            500
        );
    }
}

/// A Dataplane in the command line.
const WEB: &str = "--dataplane={type: Dataplane, mesh: m, name: web-1, networking: {address: 127.0.0.1, inbound: [{port: 1, servicePort: 2, tags: {kuma.io/service: web}}]}}";

#[test]
fn a_proxy_outside_kubernetes_is_told_of_an_operator_by_flags() {
    let folder = std::env::temp_dir().join(format!("weir-config-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let file = folder.join("ca.pem");
    let key = rcgen::generate_simple_self_signed(vec!["ca".to_owned()]).unwrap();
    std::fs::write(&file, key.cert.pem()).unwrap();
    let file = format!("--control-plane-ca-file={}", file.display());
    let url = "--control-plane-url=https://operator.example:8086";
    let token_file = folder.join("web-1.token");
    std::fs::write(&token_file, "a.b.c").unwrap();
    let token = &*format!("--dataplane-token-file={}", token_file.display());
    let config = load(parse(&[WEB, url, &file, token]), |_| None).unwrap();
    let operator = config.operator.unwrap();
    assert_eq!(operator.connection.target.addr(), "operator.example:8086");
    assert_eq!(operator.connection.token, Some(token_file));
    assert_eq!(
        operator.discovery.context,
        r#"{"dataplane":"web-1","mesh":"m"}"#
    );
    for (flags, name) in [
        (&[url, &file][..], "--dataplane-token-file: has to be set"),
        (
            &[url, &file, "--dataplane-token-file=/nowhere"],
            "--dataplane-token-file: /nowhere: No such file or directory (os error 2): put there what weir-operator token",
        ),
        (&[url, token], "--control-plane-ca-file: has to be set"),
        (
            &[url, token, "--control-plane-ca-file=/nowhere"],
            "--control-plane-ca-file: /nowhere: ",
        ),
        (
            &["--control-plane-url=operator:8086", token, &file],
            "--control-plane-url: expected",
        ),
        (
            &[
                url,
                token,
                &file,
                "--identity-cert-file=c",
                "--identity-key-file=k",
                "--identity-ca-file=a",
            ],
            "--identity-cert-file: is of no use",
        ),
    ] {
        let told = problems(&[&[WEB], flags].concat(), |_| None);
        // A flag that was not given is named by its variable.
        let name = match flags
            .iter()
            .any(|flag| flag.starts_with(name.split(':').next().unwrap()))
        {
            true => name.to_owned(),
            false => {
                let (flag, rest) = name.split_once(':').unwrap();
                format!("{}:{rest}", crate::config::args::variable_of(flag))
            }
        };
        assert!(told.starts_with(&name), "{name}: {told}");
    }
    std::fs::remove_dir_all(&folder).unwrap();
}
