//! What is in force and who said so, as JSON: `/config`. `config` makes the entries of flags and variables, which never
//! change; those of the Mesh are made here of the settings in force. Documents themselves are never shown: whatever
//! secret one may hold is not in any of these values.

use super::endpoint::EndpointStatus;
use crate::redirection::State;
use serde_json::{Map, Value, json};
use weir_crds::ports;
use weir_crds::settings::{MetricsSettings, MetricsTls, MtlsMode, OverrideSource, Settings};

/// A setting by the name under which a user gives it.
#[derive(Debug, Clone, PartialEq)]
pub struct Entry {
    /// The flag with its dashes, or the variable where there is no flag.
    pub name: &'static str,
    pub value: Value,
    pub source: Source,
}

/// Who decided a value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// Nobody.
    Default,
    /// The flag of the command line.
    Flag,
    /// This variable of the environment.
    Variable(String),
    /// The Mesh.
    Mesh,
    /// The proxy's own Dataplane document.
    Dataplane,
    /// An annotation of the pod or its namespace.
    Annotation,
}

impl Source {
    fn name(&self) -> &'static str {
        match self {
            Self::Default => "default",
            Self::Flag => "flag",
            Self::Variable(_) => "environment",
            Self::Mesh => "mesh",
            Self::Dataplane => "dataplane",
            Self::Annotation => "annotation",
        }
    }
}

impl From<OverrideSource> for Source {
    fn from(source: OverrideSource) -> Self {
        match source {
            OverrideSource::Annotations => Self::Annotation,
            OverrideSource::Dataplane => Self::Dataplane,
        }
    }
}

/// The whole report, with a line break at its end.
pub(super) fn render(
    entries: &[Entry],
    settings: &Settings,
    endpoint: &EndpointStatus,
    redirection: Option<State>,
) -> String {
    let mut values = Map::new();
    for Entry {
        name,
        value,
        source,
    } in entries
    {
        values.insert((*name).to_owned(), told(value.clone(), source));
    }
    values.extend(of_mesh(settings));
    let mut report = json!({
        "version": env!("CARGO_PKG_VERSION"),
        "settings": values,
        "metricsEndpoint": status(endpoint),
    });
    if let Some(state) = redirection {
        report["redirection"] = json!({"state": word(state)});
    }
    format!("{report:#}\n")
}

fn told(value: Value, source: &Source) -> Value {
    let mut told = json!({"value": value, "source": source.name()});
    if let Source::Variable(name) = source {
        told["variable"] = json!(name);
    }
    told
}

fn word(state: State) -> &'static str {
    match state {
        State::Unknown => "unknown",
        State::Redirected => "redirected",
        State::Direct => "direct",
    }
}

fn status(endpoint: &EndpointStatus) -> Value {
    match endpoint {
        EndpointStatus::Off => json!({"state": "off"}),
        EndpointStatus::Serving(addr) => json!({"state": "serving", "address": addr.to_string()}),
        EndpointStatus::Closed(reason) => json!({"state": "closed", "reason": reason}),
        EndpointStatus::Unbound(reason) => json!({"state": "unbound", "reason": reason}),
    }
}

/// What the Mesh and the proxy's own override decided, under the names of the resource's fields.
fn of_mesh(settings: &Settings) -> Vec<(String, Value)> {
    let mtls = match settings.mtls {
        MtlsMode::Disabled => ("disabled", Source::Default),
        MtlsMode::Permissive => ("permissive", Source::Mesh),
        MtlsMode::Strict => ("strict", Source::Mesh),
    };
    let mut told_of = vec![
        ("mesh".to_owned(), told(json!(settings.mesh), &Source::Mesh)),
        ("mtls".to_owned(), told(json!(mtls.0), &mtls.1)),
    ];
    match &settings.metrics {
        None => told_of.push(("metrics".to_owned(), told(json!("off"), &Source::Mesh))),
        Some(metrics) => told_of.extend(of_metrics(metrics).map(|(field, value, default)| {
            let source = match settings.overridden.get(field) {
                Some(source) => (*source).into(),
                None if value == default => Source::Default,
                None => Source::Mesh,
            };
            (format!("metrics.{field}"), told(value, &source))
        })),
    }
    told_of
}

/// The fields of `metrics`, each with its value and its default.
fn of_metrics(metrics: &MetricsSettings) -> [(&'static str, Value, Value); 7] {
    let applications = metrics.aggregate.iter().map(|application| {
        json!({
            "name": application.name,
            "port": application.port,
            "path": application.path,
            "address": application.address,
        })
    });
    let default_tags = json!({ weir_crds::names::SERVICE_TAG: weir_crds::names::METRICS_SERVICE });
    let tls = match metrics.tls {
        MetricsTls::ActiveMtlsBackend => "activeMTLSBackend",
        MetricsTls::ProvidedTls => "providedTLS",
        MetricsTls::Disabled => "disabled",
    };
    [
        ("port", json!(metrics.port), json!(ports::METRICS)),
        ("path", json!(metrics.path), json!(ports::METRICS_PATH)),
        ("tags", json!(metrics.tags), default_tags),
        ("tls", json!(tls), json!("activeMTLSBackend")),
        ("filter", json!(metrics.filter), Value::Null),
        ("usedOnly", json!(metrics.used_only), json!(false)),
        ("aggregate", applications.collect(), json!([])),
    ]
}
