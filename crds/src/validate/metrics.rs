//! Rules of `metrics`: the backends of a Mesh and the `conf` that a Dataplane shares with them.
//! Called by the rules of both. Knows nothing of merging: what only shows there is found by `merge::check`.

use super::{Report, tags};
use crate::address;
use crate::conf::{PROMETHEUS, PrometheusConf};
use crate::dataplane::unparsed;
use crate::filter;
use crate::node::Node;
use crate::ports;
use crate::settings::MetricsTls;

/// Kuma's words for a backend of another type.
pub(super) const TYPE_MESSAGE: &str = "unknown backend type. Available backends: \"prometheus\"";

const PATH_MESSAGE: &str = "path has to start with '/'";

/// `metrics` of a Mesh.
pub(super) fn rules(report: &mut Report, metrics: &Node<'_>) {
    if report.read(metrics.object()).is_some() {
        report.backends(metrics, backend);
    }
}

/// One backend, of a Mesh or the only one of a Dataplane.
pub(super) fn backend(report: &mut Report, backend: &Node<'_>) {
    let kind = backend.get("type");
    match report.read(kind.text_or_empty()) {
        Some(PROMETHEUS) => conf(report, &backend.get("conf")),
        Some(_) => report.add(&kind, TYPE_MESSAGE),
        None => {}
    }
}

fn conf(report: &mut Report, node: &Node<'_>) {
    let read = PrometheusConf::read(node).map_err(|cause| unparsed(node, cause));
    let Some(conf) = report.read(read) else {
        return;
    };
    if contradicts_itself(&conf) {
        report.add(
            node,
            "skipMTLS and tls configuration cannot be defined together",
        );
        return;
    }
    if let Some(error) = conf.filter_regex.as_deref().and_then(regex_error) {
        let field = node.get("envoy").get("filterRegex");
        report.add(&field, format!("provided regexp isn't correct: {error}"));
        return;
    }
    duplicates(report, node, &conf);
    let port = report.optional_port(&node.get("port"));
    if port.is_some_and(|port| ports::OWN.contains(&port)) {
        report.add(&node.get("port"), ports::OWN_MESSAGE);
    }
    path(report, &node.get("path"));
    tags::tags(report, &node.get("tags"));
    for entry in node.get("aggregate").items().unwrap_or_default() {
        aggregate(report, &entry);
    }
}

/// Whether the older and the newer spelling ask for different things.
fn contradicts_itself(conf: &PrometheusConf) -> bool {
    let meant = |skip| match skip {
        true => MetricsTls::Disabled,
        false => MetricsTls::ActiveMtlsBackend,
    };
    matches!((conf.skip_mtls, conf.tls), (Some(skip), Some(tls)) if meant(skip) != tls)
}

/// Why a filter is no regular expression, on one line.
fn regex_error(filter: &str) -> Option<String> {
    let error = filter::compile(filter).err()?.to_string();
    let last = error.lines().last().unwrap_or_default();
    Some(last.trim_start_matches("error: ").to_owned())
}

fn duplicates(report: &mut Report, node: &Node<'_>, conf: &PrometheusConf) {
    for (index, entry) in conf.aggregate.iter().enumerate() {
        let earlier = &conf.aggregate[..index];
        if !entry.name.is_empty() && earlier.iter().any(|other| other.name == entry.name) {
            let message = format!("duplicate entry: {}, values have to be unique", entry.name);
            report.add_at(format!("{}.aggregate[{index}].name", node.path()), message);
        }
    }
}

fn aggregate(report: &mut Report, entry: &Node<'_>) {
    let name = entry.get("name");
    if name.text_or_empty() == Ok("") {
        report.add(&name, "has to be defined");
    }
    report.optional_port(&entry.get("port"));
    path(report, &entry.get("path"));
    let place = entry.get("address");
    let text = place.text_or_empty().unwrap_or_default();
    if !text.is_empty() && !address::is_valid(text) {
        report.add(&place, address::MESSAGE);
    }
}

fn path(report: &mut Report, node: &Node<'_>) {
    let text = node.text_or_empty().unwrap_or_default();
    if !text.is_empty() && !text.starts_with('/') {
        report.add(node, PATH_MESSAGE);
    }
}
