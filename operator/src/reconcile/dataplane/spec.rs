//! The spec of an injected pod's Dataplane, as Kuma generates it (`pod_converter.go`, `inbound_converter.go`). A pure
//! function of the pod, the Services that select it and its node.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::{Value, json};
use weir_crds::conf::{AggregateConf, PROMETHEUS, PrometheusConf};
use weir_crds::names::{
    NAMESPACE_TAG, PROTOCOL_TAG, SERVICE_NAME_TAG, SERVICE_PORT_TAG, SERVICE_TAG,
};
use weir_crds::{Violation, annotations, merge, validate, violation};

use crate::index::{
    Container, Ingredients, Injected, Node, Pod, REGION, Service, ServicePort, TargetPort, ZONE,
};

/// The port of a pod that no Service selects: one that nothing ever listens on.
const NO_SERVICE_PORT: u16 = 49151;
/// The values of `kuma.io/protocol`.
const PROTOCOLS: [&str; 5] = ["grpc", "http", "http2", "kafka", "tcp"];
/// What tags of pods' labels must not have in their key: such tags are the operator's to give.
const RESERVED: &str = "kuma.io/";
/// Tags of the operator.
const ZONE_TAG: &str = "kuma.io/zone";
const INSTANCE_TAG: &str = "kuma.io/instance";
/// Why a pod has no Dataplane.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConversionError {
    /// Services select the pod, and none has a port of it (Kuma's words).
    #[error(
        "A service that selects pod {0} was found, but it doesn't match any container ports: name a port of the container in targetPort"
    )]
    NoPort(Arc<str>),
    /// An annotation or a label cannot be used.
    #[error("{}", violation::joined(.0))]
    Invalid(Vec<Violation>),
}

/// The spec of an injected pod's Dataplane.
///
/// # Errors
/// Where the pod, its annotations or its Services do not make one.
pub fn dataplane(ingredients: &Ingredients, zone: Option<&str>) -> Result<Value, ConversionError> {
    let (Some(pod), services) = (&ingredients.pod, &ingredients.services) else {
        return Ok(Value::Null);
    };
    let Some(injected) = &pod.injected else {
        return Ok(Value::Null);
    };
    let source = Source {
        pod,
        injected,
        node: ingredients.node.as_ref(),
        zone,
    };
    let services = services
        .iter()
        .filter(|one| !one.ignored && one.external_name.is_none());
    let services: Vec<&Service> = services.map(Arc::as_ref).collect();
    let inbounds = services.iter().flat_map(|service| {
        service
            .ports
            .iter()
            .filter_map(|port| source.inbound(service, port))
    });
    let mut inbounds: Vec<Value> = inbounds.collect();
    if services.is_empty() {
        inbounds.push(source.inbound_without_service());
    } else if inbounds.is_empty() {
        return Err(ConversionError::NoPort(pod.workload.pod.name.clone()));
    }
    let address = pod.addresses.first().map(ToString::to_string);
    let mut spec = json!({"networking": {"address": address, "inbound": inbounds}});
    if let Some(conf) = metrics_conf(injected)? {
        spec["metrics"] = json!({"type": PROMETHEUS, "conf": conf});
    }
    let violations = validate::dataplane(&spec);
    match violations.is_empty() {
        true => Ok(spec),
        false => Err(ConversionError::Invalid(violations)),
    }
}

/// What inbounds are made of.
struct Source<'a> {
    pod: &'a Pod,
    injected: &'a Injected,
    node: Option<&'a Node>,
    zone: Option<&'a str>,
}

