//! The configuration of a prometheus backend (`conf`), typed when it is used: the schema leaves it free-form.
//! The same type serves a Mesh, a Dataplane and a pod's annotations, so every field may be absent; `merge` makes a
//! complete [`crate::settings::MetricsSettings`] of two of them. It knows nothing of which one it came from.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::node::Node;
use crate::settings::MetricsTls;
use crate::violation::Violation;

/// Type of the one metrics backend there is.
pub const PROMETHEUS: &str = "prometheus";

/// What a `conf` says; `None` is what it leaves to the level above.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PrometheusConf {
    /// `port`, as written: its range is judged by `validate`.
    pub port: Option<u32>,
    /// `path`, as written; empty is the same as absent.
    pub path: Option<String>,
    /// `tags`; an empty map is the same as absent.
    pub tags: BTreeMap<String, String>,
    /// `skipMTLS`, the older spelling of `tls.mode`.
    pub skip_mtls: Option<bool>,
    /// `tls.mode`; `tls: {}` says `activeMTLSBackend`.
    pub tls: Option<MetricsTls>,
    /// `envoy.filterRegex`; an empty text takes away the filter of the level above.
    pub filter_regex: Option<String>,
    /// `envoy.usedOnly`.
    pub used_only: Option<bool>,
    /// `aggregate`.
    pub aggregate: Vec<AggregateConf>,
}

/// One entry of `aggregate`, merged with the entry of the same name on the other level.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AggregateConf {
    /// The name that entries are merged by.
    pub name: String,
    /// Port of the application.
    pub port: Option<u32>,
    /// Path on the application; empty is the same as absent.
    pub path: Option<String>,
    /// Whether the application is scraped at all; absent is true.
    pub enabled: Option<bool>,
    /// Address of the application; empty takes away the address of the level above.
    pub address: Option<String>,
}

impl PrometheusConf {
    /// Types a free-form `conf`. The violation's field is the path below `conf`.
    pub fn parse(conf: &Value) -> Result<Self, Violation> {
        Self::read(&Node::root(conf))
    }

    pub(crate) fn read(conf: &Node<'_>) -> Result<Self, Violation> {
        conf.object()?;
        let envoy = conf.get("envoy");
        envoy.object()?;
        Ok(Self {
            port: conf.get("port").number()?,
            path: conf.get("path").text()?.map(str::to_owned),
            tags: conf.get("tags").text_map()?,
            skip_mtls: conf.get("skipMTLS").flag()?,
            tls: read_tls(&conf.get("tls"))?,
            filter_regex: envoy.get("filterRegex").text()?.map(str::to_owned),
            used_only: envoy.get("usedOnly").flag()?,
            aggregate: conf
                .get("aggregate")
                .items()?
                .iter()
                .map(AggregateConf::read)
                .collect::<Result<_, _>>()?,
        })
    }

    /// The mode this level asks for: `tls`, else what `skipMTLS` means.
    pub fn tls_mode(&self) -> Option<MetricsTls> {
        self.tls.or(self.skip_mtls.map(|skip| match skip {
            true => MetricsTls::Disabled,
            false => MetricsTls::ActiveMtlsBackend,
        }))
    }
}

impl AggregateConf {
    fn read(entry: &Node<'_>) -> Result<Self, Violation> {
        entry.object()?;
        Ok(Self {
            name: entry.get("name").text_or_empty()?.to_owned(),
            port: entry.get("port").number()?,
            path: entry.get("path").text()?.map(str::to_owned),
            enabled: entry.get("enabled").flag()?,
            address: entry.get("address").text()?.map(str::to_owned),
        })
    }
}

fn read_tls(tls: &Node<'_>) -> Result<Option<MetricsTls>, Violation> {
    if tls.object()?.is_absent() {
        return Ok(None);
    }
    let mode = tls.get("mode");
    match mode.text()? {
        None => Ok(Some(MetricsTls::default())),
        Some("activeMTLSBackend") => Ok(Some(MetricsTls::ActiveMtlsBackend)),
        Some("providedTLS") => Ok(Some(MetricsTls::ProvidedTls)),
        Some("disabled") => Ok(Some(MetricsTls::Disabled)),
        Some(other) => Err(mode.violation(format!(
            "unknown mode {other:?}. Available modes: \"activeMTLSBackend\", \"providedTLS\", \"disabled\""
        ))),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn every_field_is_typed() {
        let conf = PrometheusConf::parse(&json!({
            "port": "1234", "path": "/p", "tags": {"a": "b"}, "skipMTLS": false, "tls": {"mode": "providedTLS"},
            "envoy": {"filterRegex": "", "usedOnly": false},
            "aggregate": [{"name": "app", "port": 80, "path": "/stats", "enabled": false, "address": "::1"}],
            "unknown": [1]
        }));
        let expected = PrometheusConf {
            port: Some(1234),
            path: Some("/p".into()),
            tags: BTreeMap::from([("a".into(), "b".into())]),
            skip_mtls: Some(false),
            tls: Some(MetricsTls::ProvidedTls),
            filter_regex: Some(String::new()),
            used_only: Some(false),
            aggregate: vec![AggregateConf {
                name: "app".into(),
                port: Some(80),
                path: Some("/stats".into()),
                enabled: Some(false),
                address: Some("::1".into()),
            }],
        };
        assert_eq!(conf, Ok(expected));
        assert_eq!(
            PrometheusConf::parse(&Value::Null),
            Ok(PrometheusConf::default())
        );
    }

    #[test]
    fn the_mode_of_a_level_is_its_tls_and_else_its_skip_mtls() {
        let mode = |conf| PrometheusConf::parse(&conf).unwrap().tls_mode();
        assert_eq!(mode(json!({})), None);
        assert_eq!(
            mode(json!({"tls": {}})),
            Some(MetricsTls::ActiveMtlsBackend)
        );
        assert_eq!(mode(json!({"skipMTLS": true})), Some(MetricsTls::Disabled));
        assert_eq!(
            mode(json!({"skipMTLS": false})),
            Some(MetricsTls::ActiveMtlsBackend)
        );
        assert_eq!(
            mode(json!({"skipMTLS": true, "tls": {"mode": "providedTLS"}})),
            Some(MetricsTls::ProvidedTls)
        );
    }

    #[test]
    fn what_cannot_be_typed_is_named() {
        for (conf, path) in [
            (json!({"port": "80`"}), "port"),
            (json!({"path": 1}), "path"),
            (json!({"tags": {"a": 1}}), r#"tags["a"]"#),
            (json!({"skipMTLS": "yes"}), "skipMTLS"),
            (json!({"tls": {"mode": "off"}}), "tls.mode"),
            (json!({"tls": "disabled"}), "tls"),
            (json!({"envoy": {"usedOnly": 1}}), "envoy.usedOnly"),
            (
                json!({"aggregate": [{}, {"enabled": "false"}]}),
                "aggregate[1].enabled",
            ),
            (json!({"aggregate": {"name": "x"}}), "aggregate"),
        ] {
            assert_eq!(PrometheusConf::parse(&conf).unwrap_err().field, path);
        }
        assert!(PrometheusConf::parse(&json!([])).is_err());
    }
}
