//! Merges a Mesh and the override of one proxy, field by field, into the settings document.
//! Called by the webhook (at injection), the operator (when either changes) and the proxy (from files). The more
//! specific level wins wherever it says something, also when it says `false`. It knows nothing of where the two came
//! from but the name of the source, to report what is missing in the user's own words.

use std::collections::BTreeMap;

use crate::conf::{AggregateConf, PrometheusConf};
use crate::mesh::MeshSpec;
pub use crate::settings::OverrideSource;
use crate::settings::{Aggregate, MetricsSettings, SETTINGS_VERSION, Settings};
use crate::violation::Violation;
use crate::{names, ports};

/// What is said when no level gives an enabled application a port, in Kuma's words.
const NO_PORT: &str = "port needs to be specified for metrics scraping";

/// What one proxy changes of its Mesh's metrics.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MetricsOverride {
    /// What it says; everything else is the Mesh's.
    pub conf: PrometheusConf,
    /// Where it was written.
    pub source: OverrideSource,
}

/// The settings of a proxy in `mesh` with content `spec`. Always succeeds: a value that cannot be used counts as
/// absent, an application without a port is left out, and a `conf` that cannot be typed switches the endpoint off
/// rather than opening it with less security than was asked for.
pub fn settings(mesh: &str, spec: &MeshSpec, over: Option<&MetricsOverride>) -> Settings {
    let metrics = metrics(spec, over);
    let overridden = over.filter(|_| metrics.is_some());
    Settings {
        version: SETTINGS_VERSION,
        mesh: mesh.to_owned(),
        metrics,
        overridden: overridden.map(overridden_by).unwrap_or_default(),
        mtls: spec.mtls_mode(),
        identity: None,
        inbounds: None,
        other_ports: None,
        passthrough: spec.passthrough(),
    }
}

/// The fields of the settings' `metrics` that an override decides, by their names there.
fn overridden_by(over: &MetricsOverride) -> BTreeMap<String, OverrideSource> {
    let conf = &over.conf;
    let says = [
        ("port", port_of(conf.port).is_some()),
        ("path", path_of(&conf.path).is_some()),
        ("tags", !conf.tags.is_empty()),
        ("tls", conf.tls_mode().is_some()),
        ("filter", conf.filter_regex.is_some()),
        ("usedOnly", conf.used_only.is_some()),
        ("aggregate", !conf.aggregate.is_empty()),
    ];
    let said = says.into_iter().filter(|(_, says)| *says);
    said.map(|(field, _)| (field.to_owned(), over.source))
        .collect()
}

/// What is wrong with an override on top of this Mesh that neither shows alone: an enabled application that `over`
/// names and for which no level has a port. Nothing is wrong where the Mesh has no metrics.
pub fn check(spec: &MeshSpec, over: &MetricsOverride) -> Vec<Violation> {
    let Some(Ok(base)) = spec.enabled_metrics().map(|backend| backend.conf()) else {
        return Vec::new();
    };
    let named = |name: &str| {
        over.conf
            .aggregate
            .iter()
            .position(|entry| entry.name == name)
    };
    let missing = |entry: &AggregateConf| entry.enabled != Some(false) && port(entry).is_none();
    aggregates(&base.aggregate, &over.conf.aggregate)
        .iter()
        .filter(|entry| missing(entry))
        .filter_map(|entry| {
            Some(Violation::new(
                port_field(over.source, &entry.name, named(&entry.name)?),
                NO_PORT,
            ))
        })
        .collect()
}

/// Applications of the enabled backend that are published only where an override gives them a port: worth a warning
/// when a Mesh is stored, not a refusal.
pub fn warnings(spec: &MeshSpec) -> Vec<Violation> {
    let Some(enabled) = spec.enabled_metrics() else {
        return Vec::new();
    };
    let Ok(conf) = enabled.conf() else {
        return Vec::new();
    };
    let backends = spec.metrics_backends();
    let backend = backends.iter().position(|backend| *backend == enabled);
    let place = format!("metrics.backends[{}].conf", backend.unwrap_or_default());
    let missing = |(_, entry): &(usize, &AggregateConf)| {
        entry.enabled != Some(false) && port(entry).is_none()
    };
    let warn = |(index, _)| Violation::new(format!("{place}.aggregate[{index}].port"), NO_PORT);
    conf.aggregate
        .iter()
        .enumerate()
        .filter(missing)
        .map(warn)
        .collect()
}

