//! Proxies as Prometheus' `http_sd` reads them, each with the labels that its own discovery of pods gives, so that one
//! scrape configuration is right for both. Called by `monitoring`. It knows no connection.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;

use serde::Serialize;
use weir_crds::{names, ports};

use crate::index::{Pod, Proxy};

/// What the name of every label begins with.
const PREFIX: &str = "__meta_kubernetes_";
/// How many pods are written at once: what is in memory of a list, however long it is.
const PIECE: usize = 64;

type Labels<'a> = BTreeMap<String, Cow<'a, str>>;

#[derive(Serialize)]
struct Group<'a> {
    targets: [String; 1],
    labels: Labels<'a>,
}

/// The list of these pods as JSON, in pieces.
pub(super) fn pieces(pods: Vec<Arc<Pod>>) -> impl Iterator<Item = String> {
    let pieces = pods.len().div_ceil(PIECE);
    let inner = (0..pieces).map(move |number| {
        let rest = &pods[number * PIECE..];
        let proxies = rest.iter().take(PIECE).filter_map(|pod| pod.proxy());
        let groups = proxies.map(|proxy| {
            serde_json::to_string(&group(&proxy)).expect("texts under texts are always JSON")
        });
        let groups = groups.collect::<Vec<_>>().join(",\n");
        let before = if number == 0 { "" } else { ",\n" };
        format!("{before}{groups}")
    });
    std::iter::once("[".to_owned())
        .chain(inner)
        .chain(std::iter::once("]\n".to_owned()))
}

fn group<'a>(proxy: &Proxy<'a>) -> Group<'a> {
    let address = SocketAddr::new(proxy.address, proxy.admin.number);
    let mut labels = Labels::new();
    let mut put = |name: &str, value: Cow<'a, str>| {
        labels.insert(format!("{PREFIX}{name}"), value);
    };
    for (name, value) in fixed(proxy) {
        put(name, value);
    }
    for (key, value) in &proxy.injected.labels {
        let key = sanitized(key);
        put(&format!("pod_label_{key}"), Cow::Borrowed(value));
        put(&format!("pod_labelpresent_{key}"), "true".into());
    }
    Group {
        targets: [address.to_string()],
        labels,
    }
}

/// The labels whose names are the same for every pod.
fn fixed<'a>(proxy: &Proxy<'a>) -> impl Iterator<Item = (&'static str, Cow<'a, str>)> {
    let workload = &proxy.pod.workload;
    let ready = match proxy.ready {
        Some(true) => "true",
        Some(false) => "false",
        None => "unknown",
    };
    let is_init = if proxy.admin.is_init { "true" } else { "false" };
    let controller = proxy.controller.into_iter().flat_map(|(kind, name)| {
        [
            ("pod_controller_kind", kind.into()),
            ("pod_controller_name", name.into()),
        ]
    });
    [
        ("namespace", Cow::Borrowed(&*workload.pod.namespace)),
        ("pod_name", Cow::Borrowed(&*workload.pod.name)),
        ("pod_ip", proxy.address.to_string().into()),
        ("pod_phase", proxy.phase.as_str().into()),
        ("pod_ready", ready.into()),
        (
            "pod_node_name",
            workload.node.as_deref().unwrap_or_default().into(),
        ),
        ("pod_uid", Cow::Borrowed(&*proxy.injected.uid)),
        ("pod_container_name", names::SIDECAR.into()),
        ("pod_container_init", is_init.into()),
        ("pod_container_port_name", ports::LINKERD_ADMIN.into()),
        (
            "pod_container_port_number",
            proxy.admin.number.to_string().into(),
        ),
        ("pod_container_port_protocol", "TCP".into()),
    ]
    .into_iter()
    .chain(controller)
}

/// A label's key as a part of a name: Prometheus has letters, digits and underscores there.
fn sanitized(key: &str) -> String {
    key.replace(|one: char| !one.is_ascii_alphanumeric(), "_")
}

#[cfg(test)]
mod tests;
