//! What is read from a text, what is refused, and where.

use serde_json::json;

use super::*;

fn errors(text: &str) -> Vec<String> {
    parse(text)
        .unwrap_err()
        .iter()
        .map(ToString::to_string)
        .collect()
}

#[test]
fn documents_of_every_type_are_read() {
    let text = "\
type: Mesh
name: m
metrics: {enabledBackend: p, backends: [{name: p, type: prometheus}]}
---
---
type: Dataplane
name: web-1
mesh: m
labels: {team: a}
networking:
  address: 127.0.0.1
  inbound: [{port: 80, servicePort: 8080, tags: {kuma.io/service: web}}]
---
type: TrafficPermission
name: all
sources: [{match: {kuma.io/service: '*'}}]
destinations: [{match: {kuma.io/service: '*'}}]
";
    let documents = parse(text).unwrap();
    let [
        Document::Mesh(mesh),
        Document::Dataplane(dataplane),
        Document::TrafficPermission(permission),
    ] = documents.as_slice()
    else {
        panic!("{documents:?}");
    };
    assert_eq!((mesh.name.as_str(), mesh.mesh.as_str()), ("m", "m"));
    assert!(mesh.spec.enabled_metrics().is_some());
    assert_eq!(
        (dataplane.name.as_str(), dataplane.mesh.as_str()),
        ("web-1", "m")
    );
    assert_eq!(dataplane.labels["team"], "a");
    let networking = dataplane.spec.networking().unwrap().unwrap();
    assert_eq!(networking.inbound[0].service(), Some("web"));
    assert_eq!(permission.mesh, "default");
    assert_eq!(
        permission.spec.sources().unwrap()[0]["kuma.io/service"],
        "*"
    );
}

#[test]
fn the_content_may_stand_below_spec() {
    let at_top =
        "type: Mesh\nname: m\nmtls: {enabledBackend: ca, backends: [{name: ca, type: builtin}]}\n";
    let below = "type: Mesh\nname: m\nspec:\n  mtls: {enabledBackend: ca, backends: [{name: ca, type: builtin}]}\n";
    assert_eq!(parse(at_top).unwrap(), parse(below).unwrap());
    assert_eq!(
        errors("type: Mesh\nname: m\nmetrics: {}\nspec:\n  metrics: {}\n"),
        [
            "line 3 column 10: metrics: metrics stands both at the top level and below spec: keep one of them"
        ]
    );
    assert_eq!(
        errors("type: Mesh\nname: m\nspec: [1]\n"),
        ["line 3 column 7: spec: expected an object"]
    );
}

#[test]
fn a_violation_has_the_path_and_the_place_of_the_text() {
    let text = "type: Mesh\nname: m\nspec:\n  metrics:\n    backends:\n    - name: p\n      type: statsd\n";
    assert_eq!(
        errors(text),
        [
            "line 7 column 13: spec.metrics.backends[0].type: unknown backend type. Available backends: \"prometheus\""
        ]
    );
    let text = "type: Dataplane\nname: d\nmetrics:\n  type: prometheus\n  conf:\n    port: 80`\n";
    assert_eq!(
        errors(text),
        [
            "line 6 column 11: metrics.conf: could not parse config: port: \
          expected a whole number from 0 to 4294967295, found \"80`\""
        ]
    );
}

#[test]
fn meta_data_is_judged() {
    for (text, error) in [
        (
            "name: a\n",
            "line 1 column 1: type: has to be defined: Mesh, Dataplane or TrafficPermission",
        ),
        ("type: Mesh\n", "line 1 column 1: name: cannot be empty"),
        (
            "type: Mesh\nname: 7\n",
            "line 2 column 7: name: expected a string, found 7",
        ),
        (
            "type: Mesh\nname: A b\n",
            "line 2 column 7: name: invalid characters. Valid characters are numbers, lowercase latin letters and \
             '-', '_', '.' symbols.",
        ),
        (
            "type: MeshMetric\nname: a\n",
            "line 1 column 7: type: unknown type \"MeshMetric\". \
             Available types: Mesh, Dataplane, TrafficPermission",
        ),
        (
            "apiVersion: kuma.io/v1alpha1\nkind: Mesh\n",
            "line 1 column 13: apiVersion: this is the Kubernetes form; \
             a Universal document has type, name and mesh at its top level",
        ),
        (
            "type: Dataplane\nname: a\n",
            "line 1 column 1: networking: must be defined",
        ),
    ] {
        assert_eq!(errors(text), [error]);
    }
    assert!(errors("- a\n")[0].contains("expected a document"));
}

#[test]
fn bad_documents_do_not_hide_good_ones() {
    let good = "type: Mesh\nname: a\n";
    let found = documents(&format!("type: Nonsense\n---\n{good}---\n{good}"));
    assert_eq!(
        found.iter().map(Result::is_ok).collect::<Vec<_>>(),
        [false, true, true]
    );
    let found = documents(&format!("{good}---\na: [1\nb: 2\n---\n{good}"));
    assert!(found[0].is_ok());
    let UniversalError::Syntax { at: Some(at), .. } = &found[1].as_ref().unwrap_err()[0] else {
        panic!("{:?}", found[1]);
    };
    assert!(at.line >= 4, "{at}");
    assert_eq!(found.len(), 2);
}

#[test]
fn yaml_is_yaml() {
    let text = "\
type: Dataplane
name: a
shared: &tags {kuma.io/service: web}
networking:
  address: localhost
  inbound: [{port: 80, tags: {<<: *tags, v: one}}]
";
    let documents = parse(text).unwrap();
    let [Document::Dataplane(dataplane)] = documents.as_slice() else {
        panic!("not a dataplane");
    };
    let tags = &dataplane.spec.0["networking"]["inbound"][0]["tags"];
    assert_eq!(*tags, json!({"kuma.io/service": "web", "v": "one"}));
    assert_eq!(parse("").unwrap(), []);
    assert!(errors("type: Mesh\ntype: Mesh\n")[0].contains("duplicate"));
}

#[test]
fn a_document_is_called_by_its_name_or_its_place() {
    let text = "type: Mesh\nname: a\n---\ntype: Dataplane\nname: web-1\n---\nx: 1\n---\na: [\n";
    let found = judged(text);
    let called: Vec<_> = found
        .iter()
        .map(|(called, judged)| (called.as_str(), judged.is_ok()))
        .collect();
    assert_eq!(
        called,
        [
            ("Mesh \"a\"", true),
            ("Dataplane \"web-1\"", false),
            ("document 3", false),
            ("document 4", false)
        ]
    );
}
