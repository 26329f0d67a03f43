//! The map of the crate: which module may use which. A new edge is a decision; it is made
//! here, and ARCHITECTURE.md follows.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// Each module with the modules it may use, in the order of the flow.
const ALLOWED: &[(&str, &[&str])] = &[
    ("activity", &[]),
    ("buffer", &[]),
    ("telemetry", &[]),
    ("init", &[]),
    ("log", &[]),
    ("cni", &["init", "log"]),
    ("end", &[]),
    ("ask", &[]),
    ("shutdown", &["ask"]),
    ("wait", &["ask"]),
    ("heartbeat", &[]),
    ("redirection", &["heartbeat", "telemetry"]),
    ("drain", &["activity"]),
    ("routes", &[]),
    ("endpoints", &["routes", "telemetry"]),
    ("destinations", &["endpoints", "routes", "telemetry"]),
    ("record", &["exchange", "permission", "routes", "telemetry"]),
    ("identity", &["buffer", "telemetry"]),
    ("mesh", &["identity", "telemetry"]),
    ("permission", &["routes", "telemetry"]),
    ("stream", &["buffer", "identity"]),
    ("exchange", &["telemetry"]),
    ("http1", &["exchange", "record", "routes", "telemetry"]),
    ("http2", &["exchange", "record", "routes", "telemetry"]),
    (
        "session",
        &["exchange", "http1", "http2", "record", "routes"],
    ),
    (
        "forward",
        &[
            "activity",
            "buffer",
            "endpoints",
            "exchange",
            "http1",
            "identity",
            "mesh",
            "permission",
            "record",
            "routes",
            "session",
            "stream",
            "telemetry",
        ],
    ),
    ("detect", &["buffer", "forward", "http2", "mesh", "stream"]),
    (
        "terminate",
        &[
            "activity",
            "endpoints",
            "exchange",
            "forward",
            "http1",
            "http2",
            "identity",
            "mesh",
            "permission",
            "record",
            "routes",
            "stream",
            "telemetry",
        ],
    ),
    (
        "connection",
        &[
            "accept",
            "activity",
            "buffer",
            "detect",
            "endpoints",
            "exchange",
            "forward",
            "http1",
            "identity",
            "mesh",
            "permission",
            "record",
            "routes",
            "session",
            "stream",
            "telemetry",
            "terminate",
            "worker",
        ],
    ),
    (
        "accept",
        &[
            "connection",
            "destinations",
            "endpoints",
            "forward",
            "redirection",
            "telemetry",
            "worker",
        ],
    ),
    (
        "worker",
        &[
            "accept",
            "activity",
            "buffer",
            "destinations",
            "detect",
            "endpoints",
            "forward",
            "heartbeat",
            "identity",
            "mesh",
            "permission",
            "record",
            "routes",
            "telemetry",
            "terminate",
        ],
    ),
    (
        "control",
        &[
            "destinations",
            "endpoints",
            "exchange",
            "http2",
            "identity",
            "record",
            "routes",
            "telemetry",
        ],
    ),
    ("plan", &["telemetry"]),
    (
        "admin",
        &["accept", "identity", "log", "redirection", "telemetry"],
    ),
    (
        "config",
        &[
            "accept",
            "admin",
            "control",
            "drain",
            "identity",
            "log",
            "telemetry",
            "worker",
        ],
    ),
    (
        "app",
        &[
            "accept",
            "activity",
            "admin",
            "config",
            "control",
            "destinations",
            "drain",
            "endpoints",
            "heartbeat",
            "identity",
            "log",
            "record",
            "redirection",
            "routes",
            "telemetry",
            "worker",
        ],
    ),
];

/// Compiled for tests alone, which are in all modules.
const OF_TESTS: &str = "ports";

#[test]
fn modules_use_only_what_the_map_allows() {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut wrong = Vec::new();
    for file in sources(&src) {
        let path = file
            .strip_prefix(&src)
            .expect("below src")
            .to_string_lossy()
            .into_owned();
        let module = path
            .split('/')
            .next()
            .unwrap_or_default()
            .trim_end_matches(".rs")
            .to_owned();
        if module == "lib" || module == "main" {
            continue;
        }
        let allowed = ALLOWED.iter().find(|(name, _)| *name == module);
        let Some((_, allowed)) = allowed else {
            wrong.push(format!("{path}: the module is not on the map"));
            continue;
        };
        let text = fs::read_to_string(&file).expect("a source file");
        for used in uses(&text) {
            let is_known = used == module || used == OF_TESTS || allowed.contains(&used.as_str());
            if !is_known {
                wrong.push(format!("{path}: {module} must not use {used}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

fn sources(dir: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(dir)
        .expect("a directory")
        .map(|e| e.expect("an entry").path());
    entries
        .flat_map(|path| {
            if path.is_dir() {
                sources(&path)
            } else {
                vec![path]
            }
        })
        .filter(|path| path.extension().is_some_and(|e| e == "rs"))
        .collect()
}

/// The first segments after `crate::`, of lists in braces too.
fn uses(text: &str) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    for rest in text.split("crate::").skip(1) {
        if let Some(list) = rest.strip_prefix('{') {
            let mut depth = 0;
            let mut name = String::new();
            for c in list.chars() {
                match c {
                    '{' => depth += 1,
                    '}' if depth == 0 => break,
                    '}' => depth -= 1,
                    ',' if depth == 0 => names.extend(first_segment(&std::mem::take(&mut name))),
                    c if depth == 0 => name.push(c),
                    _ => {}
                }
            }
            names.extend(first_segment(&name));
        } else {
            names.extend(first_segment(rest));
        }
    }
    names
}

fn first_segment(path: &str) -> Option<String> {
    let name: String = path
        .trim()
        .chars()
        .take_while(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || *c == '_')
        .collect();
    (!name.is_empty()).then_some(name)
}

#[test]
fn lists_in_braces_are_read() {
    let used = uses("use crate::{admin, drain::{self, x}, worker};\nuse crate::buffer::Pool;");
    assert_eq!(
        used.into_iter().collect::<Vec<_>>(),
        ["admin", "buffer", "drain", "worker"]
    );
}