impl Source<'_> {
    /// The inbound of a Service's port; `None` where the pod has no such port.
    fn inbound(&self, service: &Service, port: &ServicePort) -> Option<Value> {
        let (number, container) = self.find(&port.target)?;
        let mut tags = self.tags();
        let (name, namespace) = (&service.key.name, &service.key.namespace);
        let number_of_service = port.port;
        tags.insert(SERVICE_NAME_TAG.into(), name.to_string());
        tags.insert(SERVICE_PORT_TAG.into(), number_of_service.to_string());
        let value = format!("{name}_{namespace}_svc_{number_of_service}");
        tags.insert(SERVICE_TAG.into(), value);
        tags.insert(PROTOCOL_TAG.into(), protocol(port));
        if service.headless {
            tags.insert(INSTANCE_TAG.into(), self.pod.workload.pod.name.to_string());
        }
        Some(self.written(number, tags, self.is_ready(container)))
    }

    /// The inbound of a pod without a Service.
    fn inbound_without_service(&self) -> Value {
        let workload = &self.pod.workload;
        let owner = workload.owner.as_ref().map(|(_, name)| name);
        let name = owner.unwrap_or(&workload.pod.name);
        let mut tags = self.tags();
        tags.insert(
            SERVICE_TAG.into(),
            format!("{name}_{}_svc", workload.pod.namespace),
        );
        tags.insert(PROTOCOL_TAG.into(), "tcp".into());
        tags.insert(INSTANCE_TAG.into(), workload.pod.name.to_string());
        self.written(NO_SERVICE_PORT, tags, self.is_ready(None))
    }

    fn written(&self, port: u16, tags: BTreeMap<String, String>, ready: bool) -> Value {
        json!({
            "port": port,
            "tags": tags,
            "health": {"ready": ready},
            "state": if ready { "Ready" } else { "NotReady" },
        })
    }

    /// The tags of every inbound: the pod's labels but those that only the operator may give, and where it runs.
    fn tags(&self) -> BTreeMap<String, String> {
        let labels = self.injected.labels.iter();
        let labels = labels.filter(|(key, value)| !value.is_empty() && !key.contains(RESERVED));
        let mut tags: BTreeMap<String, String> = labels
            .map(|(key, value)| (key.to_string(), value.to_string()))
            .collect();
        tags.insert(
            NAMESPACE_TAG.into(),
            self.pod.workload.pod.namespace.to_string(),
        );
        let node = self
            .node
            .map(|node| [(ZONE, &node.zone), (REGION, &node.region)]);
        for (key, value) in node.into_iter().flatten() {
            tags.extend(
                value
                    .as_ref()
                    .map(|value| (key.to_owned(), value.to_string())),
            );
        }
        tags.extend(self.zone.map(|zone| (ZONE_TAG.to_owned(), zone.to_owned())));
        tags
    }

    /// Where a Service's port leads on the pod, and the container that declares it.
    fn find(&self, target: &TargetPort) -> Option<(u16, Option<&Container>)> {
        let containers = &self.injected.containers;
        let mut declared = containers.iter().flat_map(|container| {
            container
                .ports
                .iter()
                .map(move |(name, port)| (name, *port, container))
        });
        match target {
            TargetPort::Name(wanted) => {
                let (_, port, container) = declared.find(|(name, _, _)| *name == wanted)?;
                Some((port, Some(container)))
            }
            TargetPort::Number(wanted) => {
                let found = declared.find(|(_, port, _)| port == wanted);
                Some((*wanted, found.map(|(_, _, container)| container)))
            }
        }
    }

    /// Ready are the container behind the port (all of them, where none declares it) and the proxy, and the pod stays.
    fn is_ready(&self, container: Option<&Container>) -> bool {
        let ready = |container: &Container| container.ready != Some(false);
        let application = match container {
            Some(container) => ready(container),
            None => self.injected.containers.iter().all(ready),
        };
        application && self.injected.proxy_ready != Some(false) && !self.pod.terminating
    }
}

/// `appProtocol` where Kuma knows it, else the annotation, else tcp.
fn protocol(port: &ServicePort) -> String {
    let said = port
        .app_protocol
        .as_ref()
        .map(|protocol| protocol.to_ascii_lowercase());
    let said = said.filter(|protocol| PROTOCOLS.contains(&protocol.as_str()));
    let annotated = || {
        port.annotated
            .as_ref()
            .map(|protocol| protocol.to_ascii_lowercase())
    };
    said.or_else(annotated)
        .filter(|said| !said.is_empty())
        .unwrap_or_else(|| "tcp".to_owned())
}

/// The annotations of the pod as a `conf`.
fn metrics_conf(injected: &Injected) -> Result<Option<Value>, ConversionError> {
    let over = metrics_override(injected)?;
    let PrometheusConf {
        port,
        path,
        aggregate,
        ..
    } = &over.conf;
    if over.conf == PrometheusConf::default() {
        return Ok(None);
    }
    let entries: Vec<Value> = aggregate.iter().map(application).collect();
    let said = [
        ("port", json!(port)),
        ("path", json!(path)),
        ("aggregate", json!((!entries.is_empty()).then_some(entries))),
    ];
    Ok(Some(written(said)))
}

pub(super) fn metrics_override(
    injected: &Injected,
) -> Result<merge::MetricsOverride, ConversionError> {
    let pairs = injected.annotations.iter();
    let pairs = pairs.map(|(key, value)| (key.to_string(), value.to_string()));
    annotations::metrics_override(&pairs.collect()).map_err(ConversionError::Invalid)
}

fn application(entry: &AggregateConf) -> Value {
    written([
        ("name", json!(entry.name)),
        ("port", json!(entry.port)),
        ("path", json!(entry.path)),
        ("enabled", json!(entry.enabled)),
        ("address", json!(entry.address)),
    ])
}

/// The fields that say something.
fn written<const N: usize>(fields: [(&str, Value); N]) -> Value {
    let said = fields.into_iter().filter(|(_, value)| !value.is_null());
    said.map(|(key, value)| (key.to_owned(), value)).collect()
}
