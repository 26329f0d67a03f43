//! The rows of a Dataplane.

use super::*;

fn networking(fields: Value) -> Value {
    let mut networking = json!({
        "address": "10.0.0.1",
        "inbound": [{"port": 80, "servicePort": 8080, "tags": {"kuma.io/service": "web"}}]
    });
    for (key, value) in fields.as_object().unwrap() {
        networking[key] = value.clone();
    }
    json!({ "networking": networking })
}

fn inbound(fields: Value) -> Value {
    let mut inbound = json!({"port": 80, "tags": {"kuma.io/service": "web"}});
    for (key, value) in fields.as_object().unwrap() {
        inbound[key] = value.clone();
    }
    networking(json!({ "inbound": [inbound] }))
}

fn outbound(outbound: Value) -> Value {
    networking(json!({ "outbound": [outbound] }))
}

#[test]
fn proxies() {
    rows(
        dataplane,
        &[
            (networking(json!({})), &[]),
            (json!({}), &["networking: must be defined"]),
            (
                json!({"networking": {"address": "10.0.0.1"}}),
                &["networking: has to contain at least one inbound interface or gateway"],
            ),
            (
                networking(json!({"address": ""})),
                &["networking.address: address can't be empty"],
            ),
            (
                networking(json!({"address": "0.0.0.0"})),
                &["networking.address: must not be 0.0.0.0 or ::"],
            ),
            (
                networking(json!({"address": "::"})),
                &["networking.address: must not be 0.0.0.0 or ::"],
            ),
            (networking(json!({"address": "web.example"})), &[]),
            (
                networking(json!({"address": "a b"})),
                &["networking.address: address has to be valid IP address or domain name"],
            ),
            (
                networking(json!({"inbound": {}})),
                &["networking.inbound: expected a list, found {}"],
            ),
        ],
    );
}

#[test]
fn inbounds() {
    let differ = "networking.inbound[0].serviceAddress: serviceAddress and servicePort has to differ from \
                  address and port";
    rows(
        dataplane,
        &[
            (inbound(json!({})), &[]),
            (
                inbound(json!({"port": 0})),
                &["networking.inbound[0].port: port must be in the range [1, 65535]"],
            ),
            (
                inbound(json!({"port": null})),
                &["networking.inbound[0].port: port must be in the range [1, 65535]"],
            ),
            (
                inbound(json!({"servicePort": 65536})),
                &["networking.inbound[0].servicePort: port must be in the range [1, 65535]"],
            ),
            (
                inbound(json!({"serviceAddress": "web"})),
                &[
                    "networking.inbound[0].serviceAddress: serviceAddress has to be valid IP address",
                ],
            ),
            (inbound(json!({"serviceAddress": "10.0.0.1"})), &[differ]),
            (
                inbound(
                    json!({"address": "10.0.0.2", "serviceAddress": "10.0.0.2", "servicePort": 80}),
                ),
                &[differ],
            ),
            (
                inbound(
                    json!({"address": "10.0.0.2", "serviceAddress": "10.0.0.2", "servicePort": 81}),
                ),
                &[],
            ),
            (
                inbound(json!({"address": "web"})),
                &["networking.inbound[0].address: address has to be valid IP address"],
            ),
        ],
    );
}