fn port_field(source: OverrideSource, name: &str, index: usize) -> String {
    match source {
        OverrideSource::Annotations => format!("{}{name}-port", names::METRICS_AGGREGATE_PREFIX),
        OverrideSource::Dataplane => format!("metrics.conf.aggregate[{index}].port"),
    }
}

fn metrics(spec: &MeshSpec, over: Option<&MetricsOverride>) -> Option<MetricsSettings> {
    let base = spec.enabled_metrics()?.conf().ok()?;
    let nothing = PrometheusConf::default();
    let over = over.map_or(&nothing, |over| &over.conf);
    let filter = over.filter_regex.as_ref().or(base.filter_regex.as_ref());
    Some(MetricsSettings {
        port: port_of(over.port)
            .or(port_of(base.port))
            .unwrap_or(ports::METRICS),
        path: path_of(&over.path)
            .or(path_of(&base.path))
            .unwrap_or(ports::METRICS_PATH)
            .to_owned(),
        tags: tags(&base.tags, &over.tags),
        permission: None,
        tls: over.tls_mode().or(base.tls_mode()).unwrap_or_default(),
        filter: filter.filter(|filter| !filter.is_empty()).cloned(),
        used_only: over.used_only.or(base.used_only).unwrap_or_default(),
        aggregate: aggregates(&base.aggregate, &over.aggregate)
            .iter()
            .filter_map(complete)
            .collect(),
    })
}

fn port_of(number: Option<u32>) -> Option<u16> {
    number.and_then(ports::checked)
}

fn port(entry: &AggregateConf) -> Option<u16> {
    port_of(entry.port)
}

/// A path that can be requested.
fn path_of(path: &Option<String>) -> Option<&str> {
    path.as_deref().filter(|path| path.starts_with('/'))
}

/// The tags of both levels; the Mesh's are the default ones where it has none.
fn tags(
    base: &BTreeMap<String, String>,
    over: &BTreeMap<String, String>,
) -> BTreeMap<String, String> {
    let mut tags = base.clone();
    if tags.is_empty() {
        tags.insert(
            names::SERVICE_TAG.to_owned(),
            names::METRICS_SERVICE.to_owned(),
        );
    }
    tags.extend(over.clone());
    tags
}

/// The entries of both levels, each name once: the Mesh's order first, then what the override adds.
fn aggregates(base: &[AggregateConf], over: &[AggregateConf]) -> Vec<AggregateConf> {
    let mut merged: Vec<AggregateConf> = Vec::new();
    for entry in base.iter().chain(over) {
        match merged.iter_mut().find(|known| known.name == entry.name) {
            Some(known) => lay_over(known, entry),
            None => merged.push(entry.clone()),
        }
    }
    merged
}

fn lay_over(entry: &mut AggregateConf, over: &AggregateConf) {
    entry.port = port(over).map(u32::from).or(entry.port);
    if path_of(&over.path).is_some() {
        entry.path.clone_from(&over.path);
    }
    entry.enabled = over.enabled.or(entry.enabled);
    if over.address.is_some() {
        entry.address.clone_from(&over.address);
    }
}

fn complete(entry: &AggregateConf) -> Option<Aggregate> {
    if entry.enabled == Some(false) || entry.name.is_empty() {
        return None;
    }
    Some(Aggregate {
        name: entry.name.clone(),
        port: port(entry)?,
        path: path_of(&entry.path)
            .unwrap_or(ports::METRICS_PATH)
            .to_owned(),
        address: entry.address.clone().filter(|address| !address.is_empty()),
    })
}

#[cfg(test)]
mod tests;
