//! Files and environments as users write them, and what a proxy makes of them.

use super::*;
use std::path::Path;

mod names;
mod permissions;
mod reload;

const WEB: &str = "
type: Dataplane
mesh: default
name: web-1
networking:
  address: 127.0.0.1
  inbound:
    - port: 11010
      servicePort: 8080
      tags:
        kuma.io/service: web
  outbound:
    - port: 10001
      tags:
        kuma.io/service: db
";

const DB: &str = "
type: Dataplane
name: db-1
networking:
  address: 127.0.0.2
  advertisedAddress: 127.0.0.3
  inbound:
    - {port: 5432, servicePort: 5433, tags: {kuma.io/service: db, kuma.io/zone: east, version: '1'}}
    - {port: 5442, address: 127.0.0.4, servicePort: 5443, tags: {kuma.io/service: db}}
    - {port: 80, servicePort: 81, tags: {kuma.io/service: console}}
---
type: Dataplane
name: db-1
mesh: other
networking:
  address: 127.0.0.9
  inbound:
    - {port: 5432, servicePort: 5433, tags: {kuma.io/service: db}}
";

const MESH: &str = "
type: Mesh
name: default
metrics:
  enabledBackend: p
  backends:
    - name: p
      type: prometheus
      conf: {port: 1234, path: /here, envoy: {filterRegex: tcp_.*}}
";

fn inline(text: impl Into<String>) -> Config {
    Config {
        dataplane: Some(Input::Inline(text.into())),
        ..Config::default()
    }
}

fn loaded(config: Config) -> (Universal, Settings) {
    let sources = load(config).unwrap_or_else(|problems| panic!("{problems:#?}"));
    let settings = Settings::clone(&sources.settings().borrow());
    (sources.universal.unwrap(), settings)
}

fn problems(config: Config) -> String {
    let problems = load(config).map(|sources| sources.universal).unwrap_err();
    problems.iter().map(|p| format!("{p}\n")).collect()
}

fn documents(parts: &[&str]) -> String {
    parts.join("\n---\n")
}

#[test]
fn a_dataplane_is_resolved_against_the_others() {
    let (universal, settings) = loaded(inline(documents(&[WEB, DB])));
    assert_eq!(
        (universal.name.as_str(), universal.mesh.as_str()),
        ("web-1", "default")
    );
    assert_eq!(universal.address.to_string(), "127.0.0.1");
    let inbound = &universal.inbounds[0];
    assert_eq!(inbound.listen.to_string(), "127.0.0.1:11010");
    assert_eq!(inbound.dial.to_string(), "127.0.0.1:8080");
    assert_eq!(inbound.tags["kuma.io/service"], "web");
    let [outbound] = &universal.outbounds[..] else {
        panic!("{universal:?}");
    };
    assert_eq!(
        (
            outbound.listen.to_string().as_str(),
            outbound.service.as_str()
        ),
        ("127.0.0.1:10001", "db")
    );
    let addrs: Vec<_> = outbound
        .endpoints
        .iter()
        .map(|e| e.addr.to_string())
        .collect();
    assert_eq!(addrs, ["127.0.0.3:5432", "127.0.0.4:5442"]);
    let labels: Vec<_> = outbound.endpoints[0].labels.iter().collect();
    let expected = [("service", "db"), ("zone", "east")].map(|(k, v)| (k.to_owned(), v.to_owned()));
    assert_eq!(
        labels,
        expected.iter().map(|(k, v)| (k, v)).collect::<Vec<_>>()
    );
    // Without any Mesh it is the initial one.
    let metrics = settings.metrics.unwrap();
    assert_eq!((metrics.port, metrics.path.as_str()), (5670, "/metrics"));
}

#[test]
fn every_tag_of_an_outbound_has_to_match() {
    let versioned = WEB.replace(
        "kuma.io/service: db",
        "kuma.io/service: db\n        version: '1'",
    );
    let (universal, _) = loaded(inline(documents(&[&versioned, DB])));
    assert_eq!(universal.outbounds[0].endpoints.len(), 1);
}

#[test]
fn the_name_chooses_among_the_dataplanes() {
    let by_name = Config {
        name: Some("db-1".into()),
        mesh: Some("other".into()),
        ..inline(documents(&[WEB, DB]))
    };
    let (universal, settings) = loaded(by_name.clone());
    assert_eq!(
        (universal.name.as_str(), universal.mesh.as_str()),
        ("db-1", "other")
    );
    assert_eq!(settings.mesh, "other");

    let nobody = Config {
        name: Some("nobody".into()),
        ..by_name
    };
    let problems = problems(nobody);
    assert!(
        problems.contains("named \"nobody\" in mesh \"other\""),
        "{problems}"
    );
    assert!(problems.contains("found: web-1, db-1"), "{problems}");
}

