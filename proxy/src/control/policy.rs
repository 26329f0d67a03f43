//! The file with the metrics policy: read at the start and at every reload, in a pod as well as outside Kubernetes.
//! Used by `control`; what a policy means is telemetry's.

use std::path::PathBuf;
use std::sync::Arc;

use tokio::sync::watch;
use tracing::{error, info};
use weir_crds::metrics_policy::MetricsPolicy;

use super::files::read_file;
use super::{ControlError, publish};
use crate::telemetry;

/// The policy in force and where it comes from.
#[derive(Debug, Default)]
pub(super) struct PolicyFile {
    /// `None`: everything is recorded.
    path: Option<PathBuf>,
    policy: watch::Sender<Arc<MetricsPolicy>>,
}

impl PolicyFile {
    pub(super) fn open(path: Option<PathBuf>) -> Result<Self, Vec<ControlError>> {
        let policy = match &path {
            Some(path) => read(path)?,
            None => MetricsPolicy::default(),
        };
        Ok(Self {
            path,
            policy: watch::Sender::new(Arc::new(policy)),
        })
    }

    /// The policy in force, now and whenever it changes.
    pub(super) fn policy(&self) -> watch::Receiver<Arc<MetricsPolicy>> {
        self.policy.subscribe()
    }

    /// Reads the file again; one with any problem changes nothing.
    pub(super) fn reload(&self) {
        let Some(path) = &self.path else { return };
        let policy = match read(path) {
            Ok(policy) => policy,
            Err(problems) => {
                for problem in problems {
                    error!(%problem, "the metrics policy was not taken over");
                }
                return;
            }
        };
        let changed = publish(&self.policy, policy);
        info!(changed, "the metrics policy was read again");
    }
}

fn read(path: &PathBuf) -> Result<MetricsPolicy, Vec<ControlError>> {
    let text = read_file(path).map_err(|error| vec![error])?;
    let wrong = |error| ControlError::Document {
        source_name: path.display().to_string(),
        error,
    };
    telemetry::policy(&text).map_err(|errors| errors.into_iter().map(wrong).collect())
}
