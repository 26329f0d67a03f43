//! What a node reads: the configuration that a container runtime sends the CNI plugin, a pod's annotation in it, and the
//! lists on its disk. What is passed on is passed on as it came, the annotation alone decides, and a list that was edited
//! is as before once the plugin is taken out of it.
//!
//! The input: an annotation up to the first NUL, and a network configuration or a list. Run by the fuzzer, and by
//! `tests/corpora` on what is in `corpus`.

use serde_json::{Value, json};
use weir_proxy::cni::conflist;
use weir_proxy::cni::plugin::{Redirection, addition, answer, arguments};
use weir_proxy::cni::{ANNOTATIONS, VERSIONS};

fn annotated(annotation: &str) {
    let read = arguments(annotation).map(|arguments| format!("{arguments:?}"));
    let config = json!({
        "cniVersion": "1.0.0",
        "prevResult": {},
        "runtimeConfig": {ANNOTATIONS: {"weir.io/init-arguments": annotation}},
    });
    let config = config.to_string();
    let addition = addition(config.as_bytes()).expect("all that is needed is there");
    let Redirection::Asked {
        arguments,
        is_strict,
    } = addition.redirection
    else {
        panic!("it was asked for");
    };
    let sent = arguments.map(|arguments| {
        assert_eq!(arguments.strict, is_strict);
        format!("{arguments:?}")
    });
    assert_eq!(sent, read);
    // Nowhere to go to: whether the pod goes on is up to the annotation.
    assert_eq!(
        answer("ADD", None, config.as_bytes()).is_success,
        !is_strict
    );
}

fn sent(config: &[u8]) {
    let answer = answer("ADD", None, config);
    let told: Result<Value, _> = serde_json::from_str(&answer.output);
    let read = addition(config);
    if !answer.is_success {
        let told = told.expect("an error is JSON");
        assert!(
            VERSIONS
                .iter()
                .any(|version| told["cniVersion"] == *version)
        );
        assert!(told["code"].is_u64() && told["msg"].is_string());
    } else {
        let addition = read.expect("a configuration");
        assert_eq!(answer.output, addition.result.get());
        // Nested too deeply for a value, which text is not.
        if let (Ok(told), Ok(config)) = (told, serde_json::from_slice::<Value>(config)) {
            assert_eq!(told, config["prevResult"]);
        }
    }
}

fn edited(text: &str) {
    if let Ok(one) = conflist::chained(text, "10-x.conf") {
        let list = conflist::list(&one).expect("a list");
        assert_eq!(list.with_plugin().expect("a version that is served"), None);
    }
    let Ok(list) = conflist::list(text) else {
        return;
    };
    let Ok(with) = list.with_plugin() else {
        return;
    };
    let without = list.without_plugin();
    let without = without.as_deref().unwrap_or(text);
    let with = with.as_deref().unwrap_or(text);
    let with = conflist::list(with).expect("a list");
    assert_eq!(with.with_plugin().expect("served"), None, "twice is once");
    let clean = conflist::list(without).expect("a list");
    assert_eq!(clean.without_plugin(), None);
    assert_eq!(with.without_plugin().as_deref(), Some(without));
}

pub(crate) fn run(data: &[u8]) {
    let at = data.iter().position(|byte| *byte == 0);
    let (annotation, config) = data.split_at(at.unwrap_or(0));
    let config = config.strip_prefix(b"\0").unwrap_or(config);
    if let Ok(annotation) = std::str::from_utf8(annotation) {
        annotated(annotation);
    }
    sent(config);
    if let Ok(text) = std::str::from_utf8(config) {
        edited(text);
    }
}
