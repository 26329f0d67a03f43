//! Where a proxy's settings come from: the environment that the webhook baked into its pod, or Universal
//! documents in files. `config` loads it; everyone else sees a `watch::Receiver<Arc<Settings>>` and, outside
//! Kubernetes, one `Universal`. It knows no listener and no connection.

mod certify;
mod closed;
pub mod discovery;
mod files;
mod hosts;
pub mod operator;
mod policy;
mod reading;
pub mod settings;
mod stream;
mod universal;

pub use certify::Certify;
pub use closed::{Compiling, compile as compile_closed};
pub use universal::{Endpoint, Inbound, Outbound, Universal, authorities};

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};
use weir_crds::metrics_policy::MetricsPolicy;
use weir_crds::settings::{Settings, SettingsError};
use weir_crds::universal::UniversalError;

/// Time until names of Dataplanes that do not resolve are asked for again. Default: 5 s.
pub const ASK_AGAIN: Duration = Duration::from_secs(5);

/// Where to look.
#[derive(Debug, Clone, Default)]
pub struct Config {
    /// The settings document itself, from the environment of a pod. Default none.
    pub settings: Option<String>,
    /// The Universal documents with this proxy's Dataplane. Default none: the proxy runs in a pod.
    pub dataplane: Option<Input>,
    /// A file with the Dataplane's Mesh, and Meshes of others. Default none: the Mesh may stand beside the
    /// Dataplane, else it is the initial one with metrics on 5670.
    pub mesh_file: Option<PathBuf>,
    /// Which of the Dataplanes is this proxy's. Default the first with `networking`.
    pub name: Option<String>,
    /// The Mesh that Dataplane is in. Default any.
    pub mesh: Option<String>,
    /// Whether the proxy is given a certificate of its own. Default not.
    pub has_identity: bool,
    /// Whether an operator tells the proxy its settings: those of the files stand until it does. Default not.
    pub has_operator: bool,
    /// A file with the metrics policy. Default none: everything is recorded.
    pub metrics_policy_file: Option<PathBuf>,
}

/// An operator, and what is asked of it.
#[derive(Clone, Debug)]
pub struct Operator {
    pub connection: operator::Config,
    pub discovery: discovery::Config,
    /// What its settings are published to. Default none: they are not asked for.
    pub settings: Option<watch::Sender<Arc<Settings>>>,
    /// The services whose endpoints are asked for, outside Kubernetes. Default none.
    pub services: Option<discovery::Services>,
}

/// Where a text comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Input {
    Stdin,
    File(PathBuf),
    Inline(String),
}

