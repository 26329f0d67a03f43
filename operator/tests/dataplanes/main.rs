//! The Dataplanes of pods beside the pods: `<case>.given.yaml` has a Pod and what is around it, `<case>.dataplane.yaml`
//! what the operator applies. `WEIR_WRITE_GOLDEN=1` writes the latter anew.

#![allow(clippy::unwrap_used, reason = "what fails here fails the test")]

mod decisions;

use std::path::{Path, PathBuf};

use jiff::Timestamp;
use serde::Deserialize;
use serde_json::Value;
use weir_operator::index::{Dataplane, Discovery, Indexed, Ingredients, ObjectKey};
use weir_operator::reconcile::{DataplaneChange, dataplane_change};

/// A cluster on paper and the pod that matters.
pub(crate) struct Given {
    pub(crate) index: Discovery,
    pub(crate) pod: ObjectKey,
}

impl Given {
    pub(crate) fn read(documents: &[Value]) -> Self {
        let mut index = Discovery::default();
        let mut pod = None;
        for document in documents {
            pod = apply(&mut index, document.clone()).or(pod);
        }
        Self {
            index,
            pod: pod.expect("one of the documents is a Pod"),
        }
    }

    pub(crate) fn ingredients(&self) -> Ingredients {
        self.index.ingredients(&self.pod)
    }

    pub(crate) fn change(&self, zone: Option<&str>) -> DataplaneChange {
        dataplane_change(&self.ingredients(), zone, now())
    }
}

pub(crate) fn now() -> Timestamp {
    "2026-11-27T10:00:00Z".parse().unwrap()
}

/// Tells the index of an object; the key of a Pod.
pub(crate) fn apply(index: &mut Discovery, object: Value) -> Option<ObjectKey> {
    let kind = object["kind"].as_str().unwrap().to_owned();
    match kind.as_str() {
        "Pod" => {
            let pod = index.keep_pod(serde_json::from_value(object).unwrap());
            let key = pod.workload.pod.clone();
            index.apply(pod);
            return Some(key);
        }
        "Service" => {
            let service = index.keep_service(serde_json::from_value(object).unwrap());
            index.apply(service);
        }
        "Node" => {
            let node = index.keep_node(&serde_json::from_value(object).unwrap());
            index.apply(node);
        }
        "Mesh" => index.apply(serde_json::from_value::<weir_crds::Mesh>(object).unwrap()),
        "Dataplane" => {
            let dataplane: weir_crds::Dataplane = serde_json::from_value(object).unwrap();
            index.apply(Dataplane::keep(&dataplane));
        }
        other => panic!("{other}"),
    }
    None
}

pub(crate) fn documents(text: &str) -> Vec<Value> {
    let documents = serde_yaml::Deserializer::from_str(text);
    documents
        .map(|document| Value::deserialize(document).unwrap())
        .collect()
}

fn cases() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/dataplanes");
    let files = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path());
    let is_given = |path: &PathBuf| path.to_string_lossy().ends_with(".given.yaml");
    let mut cases: Vec<PathBuf> = files.filter(is_given).collect();
    cases.sort();
    cases
}

#[test]
fn every_pod_has_the_dataplane_beside_it() {
    let cases = cases();
    assert!(!cases.is_empty());
    for path in cases {
        let given = Given::read(&documents(&std::fs::read_to_string(&path).unwrap()));
        let found = match given.change(Some("zone-1")) {
            DataplaneChange::Apply(object) => object,
            other => panic!("{}: {other:?}", path.display()),
        };
        let golden = path.to_string_lossy().replace(".given.", ".dataplane.");
        if std::env::var_os("WEIR_WRITE_GOLDEN").is_some() {
            std::fs::write(&golden, serde_yaml::to_string(&found).unwrap()).unwrap();
        }
        let wanted = documents(&std::fs::read_to_string(&golden).unwrap());
        assert_eq!([found], wanted[..], "{golden}");
    }
}
