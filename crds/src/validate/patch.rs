//! Rules of a ContainerPatch, which Kuma leaves to the moment a pod is created.
//! Called by the webhook when a patch is applied. It does not know the container that will be patched.

use serde_json::Value;

use super::Report;
use crate::container_patch::OPERATIONS;
use crate::node::Node;
use crate::violation::Violation;

/// What is wrong with the content of a ContainerPatch.
pub fn container_patch(spec: &Value) -> Vec<Violation> {
    let mut report = Report::default();
    let root = Node::root(spec);
    if report.read(root.object()).is_none() {
        return report.violations;
    }
    for name in ["sidecarPatch", "initPatch"] {
        for operation in report.read(root.get(name).items()).unwrap_or_default() {
            if report.read(operation.object()).is_some() {
                rules(&mut report, &operation);
            }
        }
    }
    report.violations
}

fn rules(report: &mut Report, operation: &Node<'_>) {
    let field = operation.get("op");
    let op = report.read(field.text_or_empty()).unwrap_or_default();
    if !OPERATIONS.contains(&op) {
        let known = OPERATIONS.join(", ");
        report.add(
            &field,
            format!("unknown operation {op:?}. Available operations: {known}"),
        );
    }
    pointer(report, &operation.get("path"));
    match op {
        "add" | "replace" => value(report, &operation.get("value")),
        "move" | "copy" => pointer(report, &operation.get("from")),
        _ => {}
    }
}

fn pointer(report: &mut Report, node: &Node<'_>) {
    let Some(pointer) = report.read(node.text_or_empty()) else {
        return;
    };
    // RFC 6901: every `~` is the start of `~0` or `~1`.
    let escaped = pointer
        .split('~')
        .skip(1)
        .all(|rest| rest.starts_with(['0', '1']));
    if !pointer.starts_with('/') || !escaped {
        report.add(
            node,
            format!("has to be a JSON Pointer such as \"/env/-\", not {pointer:?}"),
        );
    }
}

fn value(report: &mut Report, node: &Node<'_>) {
    const REMEDY: &str =
        "has to be a string that holds JSON, such as '{\"name\": \"A\", \"value\": \"1\"}'";
    match node.value() {
        Value::Null => report.add(node, REMEDY),
        Value::String(text) => {
            if let Err(error) = serde_json::from_str::<Value>(text) {
                report.add(node, format!("{REMEDY}: {error}"));
            }
        }
        _ => report.add(node, REMEDY),
    }
}
