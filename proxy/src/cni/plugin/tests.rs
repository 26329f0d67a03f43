//! What the plugin answers where no rules are made. Those are made in `tests/netns`: no namespace that there is may be named
//! here, because a plugin with a fault could redirect it.

use std::ffi::OsStr;
use std::io::{self, Read};

use serde_json::{Value, json};

use super::*;

/// Numbers that no float has, a field that nobody knows, and two of a name.
const RESULT: &str = r#"{ "cniVersion":"1.0.0", "ips":[{"address":"10.1.0.5/16"}], "odd":1.500, "big":123456789012345678901234567890, "odd":[] }"#;

/// A network configuration as a runtime sends it, with an annotation if any.
fn config(annotation: Option<&str>) -> String {
    let runtime = annotation.map_or(String::new(), |annotation| {
        let annotations = json!({"weir.io/init-arguments": annotation, "other": "x"});
        format!(r#","runtimeConfig":{{"io.kubernetes.cri.pod-annotations":{annotations}}}"#)
    });
    format!(
        r#"{{"cniVersion":"1.0.0","name":"n","type":"weir-cni"{runtime},"prevResult":{RESULT}}}"#
    )
}

fn add(config: &str, namespace: Option<&str>) -> Answer {
    answer("ADD", namespace.map(OsStr::new), config.as_bytes())
}

/// What a runtime is told of an error.
fn error(answer: &Answer) -> (String, u64, String) {
    assert!(!answer.is_success, "{answer:?}");
    let value: Value = serde_json::from_str(&answer.output).unwrap();
    let text = |field: &str| value[field].as_str().unwrap().to_owned();
    let code = value["code"].as_u64().unwrap();
    assert!(text("msg").starts_with("weir-cni: "), "{value}");
    assert!(!text("details").is_empty());
    (text("cniVersion"), code, text("msg"))
}

#[test]
fn a_pod_without_the_annotation_is_left_alone() {
    for config in [
        config(None),
        config(None).replace("\"name\"", r#""runtimeConfig":null,"name""#),
        config(None).replace("\"name\"", r#""runtimeConfig":{},"name""#),
        config(Some("")).replace("weir.io/init-arguments", "weir.io/injection"),
    ] {
        // Neither is looked for, where nothing is to be done there.
        for namespace in [None, Some("/nonexistent")] {
            let answer = add(&config, namespace);
            assert!(answer.is_success, "{answer:?}");
            assert_eq!(answer.output, RESULT, "as it came");
        }
    }
}

#[test]
fn a_pod_that_cannot_be_redirected_goes_on() {
    for annotation in [
        "--best-effort",
        "",
        "--best-effort --proxy-uid=0",
        "--best-effort --proxy-uid=many",
        "--best-effort --nonsense",
        "--best-effort --help",
        "--dry-run",
        "nonsense",
        "--not--strict",
    ] {
        for namespace in [None, Some(""), Some("/nonexistent"), Some("/dev/null")] {
            let answer = add(&config(Some(annotation)), namespace);
            let expected = Answer {
                output: RESULT.to_owned(),
                is_success: true,
            };
            assert_eq!(answer, expected, "{annotation} {namespace:?}");
        }
    }
    let config = config(Some("")).replace(
        r#""weir.io/init-arguments":"""#,
        r#""weir.io/init-arguments":7"#,
    );
    assert_eq!(add(&config, None).output, RESULT);
}

#[test]
fn a_strict_pod_that_cannot_be_redirected_fails_and_says_why() {
    let gone = "/nonexistent";
    for (annotation, namespace, code, said) in [
        ("--strict", None, 4, "CNI_NETNS is not set"),
        ("--strict", Some(gone), 3, gone),
        ("--strict", Some("/dev/null"), 4, "no network namespace"),
        ("--strict --nonsense", Some(gone), 100, "'--nonsense'"),
        ("--proxy-uid --strict", Some(gone), 100, "--proxy-uid"),
        ("--strict --best-effort", Some(gone), 100, "--best-effort"),
        ("--strict --dry-run", Some(gone), 100, "leave it out"),
        (
            "--strict --exclude-inbound-ports=0",
            Some(gone),
            100,
            "weir.io/init-arguments",
        ),
    ] {
        let (version, told, message) = error(&add(&config(Some(annotation)), namespace));
        assert_eq!((told, version.as_str()), (code, "1.0.0"), "{message}");
        assert!(message.contains(said), "{annotation}: {message}");
        assert!(!message.contains('\n'), "{message}");
    }
}

#[test]
fn errors_have_the_codes_of_the_specification() {
    let of = |config: &str| error(&add(config, None));
    let config = config(None);
    for version in ["", "0.2.0", "1.2.0", "one"] {
        let changed = config.replacen("1.0.0", version, 1);
        let (told, code, message) = of(&changed);
        assert_eq!((told.as_str(), code), ("1.1.0", 1), "{message}");
        assert!(
            message.contains("0.3.0, 0.3.1, 0.4.0, 1.0.0, 1.1.0"),
            "{message}"
        );
    }
    assert_eq!(of(r#"{"prevResult":{}}"#).1, 1, "no version");
    for text in ["", "{", "[]", "7", "\u{feff}{}", r#"{"cniVersion":1}"#] {
        assert_eq!(of(text).1, 6, "{text:?}");
    }
    for absent in [
        r#"{"cniVersion":"1.0.0"}"#,
        r#"{"cniVersion":"0.3.0","prevResult":null}"#,
    ] {
        let (_, code, message) = of(absent);
        assert_eq!(code, 7);
        assert!(message.contains("chained after"), "{message}");
    }
}

#[test]
fn a_configuration_without_end_is_not_read_to_its_end() {
    let answer = answer("ADD", None, io::repeat(b' '));
    assert_eq!(error(&answer).1, 7);
    let padded = format!("{}{}", config(None), " ".repeat(MAX_CONFIG as usize));
    let limit = MAX_CONFIG as usize;
    assert!(add(&padded[..limit], None).is_success);
    assert_eq!(error(&add(&padded[..=limit], None)).1, 7);
}

struct Broken;

impl Read for Broken {
    fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
        Err(io::ErrorKind::ConnectionReset.into())
    }
}

#[test]
fn what_needs_no_configuration_reads_none() {
    for command in ["DEL", "CHECK", "GC", "STATUS"] {
        let answer = answer(command, None, Broken);
        assert_eq!((answer.is_success, answer.output.as_str()), (true, ""));
    }
    let versions = answer("VERSION", None, Broken);
    let told: Value = serde_json::from_str(&versions.output).unwrap();
    let wanted = json!({"cniVersion": "1.1.0",
        "supportedVersions": ["0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"]});
    assert_eq!((versions.is_success, told), (true, wanted));
    assert_eq!(error(&answer("ADD", None, Broken)).1, 5);
    for unknown in ["", "add", "UPDATE"] {
        assert_eq!(error(&answer(unknown, None, Broken)).1, 4);
    }
}

#[test]
fn the_annotation_is_what_init_takes() {
    let arguments = arguments(
        "--proxy-uid=77  --best-effort --exclude-inbound-ports=80,443\n--ip-family-mode ipv4",
    );
    let arguments = arguments.unwrap();
    assert_eq!(arguments.proxy_uid, 77);
    assert!(arguments.best_effort && !arguments.strict);
    assert_eq!(arguments.exclude_inbound_ports, "80,443".parse().unwrap());
    assert_eq!(arguments.ip_family_mode, init::IpFamilyMode::Ipv4);
}

#[test]
fn the_log_names_the_pod() {
    let arguments = "IgnoreUnknown=1;K8S_POD_NAMESPACE=shop;K8S_POD_NAME=web-1;K8S_POD_UID=x";
    assert_eq!(pod_name(arguments), "shop/web-1");
    assert_eq!(pod_name("nonsense"), "/");
}
