//! The operator's own metrics. Every loop holds a clone and counts; `health` prints them. Label
//! values are enums, so a search finds every series. It knows nothing of what is counted.

use std::sync::Arc;

use jiff::Timestamp;
use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue, LabelValueEncoder};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

/// Defines a label's values and their spelling.
macro_rules! label {
    ($(#[$doc:meta])* $name:ident { $($(#[$variant_doc:meta])* $variant:ident = $text:literal,)* }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum $name {
            $($(#[$variant_doc])* $variant,)*
        }

        impl $name {
            /// The label value.
            #[must_use]
            pub fn as_str(self) -> &'static str {
                match self {
                    $(Self::$variant => $text,)*
                }
            }
        }

        impl EncodeLabelValue for $name {
            fn encode(&self, encoder: &mut LabelValueEncoder<'_>) -> std::fmt::Result {
                EncodeLabelValue::encode(&self.as_str(), encoder)
            }
        }
    };
}

pub mod monitoring;
pub mod server;

label! {
    /// What is reconciled.
    Controller {
        /// Status of Meshes.
        Mesh = "mesh",
        /// The one-time creation of Mesh `default`.
        DefaultMesh = "default_mesh",
        /// The policies that a Mesh begins with.
        InitialPolicies = "initial_policies",
        /// Dataplanes of injected pods.
        Dataplane = "dataplane",
        /// Certificates of our servers, and the bundles to verify them with.
        Certificates = "certificates",
        /// Certificate authorities of Meshes.
        Authorities = "authorities",
    }
}

label! {
    /// How a reconcile ended.
    Outcome {
        /// Something was written.
        Changed = "changed",
        /// Everything was as it should be.
        Unchanged = "unchanged",
        /// Someone else wrote first; tried again.
        Conflict = "conflict",
        /// It failed; tried again.
        Error = "error",
    }
}

impl Outcome {
    /// The outcome of an error of this class.
    #[must_use]
    pub fn from_class(class: &str) -> Self {
        if class == "conflict" {
            Self::Conflict
        } else {
            Self::Error
        }
    }
}

label! {
    /// What is watched.
    Watch {
        /// Meshes.
        Meshes = "meshes",
        /// Pods.
        Pods = "pods",
        /// Services.
        Services = "services",
        /// EndpointSlices.
        EndpointSlices = "endpoint_slices",
        /// Nodes.
        Nodes = "nodes",
        /// Dataplanes.
        Dataplanes = "dataplanes",
        /// The Secret of the authority.
        AuthoritySecret = "authority_secret",
        /// The Secret of the serving certificate.
        ServingSecret = "serving_secret",
        /// The Secret of the operator's own authority.
        OperatorAuthoritySecret = "operator_authority_secret",
        /// The Secret of the operator's serving certificate.
        OperatorServingSecret = "operator_serving_secret",
        /// The ConfigMap with the bundle to verify the operator with.
        OperatorBundle = "operator_bundle",
        /// The Secrets of Meshes.
        MeshSecrets = "mesh_secrets",
        /// The ConfigMap with who is trusted in which Mesh.
        Trust = "trust",
        /// TrafficPermissions.
        TrafficPermissions = "traffic_permissions",
        /// ServiceProfiles.
        ServiceProfiles = "service_profiles",
        /// HTTPRoutes.
        HttpRoutes = "http_routes",
        /// The `MutatingWebhookConfiguration`.
        MutatingWebhook = "mutating_webhook",
        /// The `ValidatingWebhookConfiguration`.
        ValidatingWebhook = "validating_webhook",
    }
}

label! {
    /// Whose expiry.
    Certificate {
        /// The webhook's authority.
        Authority = "authority",
        /// The webhook's serving certificate.
        Webhook = "webhook",
        /// The authority of the operator's own server.
        OperatorAuthority = "operator_authority",
        /// The operator's serving certificate.
        Operator = "operator",
    }
}

label! {
    /// What there is in the directory of documents.
    Documents {
        /// Documents that are in force.
        InForce = "in_force",
        /// Things that are wrong with documents or files; what was right before stands.
        Wrong = "wrong",
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ReconcileLabels {
    controller: Controller,
    outcome: Outcome,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct WatchLabels {
    resource: Watch,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct CertificateLabels {
    certificate: Certificate,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct DocumentLabels {
    state: Documents,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct BuildLabels {
    version: &'static str,
}

/// Handles to every series of the operator. Clones count into the same series.
#[derive(Clone, Debug)]
pub struct Metrics {
    reconciles: Family<ReconcileLabels, Counter>,
    watch_restarts: Family<WatchLabels, Counter>,
    leader: Gauge,
    expiries: Family<CertificateLabels, Gauge>,
    documents: Family<DocumentLabels, Gauge>,
    /// The gRPC server's.
    pub server: server::Server,
    /// The monitoring server's.
    pub monitoring: monitoring::Monitoring,
    registry: Arc<Registry>,
}

impl Default for Metrics {
    fn default() -> Self {
        let mut registry = Registry::with_prefix("weir_operator");
        let reconciles = Family::default();
        let watch_restarts = Family::default();
        let leader = Gauge::default();
        let expiries = Family::default();
        let documents = Family::default();
        registry.register(
            "reconciles",
            "Reconciles by what was reconciled and how it ended",
            reconciles.clone(),
        );
        registry.register(
            "watch_restarts",
            "Watches that broke and were started again",
            watch_restarts.clone(),
        );
        registry.register(
            "leader",
            "1 on the replica that writes, else 0",
            leader.clone(),
        );
        registry.register(
            "certificate_expiration_timestamp_seconds",
            "End of validity, in seconds since the epoch",
            expiries.clone(),
        );
        registry.register(
            "documents",
            "Without Kubernetes: documents in force, and what is wrong with documents and files",
            documents.clone(),
        );
        let server = server::Server::default();
        server.register(&mut registry);
        let monitoring = monitoring::Monitoring::default();
        monitoring.register(&mut registry);
        let build = Family::<BuildLabels, Gauge>::default();
        build
            .get_or_create(&BuildLabels {
                version: env!("CARGO_PKG_VERSION"),
            })
            .set(1);
        registry.register("build_info", "The build that runs", build);
        Self {
            reconciles,
            watch_restarts,
            leader,
            expiries,
            documents,
            server,
            monitoring,
            registry: Arc::new(registry),
        }
    }
}

impl Metrics {
    /// Counts one reconcile.
    pub fn count_reconcile(&self, controller: Controller, outcome: Outcome) {
        self.reconciles
            .get_or_create(&ReconcileLabels {
                controller,
                outcome,
            })
            .inc();
    }

    /// Counts one watch that broke.
    pub fn count_watch_restart(&self, resource: Watch) {
        self.watch_restarts
            .get_or_create(&WatchLabels { resource })
            .inc();
    }

    /// Says whether this replica leads.
    pub fn set_leader(&self, leads: bool) {
        self.leader.set(i64::from(leads));
    }

    /// Says when a certificate expires.
    pub fn set_expiry(&self, certificate: Certificate, at: Timestamp) {
        self.expiries
            .get_or_create(&CertificateLabels { certificate })
            .set(at.as_second());
    }

    /// Says how many documents there are.
    pub fn set_documents(&self, state: Documents, count: usize) {
        self.documents
            .get_or_create(&DocumentLabels { state })
            .set(i64::try_from(count).unwrap_or(i64::MAX));
    }

    /// Everything in OpenMetrics 1.0 text.
    #[must_use]
    pub fn render(&self) -> String {
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &self.registry)
            .expect("writing into a String does not fail");
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_family_is_printed_under_its_name() {
        let metrics = Metrics::default();
        metrics.count_reconcile(Controller::Mesh, Outcome::from_class("conflict"));
        metrics.count_watch_restart(Watch::Meshes);
        metrics.set_leader(true);
        metrics.set_expiry(
            Certificate::Webhook,
            "2026-11-01T00:00:00Z".parse().unwrap(),
        );
        let text = metrics.render();
        for line in [
            r#"weir_operator_reconciles_total{controller="mesh",outcome="conflict"} 1"#,
            r#"weir_operator_watch_restarts_total{resource="meshes"} 1"#,
            "weir_operator_leader 1",
            r#"weir_operator_certificate_expiration_timestamp_seconds{certificate="webhook"} 1793491200"#,
            r#"weir_operator_build_info{version="0.1.0"} 1"#,
        ] {
            assert!(text.contains(line), "{line} is not in\n{text}");
        }
    }
}
