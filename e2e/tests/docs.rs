//! The documents that README.md and docs print are documents that the proxy accepts or parts of the shipped scrape
//! configuration, and the links between the pages lead somewhere.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;
use weir_crds::routes::http_route::{self, HttpRoute, Parent};
use weir_crds::routes::service_profile;
use weir_crds::universal::parse;
use weir_crds::violation::Violation;

/// README.md and its neighbours, and everything in docs.
fn pages() -> Vec<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let markdown = |directory: PathBuf| {
        let entries = fs::read_dir(directory).expect("a directory");
        entries
            .map(|entry| entry.expect("an entry").path())
            .filter(|path| path.extension().is_some_and(|extension| extension == "md"))
    };
    markdown(root.clone())
        .chain(markdown(root.join("docs")))
        .collect()
}

/// What is wrong with a document of the kinds in which routes are written; `None` where it is of another kind.
fn routes(block: &str) -> Option<Vec<Violation>> {
    let document: Value = serde_yaml::from_str(block).ok()?;
    let spec = &document["spec"];
    match document["kind"].as_str()? {
        "ServiceProfile" => {
            let (table, problems) = service_profile::compile(spec);
            assert!(!table.routes.is_empty(), "{block}");
            Some(problems)
        }
        "HTTPRoute" => {
            let route = HttpRoute {
                name: "web",
                namespace: "shop",
                created: 0,
                spec,
            };
            let parent = Parent {
                name: "web",
                namespace: "shop",
                port: 80,
                domain: "cluster.local",
            };
            let (table, problems) = http_route::compile(&[route], parent);
            assert!(!table.routes.is_empty(), "{block}");
            Some(problems)
        }
        _ => None,
    }
}

/// Whether a block is of a scrape configuration; then it has to be in the shipped one, as it is or as a comment.
fn is_of_scraping(block: &str) -> bool {
    let document: Value = serde_yaml::from_str(block).unwrap_or_default();
    let is_discovery = |key: &String| key.ends_with("_sd_configs");
    if !document
        .as_object()
        .is_some_and(|fields| fields.keys().all(is_discovery))
    {
        return false;
    }
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let shipped = fs::read_to_string(root.join("manifests/prometheus/linkerd-proxy.yaml"));
    let shipped = shipped.expect("the scrape configuration");
    let lines = block.lines().map(|line| match line.strip_prefix("    ") {
        Some(line) => format!("    #{line}\n"),
        None => panic!("indented as where it is put: {block}"),
    });
    let commented: String = lines.collect();
    assert!(
        shipped.contains(block) || shipped.contains(&commented),
        "{block}"
    );
    true
}

/// The blocks of a page that are fenced as YAML.
fn yaml_blocks(page: &str) -> impl Iterator<Item = &str> {
    page.split("```yaml\n")
        .skip(1)
        .map(|rest| rest.split("```").next().unwrap_or_default())
}

#[test]
fn the_documents_on_the_pages_are_valid() {
    let mut blocks = 0;
    for path in pages() {
        let page = fs::read_to_string(&path).expect("a page");
        for block in yaml_blocks(&page) {
            blocks += 1;
            if is_of_scraping(block) {
                continue;
            }
            if let Some(problems) = routes(block) {
                assert!(problems.is_empty(), "{}: {problems:?}", path.display());
                continue;
            }
            match parse(block) {
                Ok(documents) => assert!(!documents.is_empty(), "{}: {block}", path.display()),
                Err(errors) => panic!("{}: {errors:?}\n{block}", path.display()),
            }
        }
    }
    assert!(blocks >= 3, "README.md and docs/universal.md have examples");
}

#[test]
fn links_between_the_pages_lead_somewhere() {
    for path in pages() {
        let page = fs::read_to_string(&path).expect("a page");
        let targets = page.split("](").skip(1);
        for target in targets.filter_map(|rest| rest.split(')').next()) {
            let file = target.split('#').next().unwrap_or_default();
            if file.contains("://") || file.is_empty() {
                continue;
            }
            let directory = path.parent().expect("a page is in a directory");
            assert!(
                directory.join(file).exists(),
                "{}: {target}",
                path.display()
            );
        }
    }
}
