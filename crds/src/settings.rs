//! The settings document: what a proxy must know of its Mesh, merged and complete.
//! The webhook bakes it into a pod and the operator streams it later; the proxy reads both with [`Settings::parse`].
//! Knows nothing of resources: [`crate::merge`] makes it from them.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::permission::Permission;
use crate::routes::Condition;

/// The version this code writes, and the newest one it reads.
pub const SETTINGS_VERSION: u32 = 1;

/// Everything a proxy takes from its Mesh and its own overrides. JSON in camelCase; unknown fields are ignored.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Settings {
    /// Layout of the document; see [`SETTINGS_VERSION`].
    pub version: u32,
    /// Name of the Mesh.
    pub mesh: String,
    /// The metrics endpoint; `None` where the Mesh has no enabled metrics backend.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub metrics: Option<MetricsSettings>,
    /// The fields of `metrics`, by their names in this document, that the proxy's own override decided, and where that
    /// was written; the others are the Mesh's, or the defaults.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub overridden: BTreeMap<String, OverrideSource>,
    /// Whether connections between proxies are secured.
    #[serde(default)]
    pub mtls: MtlsMode,
    /// Who the proxy is in its Mesh; `None` where connections are not secured, or where it is not known yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub identity: Option<IdentitySettings>,
    /// What the application listens on and who may connect; `None` where it is not known yet. Only the operator knows,
    /// so a document that was baked into a pod has none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub inbounds: Option<Vec<InboundSettings>>,
    /// Who may connect to a port that is in none of the inbounds, once they are known; `None` is nobody.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub other_ports: Option<Permission>,
    /// Whether connections to unknown destinations are let through (`networking.outbound.passthrough`).
    #[serde(default = "yes", skip_serializing_if = "is_yes")]
    pub passthrough: bool,
}

/// Who a proxy is in a Mesh with mutual TLS.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct IdentitySettings {
    /// The DNS name to ask a certificate for; see [`crate::identity::workload_name`].
    pub name: String,
    /// The URIs that its certificate has when it is asked for now: another list means another certificate.
    pub uris: Vec<String>,
    /// The authorities that peers' certificates are verified with, PEM.
    pub trust_bundle: String,
}

/// One port of the application, as its Dataplane has it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct InboundSettings {
    /// The port that clients connect to.
    pub port: u16,
    /// Its tag `kuma.io/service`.
    pub service: String,
    /// Who may connect where the Mesh has mutual TLS; `None` is nobody.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub permission: Option<Permission>,
    /// Which HTTP requests there is a route for; any other is answered 404. `None` lets every request in: the pod has not
    /// asked for this, or a Service of the port has no routes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub routes: Option<Vec<Condition>>,
}

fn yes() -> bool {
    true
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks by reference")]
fn is_yes(flag: &bool) -> bool {
    *flag
}

/// Where an override of a Mesh's metrics was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum OverrideSource {
    /// Annotations of a pod.
    Annotations,
    /// A Dataplane resource.
    Dataplane,
}

/// Mutual TLS between proxies.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum MtlsMode {
    /// No enabled certificate authority.
    #[default]
    Disabled,
    /// Secured and plain connections are both admitted.
    Permissive,
    /// Only secured connections are admitted.
    Strict,
}

/// The metrics endpoint of a proxy.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct MetricsSettings {
    /// TCP port of the endpoint, never 0.
    pub port: u16,
    /// Path of the endpoint, starting with `/`.
    pub path: String,
    /// Tags by which a TrafficPermission names the endpoint.
    pub tags: BTreeMap<String, String>,
    /// Who may scrape the endpoint over mutual TLS; `None` is nobody, or not known yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub permission: Option<Permission>,
    /// How the endpoint is secured.
    pub tls: MetricsTls,
    /// Regular expression on the names of the proxy's own families; `None` prints all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub filter: Option<String>,
    /// Whether series that never changed are left out.
    #[serde(default)]
    pub used_only: bool,
    /// Applications to scrape with the proxy, in the order of the Mesh and then of the override.
    #[serde(default)]
    pub aggregate: Vec<Aggregate>,
}

/// How a metrics endpoint is secured (`conf.tls.mode`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum MetricsTls {
    /// The Mesh's mutual TLS where it has one, else plain.
    #[default]
    #[serde(rename = "activeMTLSBackend")]
    ActiveMtlsBackend,
    /// A certificate and key from files; without them the endpoint stays closed.
    #[serde(rename = "providedTLS")]
    ProvidedTls,
    /// Plain.
    #[serde(rename = "disabled")]
    Disabled,
}

/// An application whose metrics are published with the proxy's. Entries that are not enabled are left out.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Aggregate {
    /// Unique name of the entry.
    pub name: String,
    /// TCP port of the application, never 0.
    pub port: u16,
    /// Path on the application, starting with `/`.
    pub path: String,
    /// Where the application listens; `None` is the proxy's own address, then loopback.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<String>,
}

