//! The rows of a Mesh.

use super::*;

fn mtls(mtls: Value) -> Value {
    json!({ "mtls": mtls })
}

fn ca(fields: Value) -> Value {
    let mut backend = json!({"name": "ca-1", "type": "builtin"});
    for (key, value) in fields.as_object().unwrap() {
        backend[key] = value.clone();
    }
    mtls(json!({"enabledBackend": "ca-1", "backends": [backend]}))
}

fn conf(conf: Value) -> Value {
    json!({"metrics": {"enabledBackend": "p", "backends": [{"name": "p", "type": "prometheus", "conf": conf}]}})
}

#[test]
fn authorities() {
    let two = json!([{"name": "a", "type": "builtin"}, {"name": "a", "type": "builtin"}]);
    rows(
        mesh,
        &[
            (json!({}), &[]),
            (ca(json!({})), &[]),
            (
                mtls(json!({"backends": two})),
                &[
                    "mtls.backends: cannot have more than 1 backends",
                    r#"mtls.backends[1].name: "a" name is already used for another backend"#,
                ],
            ),
            (
                mtls(json!({"enabledBackend": "x"})),
                &["mtls.enabledBackend: has to be set to one of the backends in the mesh"],
            ),
            (
                ca(json!({"type": "vault"})),
                &["mtls.backends[0].type: could not find installed plugin for this type"],
            ),
            (
                ca(json!({"mode": "strict"})),
                &[
                    r#"mtls.backends[0].mode: unknown mode. Available modes: "STRICT", "PERMISSIVE""#,
                ],
            ),
            (ca(json!({"mode": "PERMISSIVE"})), &[]),
            (mtls(json!([])), &["mtls: expected an object, found []"]),
            (
                mtls(json!({"backends": [1]})),
                &["mtls.backends[0]: expected an object, found 1"],
            ),
        ],
    );
}

#[test]
fn life_times() {
    let wrong: &[&str] = &["mtls.dpcert.rotation.expiration: has to be a valid format"];
    let certificate =
        |expiration: Value| ca(json!({"dpCert": {"rotation": {"expiration": expiration}}}));
    for valid in ["1d", "0", "10y", "2w", "3h", "4m", "5s", "60000ms"] {
        rows(mesh, &[(certificate(json!(valid)), &[])]);
    }
    for slip in ["", "1", "d", "1x", "-1d", "1.5h", "1dd", "1h30m"] {
        rows(mesh, &[(certificate(json!(slip)), wrong)]);
    }
    rows(
        mesh,
        &[
            (ca(json!({"dpCert": {}})), wrong),
            (ca(json!({"dpCert": null})), &[]),
        ],
    );
    let culprit = mesh(&certificate(json!("1x")))[0].culprit().to_owned();
    assert_eq!(culprit, "mtls.backends[0].dpCert.rotation.expiration");
}

#[test]
fn authorities_of_the_user() {
    let provided = |conf: Value| ca(json!({"type": "provided", "conf": conf}));
    let secret = json!({"secret": "s"});
    rows(
        mesh,
        &[
            (
                provided(json!({"cert": secret, "key": {"inlineString": "-"}})),
                &[],
            ),
            (
                provided(json!({})),
                &[
                    "mtls.backends[0].conf.cert: has to be defined",
                    "mtls.backends[0].conf.key: has to be defined",
                ],
            ),
            (
                provided(json!({"cert": {}, "key": secret})),
                &[
                    "mtls.backends[0].conf.cert: data source has to be chosen. Available sources: secret, file, inline",
                ],
            ),
            (
                provided(json!({"cert": {"file": ""}, "key": {"secret": null}})),
                &[
                    "mtls.backends[0].conf.cert.file: cannot be empty",
                    "mtls.backends[0].conf.key.secret: cannot be empty",
                ],
            ),
        ],
    );
    let mut skipped = provided(json!({}));
    skipped["mtls"]["skipValidation"] = json!(true);
    rows(mesh, &[(skipped, &[])]);
}