#[test]
fn inbound_tags_states_and_probes() {
    rows(
        dataplane,
        &[
            (
                inbound(json!({"tags": {"a": "b"}})),
                &[r#"networking.inbound[0].tags["kuma.io/service"]: tag has to exist"#],
            ),
            (
                inbound(json!({"tags": {"kuma.io/service": "web", "kuma.io/protocol": "udp"}})),
                &[concat!(
                    r#"networking.inbound[0].tags["kuma.io/protocol"]: tag "kuma.io/protocol" has an invalid value "#,
                    r#""udp". Allowed values: grpc, http, http2, kafka, tcp"#
                )],
            ),
            (
                inbound(json!({"tags": {"kuma.io/service": "a/b"}})),
                &[concat!(
                    r#"networking.inbound[0].tags["kuma.io/service"]: tag value must consist of alphanumeric "#,
                    "characters, dots, dashes and underscores"
                )],
            ),
            (inbound(json!({"state": "Ready"})), &[]),
            (
                inbound(json!({"state": "ready"})),
                &[
                    r#"networking.inbound[0].state: unknown state. Available states: "Ready", "NotReady", "Ignored""#,
                ],
            ),
            (
                inbound(
                    json!({"serviceProbe": {"interval": "10s", "timeout": "0s", "healthyThreshold": 0}}),
                ),
                &[
                    "networking.inbound[0].serviceProbe.timeout: must have a positive value",
                    "networking.inbound[0].serviceProbe.healthyThreshold: must have a positive value",
                ],
            ),
            (
                inbound(json!({"serviceProbe": {"interval": "soon"}})),
                &["networking.inbound[0].serviceProbe.interval: must have a valid value"],
            ),
        ],
    );
}

#[test]
fn outbounds() {
    let tags = json!({"kuma.io/service": "db"});
    rows(
        dataplane,
        &[
            (outbound(json!({"port": 5000, "tags": tags})), &[]),
            (
                outbound(json!({"port": 5000, "backendRef": {"kind": "MeshService"}})),
                &[],
            ),
            (
                outbound(json!({"tags": tags})),
                &["networking.outbound[0].port: port must be in the range [1, 65535]"],
            ),
            (
                outbound(json!({"port": 1, "address": "db", "tags": tags})),
                &["networking.outbound[0].address: address has to be valid IP address"],
            ),
            (
                outbound(json!({"port": 1})),
                &[r#"networking.outbound[0].tags: mandatory tag "kuma.io/service" is missing"#],
            ),
        ],
    );
}

#[test]
fn gateways() {
    let gateway = |fields: Value| {
        let mut spec =
            networking(json!({"gateway": {"tags": {"kuma.io/service": "edge"}}, "inbound": null}));
        for (key, value) in fields.as_object().unwrap() {
            spec["networking"][key] = value.clone();
        }
        spec
    };
    let builtin = json!({"type": "BUILTIN", "tags": {"kuma.io/service": "edge"}});
    let listener = json!([{"port": 1, "tags": {"kuma.io/service": "a"}}]);
    rows(
        dataplane,
        &[
            (gateway(json!({})), &[]),
            (
                gateway(json!({"inbound": listener})),
                &["networking.inbound: inbound cannot be defined for delegated gateways"],
            ),
            (
                gateway(json!({"gateway": builtin, "outbound": listener})),
                &["networking.outbound: outbound cannot be defined for builtin gateways"],
            ),
            (
                gateway(json!({"gateway": {"type": "EDGE", "tags": {"kuma.io/service": "edge"}}})),
                &[
                    r#"networking.gateway.type: unknown type. Available types: "DELEGATED", "BUILTIN""#,
                ],
            ),
            (
                gateway(json!({"gateway": {"tags": {"kuma.io/protocol": "http"}}})),
                &[
                    concat!(
                        r#"networking.gateway.tags["kuma.io/protocol"]: other values than tcp are not allowed, "#,
                        r#"provided value "http""#
                    ),
                    r#"networking.gateway.tags: mandatory tag "kuma.io/service" is missing"#,
                ],
            ),
        ],
    );
}

#[test]
fn admin_ports_and_probes() {
    let admin = |port: Value, listeners: Value| {
        let mut spec = networking(listeners);
        spec["networking"]["admin"] = json!({ "port": port });
        spec
    };
    let db = json!({"outbound": [{"port": 9901, "tags": {"kuma.io/service": "db"}}]});
    let probes = |probes: Value| {
        let mut spec = networking(json!({}));
        spec["probes"] = probes;
        spec
    };
    rows(
        dataplane,
        &[
            (admin(json!(9901), json!({})), &[]),
            (
                admin(json!(8080), json!({})),
                &["networking.admin.port: must differ from inbound"],
            ),
            (admin(json!(80), json!({})), &[]),
            (
                admin(json!(9901), db),
                &["networking.admin.port: must differ from outbound"],
            ),
            (
                admin(json!(70000), json!({})),
                &["networking.admin.port: port must be in the range [1, 65535]"],
            ),
            (
                probes(
                    json!({"port": 9000, "endpoints": [{"inboundPort": 1, "inboundPath": "/a", "path": "/b"}]}),
                ),
                &[],
            ),
            (
                probes(json!({"endpoints": [{"inboundPath": "a", "path": "/b"}]})),
                &[
                    "probes.port: port must be in the range [1, 65535]",
                    "probes.endpoints[0].inboundPort: port must be in the range [1, 65535]",
                    "probes.endpoints[0].inboundPath: should be a valid URL Path",
                ],
            ),
        ],
    );
}

#[test]
fn overrides() {
    let metrics = |metrics: Value| json!({ "metrics": metrics });
    rows(
        dataplane,
        &[
            (metrics(json!({"type": "prometheus"})), &[]),
            (
                metrics(
                    json!({"type": "prometheus", "conf": {"aggregate": [{"name": "a", "enabled": false}]}}),
                ),
                &[],
            ),
            (
                metrics(json!({"type": "statsd"})),
                &[r#"metrics.type: unknown backend type. Available backends: "prometheus""#],
            ),
            (
                metrics(json!({"type": "prometheus", "conf": {"port": "x"}})),
                &[concat!(
                    r#"metrics.conf: could not parse config: port: expected a whole number from 0 to 4294967295, "#,
                    r#"found "x""#
                )],
            ),
            (
                metrics(json!({"type": "prometheus", "conf": {"port": 0}})),
                &["metrics.conf.port: port must be in the range [1, 65535]"],
            ),
        ],
    );
    let mut both = networking(json!({"address": ""}));
    both["metrics"] = json!({"type": "x"});
    assert_eq!(dataplane(&both).len(), 2);
}
