//! The Mesh resource: a free-form `spec` with typed views on what Weir uses of it.
//! Read by `validate`, `default`, `merge`, the webhook and the operator. The views forgive what they cannot read;
//! judging is `validate`'s. It knows nothing of Kubernetes; see `kubernetes` for the object around the spec.

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::conf::{PROMETHEUS, PrometheusConf};
use crate::node::Node;
use crate::settings::MtlsMode;
use crate::violation::Violation;

/// In `skipCreatingInitialPolicies`: every type.
const ALL_POLICIES: &str = "*";

/// The content of a Mesh, kept as it was written.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct MeshSpec(pub Value);

/// One entry of `metrics.backends`.
#[derive(Clone, Debug, PartialEq)]
pub struct MetricsBackend<'a> {
    /// Name by which `metrics.enabledBackend` chooses it.
    pub name: &'a str,
    /// `type`; only `prometheus` is known.
    pub kind: &'a str,
    conf: &'a Value,
}

impl MetricsBackend<'_> {
    /// Types the free-form `conf`. The violation's field is the path below `conf`.
    pub fn conf(&self) -> Result<PrometheusConf, Violation> {
        PrometheusConf::parse(self.conf)
    }
}

impl MeshSpec {
    /// The spec of the Mesh that exists where the user made none: every proxy exposes its metrics.
    pub fn initial() -> Self {
        Self(json!({
            "metrics": {
                "enabledBackend": "prometheus-1",
                "backends": [{"name": "prometheus-1", "type": PROMETHEUS}]
            }
        }))
    }

    /// The entries of `metrics.backends` that have a readable name and type.
    pub fn metrics_backends(&self) -> Vec<MetricsBackend<'_>> {
        let backends = Node::root(&self.0).get("metrics").get("backends");
        let backends = backends.items().unwrap_or_default();
        backends.iter().filter_map(readable_backend).collect()
    }

    /// The prometheus backend named by `metrics.enabledBackend`; `None` is metrics switched off.
    pub fn enabled_metrics(&self) -> Option<MetricsBackend<'_>> {
        let enabled = self.text_at(["metrics", "enabledBackend"])?;
        let mut backends = self.metrics_backends().into_iter();
        backends.find(|backend| backend.name == enabled && backend.kind == PROMETHEUS)
    }

    /// The name of the enabled certificate authority.
    pub fn enabled_ca(&self) -> Option<&str> {
        self.text_at(["mtls", "enabledBackend"])
    }

    /// The mode of the enabled certificate authority; `Disabled` where it is missing. Absent is STRICT.
    pub fn mtls_mode(&self) -> MtlsMode {
        let Some(enabled) = self.enabled_ca() else {
            return MtlsMode::Disabled;
        };
        let backends = Node::root(&self.0).get("mtls").get("backends").items();
        let backends = backends.unwrap_or_default();
        let named = |node: &&Node<'_>| node.get("name").text() == Ok(Some(enabled));
        match backends
            .iter()
            .find(named)
            .map(|node| node.get("mode").text())
        {
            None => MtlsMode::Disabled,
            Some(Ok(Some("PERMISSIVE"))) => MtlsMode::Permissive,
            Some(_) => MtlsMode::Strict,
        }
    }

    /// Whether connections to unknown destinations are let through (`networking.outbound.passthrough`).
    pub fn passthrough(&self) -> bool {
        let outbound = Node::root(&self.0).get("networking").get("outbound");
        outbound
            .get("passthrough")
            .flag()
            .ok()
            .flatten()
            .unwrap_or(true)
    }

    /// Whether the Mesh is to begin without policies of this type (`skipCreatingInitialPolicies`).
    pub fn skips_creating(&self, policy: &str) -> bool {
        let skipped = Node::root(&self.0).get("skipCreatingInitialPolicies");
        let skipped = skipped.items().unwrap_or_default();
        let mut skipped = skipped.iter().filter_map(|node| node.text().ok().flatten());
        skipped.any(|skipped| skipped == ALL_POLICIES || skipped == policy)
    }

    /// A text that says something: neither absent nor empty.
    fn text_at(&self, path: [&str; 2]) -> Option<&str> {
        let text = Node::root(&self.0).get(path[0]).get(path[1]).text().ok()?;
        text.filter(|text| !text.is_empty())
    }
}

fn readable_backend<'a>(node: &Node<'a>) -> Option<MetricsBackend<'a>> {
    Some(MetricsBackend {
        name: node.get("name").text_or_empty().ok()?,
        kind: node.get("type").text_or_empty().ok()?,
        conf: node.get("conf").value(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_initial_mesh_exposes_metrics_and_secures_nothing() {
        let spec = MeshSpec::initial();
        assert_eq!(
            spec.enabled_metrics().unwrap().conf(),
            Ok(PrometheusConf::default())
        );
        assert_eq!(spec.mtls_mode(), MtlsMode::Disabled);
        assert!(spec.passthrough());
    }

    #[test]
    fn a_backend_is_enabled_by_name_and_type() {
        let enabled = |metrics: Value| {
            let spec = MeshSpec(json!({ "metrics": metrics }));
            spec.enabled_metrics()
                .map(|backend| backend.name.to_owned())
        };
        let backends = json!([{"name": "a", "type": "other"}, {"name": "b", "type": "prometheus"}]);
        assert_eq!(
            enabled(json!({"enabledBackend": "b", "backends": backends})),
            Some("b".into())
        );
        assert_eq!(
            enabled(json!({"enabledBackend": "a", "backends": backends})),
            None
        );
        assert_eq!(
            enabled(json!({"enabledBackend": "", "backends": backends})),
            None
        );
        assert_eq!(enabled(json!({"backends": backends})), None);
    }

    #[test]
    fn the_mode_is_that_of_the_enabled_authority() {
        let mode = |enabled: &str, mode: Value| {
            let backends =
                json!([{"name": "ca-0", "mode": "STRICT"}, {"name": "ca-1", "mode": mode}]);
            MeshSpec(json!({"mtls": {"enabledBackend": enabled, "backends": backends}})).mtls_mode()
        };
        assert_eq!(mode("ca-1", json!("PERMISSIVE")), MtlsMode::Permissive);
        assert_eq!(mode("ca-1", json!("STRICT")), MtlsMode::Strict);
        assert_eq!(mode("ca-1", Value::Null), MtlsMode::Strict);
        assert_eq!(mode("", json!("STRICT")), MtlsMode::Disabled);
        assert_eq!(mode("ca-2", json!("STRICT")), MtlsMode::Disabled);
    }

    #[test]
    fn initial_policies_are_skipped_by_type_or_all() {
        let skips = |value: Value| {
            MeshSpec(json!({"skipCreatingInitialPolicies": value})).skips_creating("Retry")
        };
        assert!(skips(json!(["*"])) && skips(json!(["Timeout", "Retry"])));
        assert!(!skips(json!([])) && !skips(json!(["Timeout"])) && !skips(json!("Retry")));
        assert!(!MeshSpec(json!({})).skips_creating("Retry"));
    }

    #[test]
    fn any_value_can_be_looked_at() {
        for value in [
            json!(null),
            json!([]),
            json!("x"),
            json!({"metrics": [1], "mtls": 1, "networking": ""}),
        ] {
            let spec = MeshSpec(value);
            assert!(spec.enabled_metrics().is_none() && spec.metrics_backends().is_empty());
            assert_eq!(
                (spec.mtls_mode(), spec.passthrough()),
                (MtlsMode::Disabled, true)
            );
        }
    }
}