#[test]
fn the_mesh_is_found_beside_the_dataplane_and_overridden_by_it() {
    let (_, settings) = loaded(inline(documents(&[MESH, WEB])));
    let metrics = settings.metrics.unwrap();
    assert_eq!((metrics.port, metrics.path.as_str()), (1234, "/here"));
    assert_eq!(metrics.filter.as_deref(), Some("tcp_.*"));

    let over = "metrics: {type: prometheus, conf: {port: 4321}}";
    let within = format!("{WEB}\n{over}");
    let beside = format!("type: Dataplane\nname: web-1\n{over}");
    for parts in [[MESH, &within, ""], [&beside, MESH, WEB]] {
        let (_, settings) = loaded(inline(documents(&parts)));
        let metrics = settings.metrics.unwrap();
        assert_eq!((metrics.port, metrics.path.as_str()), (4321, "/here"));
    }
    let problems = problems(inline(documents(&[&within, &beside])));
    assert!(
        problems.contains("metrics: is given by more than one document"),
        "{problems}"
    );
}

#[test]
fn a_missing_mesh_is_named() {
    let elsewhere = WEB.replace("mesh: default", "mesh: elsewhere");
    let problems = problems(inline(documents(&[&elsewhere, MESH])));
    assert_eq!(
        problems,
        "Mesh \"elsewhere\" of Dataplane \"web-1\" is in none of the files; found: default\n"
    );
}

#[test]
fn all_problems_of_all_documents_are_told_with_their_places() {
    let wrong = "type: Dataplane
name: a
networking:
  address: 127.0.0.1
  inbound:
    - port: 0
      tags: {kuma.io/service: a}
---
type: Mesh
name: default
metrics:
  enabledBackend: nowhere
";
    let problems = problems(inline(wrong));
    assert!(problems.contains("line 6 column"), "{problems}");
    assert!(
        problems.contains("networking.inbound[0].port"),
        "{problems}"
    );
    assert!(problems.contains("metrics.enabledBackend"), "{problems}");
    assert!(problems.lines().count() >= 2, "{problems}");
}

#[test]
fn a_listener_that_forwards_to_itself_is_refused() {
    let looping = WEB.replace("      servicePort: 8080\n", "");
    let problems = problems(inline(looping));
    assert!(problems.contains("networking.inbound[0]"), "{problems}");
    assert!(problems.contains("set servicePort"), "{problems}");
}

#[test]
fn two_listeners_of_one_address_are_refused() {
    let twice = WEB.replace("- port: 10001", "- port: 11010");
    let problems = problems(inline(twice));
    assert!(
        problems.contains(
            "networking.outbound[0]: listens at 127.0.0.1:11010 as networking.inbound[0] does: \
             give it another port or address"
        ),
        "{problems}"
    );
}

#[test]
fn a_name_that_does_not_resolve_is_told() {
    let unresolvable = WEB.replace(
        "  inbound:\n    - port",
        "  inbound:\n    - address: 'a.invalid'\n      port",
    );
    let problems = problems(inline(unresolvable));
    assert!(
        problems.contains("networking.inbound[0].address"),
        "{problems}"
    );
}

#[test]
fn documents_defined_twice_are_refused() {
    let twice = problems(inline(documents(&[WEB, WEB])));
    assert!(
        twice.contains("Dataplane \"web-1\" is defined more than once"),
        "{twice}"
    );
    let twice = problems(inline(documents(&[MESH, WEB, MESH])));
    assert!(
        twice.contains("Mesh \"default\" is defined more than once"),
        "{twice}"
    );
}

#[test]
fn in_a_pod_the_settings_come_from_the_environment() {
    let pod = Config {
        settings: Some(r#"{"version":1,"mesh":"blue"}"#.into()),
        ..Config::default()
    };
    let sources = load(pod.clone()).unwrap();
    assert!(sources.universal.is_none());
    assert_eq!(sources.settings().borrow().mesh, "blue");

    let newer = Config {
        settings: Some(r#"{"version":99,"mesh":"blue"}"#.into()),
        ..pod.clone()
    };
    let newer = problems(newer);
    assert!(
        newer.contains("WEIR_SETTINGS") && newer.contains("99"),
        "{newer}"
    );
    assert!(problems(Config::default()).contains("--dataplane-file"));
    let alone = Config {
        mesh_file: Some("mesh.yaml".into()),
        ..pod
    };
    assert!(problems(alone).contains("--mesh-file"));
}

#[test]
fn files_that_cannot_be_read_are_named_together() {
    let config = Config {
        dataplane: Some(Input::File("/nonexistent/dp.yaml".into())),
        mesh_file: Some("/nonexistent/mesh.yaml".into()),
        ..Config::default()
    };
    let problems = problems(config);
    assert!(
        problems.contains("/nonexistent/dp.yaml") && problems.contains("/nonexistent/mesh.yaml"),
        "{problems}"
    );
}

/// A folder of its own that is gone with the value.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("weir-control-{}-{name}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.0.join(name);
        std::fs::write(&path, text).unwrap();
        path
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(AsRef::<Path>::as_ref(&self.0));
    }
}

#[test]
fn a_service_is_known_by_all_its_names() {
    assert_eq!(authorities("Backend"), ["backend.mesh", "backend"]);
    let names = authorities("web_shop_svc_8080");
    for name in [
        "web",
        "web.shop",
        "web.shop.svc",
        "web.shop.svc.cluster.local",
        "web_shop_svc_8080.mesh",
    ] {
        assert!(names.iter().any(|n| n == name), "{name} in {names:?}");
    }
}
