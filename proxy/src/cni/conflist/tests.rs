//! What becomes of lists and of configurations of one plugin.

use serde_json::{Value, json};

use super::*;

const FLANNEL: &str = r#"{
  "name": "cbr0",
  "cniVersion": "0.3.1",
  "unknown": {"z": 1.50, "a": [12345678901234567890123]},
  "plugins": [
    {
      "type": "flannel",
      "delegate": {"hairpinMode": true, "isDefaultGateway": true}
    },
    {
      "type": "portmap",
      "capabilities": {"portMappings": true}
    }
  ]
}
"#;

fn with(text: &str) -> Option<String> {
    list(text).unwrap().with_plugin().unwrap()
}

fn without(text: &str) -> Option<String> {
    list(text).unwrap().without_plugin()
}

fn plugins(text: &str) -> Vec<Value> {
    let value: Value = serde_json::from_str(text).unwrap();
    value["plugins"].as_array().unwrap().clone()
}

fn entry() -> Value {
    json!({"type": "weir-cni", "capabilities": {"io.kubernetes.cri.pod-annotations": true}})
}

#[test]
fn the_entry_is_the_plugin_with_its_capability() {
    assert_eq!(serde_json::from_str::<Value>(ENTRY).unwrap(), entry());
    assert_eq!(entry()["type"], crate::cni::PLUGIN);
    assert_eq!(entry()["capabilities"][crate::cni::ANNOTATIONS], true);
}

#[test]
fn we_come_last_and_nothing_else_changes() {
    let wanted = FLANNEL.replace("\n    }\n  ]", &format!("\n    }},\n    {ENTRY}\n  ]"));
    assert_eq!(with(FLANNEL).unwrap(), wanted);
    assert_eq!(with(&wanted), None, "again");
    assert_eq!(without(&wanted).unwrap(), FLANNEL);
    assert_eq!(without(FLANNEL), None, "again");
}

#[test]
fn whatever_the_layout_is_it_comes_back() {
    for text in [
        r#"{"cniVersion":"1.0.0","name":"n","plugins":[{"type":"a"}]}"#,
        r#"{"cniVersion":"1.0.0","name":"n","plugins":[ {"type":"a"} , {"type":"b"} ]}"#,
        "{\"plugins\":\n[\t{\"type\":\"a\"}\n\n,{\"type\":\"b\"}\t],\"name\":\"n\",\"cniVersion\":\"1.1.0\"} \n",
        // The last of two fields of a name counts, for runtimes too.
        r#"{"plugins":[{"type":"x"}],"cniVersion":"1.0.0","name":"n","pl\u0075gins":[{"type":"a"}]}"#,
    ] {
        let added = with(text).unwrap();
        assert_eq!(plugins(&added).last(), Some(&entry()), "{added}");
        assert_eq!(plugins(&added).len(), plugins(text).len() + 1);
        assert_eq!(without(&added).unwrap(), text);
    }
}

#[test]
fn an_entry_that_is_elsewhere_or_differs_is_brought_up_to_date() {
    let old = r#"{"type":"weir-cni"}"#;
    let (a, b) = (r#"{"type":"a"}"#, r#"{"type":"b"}"#);
    for entries in [
        format!("{ENTRY},{a},{b}"),
        format!("{a},{ENTRY},{b}"),
        format!("{old},{old},{a},{ENTRY},{b},{old}"),
        format!("{a},{b},{old}"),
        format!("{a},{b},{ENTRY},{ENTRY}"),
    ] {
        let text = format!(r#"{{"cniVersion":"1.0.0","name":"n","plugins":[{entries}]}}"#);
        let types = [json!({"type": "a"}), json!({"type": "b"}), entry()];
        assert_eq!(plugins(&with(&text).unwrap()), types, "{entries}");
        assert_eq!(plugins(&without(&text).unwrap()), types[..2], "{entries}");
    }
}

#[test]
fn an_entry_that_says_the_same_in_another_layout_stays() {
    let text = r#"{"cniVersion":"1.0.0","name":"n","plugins":[{"type":"a"},
        {"capabilities": {"io.kubernetes.cri.pod-annotations": true}, "type": "weir-cni"}]}"#;
    assert_eq!(with(text), None);
}

