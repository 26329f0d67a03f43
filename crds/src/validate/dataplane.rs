//! Rules of a Dataplane: its listeners, its tags and its metrics override.
//! Called by the webhook and by `universal`. A Dataplane without `networking` that has `metrics` is an override.

use std::collections::BTreeMap;
use std::net::IpAddr;

use serde_json::Value;

use super::{Report, metrics, tags};
use crate::address;
use crate::names::{PROTOCOL_TAG, SERVICE_TAG};
use crate::node::Node;
use crate::violation::Violation;

const IP_MESSAGE: &str = "address has to be valid IP address";
const PROTOCOLS: [&str; 5] = ["grpc", "http", "http2", "kafka", "tcp"];
const STATES: [&str; 3] = ["Ready", "NotReady", "Ignored"];

/// What is wrong with the content of a Dataplane.
pub fn dataplane(spec: &Value) -> Vec<Violation> {
    let mut report = Report::default();
    let root = Node::root(spec);
    let networking = root.get("networking");
    let overrides = root.get("metrics");
    if report.read(root.object()).is_none() {
        return report.violations;
    }
    if report.read(networking.object()).is_some() {
        match (networking.is_absent(), overrides.is_absent()) {
            (true, true) => report.add(&networking, "must be defined"),
            (true, false) => {}
            (false, _) => rules(&mut report, &networking, &root.get("probes")),
        }
    }
    if report.read(overrides.object()).is_some() && !overrides.is_absent() {
        metrics::backend(&mut report, &overrides);
    }
    report.violations
}

fn rules(report: &mut Report, networking: &Node<'_>, probes: &Node<'_>) {
    let inbound = networking.get("inbound");
    let outbound = networking.get("outbound");
    let inbounds = report.read(inbound.items()).unwrap_or_default();
    let outbounds = report.read(outbound.items()).unwrap_or_default();
    admin(report, &networking.get("admin"), (&inbounds, &outbounds));
    let gateway = networking.get("gateway");
    if report.read(gateway.object()).is_some() && !gateway.is_absent() {
        let builtin = gateway.get("type").text() == Ok(Some("BUILTIN"));
        let kind = if builtin { "builtin" } else { "delegated" };
        if !inbounds.is_empty() {
            report.add(
                &inbound,
                format!("inbound cannot be defined for {kind} gateways"),
            );
        }
        if builtin && !outbounds.is_empty() {
            report.add(&outbound, "outbound cannot be defined for builtin gateways");
        }
        gateway_rules(report, &gateway);
    } else if inbounds.is_empty() && inbound.items().is_ok() {
        report.add(
            networking,
            "has to contain at least one inbound interface or gateway",
        );
    }
    proxy_address(report, &networking.get("address"));
    let proxy = networking
        .get("address")
        .text_or_empty()
        .unwrap_or_default();
    for node in &inbounds {
        inbound_rules(report, node, proxy);
    }
    for node in &outbounds {
        outbound_rules(report, node);
    }
    virtual_probes(report, probes);
}

/// The admin port is bound on loopback and must be free there.
fn admin(report: &mut Report, admin: &Node<'_>, (inbounds, outbounds): (&[Node<'_>], &[Node<'_>])) {
    let field = admin.get("port");
    if report.read(admin.object()).is_none() || field.is_absent() {
        return;
    }
    let Some(port) = report.optional_port(&field) else {
        return;
    };
    let on_loopback = |node: &Node<'_>, address: &str, number: &str, unset: &str| {
        let address = node.get(address).text_or_empty().unwrap_or_default();
        let address: Option<IpAddr> = if address.is_empty() { unset } else { address }
            .parse()
            .ok();
        let here = address.is_some_and(|ip| ip.is_loopback() || ip.is_unspecified());
        here && node.get(number).number() == Ok(Some(u32::from(port)))
    };
    let service = |node: &Node<'_>| {
        let number = if node.get("servicePort").is_absent() {
            "port"
        } else {
            "servicePort"
        };
        on_loopback(node, "serviceAddress", number, "127.0.0.1")
    };
    if inbounds
        .iter()
        .any(|node| service(node) || on_loopback(node, "address", "port", ""))
    {
        report.add(&field, "must differ from inbound");
    }
    if outbounds
        .iter()
        .any(|node| on_loopback(node, "address", "port", "127.0.0.1"))
    {
        report.add(&field, "must differ from outbound");
    }
}

fn gateway_rules(report: &mut Report, gateway: &Node<'_>) {
    report.one_of(&gateway.get("type"), "type", &["DELEGATED", "BUILTIN"]);
    let node = gateway.get("tags");
    let Some(tags) = tags::tags(report, &node) else {
        return;
    };
    if let Some(protocol) = tags.get(PROTOCOL_TAG).filter(|protocol| *protocol != "tcp") {
        let message = format!("other values than tcp are not allowed, provided value {protocol:?}");
        report.add_at(node.path_of_entry(PROTOCOL_TAG), message);
    }
    tags::require_service(report, &node, &tags);
}

