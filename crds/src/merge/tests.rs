//! What each level of the merge decides, as tables.

use serde_json::{Value, json};

use super::*;
use crate::settings::{MetricsTls, MtlsMode};

fn mesh(conf: Value) -> MeshSpec {
    let backend = json!({"name": "prometheus-1", "type": "prometheus", "conf": conf});
    MeshSpec(json!({"metrics": {"enabledBackend": "prometheus-1", "backends": [backend]}}))
}

fn over(conf: Value) -> MetricsOverride {
    MetricsOverride {
        conf: PrometheusConf::parse(&conf).unwrap(),
        source: OverrideSource::Dataplane,
    }
}

fn merged(base: Value, above: Value) -> MetricsSettings {
    settings("default", &mesh(base), Some(&over(above)))
        .metrics
        .unwrap()
}

#[test]
fn a_bare_backend_has_the_defaults_of_the_page() {
    let settings = settings("default", &MeshSpec::initial(), None);
    assert_eq!(settings.mtls, MtlsMode::Disabled);
    assert_eq!(
        settings.metrics.unwrap(),
        MetricsSettings {
            port: 5670,
            path: "/metrics".into(),
            tags: BTreeMap::from([("kuma.io/service".into(), "dataplane-metrics".into())]),
            permission: None,
            tls: MetricsTls::ActiveMtlsBackend,
            filter: None,
            used_only: false,
            aggregate: vec![],
        }
    );
}

#[test]
fn what_an_override_decided_is_known() {
    let conf = json!({"path": "/mine", "port": 70_000, "tls": {}, "envoy": {"filterRegex": ""}});
    let decided = settings("m", &mesh(json!({"port": 1})), Some(&over(conf))).overridden;
    let fields: Vec<_> = decided.iter().map(|(field, by)| (&**field, *by)).collect();
    let by = OverrideSource::Dataplane;
    assert_eq!(fields, [("filter", by), ("path", by), ("tls", by)]);
    assert!(settings("m", &mesh(json!({})), None).overridden.is_empty());
}

#[test]
fn without_an_enabled_backend_an_override_means_nothing() {
    let off = MeshSpec(json!({"metrics": {"backends": [{"name": "a", "type": "prometheus"}]}}));
    assert_eq!(
        settings("m", &off, Some(&over(json!({"port": 1})))),
        Settings::without_metrics("m")
    );
}

#[test]
fn a_conf_that_cannot_be_typed_closes_the_endpoint() {
    let broken = mesh(json!({"port": "80`", "tls": {"mode": "providedTLS"}}));
    assert_eq!(settings("m", &broken, None).metrics, None);
}

#[test]
fn the_override_sets_any_value_back() {
    let base = json!({
        "port": 1, "path": "/mesh", "tls": {"mode": "disabled"},
        "envoy": {"filterRegex": "a", "usedOnly": true},
        "aggregate": [{"name": "a", "port": 1, "address": "10.0.0.1", "enabled": false}]
    });
    let result = merged(
        base,
        json!({
            "port": 2, "path": "/over", "tls": {"mode": "activeMTLSBackend"},
            "envoy": {"filterRegex": "", "usedOnly": false},
            "aggregate": [{"name": "a", "address": "", "enabled": true}]
        }),
    );
    assert_eq!(
        (result.port, result.path.as_str(), result.tls),
        (2, "/over", MetricsTls::ActiveMtlsBackend)
    );
    assert_eq!((result.filter, result.used_only), (None, false));
    let entry = Aggregate {
        name: "a".into(),
        port: 1,
        path: "/metrics".into(),
        address: None,
    };
    assert_eq!(result.aggregate, [entry]);
}

#[test]
fn the_mode_is_the_most_specific_levels() {
    for (base, above, expected) in [
        (
            json!({"tls": {"mode": "disabled"}}),
            json!({"skipMTLS": false}),
            MetricsTls::ActiveMtlsBackend,
        ),
        (
            json!({"tls": {"mode": "activeMTLSBackend"}}),
            json!({"skipMTLS": true}),
            MetricsTls::Disabled,
        ),
        (
            json!({"skipMTLS": true}),
            json!({"tls": {}}),
            MetricsTls::ActiveMtlsBackend,
        ),
        (json!({"skipMTLS": true}), json!({}), MetricsTls::Disabled),
        (
            json!({"tls": {"mode": "providedTLS"}}),
            json!({"port": 1}),
            MetricsTls::ProvidedTls,
        ),
    ] {
        assert_eq!(
            merged(base.clone(), above.clone()).tls,
            expected,
            "{base} {above}"
        );
    }
}