#[test]
fn a_list_of_ours_alone_is_left_with_none() {
    let text = format!(r#"{{"cniVersion":"1.0.0","name":"n","plugins":[{ENTRY}]}}"#);
    let error = list(&text).unwrap().with_plugin().unwrap_err();
    assert!(matches!(error, Unusable::Alone), "{error}");
    let one = r#"{"cniVersion":"1.0.0","name":"n","type":"weir-cni"}"#;
    let error = chained(one, "10-n.conf").unwrap_err();
    assert!(matches!(error, Unusable::Alone), "{error}");
    assert!(plugins(&without(&text).unwrap()).is_empty());
}

#[test]
fn what_is_no_list_is_named() {
    for (text, wrong) in [
        ("", "JSON"),
        ("[]", "JSON"),
        (r#"{"name":"n""#, "JSON"),
        (r#"{"plugins":[{"type":"a"}]}"#, "\"name\""),
        (r#"{"name":1,"plugins":[{"type":"a"}]}"#, "\"name\""),
        (r#"{"name":"n","type":"bridge"}"#, "\"plugins\""),
        (r#"{"name":"n","plugins":{}}"#, "\"plugins\""),
        (r#"{"name":"n","plugins":[]}"#, "\"plugins\""),
        (r#"{"name":"n","plugins":[{}]}"#, "\"type\""),
        (r#"{"name":"n","plugins":["a"]}"#, "\"type\""),
        (r#"{"name":"n","plugins":[{"type":""}]}"#, "\"type\""),
        (
            r#"{"name":"n","cniVersion":1,"plugins":[{"type":"a"}]}"#,
            "\"cniVersion\"",
        ),
        (
            r#"{"name":"n","cniVersions":"1.0.0","plugins":[{"type":"a"}]}"#,
            "\"cniVersions\"",
        ),
    ] {
        let error = list(text).unwrap_err().to_string();
        assert!(error.contains(wrong), "{text}: {error}");
    }
}

#[test]
fn a_version_that_the_plugin_would_refuse_is_not_chained_to() {
    for (fields, is_served) in [
        (r#""cniVersion":"0.3.0""#, true),
        (r#""cniVersion":"1.1.0""#, true),
        (
            r#""cniVersion":"0.4.0","cniVersions":["0.4.0","1.0.0"]"#,
            true,
        ),
        (r#""cniVersions":["1.0.0"]"#, true),
        (r#""cniVersion":"0.2.0""#, false),
        (r#""cniVersion":"1.0.0","cniVersions":["2.0.0"]"#, false),
        (r#""cniVersion":"""#, false),
        (r#""a":1"#, false),
    ] {
        let text = format!(r#"{{"name":"n",{fields},"plugins":[{{"type":"a"}}]}}"#);
        let added = list(&text).unwrap().with_plugin();
        assert_eq!(added.is_ok(), is_served, "{fields}: {added:?}");
        let one = format!(r#"{{"name":"n",{fields},"type":"a"}}"#);
        assert_eq!(chained(&one, "10-a.conf").is_ok(), is_served, "{fields}");
    }
}

#[test]
fn a_configuration_of_one_plugin_becomes_a_list_with_us() {
    let one = "{\n\"cniVersion\": \"0.4.0\", \"name\": \"a \\\"b\\\"\", \"type\": \"bridge\", \"mtu\": 1e3}\n";
    let chained = chained(one, "10-a.conf").unwrap();
    assert!(chained.contains(one.trim()), "as it is written: {chained}");
    let value: Value = serde_json::from_str(&chained).unwrap();
    assert_eq!(value["name"], "a \"b\"");
    assert_eq!(value["cniVersion"], "0.4.0");
    assert_eq!(plugins(&chained)[1], entry());
    assert_eq!(with(&chained), None, "it is a list that needs nothing");
}

#[test]
fn a_configuration_without_a_name_has_that_of_its_file() {
    for name in ["", r#""name":"","#] {
        let one = format!(r#"{{{name}"cniVersion":"0.4.0","type":"bridge"}}"#);
        let list = chained(&one, "10-a.conf").unwrap();
        let value: Value = serde_json::from_str(&list).unwrap();
        assert_eq!(value["name"], "10-a.conf");
    }
    let error = chained(r#"{"name":"n","plugins":[]}"#, "10-a.conf").unwrap_err();
    assert!(matches!(error, Unusable::Field("type")), "{error}");
}