fn proxy_address(report: &mut Report, node: &Node<'_>) {
    match report.read(node.text_or_empty()) {
        None => {}
        Some("") => report.add(node, "address can't be empty"),
        Some("0.0.0.0" | "::") => report.add(node, "must not be 0.0.0.0 or ::"),
        Some(text) if !address::is_valid(text) => report.add(node, address::MESSAGE),
        Some(_) => {}
    }
}

fn inbound_rules(report: &mut Report, node: &Node<'_>, proxy: &str) {
    if report.read(node.object()).is_none() {
        return;
    }
    let port = report.required_port(&node.get("port"));
    let service_port = report.optional_port(&node.get("servicePort")).or(port);
    let service = node.get("serviceAddress");
    let service_address = ip(
        report,
        &service,
        "serviceAddress has to be valid IP address",
    );
    let address = ip(report, &node.get("address"), IP_MESSAGE);
    let listens = if address.is_empty() { proxy } else { address };
    if !service_address.is_empty() && service_address == listens && port == service_port {
        report.add(
            &service,
            "serviceAddress and servicePort has to differ from address and port",
        );
    }
    report.one_of(&node.get("state"), "state", &STATES);
    service_probe(report, &node.get("serviceProbe"));
    let field = node.get("tags");
    let Some(tags) = tags::tags(report, &field) else {
        return;
    };
    protocol(report, &field, &tags);
    if !tags.contains_key(SERVICE_TAG) {
        report.add_at(field.path_of_entry(SERVICE_TAG), "tag has to exist");
    }
}

fn protocol(report: &mut Report, field: &Node<'_>, tags: &BTreeMap<String, String>) {
    let Some(value) = tags
        .get(PROTOCOL_TAG)
        .filter(|value| !PROTOCOLS.contains(&value.as_str()))
    else {
        return;
    };
    let allowed = PROTOCOLS.join(", ");
    let message =
        format!("tag {PROTOCOL_TAG:?} has an invalid value {value:?}. Allowed values: {allowed}");
    report.add_at(field.path_of_entry(PROTOCOL_TAG), message);
}

fn outbound_rules(report: &mut Report, node: &Node<'_>) {
    if report.read(node.object()).is_none() {
        return;
    }
    report.required_port(&node.get("port"));
    ip(report, &node.get("address"), IP_MESSAGE);
    let field = node.get("tags");
    let reference = node.get("backendRef");
    if report.read(reference.object()).is_none() || !reference.is_absent() {
        return;
    }
    if let Some(tags) = tags::tags(report, &field) {
        tags::require_service(report, &field, &tags);
    }
}

/// An IP address or nothing, as it was written.
fn ip<'a>(report: &mut Report, node: &Node<'a>, message: &str) -> &'a str {
    let text = report.read(node.text_or_empty()).unwrap_or_default();
    if !text.is_empty() && text.parse::<IpAddr>().is_err() {
        report.add(node, message);
    }
    text
}

fn service_probe(report: &mut Report, probe: &Node<'_>) {
    if report.read(probe.object()).is_none() {
        return;
    }
    for name in ["interval", "timeout"] {
        let field = probe.get(name);
        if let Some(Some(text)) = report.read(field.text()) {
            match text
                .strip_suffix('s')
                .and_then(|seconds| seconds.parse::<f64>().ok())
            {
                None => report.add(&field, "must have a valid value"),
                Some(seconds) if !seconds.is_finite() => {
                    report.add(&field, "must have a valid value")
                }
                Some(seconds) if seconds <= 0.0 => report.add(&field, "must have a positive value"),
                Some(_) => {}
            }
        }
    }
    for name in ["unhealthyThreshold", "healthyThreshold"] {
        let field = probe.get(name);
        if report.read(field.number()).flatten() == Some(0) {
            report.add(&field, "must have a positive value");
        }
    }
}

fn virtual_probes(report: &mut Report, probes: &Node<'_>) {
    if report.read(probes.object()).is_none() || probes.is_absent() {
        return;
    }
    report.required_port(&probes.get("port"));
    for endpoint in report
        .read(probes.get("endpoints").items())
        .unwrap_or_default()
    {
        report.required_port(&endpoint.get("inboundPort"));
        for name in ["inboundPath", "path"] {
            let field = endpoint.get(name);
            let path = report.read(field.text_or_empty()).unwrap_or("/");
            if !path.starts_with('/') {
                report.add(&field, "should be a valid URL Path");
            }
        }
    }
}