#[test]
fn applications_merge_by_name_and_field() {
    let base = json!({"aggregate": [
        {"name": "my-service", "path": "/metrics/prometheus", "port": 8888},
        {"name": "other-sidecar", "port": 8000},
        {"name": "only-path", "path": "/p"}
    ]});
    let result = merged(
        base,
        json!({"aggregate": [
            {"name": "application", "port": 80, "path": "/stats"},
            {"name": "only-path", "port": 9},
            {"name": "other-sidecar", "port": 1234, "address": "127.0.0.1"},
            {"name": "my-service", "enabled": false}
        ]}),
    );
    let entry = |name: &str, port, path: &str, address: Option<&str>| Aggregate {
        name: name.into(),
        port,
        path: path.into(),
        address: address.map(Into::into),
    };
    assert_eq!(
        result.aggregate,
        [
            entry("other-sidecar", 1234, "/metrics", Some("127.0.0.1")),
            entry("only-path", 9, "/p", None),
            entry("application", 80, "/stats", None),
        ]
    );
}

#[test]
fn tags_merge_by_key() {
    let tags = |base, above| merged(json!({ "tags": base }), json!({ "tags": above })).tags;
    let expected = |pairs: &[(&str, &str)]| -> BTreeMap<String, String> {
        pairs
            .iter()
            .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
            .collect()
    };
    assert_eq!(
        tags(json!({"a": "1", "b": "2"}), json!({"b": "3"})),
        expected(&[("a", "1"), ("b", "3")])
    );
    let kept = expected(&[("a", "1"), ("kuma.io/service", "dataplane-metrics")]);
    assert_eq!(tags(json!({}), json!({"a": "1"})), kept);
}

#[test]
fn values_that_cannot_be_used_count_as_absent() {
    let result = merged(
        json!({"port": 70000, "path": "mesh", "aggregate": [{"name": "a", "port": 7, "path": "x"}, {"name": "b"}]}),
        json!({"port": 0, "path": "", "aggregate": [{"name": "a", "port": 0}, {"port": 1}]}),
    );
    assert_eq!((result.port, result.path.as_str()), (5670, "/metrics"));
    let entry = Aggregate {
        name: "a".into(),
        port: 7,
        path: "/metrics".into(),
        address: None,
    };
    assert_eq!(result.aggregate, [entry]);
}

#[test]
fn an_application_that_has_no_port_anywhere_is_named_in_the_users_words() {
    let base = mesh(json!({"aggregate": [{"name": "with", "port": 1}, {"name": "without"}]}));
    let conf = json!({"aggregate": [
        {"name": "with", "path": "/x"}, {"name": "off", "enabled": false}, {"name": "new", "path": "/x"}
    ]});
    let dataplane = over(conf);
    let field = |over: &MetricsOverride| -> Vec<String> {
        check(&base, over).iter().map(ToString::to_string).collect()
    };
    let message = "port needs to be specified for metrics scraping";
    assert_eq!(
        field(&dataplane),
        [format!("metrics.conf.aggregate[2].port: {message}")]
    );
    let pod = MetricsOverride {
        source: OverrideSource::Annotations,
        ..dataplane
    };
    assert_eq!(
        field(&pod),
        [format!(
            "prometheus.metrics.kuma.io/aggregate-new-port: {message}"
        )]
    );
    assert!(check(&MeshSpec::default(), &pod).is_empty());
}

#[test]
fn a_mesh_is_warned_of_applications_that_wait_for_a_port() {
    let entries = json!([{"name": "a", "port": 1}, {"name": "b"}, {"name": "c", "enabled": false}]);
    let spec = MeshSpec(json!({"metrics": {"enabledBackend": "p", "backends": [
        {"name": "other", "type": "prometheus"},
        {"name": "p", "type": "prometheus", "conf": {"aggregate": entries}}
    ]}}));
    let texts: Vec<String> = warnings(&spec).iter().map(ToString::to_string).collect();
    let expected = "metrics.backends[1].conf.aggregate[1].port: port needs to be specified for metrics scraping";
    assert_eq!(texts, [expected]);
    assert!(warnings(&MeshSpec::initial()).is_empty());
}
