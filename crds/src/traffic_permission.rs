//! The TrafficPermission resource: which services may connect to which.
//! Read by `validate` and the operator. It knows neither who enforces it nor how one is chosen among several.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::names::SERVICE_TAG;
use crate::node::Node;
use crate::violation::Violation;

/// The content of a TrafficPermission, kept as it was written.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct TrafficPermissionSpec(pub Value);

/// The tags a workload must have; `*` stands for any value of a tag that is present.
pub type Selector = BTreeMap<String, String>;

impl TrafficPermissionSpec {
    /// Every service may connect to every service.
    pub fn allow_all() -> Self {
        let any = json!([{"match": {SERVICE_TAG: "*"}}]);
        Self(json!({"sources": any, "destinations": any}))
    }

    /// `sources[].match`, in order.
    pub fn sources(&self) -> Result<Vec<Selector>, Violation> {
        selectors(&Node::root(&self.0).get("sources"))
    }

    /// `destinations[].match`, in order.
    pub fn destinations(&self) -> Result<Vec<Selector>, Violation> {
        selectors(&Node::root(&self.0).get("destinations"))
    }
}

fn selectors(list: &Node<'_>) -> Result<Vec<Selector>, Violation> {
    let selector = |node: &Node<'_>| node.object()?.get("match").text_map();
    list.items()?.iter().map(selector).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn selectors_are_read_in_order() {
        let spec = TrafficPermissionSpec(json!({
            "sources": [{"match": {"kuma.io/service": "a"}}, {"match": {"kuma.io/service": "*", "v": "1"}}],
            "destinations": [{}]
        }));
        let sources = spec.sources().unwrap();
        assert_eq!(sources[0]["kuma.io/service"], "a");
        assert_eq!(sources[1].len(), 2);
        assert_eq!(spec.destinations(), Ok(vec![Selector::new()]));
        let wrong = TrafficPermissionSpec(json!({"sources": [{"match": {"v": 1}}]}));
        assert_eq!(
            wrong.sources().unwrap_err().field,
            r#"sources[0].match["v"]"#
        );
    }
}
