//! What holds for every input: nothing panics, the merge is total and always usable, defaults change no meaning, and
//! a document means the same wherever its content stands.

use std::collections::BTreeMap;

use proptest::prelude::*;
use serde_json::{Value, json};
use weir_crds::conf::PrometheusConf;
use weir_crds::dataplane::DataplaneSpec;
use weir_crds::merge::{MetricsOverride, OverrideSource};
use weir_crds::mesh::MeshSpec;
use weir_crds::settings::{MetricsSettings, Settings};
use weir_crds::traffic_permission::TrafficPermissionSpec;
use weir_crds::{annotations, default, merge, universal, validate};

/// The field names that mean something, and one that does not.
const KEYS: [&str; 24] = [
    "metrics",
    "enabledBackend",
    "backends",
    "name",
    "type",
    "conf",
    "port",
    "path",
    "tags",
    "skipMTLS",
    "tls",
    "mode",
    "envoy",
    "filterRegex",
    "usedOnly",
    "aggregate",
    "enabled",
    "mtls",
    "dpCert",
    "rotation",
    "networking",
    "inbound",
    "sources",
    "other",
];

fn scalar() -> impl Strategy<Value = Value> {
    prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        (0..70_000_u32).prop_map(Value::from),
        prop::sample::select(vec![
            "prometheus",
            "p",
            "",
            "/x",
            "80",
            "80`",
            "a(",
            "disabled",
            "STRICT"
        ])
        .prop_map(Value::from),
        ".{0,12}".prop_map(Value::from),
    ]
}

/// Any JSON, often with the names that mean something.
fn anything() -> impl Strategy<Value = Value> {
    scalar().prop_recursive(6, 64, 5, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::btree_map(prop::sample::select(KEYS.to_vec()), inner, 0..5).prop_map(
                |map| map
                    .into_iter()
                    .map(|(key, value)| (key.to_owned(), value))
                    .collect()
            ),
        ]
    })
}

/// A `conf` whose fields have the right types and any value, absent ones included.
fn conf() -> impl Strategy<Value = Value> {
    let entry = (
        prop::sample::select(vec!["a", "b", "c", ""]),
        prop::option::of(0..70_000_u32),
        prop::option::of(prop::sample::select(vec!["", "/x", "x"])),
        prop::option::of(any::<bool>()),
        prop::option::of(prop::sample::select(vec!["", "127.0.0.1"])),
    );
    let entry = entry.prop_map(|(name, port, path, enabled, address)| {
        json!({"name": name, "port": port, "path": path, "enabled": enabled, "address": address})
    });
    (
        prop::option::of(0..70_000_u32),
        prop::option::of(prop::sample::select(vec!["", "/a", "/b", "bad"])),
        prop::option::of(prop::collection::btree_map("[a-c]", "[x-z]", 0..3)),
        prop::option::of(any::<bool>()),
        prop::option::of(prop::sample::select(vec![
            "activeMTLSBackend",
            "providedTLS",
            "disabled",
        ])),
        (
            prop::option::of(prop::sample::select(vec!["", "tcp_.*"])),
            prop::option::of(any::<bool>()),
        ),
        prop::collection::vec(entry, 0..4),
    )
        .prop_map(
            |(port, path, tags, skip, mode, (filter, used), aggregate)| {
                json!({
                    "port": port, "path": path, "tags": tags, "skipMTLS": skip,
                    "tls": mode.map(|mode| json!({ "mode": mode })),
                    "envoy": {"filterRegex": filter, "usedOnly": used},
                    "aggregate": aggregate,
                })
            },
        )
}

fn mesh(conf: &Value) -> MeshSpec {
    let backend = json!({"name": "p", "type": "prometheus", "conf": conf});
    MeshSpec(json!({"metrics": {"enabledBackend": "p", "backends": [backend]}}))
}

fn over(conf: &Value) -> MetricsOverride {
    MetricsOverride {
        conf: PrometheusConf::parse(conf).expect("the strategy makes only right types"),
        source: OverrideSource::Dataplane,
    }
}