/// Why [`Settings::parse`] refused a document.
#[derive(Debug, thiserror::Error)]
pub enum SettingsError {
    /// Not JSON, or a field is missing or of the wrong type.
    #[error("the settings document is not valid: {0}")]
    Json(#[from] serde_json::Error),
    /// Written by a newer release, or by none.
    #[error(
        "the settings document has version {found}, this proxy reads version {SETTINGS_VERSION}: \
         use a proxy of the release that wrote it, or recreate the pod"
    )]
    Version {
        /// The document's version.
        found: u32,
    },
}

impl Settings {
    /// Settings with nothing enabled, for a proxy whose Mesh is unknown or cannot be used.
    pub fn without_metrics(mesh: &str) -> Self {
        Self {
            version: SETTINGS_VERSION,
            mesh: mesh.to_owned(),
            metrics: None,
            overridden: BTreeMap::new(),
            mtls: MtlsMode::Disabled,
            identity: None,
            inbounds: None,
            other_ports: None,
            passthrough: true,
        }
    }

    /// The port of the metrics endpoint, unless the application has declared it. An inbound of that port alone says nothing:
    /// the Service may be there for scrapers.
    pub fn metrics_port(&self, declared: &[u16]) -> Option<u16> {
        let port = self.metrics.as_ref()?.port;
        (!declared.contains(&port)).then_some(port)
    }

    /// Those of a proxy of a Mesh that it knows nothing of: until it is told, nobody connects in plaintext, for the Mesh may
    /// not want that.
    pub fn until_told(mesh: &str) -> Self {
        Self {
            mtls: MtlsMode::Strict,
            ..Self::without_metrics(mesh)
        }
    }

    /// Reads a document; its version is looked at before anything else.
    pub fn parse(json: &str) -> Result<Self, SettingsError> {
        #[derive(Deserialize)]
        struct Versioned {
            version: u32,
        }
        let Versioned { version } = serde_json::from_str(json)?;
        if !(1..=SETTINGS_VERSION).contains(&version) {
            return Err(SettingsError::Version { found: version });
        }
        Ok(serde_json::from_str(json)?)
    }

    /// Writes the document on one line.
    pub fn to_json(&self) -> String {
        serde_json::to_string(self)
            .expect("settings hold only strings, numbers and maps keyed by strings")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn full() -> Settings {
        Settings {
            version: SETTINGS_VERSION,
            mesh: "default".into(),
            metrics: Some(MetricsSettings {
                port: 1234,
                path: "/non-standard-path".into(),
                tags: BTreeMap::from([("kuma.io/service".into(), "dataplane-metrics".into())]),
                tls: MetricsTls::ActiveMtlsBackend,
                filter: Some("http2_act.*".into()),
                used_only: true,
                permission: Some(permission()),
                aggregate: vec![Aggregate {
                    name: "app".into(),
                    port: 80,
                    path: "/stats".into(),
                    address: Some("127.0.0.1".into()),
                }],
            }),
            overridden: BTreeMap::from([("port".into(), OverrideSource::Annotations)]),
            mtls: MtlsMode::Permissive,
            identity: Some(IdentitySettings {
                name: "web.shop.serviceaccount.identity.kuma-system.cluster.local".into(),
                uris: vec!["spiffe://default/web".into()],
                trust_bundle: "PEM".into(),
            }),
            inbounds: Some(vec![InboundSettings {
                port: 80,
                service: "web".into(),
                permission: Some(permission()),
                routes: Some(vec![Condition::PathPrefix("/api".into())]),
            }]),
            other_ports: Some(permission()),
            passthrough: false,
        }
    }

    fn permission() -> Permission {
        Permission {
            name: "all".into(),
            sources: vec![BTreeMap::from([("kuma.io/service".into(), "*".into())])],
        }
    }

    #[test]
    fn a_document_survives_the_environment() {
        let json = full().to_json();
        assert_eq!(Settings::parse(&json).unwrap(), full());
        assert!(json.contains(r#""tls":"activeMTLSBackend""#), "{json}");
        assert!(json.contains(r#""mtls":"permissive""#), "{json}");
        assert!(json.contains(r#""usedOnly":true"#), "{json}");
        assert!(
            json.contains(r#""overridden":{"port":"annotations"}"#),
            "{json}"
        );
        assert!(json.contains(r#""passthrough":false"#), "{json}");
    }

    #[test]
    fn unknown_fields_are_ignored_and_missing_ones_have_defaults() {
        let settings = Settings::parse(r#"{"version":1,"mesh":"m","routes":[1]}"#).unwrap();
        assert_eq!(settings, Settings::without_metrics("m"));
    }

    #[test]
    fn a_newer_version_is_refused_before_its_fields_are_read() {
        let error = Settings::parse(r#"{"version":7,"mesh":{"name":"m"}}"#)
            .unwrap_err()
            .to_string();
        assert!(
            error.contains("version 7") && error.contains("version 1"),
            "{error}"
        );
        assert!(Settings::parse(r#"{"version":0,"mesh":"m"}"#).is_err());
        assert!(
            Settings::parse(r#"{"mesh":"m"}"#)
                .unwrap_err()
                .to_string()
                .contains("version")
        );
    }
}
