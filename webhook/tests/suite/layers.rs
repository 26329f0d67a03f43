//! The map of the crate, checked: which module may use which. A new edge is a decision, made here.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

/// Each module and the modules of this crate it may use.
const ALLOWED: [(&str, &[&str]); 15] = [
    (
        "app",
        &[
            "cluster",
            "config",
            "inject",
            "metrics",
            "namespace",
            "pod",
            "serve",
            "server",
        ],
    ),
    ("certificate", &[]),
    ("cluster", &["certificate", "namespace", "ready"]),
    ("config", &["inject"]),
    ("decide", &["namespace", "pod", "redirection", "refusal"]),
    (
        "inject",
        &["decide", "namespace", "pod", "redirection", "refusal"],
    ),
    ("metrics", &[]),
    ("namespace", &[]),
    ("pod", &[]),
    ("ready", &["certificate"]),
    ("redirection", &["namespace", "pod"]),
    ("refusal", &[]),
    ("review", &[]),
    (
        "serve",
        &[
            "cluster",
            "decide",
            "inject",
            "metrics",
            "namespace",
            "pod",
            "ready",
            "refusal",
            "review",
        ],
    ),
    ("server", &["certificate"]),
];

fn files(directory: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(directory)
        .unwrap()
        .map(|entry| entry.unwrap().path());
    entries
        .flat_map(|path| {
            if path.is_dir() {
                files(&path)
            } else {
                vec![path]
            }
        })
        .filter(|path| path.extension().is_some_and(|extension| extension == "rs"))
        .collect()
}

/// The modules that a file names after `crate::`, alone or in braces.
fn used(text: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for rest in text.split("crate::").skip(1) {
        let list = match rest.strip_prefix('{') {
            Some(list) => top_level(list),
            None => vec![rest],
        };
        for item in list {
            let name: String = item
                .trim()
                .chars()
                .take_while(|c| c.is_alphanumeric() || *c == '_')
                .collect();
            if !name.is_empty() {
                found.insert(name);
            }
        }
    }
    found
}

/// The items of a use list, up to its closing brace, without what is nested in them.
fn top_level(list: &str) -> Vec<&str> {
    let (mut depth, mut start, mut items) = (0, 0, Vec::new());
    for (at, c) in list.char_indices() {
        match c {
            '{' => depth += 1,
            '}' if depth == 0 => {
                items.push(&list[start..at]);
                return items;
            }
            '}' => depth -= 1,
            ',' if depth == 0 => {
                items.push(&list[start..at]);
                start = at + 1;
            }
            _ => {}
        }
    }
    items
}

#[test]
fn modules_use_only_what_the_map_allows() {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut seen = BTreeSet::new();
    for file in files(&source) {
        let relative = file.strip_prefix(&source).unwrap().with_extension("");
        let module = relative.iter().next().unwrap().to_str().unwrap().to_owned();
        if module == "lib" || module == "main" {
            continue;
        }
        let allowed = ALLOWED.iter().find(|(name, _)| *name == module);
        let allowed = allowed
            .unwrap_or_else(|| panic!("{module} is not on the map"))
            .1;
        for used in used(&fs::read_to_string(&file).unwrap()) {
            let fine = used == module || allowed.contains(&used.as_str());
            assert!(
                fine,
                "{} uses {used}, which the map does not allow",
                file.display()
            );
        }
        seen.insert(module);
    }
    assert_eq!(
        seen.len(),
        ALLOWED.len(),
        "the map holds modules that are gone"
    );
}

#[test]
fn uses_are_found_in_every_form() {
    let text = "use crate::a;\nuse crate::{b::{x, y}, c::d,\n e};\nfn f() { crate::g::h() }";
    let names: Vec<String> = used(text).into_iter().collect();
    assert_eq!(names, ["a", "b", "c", "e", "g"]);
}