fn merged(base: &Value, above: &Value) -> MetricsSettings {
    let settings = merge::settings("m", &mesh(base), Some(&over(above)));
    settings
        .metrics
        .expect("the backend is enabled and its conf can be typed")
}

/// The lines of a text as YAML 1.1 counts them (section 4.1.4: CR, LF, both, NEL, LS and PS), the one
/// behind its last break included.
fn lines(text: &str) -> usize {
    let breaks = text.replace("\r\n", "\n");
    let is_break = |c: &char| matches!(c, '\r' | '\n' | '\u{85}' | '\u{2028}' | '\u{2029}');
    breaks.chars().filter(is_break).count() + 1
}

#[test]
fn a_carriage_return_alone_ends_a_line() {
    let documents = universal::documents("- \r\"\n\r0\n");
    let said = format!("{:?}", documents[0].as_ref().expect_err("a quote is open"));
    assert!(said.contains("Position { line: 5, column: 1 }"), "{said}");
}

proptest! {
    #[test]
    fn a_merge_is_always_usable(base in conf(), above in conf()) {
        let settings = merge::settings("m", &mesh(&base), Some(&over(&above)));
        prop_assert_eq!(Settings::parse(&settings.to_json()).expect("own documents are read"), settings.clone());
        let metrics = settings.metrics.expect("metrics are on");
        prop_assert!(metrics.port != 0 && metrics.path.starts_with('/') && !metrics.tags.is_empty());
        prop_assert!(metrics.filter.as_deref() != Some(""));
        let mut names: Vec<&str> = metrics.aggregate.iter().map(|entry| entry.name.as_str()).collect();
        names.sort_unstable();
        let before = names.len();
        names.dedup();
        prop_assert_eq!(names.len(), before);
        for entry in &metrics.aggregate {
            prop_assert!(entry.port != 0 && entry.path.starts_with('/') && !entry.name.is_empty());
            prop_assert!(entry.address.as_deref() != Some(""));
        }
    }

    #[test]
    fn what_an_override_says_wins(base in conf(), above in conf()) {
        let said = over(&above).conf;
        let result = merged(&base, &above);
        if let Some(port) = said.port.filter(|port| (1..=65_535).contains(port)) {
            prop_assert_eq!(u32::from(result.port), port);
        }
        if let Some(path) = said.path.as_deref().filter(|path| path.starts_with('/')) {
            prop_assert_eq!(&result.path, path);
        }
        if let Some(mode) = said.tls_mode() {
            prop_assert_eq!(result.tls, mode);
        }
        if let Some(used) = said.used_only {
            prop_assert_eq!(result.used_only, used);
        }
        if let Some(filter) = &said.filter_regex {
            prop_assert_eq!(result.filter.unwrap_or_default(), filter.as_str());
        }
        for (tag, value) in &said.tags {
            prop_assert_eq!(result.tags.get(tag), Some(value));
        }
    }

    #[test]
    fn what_an_override_leaves_out_is_the_meshs(base in conf()) {
        let alone = merge::settings("m", &mesh(&base), None).metrics;
        prop_assert_eq!(Some(merged(&base, &json!({}))), alone);
        prop_assert_eq!(merged(&base, &base), merged(&base, &json!({})));
    }

    #[test]
    fn stored_defaults_change_no_meaning(base in conf(), above in conf()) {
        let mut stored = mesh(&base);
        default::mesh(&mut stored.0);
        let over = over(&above);
        prop_assert_eq!(
            merge::settings("m", &stored, Some(&over)),
            merge::settings("m", &mesh(&base), Some(&over))
        );
    }

    #[test]
    fn what_validates_is_used_as_written(base in conf()) {
        prop_assume!(validate::mesh(&mesh(&base).0).is_empty());
        let conf = over(&base).conf;
        let result = merged(&base, &json!({}));
        prop_assert_eq!(u32::from(result.port), conf.port.unwrap_or(5670));
        let usable = conf.aggregate.iter().filter(|entry| entry.enabled != Some(false) && entry.port.is_some());
        prop_assert_eq!(result.aggregate.len(), usable.count());
    }

    #[test]
    fn no_value_panics(value in anything()) {
        let mut stored = value.clone();
        default::mesh(&mut stored);
        let once = stored.clone();
        default::mesh(&mut stored);
        prop_assert_eq!(&stored, &once);
        for rule in [validate::mesh, validate::dataplane, validate::traffic_permission, validate::container_patch] {
            for violation in rule(&value) {
                prop_assert!(!violation.message.is_empty());
            }
        }
        let _ = merge::settings("m", &MeshSpec(value.clone()), None);
        let _ = merge::settings("m", &mesh(&value), None);
        let _ = DataplaneSpec(value.clone()).networking();
        let _ = DataplaneSpec(value.clone()).metrics_override();
        let _ = TrafficPermissionSpec(value).sources();
    }

    #[test]
    fn no_text_panics_and_every_place_is_in_it(text in "(type: (Mesh|Dataplane)\n)?([ -]{0,3}[a-z{}\\[\\]:&*!|>'\"#0-9]{0,6}:? ?.{0,4}\n){0,8}") {
        for document in universal::documents(&text) {
            for error in document.err().into_iter().flatten() {
                let (universal::UniversalError::Syntax { at, .. } | universal::UniversalError::Invalid { at, .. }) = error;
                if let Some(at) = at {
                    prop_assert!((1..=lines(&text)).contains(&at.line), "{} in {:?}", at, text);
                }
            }
        }
    }

    #[test]
    fn a_document_means_the_same_at_the_top_and_below_spec(conf in conf()) {
        let metrics = mesh(&conf).0;
        let mut at_top = json!({"type": "Mesh", "name": "m"});
        at_top["metrics"] = metrics["metrics"].clone();
        let below = json!({"type": "Mesh", "name": "m", "spec": metrics});
        // JSON is YAML.
        match (universal::parse(&at_top.to_string()), universal::parse(&below.to_string())) {
            (Ok(top), Ok(below)) => prop_assert_eq!(top, below),
            (Err(top), Err(below)) => {
                let without_place = |error: &universal::UniversalError| match error {
                    universal::UniversalError::Invalid { violation, at } => {
                        assert!(at.is_some(), "{error}");
                        violation.to_string()
                    }
                    other => other.to_string(),
                };
                let top: Vec<String> = top.iter().map(|error| format!("spec.{}", without_place(error))).collect();
                let below: Vec<String> = below.iter().map(without_place).collect();
                prop_assert_eq!(top, below);
            }
            (top, below) => prop_assert!(false, "{:?} but {:?}", top, below),
        }
    }

    #[test]
    fn annotations_are_read_or_named(
        pairs in prop::collection::btree_map("(port|path|aggregate-[a-c-]{1,3}-(port|path|enabled|address|prot))", ".{0,6}|[0-9]{1,6}|/[a-z]|true", 0..5)
    ) {
        let pod: BTreeMap<String, String> =
            pairs.into_iter().map(|(key, value)| (format!("prometheus.metrics.kuma.io/{key}"), value)).collect();
        match annotations::metrics_override(&pod) {
            Ok(over) => {
                let settings = merge::settings("m", &MeshSpec::initial(), Some(&over)).metrics.expect("metrics are on");
                let missing = merge::check(&MeshSpec::initial(), &over).len();
                let enabled = over.conf.aggregate.iter().filter(|entry| entry.enabled != Some(false)).count();
                prop_assert_eq!(settings.aggregate.len() + missing, enabled);
            }
            Err(violations) => {
                prop_assert!(!violations.is_empty());
                for violation in violations {
                    prop_assert!(pod.contains_key(&violation.field), "{}", violation);
                }
            }
        }
    }
}
