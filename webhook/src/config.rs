//! The command line and environment of the webhook, as typed values. Read by `main` and `app`.

use std::{ffi::OsString, net::SocketAddr, path::PathBuf};

use clap::{Args, CommandFactory, Parser, Subcommand, ValueEnum, error::ErrorKind};
use weir_crds::names;

use crate::inject;

/// The admission webhook of Weir
///
/// The API server sends every pod that is created to /inject, and every Mesh, Dataplane, TrafficPermission and
/// ContainerPatch to /default and /validate. The certificate comes from a Secret that the operator keeps; /ready says
/// what is missing until the API server trusts it.
#[derive(Debug, Parser)]
#[command(name = "weir-webhook", version, max_term_width = 110)]
pub struct Cli {
    /// What to do
    #[command(subcommand)]
    pub command: Command,
    /// Log filter in the syntax of tracing: info, or weir_webhook=debug,warn
    #[arg(long, env = "WEIR_LOG", default_value = "info", global = true)]
    pub log: String,
    /// How log lines look
    #[arg(long, env = "WEIR_LOG_FORMAT", value_enum, default_value_t = LogFormat::Text, global = true)]
    pub log_format: LogFormat,
}

impl Cli {
    /// Reads a command line and the environment.
    ///
    /// # Errors
    /// The first flag that is wrong by itself, else all that are wrong together.
    pub fn read(arguments: impl IntoIterator<Item = OsString>) -> Result<Self, clap::Error> {
        let cli = Self::try_parse_from(arguments)?;
        let inject = match &cli.command {
            Command::Serve(serve) => &serve.inject,
            Command::Inject(offline) => &offline.inject,
        };
        let problems = inject.problems();
        match problems.is_empty() {
            true => Ok(cli),
            false => Err(Self::command().error(ErrorKind::ValueValidation, problems.join("\n"))),
        }
    }
}

/// The form of log lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

/// What the program does.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Serve the API server's reviews over HTTPS
    Serve(Box<Serve>),
    /// Print a pod as it would be injected, without a cluster
    Inject(Box<Offline>),
}

/// Flags of `serve`.
#[derive(Debug, Args)]
pub struct Serve {
    /// Address of the HTTPS server; by default port 9443 of all addresses
    #[arg(long, env = "WEIR_LISTEN")]
    pub listen: Option<SocketAddr>,
    /// Namespace of the webhook's Service and Secret
    #[arg(long, env = "POD_NAMESPACE", default_value = names::SYSTEM_NAMESPACE)]
    pub namespace: String,
    /// Service by which the API server calls the webhook
    #[arg(long, env = "WEIR_SERVICE", default_value = "weir-webhook")]
    pub service: String,
    /// Secret with tls.crt and tls.key, kept by the operator
    #[arg(long, env = "WEIR_SECRET", default_value = "weir-webhook-tls")]
    pub secret: String,
    /// Name of the MutatingWebhookConfiguration and the ValidatingWebhookConfiguration
    #[arg(long, env = "WEIR_CONFIGURATION", default_value = "weir-webhook")]
    pub configuration: String,
    /// ConfigMap with the authority of the operator's certificate (ca.crt), kept by the operator
    #[arg(long, env = "WEIR_OPERATOR_CA", default_value = names::OPERATOR_CA)]
    pub operator_ca: String,
    /// Whether pods get a native sidecar
    #[arg(long, env = "WEIR_NATIVE_SIDECARS", value_enum, default_value_t = NativeSidecars::Auto)]
    pub native_sidecars: NativeSidecars,
    /// How the injected containers look
    #[command(flatten)]
    pub inject: inject::Config,
}

/// Whether the cluster has native sidecars.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum NativeSidecars {
    /// From the API server's version: Kubernetes 1.29 and later.
    Auto,
    /// Yes.
    Always,
    /// No, as where kubelets are older than the API server.
    Never,
}

impl NativeSidecars {
    /// The answer, where the version need not be asked.
    pub fn known(self) -> Option<bool> {
        match self {
            Self::Auto => None,
            Self::Always => Some(true),
            Self::Never => Some(false),
        }
    }
}

/// Flags of `inject`.
#[derive(Debug, Args)]
pub struct Offline {
    /// The pod, as YAML or JSON; - is the standard input
    #[arg(short = 'f', long)]
    pub file: PathBuf,
    /// The pod's namespace [default: its metadata.namespace, else default]
    #[arg(long)]
    pub namespace: Option<String>,
    /// A file with the Mesh; by default the one that the operator creates
    #[arg(long)]
    pub mesh_file: Option<PathBuf>,
    /// A file with the authority of the operator's certificate, PEM; without it the pod runs without the operator
    #[arg(long)]
    pub operator_ca_file: Option<PathBuf>,
    /// Render for an API server without native sidecars
    #[arg(long)]
    pub no_native_sidecars: bool,
    /// How the injected containers look
    #[command(flatten)]
    pub inject: inject::Config,
}
