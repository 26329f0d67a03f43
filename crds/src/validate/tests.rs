//! Every violation as a row: a document, and all that is said about it.

use serde_json::{Value, json};

use super::*;

/// A rule's judgement of a content, as the user reads it.
fn said(rule: fn(&Value) -> Vec<Violation>, spec: Value) -> Vec<String> {
    rule(&spec).iter().map(ToString::to_string).collect()
}

/// Asserts each row, and that the row without its slip has nothing wrong.
fn rows(rule: fn(&Value) -> Vec<Violation>, rows: &[(Value, &[&str])]) {
    for (spec, expected) in rows {
        assert_eq!(said(rule, spec.clone()), *expected, "{spec}");
    }
}

mod dataplanes;
mod meshes;

#[test]
fn permissions() {
    let ok = json!([{"match": {"kuma.io/service": "*"}}]);
    rows(
        traffic_permission,
        &[
            (json!({"sources": ok, "destinations": ok}), &[]),
            (
                json!({}),
                &[
                    "sources: must have at least one element",
                    "destinations: must have at least one element",
                ],
            ),
            (
                json!({"sources": [], "destinations": ok}),
                &["sources: must have at least one element"],
            ),
            (
                json!({"sources": ok, "destinations": [{}]}),
                &["destinations[0].match: must have at least one tag"],
            ),
            (
                json!({"sources": [{"match": {"a": ""}}], "destinations": ok}),
                &[r#"sources[0].match["a"]: tag value must be non-empty"#],
            ),
            (
                json!({"sources": [{"match": {"a": "b c"}}], "destinations": ok}),
                &[concat!(
                    r#"sources[0].match["a"]: tag value must consist of alphanumeric characters, dots, dashes, "#,
                    r#"slashes and underscores or be "*""#
                )],
            ),
            (
                json!({"sources": [{"match": {"a b": "c"}}], "destinations": ok}),
                &[concat!(
                    r#"sources[0].match["a b"]: tag name must consist of alphanumeric characters, dots, dashes, "#,
                    "slashes and underscores"
                )],
            ),
            (
                json!({"sources": [{"match": {"": "c"}}], "destinations": ok}),
                &["sources[0].match: tag name must be non-empty"],
            ),
            (
                json!({"sources": ["x"], "destinations": ok}),
                &[r#"sources[0]: expected an object, found "x""#],
            ),
            (json!([]), &[": expected an object, found []"]),
        ],
    );
    let reference = |mesh| mesh_reference(mesh).len();
    assert_eq!(
        (reference(None), reference(Some("")), reference(Some("m"))),
        (1, 1, 0)
    );
    assert_eq!(mesh_reference(None)[0].to_string(), "mesh: cannot be empty");
}

#[test]
fn patches() {
    let patch = |operation: Value| json!({"sidecarPatch": [operation]});
    rows(
        container_patch,
        &[
            (json!({}), &[]),
            (
                patch(json!({"op": "add", "path": "/env/-", "value": "{\"name\": \"A\"}"})),
                &[],
            ),
            (patch(json!({"op": "remove", "path": "/a~1b"})), &[]),
            (
                patch(json!({"op": "copy", "path": "/a", "from": "/b"})),
                &[],
            ),
            (
                patch(json!({"op": "test", "path": "/a", "value": "1"})),
                &[
                    r#"sidecarPatch[0].op: unknown operation "test". Available operations: add, remove, replace, move, copy"#,
                ],
            ),
            (
                patch(json!({"op": "remove"})),
                &[r#"sidecarPatch[0].path: has to be a JSON Pointer such as "/env/-", not """#],
            ),
            (
                patch(json!({"op": "remove", "path": "/a~2"})),
                &[r#"sidecarPatch[0].path: has to be a JSON Pointer such as "/env/-", not "/a~2""#],
            ),
            (
                patch(json!({"op": "move", "path": "/a"})),
                &[r#"sidecarPatch[0].from: has to be a JSON Pointer such as "/env/-", not """#],
            ),
            (
                json!({"initPatch": 1}),
                &["initPatch: expected a list, found 1"],
            ),
        ],
    );
}

#[test]
fn patch_values_and_places() {
    let remedy = r#"has to be a string that holds JSON, such as '{"name": "A", "value": "1"}'"#;
    for value in [
        json!(null),
        json!({"name": "A"}),
        json!(true),
        json!("{"),
        json!("text"),
    ] {
        let violations = container_patch(&json!({
            "sidecarPatch": [{"op": "replace", "path": "/a", "value": value}]
        }));
        assert_eq!(violations.len(), 1, "{value}");
        assert_eq!(violations[0].field, "sidecarPatch[0].value");
        assert!(
            violations[0].message.starts_with(remedy),
            "{}",
            violations[0]
        );
    }
    assert!(container_patch_namespace("kuma-system").is_empty());
    assert_eq!(
        container_patch_namespace("web")[0].to_string(),
        "metadata.namespace: ContainerPatch can only be placed in kuma-system namespace. \
         It can be however referenced by pods in all namespaces"
    );
}
