//! The defaults that are written into a Mesh when it is stored.
//! Called by the webhook's `/default` only: everyone else gets the same values from `merge`, in memory. It judges
//! nothing: what it cannot read stays as it is, for `validate` to report.

use serde_json::{Map, Value, json};

use crate::conf::{PROMETHEUS, PrometheusConf};
use crate::settings::MetricsTls;
use crate::{names, ports};

/// Completes every prometheus backend of a Mesh's spec. Doing it twice is doing it once.
pub fn mesh(spec: &mut Value) {
    let backends = spec
        .pointer_mut("/metrics/backends")
        .and_then(Value::as_array_mut);
    for backend in backends
        .into_iter()
        .flatten()
        .filter_map(Value::as_object_mut)
    {
        if backend.get("type").and_then(Value::as_str) == Some(PROMETHEUS) {
            prometheus(backend);
        }
    }
}

fn prometheus(backend: &mut Map<String, Value>) {
    let conf = backend.entry("conf").or_insert(Value::Null);
    if conf.is_null() {
        *conf = json!({});
    }
    let Ok(read) = PrometheusConf::parse(conf) else {
        return;
    };
    let Some(conf) = conf.as_object_mut() else {
        return;
    };
    if read.port.is_none() {
        conf.insert("port".into(), ports::METRICS.into());
    }
    if read.path.is_none_or(|path| path.is_empty()) {
        conf.insert("path".into(), ports::METRICS_PATH.into());
    }
    if read.tags.is_empty() {
        conf.insert(
            "tags".into(),
            json!({ names::SERVICE_TAG: names::METRICS_SERVICE }),
        );
    }
    match (read.skip_mtls, read.tls) {
        (Some(_), Some(MetricsTls::ProvidedTls)) => {
            conf.remove("skipMTLS");
        }
        (skip, None) => {
            let mode = if skip == Some(true) {
                MetricsTls::Disabled
            } else {
                MetricsTls::ActiveMtlsBackend
            };
            conf.insert("tls".into(), json!({ "mode": mode }));
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mesh::MeshSpec;

    fn defaulted(conf: Value) -> Value {
        let mut spec =
            json!({"metrics": {"backends": [{"name": "p", "type": "prometheus", "conf": conf}]}});
        mesh(&mut spec);
        let once = spec.clone();
        mesh(&mut spec);
        assert_eq!(spec, once);
        spec["metrics"]["backends"][0]["conf"].take()
    }

    #[test]
    fn a_bare_backend_gets_the_long_form_of_the_page() {
        let mut spec = MeshSpec::initial().0;
        mesh(&mut spec);
        assert_eq!(
            spec["metrics"]["backends"][0]["conf"],
            json!({
                "port": 5670,
                "path": "/metrics",
                "tags": {"kuma.io/service": "dataplane-metrics"},
                "tls": {"mode": "activeMTLSBackend"}
            })
        );
    }

    #[test]
    fn what_is_there_stays() {
        let conf = json!({
            "port": "1", "path": "/p", "tags": {"a": "b"}, "tls": {}, "aggregate": [{"name": "a"}], "new": {"x": 1}
        });
        assert_eq!(defaulted(conf.clone()), conf);
    }

    #[test]
    fn the_older_spelling_is_translated() {
        assert_eq!(
            defaulted(json!({"skipMTLS": true}))["tls"],
            json!({"mode": "disabled"})
        );
        assert_eq!(
            defaulted(json!({"skipMTLS": false}))["tls"],
            json!({"mode": "activeMTLSBackend"})
        );
        let provided = defaulted(json!({"skipMTLS": false, "tls": {"mode": "providedTLS"}}));
        assert_eq!(provided["tls"], json!({"mode": "providedTLS"}));
        assert_eq!(provided.get("skipMTLS"), None);
    }

    #[test]
    fn what_cannot_be_read_is_left_to_be_reported() {
        for conf in [json!({"port": "80`"}), json!([1]), json!("x")] {
            assert_eq!(defaulted(conf.clone()), conf);
        }
        for mut spec in [
            json!(null),
            json!([]),
            json!({"metrics": 1}),
            json!({"metrics": {"backends": [1, {}]}}),
        ] {
            let before = spec.clone();
            mesh(&mut spec);
            assert_eq!(spec, before);
        }
    }
}
