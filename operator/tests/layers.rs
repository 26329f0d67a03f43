//! Which module may use which: the map of `lib.rs`, held by a test so that it stays true.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

/// Each module and the modules of ours that it may name.
const ALLOWED: [(&str, &[&str]); 23] = [
    (
        "app",
        &[
            "apply",
            "ca",
            "documents",
            "health",
            "index",
            "leader",
            "mesh_ca",
            "metrics",
            "monitoring",
            "serve",
            "state",
            "status",
            "token",
            "watch",
            "workload",
        ],
    ),
    (
        "apply",
        &[
            "backoff",
            "call",
            "events",
            "index",
            "metrics",
            "object",
            "passes",
            "reconcile",
        ],
    ),
    ("backoff", &[]),
    ("ca", &["backoff", "metrics", "object", "state"]),
    ("call", &[]),
    (
        "config",
        &[
            "app",
            "ca",
            "documents",
            "index",
            "leader",
            "metrics",
            "serve",
            "token",
        ],
    ),
    ("documents", &["health", "index", "metrics", "workload"]),
    ("events", &["backoff", "call", "reconcile"]),
    ("health", &["metrics"]),
    ("index", &[]),
    ("leader", &["call", "metrics", "object"]),
    (
        "mesh_ca",
        &["backoff", "ca", "index", "metrics", "object", "state"],
    ),
    ("metrics", &[]),
    ("monitoring", &["health", "index", "metrics"]),
    ("object", &["call"]),
    ("passes", &["backoff", "index"]),
    ("reconcile", &["index"]),
    (
        "serve",
        &[
            "ca", "health", "index", "mesh_ca", "metrics", "token", "workload",
        ],
    ),
    ("state", &[]),
    (
        "status",
        &[
            "call",
            "events",
            "index",
            "mesh_ca",
            "metrics",
            "passes",
            "reconcile",
        ],
    ),
    ("token", &["call", "state"]),
    ("watch", &["backoff", "health", "index", "metrics"]),
    ("workload", &["index", "token"]),
];

/// Modules that hold a client, and `app`, which hands it to them.
const WITH_CLIENT: [&str; 10] = [
    "app", "apply", "ca", "events", "leader", "mesh_ca", "object", "status", "token", "watch",
];

/// The source of every module, submodules included.
fn sources() -> BTreeMap<String, String> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut modules: BTreeMap<String, String> = BTreeMap::new();
    let mut folders = vec![root.clone()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).expect("a folder that was just listed") {
            let path = entry.expect("an entry that was just listed").path();
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            let inside = path.strip_prefix(&root).expect("found below the root");
            let module = inside.iter().next().expect("a file has a name");
            let module = Path::new(module).with_extension("");
            let text = std::fs::read_to_string(&path).expect("a source file is text");
            modules
                .entry(module.display().to_string())
                .or_default()
                .push_str(&text);
        }
    }
    modules
}

#[test]
fn every_module_uses_only_what_the_map_allows() {
    let allowed: BTreeMap<_, _> = ALLOWED.into_iter().collect();
    let mut sources = sources();
    sources.retain(|module, _| !["folder", "lib", "main"].contains(&module.as_str()));
    let known: BTreeSet<_> = sources.keys().map(String::as_str).collect();
    assert_eq!(
        known,
        allowed.keys().copied().collect(),
        "the map is complete"
    );
    for (module, text) in &sources {
        let used = known.iter().filter(|other| {
            let ways = [format!("crate::{other}::"), format!("crate::{other};")];
            **other != module && ways.iter().any(|way| text.contains(way))
        });
        for other in used {
            assert!(
                allowed[module.as_str()].contains(other),
                "{module} uses {other}"
            );
        }
        assert!(!text.contains("crate::{"), "{module}: one `use` a module");
    }
}

#[test]
fn only_the_edges_hold_a_client() {
    for (module, text) in sources() {
        // `ClientIP` is a Service's affinity.
        let holds = text.replace("ClientIP", "").contains("Client") && text.contains("kube::");
        let may = WITH_CLIENT.contains(&module.as_str()) || module == "main";
        assert!(may || !holds, "{module} names a client");
    }
}
