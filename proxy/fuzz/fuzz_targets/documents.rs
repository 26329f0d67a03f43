//! What users and the webhook write: Universal documents, annotations, the settings document
//! and the list of probes. Whatever is accepted survives being written and read again.
//!
//! Run by `cargo +nightly fuzz run documents`.
#![no_main]

use std::collections::BTreeMap;

use libfuzzer_sys::arbitrary::{self, Arbitrary};
use libfuzzer_sys::fuzz_target;
use weir_crds::merge::MetricsOverride;
use weir_crds::settings::Settings;
use weir_crds::universal::Document;
use weir_crds::{annotations, merge, probe, universal};

#[derive(Arbitrary, Debug)]
enum Input<'a> {
    Universal(&'a str),
    Annotations(&'a str, Vec<(&'a str, &'a str)>),
    Settings(&'a str),
    Probes(&'a str),
}

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

fuzz_target!(|input: Input| {
    match input {
        Input::Universal(text) => universal(text, None),
        Input::Annotations(mesh, pairs) => {
            let pairs: BTreeMap<String, String> = pairs
                .into_iter()
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
        Input::Settings(text) => {
            if let Ok(settings) = Settings::parse(text) {
                let again = Settings::parse(&settings.to_json());
                assert_eq!(again.ok(), Some(settings));
            }
        }
        Input::Probes(text) => {
            if let Ok(probes) = probe::parse(text) {
                let again = probe::parse(&probe::to_json(&probes));
                assert_eq!(again.ok(), Some(probes));
            }
        }
    }
});