/// What keeps a proxy from knowing its settings.
#[derive(Debug, thiserror::Error)]
pub enum ControlError {
    #[error(
        "nothing to run from: give --dataplane-file, or run in a pod where the webhook sets WEIR_SETTINGS"
    )]
    Nothing,
    #[error(
        "--mesh-file is of no use without --dataplane-file: in a pod the settings come from WEIR_SETTINGS"
    )]
    MeshAlone,
    #[error("WEIR_SETTINGS: {0}")]
    Settings(#[from] SettingsError),
    #[error("cannot read {source_name}: {error}")]
    Read {
        source_name: String,
        error: io::Error,
    },
    #[error("{source_name}: {error}")]
    Document {
        source_name: String,
        error: UniversalError,
    },
    #[error("{source_name}: no Dataplane with `networking`{wanted}; found: {found}")]
    NoDataplane {
        source_name: String,
        wanted: String,
        found: String,
    },
    #[error("Mesh {mesh:?} of Dataplane {dataplane:?} is in none of the files; found: {found}")]
    NoMesh {
        mesh: String,
        dataplane: String,
        found: String,
    },
    #[error("{kind} {name:?} is defined more than once")]
    Twice { kind: &'static str, name: String },
    #[error("TrafficPermission {permission:?}: {field}: {message}")]
    Permission {
        permission: String,
        field: String,
        message: String,
    },
    #[error("Dataplane {dataplane:?}: {field}: {message}")]
    Dataplane {
        dataplane: String,
        field: String,
        message: String,
    },
}

/// The settings in force and what they are made from.
#[derive(Debug)]
pub struct Sources {
    settings: watch::Sender<Arc<Settings>>,
    /// What the proxy listens for outside Kubernetes; `None` in a pod.
    pub universal: Option<Universal>,
    outbounds: watch::Sender<Arc<Vec<Outbound>>>,
    reading: Option<reading::Reading>,
    /// An operator publishes the settings; the files do not.
    has_operator: bool,
    policy: policy::PolicyFile,
}

/// Reads everything there is to read, once. Resolves DNS names in Dataplanes; blocks. The name of an endpoint that does not
/// resolve leaves that out until [`Sources::follow`] finds it; one that the proxy itself listens at or forwards to is wrong.
///
/// # Errors
/// Everything that is wrong with any of it.
pub fn load(config: Config) -> Result<Sources, Vec<ControlError>> {
    load_by(config, hosts::Hosts::default())
}

fn load_by(mut config: Config, hosts: hosts::Hosts) -> Result<Sources, Vec<ControlError>> {
    let policy = policy::PolicyFile::open(config.metrics_policy_file.take());
    let has_operator = config.has_operator;
    match (settings(config, hosts), policy) {
        (Ok((settings, described)), Ok(policy)) => {
            let (universal, reading) = described.unzip();
            let outbounds = universal.as_ref().map(|u| u.outbounds.clone());
            Ok(Sources {
                settings: watch::Sender::new(Arc::new(settings)),
                outbounds: watch::Sender::new(Arc::new(outbounds.unwrap_or_default())),
                universal,
                reading,
                has_operator,
                policy,
            })
        }
        (settings, policy) => {
            let problems = [settings.err(), policy.err()];
            Err(problems.into_iter().flatten().flatten().collect())
        }
    }
}

/// The settings, and what describes this proxy where it is no pod.
type Made = (Settings, Option<(Universal, reading::Reading)>);

fn settings(config: Config, hosts: hosts::Hosts) -> Result<Made, Vec<ControlError>> {
    let Config {
        settings,
        dataplane,
        mesh_file,
        name,
        mesh,
        metrics_policy_file: _,
        has_identity,
        has_operator,
    } = config;
    let Some(dataplane) = dataplane else {
        if mesh_file.is_some() {
            return Err(vec![ControlError::MeshAlone]);
        }
        let json = settings.ok_or_else(|| vec![ControlError::Nothing])?;
        let settings = Settings::parse(&json).map_err(|error| vec![error.into()])?;
        return Ok((settings, None));
    };
    let selection = universal::Selection { name, mesh };
    let certified = match (has_identity, has_operator) {
        (_, true) => files::Certified::ByOperator,
        (true, false) => files::Certified::InFiles,
        (false, false) => files::Certified::Not,
    };
    let files = files::Files::open(dataplane, mesh_file, (selection, certified))?;
    let mut reading = reading::Reading::new(files, hosts);
    let described = reading.read()?;
    Ok((described.settings, Some((described.universal, reading))))
}

impl Sources {
    /// Those of a pod whose documents cannot be read: traffic is measured, and no metrics endpoint is open.
    pub fn unread(mesh: &str) -> Self {
        Self {
            settings: watch::Sender::new(Arc::new(Settings::without_metrics(mesh))),
            outbounds: watch::Sender::default(),
            universal: None,
            reading: None,
            has_operator: false,
            policy: policy::PolicyFile::default(),
        }
    }

    /// The settings in force, now and whenever they change.
    pub fn settings(&self) -> watch::Receiver<Arc<Settings>> {
        self.settings.subscribe()
    }

    /// Where an operator's settings are published; the files publish none then.
    pub fn publisher(&self) -> watch::Sender<Arc<Settings>> {
        self.settings.clone()
    }

    /// The services that the application calls and their endpoints, now and whenever they change; none in a pod.
    pub fn outbounds(&self) -> watch::Receiver<Arc<Vec<Outbound>>> {
        self.outbounds.subscribe()
    }

    /// The metrics policy in force, now and whenever it changes.
    pub fn metrics_policy(&self) -> watch::Receiver<Arc<MetricsPolicy>> {
        self.policy.policy()
    }

    /// Keeps the settings in force until `shutdown`; a SIGHUP has the files read again. Files and names may take their time,
    /// which the service thread has not.
    pub async fn follow(mut self, shutdown: CancellationToken) {
        let mut hangups = signal(SignalKind::hangup())
            .inspect_err(|error| {
                error!(%error, "SIGHUP will not be heard: the files are not read again");
            })
            .ok();
        self.tell();
        loop {
            let step: fn(&mut Self) = tokio::select! {
                () = shutdown.cancelled() => return,
                () = next(hangups.as_mut()) => Self::reload,
                () = pause(self.is_complete()) => Self::ask_again,
            };
            let working = tokio::task::spawn_blocking(move || {
                step(&mut self);
                self
            });
            tokio::select! {
                () = shutdown.cancelled() => return,
                done = working => self = done.expect("reading files does not panic"),
            }
        }
    }

    /// Reads the files again. Settings and endpoints take effect at once, listeners only with a new start; files
    /// with any problem change nothing.
    fn reload(&mut self) {
        self.policy.reload();
        let Some(reading) = &mut self.reading else {
            info!("SIGHUP leaves the settings as they are: they are part of the pod");
            return;
        };
        let read = reading.read();
        self.take_over(read, "the files were read again");
    }

    /// Asks again for the names that did not resolve.
    fn ask_again(&mut self) {
        let read = self.reading.as_mut().and_then(reading::Reading::ask_again);
        match read {
            Some(read) => self.take_over(read, "names of Dataplanes have other addresses"),
            None => self.tell(),
        }
    }

    fn take_over(&mut self, read: reading::Read, what: &str) {
        self.tell();
        let described = match read {
            Ok(described) => described,
            Err(problems) => {
                for problem in problems {
                    error!(%problem, "the files were not taken over");
                }
                return;
            }
        };
        let started = self.universal.as_ref();
        if started.is_some_and(|started| !started.listens_as(&described.universal)) {
            warn!("listeners in the files have changed: restart the proxy for them");
        }
        publish(&self.outbounds, described.universal.outbounds);
        let changed = !self.has_operator && publish(&self.settings, described.settings);
        info!(changed, "{what}");
    }

    fn tell(&mut self) {
        if let Some(reading) = &mut self.reading {
            let news = reading.news();
            news.into_iter().for_each(reading::News::tell);
        }
    }

    /// Whether nothing is left to be asked for.
    fn is_complete(&self) -> bool {
        let reading = self.reading.as_ref();
        reading.is_none_or(reading::Reading::is_complete)
    }
}

/// The next SIGHUP.
async fn next(hangups: Option<&mut Signal>) {
    let heard = match hangups {
        Some(hangups) => hangups.recv().await,
        None => None,
    };
    if heard.is_none() {
        std::future::pending::<()>().await;
    }
}

/// Until it is time to ask again, where anything is left to be asked for.
async fn pause(is_complete: bool) {
    match is_complete {
        true => std::future::pending().await,
        false => tokio::time::sleep(ASK_AGAIN).await,
    }
}

/// Puts a value in force; readers hear of it only where it is another. Answers whether it was.
fn publish<T: PartialEq>(readers: &watch::Sender<Arc<T>>, value: T) -> bool {
    readers.send_if_modified(|current| {
        let changed = **current != value;
        *current = Arc::new(value);
        changed
    })
}

#[cfg(test)]
mod tests;