#[test]
fn metrics_backends() {
    let backends = |backends: Value| json!({"metrics": {"backends": backends}});
    let prometheus = json!({"name": "p", "type": "prometheus"});
    rows(
        mesh,
        &[
            (backends(json!([prometheus])), &[]),
            (
                backends(json!([prometheus, prometheus])),
                &[r#"metrics.backends[1].name: "p" name is already used for another backend"#],
            ),
            (
                backends(json!([{"name": "p", "type": "statsd"}])),
                &[
                    r#"metrics.backends[0].type: unknown backend type. Available backends: "prometheus""#,
                ],
            ),
            (
                backends(json!([{"name": "p"}])),
                &[
                    r#"metrics.backends[0].type: unknown backend type. Available backends: "prometheus""#,
                ],
            ),
            (
                json!({"metrics": {"enabledBackend": "x", "backends": [prometheus]}}),
                &["metrics.enabledBackend: has to be set to one of the backends in the mesh"],
            ),
            (json!({"metrics": {"enabledBackend": ""}}), &[]),
            (
                json!({"metrics": "on"}),
                &[r#"metrics: expected an object, found "on""#],
            ),
        ],
    );
}

/// Asserts that a conf has one violation, at `field` below it.
fn one_conf(spec: Value, field: &str, message: &str) {
    let expected = [format!("metrics.backends[0].conf{field}: {message}")];
    assert_eq!(said(mesh, conf(spec.clone())), expected, "{spec}");
}

#[test]
fn metrics_confs() {
    one_conf(
        json!({"port": "80`"}),
        "",
        "could not parse config: port: expected a whole number from 0 to 4294967295, found \"80`\"",
    );
    one_conf(
        json!([1]),
        "",
        "could not parse config: expected an object, found [1]",
    );
    let both = "skipMTLS and tls configuration cannot be defined together";
    one_conf(json!({"skipMTLS": true, "tls": {}, "port": 0}), "", both);
    one_conf(
        json!({"skipMTLS": false, "tls": {"mode": "providedTLS"}}),
        "",
        both,
    );
    one_conf(
        json!({"envoy": {"filterRegex": "a("}, "port": 0}),
        ".envoy.filterRegex",
        "provided regexp isn't correct: unclosed group",
    );
    // What no proxy would compile.
    one_conf(
        json!({"envoy": {"filterRegex": "inbound_\\w{20}"}}),
        ".envoy.filterRegex",
        "provided regexp isn't correct: Compiled regex exceeds size limit of 262144 bytes.",
    );
    one_conf(
        json!({"aggregate": [{"name": "a"}, {"name": "a"}]}),
        ".aggregate[1].name",
        "duplicate entry: a, values have to be unique",
    );
}

#[test]
fn metrics_confs_that_kuma_admits() {
    one_conf(
        json!({"port": 0}),
        ".port",
        "port must be in the range [1, 65535]",
    );
    one_conf(
        json!({"port": 65536}),
        ".port",
        "port must be in the range [1, 65535]",
    );
    one_conf(
        json!({"port": 4191}),
        ".port",
        "must not be 4140, 4143 or 4191, which the proxy itself uses",
    );
    one_conf(
        json!({"path": "metrics"}),
        ".path",
        "path has to start with '/'",
    );
    one_conf(
        json!({"tags": {"a": ""}}),
        r#".tags["a"]"#,
        "tag value must be non-empty",
    );
    one_conf(
        json!({"aggregate": [{"port": 1}]}),
        ".aggregate[0].name",
        "has to be defined",
    );
    one_conf(
        json!({"aggregate": [{"name": "a", "port": 70000}]}),
        ".aggregate[0].port",
        "port must be in the range [1, 65535]",
    );
    one_conf(
        json!({"aggregate": [{"name": "a", "path": "x"}]}),
        ".aggregate[0].path",
        "path has to start with '/'",
    );
    one_conf(
        json!({"aggregate": [{"name": "a", "address": "a:1"}]}),
        ".aggregate[0].address",
        "address has to be valid IP address or domain name",
    );
}

#[test]
fn metrics_confs_without_a_slip() {
    for valid in [
        json!({"skipMTLS": true, "tls": {"mode": "disabled"}}),
        json!({"skipMTLS": false, "tls": {}}),
        json!({"port": 65535, "path": "", "envoy": {"filterRegex": "http2_act.*"}}),
        json!({"aggregate": [{"name": "a", "path": "/x"}, {"name": "b", "port": "1", "enabled": false}]}),
        json!(null),
    ] {
        rows(mesh, &[(conf(valid), &[])]);
    }
}

#[test]
fn the_rest_of_a_mesh() {
    let required = |tags: Value| json!({"constraints": {"dataplaneProxy": {"requirements": [{ "tags": tags }]}}});
    let egress = |mtls: Value| json!({"routing": {"zoneEgress": true}, "mtls": mtls});
    let field = "constraints.dataplaneProxy.requirements[0].tags";
    assert_eq!(
        said(mesh, required(json!({}))),
        [format!("{field}: must have at least one tag")]
    );
    assert_eq!(
        said(mesh, required(json!({"a": ""}))),
        [format!("{field}[\"a\"]: tag value must be non-empty")]
    );
    rows(
        mesh,
        &[
            (required(json!({"kuma.io/zone": "*"})), &[]),
            (
                json!({"constraints": {"dataplaneProxy": {"restrictions": [{}]}}}),
                &["constraints.dataplaneProxy.restrictions[0].tags: must have at least one tag"],
            ),
            (
                egress(json!(null)),
                &["mtls: has to be set when zoneEgress enabled"],
            ),
            (
                egress(
                    json!({"enabledBackend": "a", "backends": [{"name": "a", "type": "builtin"}]}),
                ),
                &[],
            ),
            (
                json!({"logging": {"anything": [1]}, "tracing": {}, "networking": {"outbound": {"passthrough": false}}}),
                &[],
            ),
        ],
    );
}

#[test]
fn violations_come_in_kumas_order() {
    let spec = json!({
        "routing": {"zoneEgress": true},
        "constraints": {"dataplaneProxy": {"requirements": [{}]}},
        "metrics": {"enabledBackend": "x"},
        "mtls": {"backends": [{"name": "a", "type": "x"}]}
    });
    let fields: Vec<String> = mesh(&spec)
        .into_iter()
        .map(|violation| violation.field)
        .collect();
    let expected = [
        "mtls.backends[0].type",
        "metrics.enabledBackend",
        "constraints.dataplaneProxy.requirements[0].tags",
        "mtls",
    ];
    assert_eq!(fields, expected);
}

#[test]
fn names_updates_and_deletions() {
    assert_eq!(mesh_name(&"a".repeat(63)), []);
    assert_eq!(
        mesh_name(&"a".repeat(64))[0].to_string(),
        "name: cannot be longer than 63 characters"
    );
    let with = |enabled: &str| MeshSpec(mtls(json!({ "enabledBackend": enabled })));
    assert_eq!(
        mesh_update(&with("a"), &with("b"))[0].to_string(),
        "mtls.enabledBackend: Changing CA when mTLS is enabled is forbidden. \
         Disable mTLS first and then change the CA"
    );
    for (old, new) in [("a", "a"), ("a", ""), ("", "b")] {
        assert_eq!(mesh_update(&with(old), &with(new)), []);
    }
    assert_eq!(mesh_deletion(false), []);
    assert_eq!(
        mesh_deletion(true)[0].to_string(),
        "mesh: unable to delete mesh, there are still some dataplanes attached"
    );
}
