//! Every example of the Kuma page, as the product reads it: what is accepted, and the settings that come of it.
//! The inputs are the page's YAML blocks without their comments; of the two Deployments, which are no YAML, the
//! annotations. The one misprint is refused with its place.

#![allow(
    clippy::unwrap_used,
    reason = "the helpers of these tests fail the test"
)]

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde_json::Value;
use weir_crds::container_patch::ContainerPatchSpec;
use weir_crds::mesh::MeshSpec;
use weir_crds::traffic_permission::TrafficPermissionSpec;
use weir_crds::universal::{self, Document};
use weir_crds::violation::joined;
use weir_crds::{annotations, default, merge, validate};

/// Examples of each kind of input; a block that the page prints twice is here once.
const KUBERNETES: usize = 12;
const UNIVERSAL: usize = 13;
const ANNOTATIONS: usize = 2;
/// The one that is refused.
const MISPRINT: &str = "dataplane-aggregate-misprint";

fn fixtures(kind: &str) -> Vec<(String, String)> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/page")
        .join(kind);
    let mut files: Vec<PathBuf> = fs::read_dir(directory)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    files.sort();
    let read = |path: PathBuf| {
        let name = path.file_stem().unwrap().to_str().unwrap().to_owned();
        (name, fs::read_to_string(&path).unwrap())
    };
    files.into_iter().map(read).collect()
}

fn fixture(kind: &str, name: &str) -> String {
    let found = fixtures(kind).into_iter().find(|(file, _)| file == name);
    found
        .unwrap_or_else(|| panic!("no example {kind}/{name}"))
        .1
}

fn pretty(value: &impl serde::Serialize) -> String {
    serde_json::to_string_pretty(value).unwrap()
}

/// The Mesh under which the page's overrides stand.
fn aggregating_mesh() -> MeshSpec {
    match universal::parse(&fixture("universal", "mesh-aggregate-tls"))
        .unwrap()
        .remove(0)
    {
        Document::Mesh(mesh) => mesh.spec,
        other => panic!("{other:?}"),
    }
}

/// What a Kubernetes object means, after the webhook's steps: default, then validate.
fn kubernetes(object: &mut Value) -> String {
    let kind = object["kind"].as_str().unwrap().to_owned();
    let spec = &mut object["spec"];
    let (violations, meaning) = match kind.as_str() {
        "Mesh" => {
            default::mesh(spec);
            let settings = merge::settings("default", &MeshSpec(spec.clone()), None);
            (validate::mesh(spec), pretty(&settings))
        }
        "TrafficPermission" => {
            let permission = TrafficPermissionSpec(spec.clone());
            let meaning = format!(
                "{:?} -> {:?}",
                permission.sources(),
                permission.destinations()
            );
            (validate::traffic_permission(spec), meaning)
        }
        "ContainerPatch" => {
            let patch = ContainerPatchSpec(spec.clone()).sidecar_patch();
            (validate::container_patch(spec), format!("{patch:#?}"))
        }
        other => panic!("no such kind {other}"),
    };
    assert_eq!(joined(&violations), "");
    format!("{kind}\n{meaning}")
}

#[test]
fn kubernetes_examples() {
    let fixtures = fixtures("kubernetes");
    assert_eq!(fixtures.len(), KUBERNETES);
    for (name, text) in fixtures {
        let meanings: Vec<String> = serde_yaml::Deserializer::from_str(&text)
            .map(|source| kubernetes(&mut Value::deserialize(source).unwrap()))
            .collect();
        insta::assert_snapshot!(format!("kubernetes_{name}"), meanings.join("\n"));
    }
}

/// What a Universal document means.
fn universal_meaning(document: Document) -> String {
    match document {
        Document::Mesh(mesh) => pretty(&merge::settings(&mesh.name, &mesh.spec, None)),
        Document::Dataplane(dataplane) => {
            assert_eq!(dataplane.spec.networking(), Ok(None));
            let over = dataplane.spec.metrics_override().unwrap().unwrap();
            assert_eq!(merge::check(&aggregating_mesh(), &over), []);
            pretty(&merge::settings(
                &dataplane.mesh,
                &aggregating_mesh(),
                Some(&over),
            ))
        }
        Document::TrafficPermission(permission) => {
            let spec = permission.spec;
            format!(
                "{}: {:?} -> {:?}",
                permission.name,
                spec.sources(),
                spec.destinations()
            )
        }
    }
}

#[test]
fn universal_examples() {
    let fixtures = fixtures("universal");
    assert_eq!(fixtures.len(), UNIVERSAL + 1);
    for (name, text) in fixtures.into_iter().filter(|(name, _)| name != MISPRINT) {
        let documents =
            universal::parse(&text).unwrap_or_else(|errors| panic!("{name}: {errors:?}"));
        let meanings: Vec<String> = documents.into_iter().map(universal_meaning).collect();
        insta::assert_snapshot!(format!("universal_{name}"), meanings.join("\n"));
    }
}

#[test]
fn the_misprint_is_refused_with_its_place() {
    let text = fixture("universal", MISPRINT);
    let errors = universal::parse(&text).unwrap_err();
    let line = text.lines().position(|line| line.contains('`')).unwrap() + 1;
    let column = text.lines().nth(line - 1).unwrap().find("80`").unwrap() + 1;
    let texts: Vec<String> = errors.iter().map(ToString::to_string).collect();
    assert_eq!(
        texts,
        [format!(
            "line {line} column {column}: metrics.conf: could not parse config: aggregate[2].port: \
             expected a whole number from 0 to 4294967295, found \"80`\""
        )]
    );
}

#[test]
fn annotation_examples() {
    let fixtures = fixtures("annotations");
    assert_eq!(fixtures.len(), ANNOTATIONS);
    for (name, text) in fixtures {
        let pod: BTreeMap<String, String> = serde_yaml::from_str(&text).unwrap();
        let over = annotations::metrics_override(&pod).unwrap();
        assert_eq!(merge::check(&aggregating_mesh(), &over), []);
        assert!(annotations::unknown(&pod).is_empty());
        let settings = merge::settings("default", &aggregating_mesh(), Some(&over));
        insta::assert_snapshot!(format!("annotations_{name}"), pretty(&settings));
    }
}

#[test]
fn the_long_forms_of_the_page_mean_what_the_short_one_means() {
    let settings = |name: &str| {
        let Document::Mesh(mesh) = universal::parse(&fixture("universal", name))
            .unwrap()
            .remove(0)
        else {
            panic!("{name} is no Mesh");
        };
        merge::settings(&mesh.name, &mesh.spec, None)
    };
    assert_eq!(settings("mesh-short"), settings("mesh-long-tls"));
    assert_eq!(settings("mesh-short"), settings("mesh-long-skip-mtls"));
}
