//! The certificates of our servers, the webhook's and the operator's: an authority of our own, the
//! serving certificate it signs and the bundle by which clients know it. Wired by `app`, once a
//! server; `mesh_ca` uses what makes and reads certificates. `material` makes and reads certificates, `plan` decides what is due (both pure, time is a
//! parameter), `store` reads and writes the cluster, `keeper` runs the passes; `local` does without a cluster. It knows no
//! Mesh.

mod keeper;
mod local;
pub(crate) mod material;
mod plan;
mod store;

pub use keeper::{Keeper, LEAD};
pub use local::{AUTHORITY, Local, LocalError, Source};
pub use material::{CertificateError, Facts, Pair};
pub use plan::{Authority, Due, Serving, bundle, due_authority, due_serving};
pub use store::{StoreError, Watched};

use jiff::SignedDuration;

use crate::metrics::Certificate;

/// Where clients learn of the bundle, and so how soon.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Publish {
    /// The `caBundle` of the Mutating- and the ValidatingWebhookConfiguration of this name. API servers follow
    /// them, so a new authority signs [`LEAD`] after it was published.
    Webhooks(String),
    /// Key `ca.crt` of the ConfigMap of this name, from where the webhook copies it into pods. Those
    /// keep what they got, so the authority before signs until shortly before its end.
    ConfigMap(String),
}

/// Names and lifetimes of what the keeper keeps.
#[derive(Clone, Debug)]
pub struct Config {
    /// Whose certificates these are, for the log and the authority's name.
    pub server: &'static str,
    /// How metrics name the authority and the serving certificate.
    pub metrics: [Certificate; 2],
    /// Namespace of both Secrets and of the Service.
    pub namespace: String,
    /// Secret with the authority: `tls.crt`, `tls.key` and, during a rotation, `previous.crt` and
    /// (where that still signs) `previous.key`.
    pub authority_secret: String,
    /// Secret with the serving certificate: `tls.crt`, `tls.key`, `ca.crt`.
    pub serving_secret: String,
    /// Service whose DNS names the serving certificate carries.
    pub service: String,
    /// The cluster's DNS domain, the end of the longest of these names.
    pub cluster_domain: String,
    /// Where the bundle is published.
    pub publish: Publish,
    /// How long an authority is valid; it is replaced after two thirds of that.
    pub authority_validity: SignedDuration,
    /// How long a serving certificate is valid; it is replaced after two thirds of that.
    pub serving_validity: SignedDuration,
}

impl Config {
    /// The DNS names by which clients and people reach the server.
    #[must_use]
    pub fn serving_names(&self) -> Vec<String> {
        let base = format!("{}.{}", self.service, self.namespace);
        vec![
            format!("{base}.svc"),
            format!("{base}.svc.{}", self.cluster_domain),
            base,
            self.service.clone(),
        ]
    }
}
