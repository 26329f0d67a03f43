//! Files and environments as users write them, and what a proxy makes of them.

use super::*;
use std::path::Path;
use weir_crds::settings::MtlsMode;

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
fn a_reload_takes_over_what_is_right_and_only_that() {
    let folder = Folder::new("reload");
    let dataplane = folder.write("dp.yaml", WEB);
    let mesh = folder.write("mesh.yaml", MESH);
    let mut sources = load(Config {
        dataplane: Some(Input::File(dataplane)),
        mesh_file: Some(mesh),
        ..Config::default()
    })
    .unwrap();
    let mut settings = sources.settings();
    let port = |settings: &watch::Receiver<Arc<Settings>>| {
        settings.borrow().metrics.as_ref().unwrap().port
    };
    assert_eq!(port(&settings), 1234);

    settings.mark_unchanged();
    sources.reload();
    assert!(!settings.has_changed().unwrap());

    folder.write("mesh.yaml", &MESH.replace("1234", "2345"));
    sources.reload();
    assert!(settings.has_changed().unwrap());
    assert_eq!(port(&settings), 2345);

    settings.mark_unchanged();
    for wrong in [
        MESH.replace("1234", "70000"),
        MESH.replace("name: default", "name: other"),
        "a: [".into(),
    ] {
        folder.write("mesh.yaml", &wrong);
        sources.reload();
        assert!(!settings.has_changed().unwrap(), "{wrong}");
    }
}

#[test]
fn a_reload_takes_over_endpoints() {
    let folder = Folder::new("endpoints");
    let own = "type: Dataplane\nmesh: default\nname: web\nnetworking:\n  address: 127.0.0.1\n  inbound:\n  - port: 8001\n    servicePort: 8002\n    tags: {kuma.io/service: web}\n  outbound:\n  - port: 9001\n    tags: {kuma.io/service: db}\n";
    let db = |name: &str, port: u16| {
        format!(
            "---\ntype: Dataplane\nmesh: default\nname: {name}\nnetworking:\n  address: 127.0.0.1\n  inbound:\n  - port: {port}\n    tags: {{kuma.io/service: db}}\n"
        )
    };
    let file = folder.write("dp.yaml", &format!("{own}{}", db("one", 7001)));
    let mut sources = load(Config {
        dataplane: Some(Input::File(file)),
        ..Config::default()
    })
    .unwrap();
    let mut outbounds = sources.outbounds();
    let ports = |outbounds: &watch::Receiver<Arc<Vec<Outbound>>>| -> Vec<u16> {
        let now = outbounds.borrow();
        now[0].endpoints.iter().map(|e| e.addr.port()).collect()
    };
    assert_eq!(ports(&outbounds), [7001]);
    outbounds.mark_unchanged();
    sources.reload();
    assert!(!outbounds.has_changed().unwrap());

    let both = format!("{own}{}{}", db("one", 7001), db("two", 7002));
    folder.write("dp.yaml", &both);
    sources.reload();
    assert!(outbounds.has_changed().unwrap());
    assert_eq!(ports(&outbounds), [7001, 7002]);
}

#[test]
fn only_endpoints_may_differ_for_the_same_listeners() {
    let universal = |listen: u16, endpoint: u16| Universal {
        name: "web".into(),
        mesh: "default".into(),
        address: [127, 0, 0, 1].into(),
        identity: "web.mesh".into(),
        inbounds: Vec::new(),
        outbounds: vec![Outbound {
            listen: ([127, 0, 0, 1], listen).into(),
            service: "db".into(),
            endpoints: vec![Endpoint {
                addr: ([127, 0, 0, 1], endpoint).into(),
                labels: Default::default(),
                identity: "db.mesh".into(),
            }],
        }],
    };
    assert!(universal(1, 2).listens_as(&universal(1, 3)));
    assert!(!universal(1, 2).listens_as(&universal(2, 2)));
}

#[test]
fn a_metrics_policy_is_read_in_a_pod_too_and_again_at_a_reload() {
    let folder = Folder::new("policy");
    let file = folder.write("policy.yaml", "families: {request_total: {drop: true}}");
    let pod = Config {
        settings: Some(r#"{"version":1,"mesh":"blue"}"#.into()),
        metrics_policy_file: Some(file.clone()),
        ..Config::default()
    };
    let mut sources = load(pod.clone()).unwrap();
    let mut policy = sources.metrics_policy();
    assert!(policy.borrow_and_update().families["request_total"].drop);
    for wrong in ["families: {request_total: {drop: 1}}", "a: ["] {
        folder.write("policy.yaml", wrong);
        sources.reload();
        assert!(!policy.has_changed().unwrap(), "{wrong}");
    }
    folder.write("policy.yaml", "dropLabels: [authority]");
    sources.reload();
    assert!(policy.has_changed().unwrap());
    let now = policy.borrow_and_update().clone();
    assert!(now.families.is_empty() && now.drop_labels.contains("authority"));

    folder.write("policy.yaml", "dropLabels: [athority]");
    let wrong = Config {
        settings: None,
        ..pod
    };
    let problems = problems(wrong);
    for told in [
        "policy.yaml: line 1 column 14: dropLabels[0]: \"athority\"",
        "--dataplane-file",
    ] {
        assert!(problems.contains(told), "{problems}");
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

#[test]
fn permissions_in_files_hold_for_inbounds_and_for_the_metrics_endpoint() {
    let documents = "type: Mesh
name: default
mtls:
  enabledBackend: files
  backends: [{name: files, type: builtin, mode: STRICT}]
metrics:
  enabledBackend: prometheus
  backends: [{name: prometheus, type: prometheus}]
---
type: TrafficPermission
name: scrape
mesh: default
sources: [{match: {kuma.io/service: prometheus}}]
destinations: [{match: {kuma.io/service: dataplane-metrics}}]
---
type: TrafficPermission
name: to-web
mesh: default
sources: [{match: {kuma.io/service: shop}}]
destinations: [{match: {kuma.io/service: web}}]
---
type: Dataplane
name: web-1
networking:
  address: 127.0.0.1
  inbound: [{port: 11010, servicePort: 8080, tags: {kuma.io/service: web}}]
";
    let config = |has_identity| Config {
        dataplane: Some(Input::Inline(documents.into())),
        has_identity,
        ..Config::default()
    };
    let settings = |has_identity| {
        let settings = load(config(has_identity)).unwrap().settings();
        Arc::clone(&settings.borrow())
    };
    let secured = settings(true);
    let name = |permission: &Option<weir_crds::permission::Permission>| {
        permission
            .as_ref()
            .map(|permission| permission.name.clone())
    };
    let metrics = secured.metrics.as_ref().unwrap();
    assert_eq!(name(&metrics.permission).as_deref(), Some("scrape"));
    let inbounds = secured.inbounds.as_ref().unwrap();
    assert_eq!(
        (inbounds[0].port, name(&inbounds[0].permission).as_deref()),
        (11010, Some("to-web"))
    );
    assert_eq!(secured.mtls, MtlsMode::Strict);
    // Without a certificate nothing can be asked of anybody.
    let plain = settings(false);
    assert_eq!((plain.mtls, &plain.inbounds), (MtlsMode::Disabled, &None));
}
