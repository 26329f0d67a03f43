//! A pod with our proxy, as it is said in two ways: as the API server writes it, and as Prometheus' discovery of pods
//! describes its admin port.

#![allow(clippy::unwrap_used, reason = "what fails here fails the test")]

use std::collections::BTreeMap;
use std::net::SocketAddr;

use serde_json::{Value, json};

/// One pod.
#[derive(Clone)]
pub(crate) struct Pod {
    namespace: String,
    name: String,
    address: SocketAddr,
    labels: BTreeMap<String, String>,
    phase: String,
    port: String,
}

impl Pod {
    /// A running pod with the proxy's admin port, without labels.
    pub(crate) fn new(namespace: &str, name: &str, address: &str) -> Self {
        Self {
            namespace: namespace.to_owned(),
            name: name.to_owned(),
            address: address.parse().unwrap(),
            labels: BTreeMap::new(),
            phase: "Running".to_owned(),
            port: "linkerd-admin".to_owned(),
        }
    }

    pub(crate) fn labels(mut self, labels: &[(&str, &str)]) -> Self {
        let labels = labels
            .iter()
            .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
        self.labels.extend(labels);
        self
    }

    pub(crate) fn phase(mut self, phase: &str) -> Self {
        self.phase = phase.to_owned();
        self
    }

    /// Names the port.
    pub(crate) fn port(mut self, name: &str) -> Self {
        self.port = name.to_owned();
        self
    }

    pub(crate) fn named(mut self, name: &str) -> Self {
        self.name = name.to_owned();
        self
    }

    pub(crate) fn at(mut self, address: &str) -> Self {
        self.address = address.parse().unwrap();
        self
    }

    /// As discovery describes it, the names of labels spelled as discovery spells them.
    pub(crate) fn described(&self) -> Value {
        let mut meta = BTreeMap::from([
            ("namespace".to_owned(), self.namespace.as_str()),
            ("pod_name".to_owned(), &self.name),
            ("pod_phase".to_owned(), &self.phase),
            ("pod_container_name".to_owned(), "kuma-sidecar"),
            ("pod_container_init".to_owned(), "true"),
            ("pod_container_port_name".to_owned(), &self.port),
        ]);
        for (key, value) in &self.labels {
            let key = key.replace(|c: char| !c.is_ascii_alphanumeric(), "_");
            meta.insert(format!("pod_label_{key}"), value);
            meta.insert(format!("pod_labelpresent_{key}"), "true");
        }
        let meta = meta.into_iter();
        let meta: BTreeMap<String, &str> = meta
            .map(|(name, value)| (format!("__meta_kubernetes_{name}"), value))
            .collect();
        json!({"targets": [self.address.to_string()], "labels": meta})
    }

    /// As the API server writes it.
    pub(crate) fn object(&self) -> Value {
        let address = self.address.ip().to_string();
        let port = json!({"name": self.port, "containerPort": self.address.port()});
        let env = json!([{"name": "WEIR_SETTINGS", "value": "{}"}]);
        let sidecar =
            json!({"name": "kuma-sidecar", "restartPolicy": "Always", "env": env, "ports": [port]});
        json!({
            "metadata": {
                "namespace": self.namespace, "name": self.name, "labels": self.labels,
                "annotations": {"kuma.io/sidecar-injected": "true"},
            },
            "spec": {"containers": [{"name": "app"}], "initContainers": [sidecar]},
            "status": {"phase": self.phase, "podIP": address, "podIPs": [{"ip": address}]},
        })
    }
}
