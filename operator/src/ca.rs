//! The certificates of the webhook: an authority of our own, the serving certificate it signs and
//! the `caBundle` by which the API server knows it. Wired by `app`; nothing else calls it.
//! `material` makes and reads certificates, `plan` decides what is due (both pure, time is a
//! parameter), `store` reads and writes the cluster, `keeper` runs the passes. It knows no Mesh.

mod keeper;
mod material;
mod plan;
mod store;

pub use keeper::Keeper;
pub use material::{CertificateError, Facts, Pair};
pub use plan::{Authority, Due, Serving, bundle, due_authority, due_serving};
pub use store::{StoreError, Watched};

use jiff::SignedDuration;

/// Names and lifetimes of what the keeper keeps.
#[derive(Clone, Debug)]
pub struct Config {
    /// Namespace of both Secrets and of the webhook's Service.
    pub namespace: String,
    /// Secret with the authority: `tls.crt`, `tls.key` and, during a rotation, `previous.crt`.
    pub authority_secret: String,
    /// Secret with the serving certificate: `tls.crt`, `tls.key`, `ca.crt`.
    pub serving_secret: String,
    /// Service whose DNS names the serving certificate carries.
    pub service: String,
    /// Name of both the Mutating- and the ValidatingWebhookConfiguration.
    pub configuration: String,
    /// How long an authority is valid; it is replaced after two thirds of that.
    pub authority_validity: SignedDuration,
    /// How long a serving certificate is valid; it is replaced after two thirds of that.
    pub serving_validity: SignedDuration,
}

impl Config {
    /// The DNS names by which the API server and people reach the webhook.
    #[must_use]
    pub fn serving_names(&self) -> Vec<String> {
        let base = format!("{}.{}", self.service, self.namespace);
        vec![
            format!("{base}.svc"),
            format!("{base}.svc.cluster.local"),
            base,
            self.service.clone(),
        ]
    }
}
