//! Whether the webhook may be called: the API server trusts what is served, and the caches are filled.
//! Called by `serve` for `/ready`; pure, so that the rule is tested with real certificates and no cluster.

use jiff::Timestamp;
use thiserror::Error;

use crate::certificate::{CertificateError, Serving};

/// One entry of a webhook configuration in the API server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hook {
    /// `webhooks[].name`.
    pub name: String,
    /// `webhooks[].clientConfig.caBundle`, PEM; empty until the operator has written it.
    pub ca_bundle: Vec<u8>,
}

/// What the API server holds of our two configurations; `None` for one that does not exist (or is not known yet).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Hooks {
    /// Of the MutatingWebhookConfiguration.
    pub mutating: Option<Vec<Hook>>,
    /// Of the ValidatingWebhookConfiguration.
    pub validating: Option<Vec<Hook>>,
}

/// What `/ready` waits for.
#[derive(Debug, Error)]
pub enum NotReady {
    /// The process is ending.
    #[error("shutting down")]
    Stopping,
    /// Facts that have not been read from the API server yet.
    #[error("waiting for the API server's {0}")]
    Cache(String),
    /// A configuration is absent or has no entries.
    #[error("waiting for the {0} to exist")]
    Configuration(&'static str),
    /// An entry does not trust the served certificate.
    #[error("{configuration}, webhook {hook}: {problem}")]
    Trust {
        /// The configuration's kind.
        configuration: &'static str,
        /// The entry.
        hook: String,
        /// Why not.
        problem: CertificateError,
    },
}

/// Checks every entry of both configurations against the certificate served, for the Service's DNS name.
pub fn trusted(
    serving: &Serving,
    hooks: &Hooks,
    name: &str,
    now: Timestamp,
) -> Result<(), NotReady> {
    for (configuration, hooks) in [
        ("MutatingWebhookConfiguration", &hooks.mutating),
        ("ValidatingWebhookConfiguration", &hooks.validating),
    ] {
        let hooks = hooks.as_deref().filter(|hooks| !hooks.is_empty());
        for hook in hooks.ok_or(NotReady::Configuration(configuration))? {
            serving
                .verify(&hook.ca_bundle, name, now)
                .map_err(|problem| NotReady::Trust {
                    configuration,
                    hook: hook.name.clone(),
                    problem,
                })?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
