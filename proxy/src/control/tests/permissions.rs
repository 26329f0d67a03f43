//! What the TrafficPermissions among the documents say, in a Mesh with mutual TLS.

use super::*;

use weir_crds::settings::MtlsMode;

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

#[test]
fn a_proxy_with_an_operator_begins_closed_or_with_its_mesh_and_leaves_settings_to_it() {
    let folder = Folder::new("operated");
    let documents = folder.write("dp.yaml", WEB);
    let config = |mesh_file| Config {
        dataplane: Some(Input::File(documents.clone())),
        mesh_file,
        has_operator: true,
        ..Config::default()
    };
    let mut sources = load(config(None)).unwrap();
    let mut settings = sources.settings();
    let began = Settings::clone(&settings.borrow_and_update());
    assert_eq!(began, Settings::until_told("default"));
    assert_eq!(began.mtls, MtlsMode::Strict);
    sources
        .publisher()
        .send_replace(Arc::new(Settings::without_metrics("default")));
    settings.mark_unchanged();
    sources.reload();
    assert!(!settings.has_changed().unwrap());

    let mesh = "type: Mesh\nname: default\nmtls: {enabledBackend: ca, backends: [{name: ca, type: builtin, mode: PERMISSIVE}]}\n";
    let mesh = folder.write("mesh.yaml", mesh);
    let settings = load(config(Some(mesh))).unwrap().settings();
    assert_eq!(settings.borrow().mtls, MtlsMode::Permissive);
}
