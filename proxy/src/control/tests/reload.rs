//! What a SIGHUP changes of a proxy on files, and what it does not.

use super::*;

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
            tags: Default::default(),
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
