//! What users and the webhook write: Universal documents, annotations, the settings document
//! and the list of probes. Whatever is accepted survives being written and read again.
//!
//! The input: one byte with the kind, and text; of annotations the first lines are `key=value`, up
//! to an empty one, and the rest is a Mesh. Run by the fuzzer, and by `tests/corpora` on what is in
//! `corpus`.

use std::collections::BTreeMap;

use weir_crds::merge::MetricsOverride;
use weir_crds::settings::Settings;
use weir_crds::universal::Document;
use weir_crds::{annotations, merge, probe, universal};

fn merged(mesh: &universal::Entry<weir_crds::mesh::MeshSpec>, over: Option<&MetricsOverride>) {
    let settings = merge::settings(&mesh.mesh, &mesh.spec, over);
    let again = Settings::parse(&settings.to_json());
    assert_eq!(again.ok(), Some(settings));
}

fn universal(text: &str, over: Option<&MetricsOverride>) {
    for document in universal::parse(text).unwrap_or_default() {
        match document {
            Document::Mesh(mesh) => merged(&mesh, over),
            Document::Dataplane(dataplane) => {
                dataplane
                    .spec
                    .networking()
                    .expect("what was accepted can be read");
                dataplane
                    .spec
                    .metrics_override()
                    .expect("what was accepted can be read");
            }
            _ => {}
        }
    }
}

fn annotated(text: &str) {
    let (pairs, mesh) = text.split_once("\n\n").unwrap_or((text, ""));
    let pairs: BTreeMap<String, String> = pairs
        .lines()
        .filter_map(|line| line.split_once('='))
        .map(|(key, value)| {
            (
                format!("prometheus.metrics.kuma.io/{key}"),
                value.to_owned(),
            )
        })
        .collect();
    if let Ok(over) = annotations::metrics_override(&pairs) {
        assert!(annotations::unknown(&pairs).len() <= pairs.len());
        universal(mesh, Some(&over));
    }
}

pub(crate) fn run(data: &[u8]) {
    let Some((kind, text)) = data.split_first() else {
        return;
    };
    let Ok(text) = std::str::from_utf8(text) else {
        return;
    };
    match kind % 4 {
        0 => universal(text, None),
        1 => annotated(text),
        2 => {
            if let Ok(settings) = Settings::parse(text) {
                let again = Settings::parse(&settings.to_json());
                assert_eq!(again.ok(), Some(settings));
            }
        }
        _ => {
            if let Ok(probes) = probe::parse(text) {
                let again = probe::parse(&probe::to_json(&probes));
                assert_eq!(again.ok(), Some(probes));
            }
        }
    }
}
