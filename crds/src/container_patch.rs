//! The ContainerPatch resource: JSON Patch operations on the injected containers.
//! Read by `validate` and the webhook. It reads operations and does not perform them.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::node::Node;
use crate::violation::Violation;

/// The operations a patch may have; RFC 6902 without `test`.
pub const OPERATIONS: [&str; 5] = ["add", "remove", "replace", "move", "copy"];

/// The content of a ContainerPatch, kept as it was written.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ContainerPatchSpec(pub Value);

/// One operation of RFC 6902, as written; its `value` is the text of a JSON value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Operation {
    /// One of [`OPERATIONS`].
    pub op: String,
    /// JSON Pointer into the container.
    pub path: String,
    /// JSON Pointer of the source, for `move` and `copy`.
    pub from: Option<String>,
    /// Text of a JSON value, for `add` and `replace`: `"1"` is a number, `"\"1\""` a string.
    pub value: Option<String>,
}

impl ContainerPatchSpec {
    /// `sidecarPatch`, in order.
    pub fn sidecar_patch(&self) -> Result<Vec<Operation>, Violation> {
        operations(&Node::root(&self.0).get("sidecarPatch"))
    }

    /// `initPatch`, in order.
    pub fn init_patch(&self) -> Result<Vec<Operation>, Violation> {
        operations(&Node::root(&self.0).get("initPatch"))
    }
}

pub(crate) fn operations(list: &Node<'_>) -> Result<Vec<Operation>, Violation> {
    list.items()?.iter().map(read_operation).collect()
}

fn read_operation(node: &Node<'_>) -> Result<Operation, Violation> {
    node.object()?;
    Ok(Operation {
        op: node.get("op").text_or_empty()?.to_owned(),
        path: node.get("path").text_or_empty()?.to_owned(),
        from: node.get("from").text()?.map(str::to_owned),
        value: node.get("value").text()?.map(str::to_owned),
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn operations_are_read_in_order() {
        let spec = ContainerPatchSpec(json!({
            "sidecarPatch": [{"op": "add", "path": "/env/-", "value": "{}"}, {"op": "move", "path": "/a", "from": "/b"}]
        }));
        let patch = spec.sidecar_patch().unwrap();
        assert_eq!(
            (patch[0].op.as_str(), patch[0].value.as_deref()),
            ("add", Some("{}"))
        );
        assert_eq!(
            (patch[1].from.as_deref(), patch[1].value.as_deref()),
            (Some("/b"), None)
        );
        assert_eq!(spec.init_patch(), Ok(vec![]));
        let wrong =
            ContainerPatchSpec(json!({"initPatch": [{"op": "add", "path": "/a", "value": {}}]}));
        assert_eq!(wrong.init_patch().unwrap_err().field, "initPatch[0].value");
    }
}
