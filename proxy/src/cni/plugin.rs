//! The CNI plugin: reads what a container runtime asks (CNI specification 1.1.0, sections 2 and 4), has a pod redirected
//! whose annotation asks for it, and passes on what the plugins before it have made. Called by `main`, once a process.
//! Outside of `--strict` nothing that is ours fails a pod. It knows neither how the rules are made nor who installs it.

use std::ffi::OsStr;
use std::io::{self, Read, Write};
use std::path::Path;
use std::process::ExitCode;

use serde_json::json;

use super::namespace::{NamespaceError, within};
use super::{PLUGIN, VERSION, VERSIONS};
use crate::init::{self, InitError};
use crate::log;

mod request;

pub use self::request::{Addition, Redirection, addition, arguments};

/// Most that is read of a network configuration, in bytes. A pod's annotations, which it holds, have at most 256 KiB.
pub const MAX_CONFIG: u64 = 4 << 20;

/// What is logged: a line for a pod that is redirected, and one for whatever went wrong.
const LOG: &str = "info";

/// Why a call failed, and with it the pod that it was for.
#[derive(Debug, thiserror::Error)]
pub enum PluginError {
    #[error(
        "cniVersion {0:?} is none of {list}: give the network configuration one of them",
        list = VERSIONS.join(", ")
    )]
    Version(String),
    #[error(
        "CNI_COMMAND {0:?} is none of ADD, DEL, CHECK, GC, STATUS and VERSION: unset it to run {PLUGIN} as weir-proxy"
    )]
    Command(String),
    #[error(
        "CNI_NETNS is not set: the container runtime has to name the network namespace of the pod"
    )]
    NoNamespace,
    #[error("cannot read the network configuration from the standard input: {0}")]
    Read(io::Error),
    #[error(
        "the network configuration on the standard input is longer than {MAX_CONFIG} bytes: shorten it"
    )]
    TooLong,
    #[error("the network configuration on the standard input is not what it should be: {0}")]
    Decode(#[from] serde_json::Error),
    #[error(
        "no prevResult: {PLUGIN} makes no network, it has to be chained after a plugin that does, in `plugins` of a \
         .conflist; the first of that list is given none, whatever its cniVersion"
    )]
    NotChained,
    #[error("the annotation {name} is not what `weir-proxy init` takes: {0}", name = weir_crds::names::INIT_ARGUMENTS)]
    Annotation(String),
    #[error(transparent)]
    Namespace(#[from] NamespaceError),
    #[error(
        "the kernel does not let {PLUGIN} change nftables (EPERM): the container runtime has to run its CNI plugins as \
         root with CAP_NET_ADMIN"
    )]
    NotPermitted,
    #[error(transparent)]
    Redirect(InitError),
}

impl PluginError {
    /// A short, stable name of the kind of failure.
    #[must_use]
    pub fn class(&self) -> &'static str {
        match self {
            Self::Version(_) => "version",
            Self::Command(_) | Self::NoNamespace => "variable",
            Self::Read(_) => "io",
            Self::Decode(_) => "decode",
            Self::TooLong | Self::NotChained => "config",
            Self::Annotation(_) => "annotation",
            Self::Namespace(error) => error.class(),
            Self::NotPermitted | Self::Redirect(_) => "redirect",
        }
    }

    /// The specification's number of the kind of failure; those from 100 on are ours.
    #[must_use]
    pub fn code(&self) -> u32 {
        match self.class() {
            "version" => 1,
            "unknown" => 3,
            "variable" => 4,
            "io" => 5,
            "decode" => 6,
            "config" => 7,
            "annotation" => 100,
            "redirect" => 101,
            _ => 102,
        }
    }

    /// What a container runtime is told. It becomes an event of the pod.
    fn told(&self, version: &str) -> String {
        let error = json!({
            "cniVersion": version,
            "code": self.code(),
            "msg": format!("{PLUGIN}: {self}"),
            "details": self.class(),
        });
        error.to_string()
    }
}

impl From<InitError> for PluginError {
    fn from(error: InitError) -> Self {
        match error {
            InitError::NotPermitted => Self::NotPermitted,
            error => Self::Redirect(error),
        }
    }
}

/// What a container runtime is answered.
#[derive(Debug, PartialEq, Eq)]
pub struct Answer {
    /// All of the standard output.
    pub output: String,
    pub is_success: bool,
}

/// Serves the container runtime that has called this process, if one has: it sets CNI_COMMAND.
#[must_use]
pub fn serve() -> Option<ExitCode> {
    let command = std::env::var_os("CNI_COMMAND")?;
    log::start(LOG);
    let pod = std::env::var_os("CNI_ARGS").unwrap_or_default();
    let _pod = tracing::error_span!("pod", name = pod_name(&pod.to_string_lossy())).entered();
    let namespace = std::env::var_os("CNI_NETNS");
    let input = io::stdin().lock();
    let answer = answer(&command.to_string_lossy(), namespace.as_deref(), input);
    let mut output = io::stdout().lock();
    let written = output.write_all(answer.output.as_bytes());
    let is_told = written.and_then(|()| output.flush()).is_ok();
    Some(if answer.is_success && is_told {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// `namespace/name` of the pod that Kubernetes' runtimes tell in CNI_ARGS; what is missing stays empty.
fn pod_name(arguments: &str) -> String {
    let of = |key: &str| {
        let mut pairs = arguments.split(';').filter_map(|pair| pair.split_once('='));
        pairs.find_map(|(name, value)| (name == key).then_some(value))
    };
    let part = |key| of(key).unwrap_or_default();
    format!("{}/{}", part("K8S_POD_NAMESPACE"), part("K8S_POD_NAME"))
}

/// Does what `command` says, for the network namespace that CNI_NETNS names.
pub fn answer(command: &str, namespace: Option<&OsStr>, input: impl Read) -> Answer {
    let mut version = VERSION.to_owned();
    let done = match command {
        "ADD" => add(namespace, input, &mut version),
        // The rules go with the namespace that they are in, and nothing else is kept anywhere.
        "DEL" | "GC" | "CHECK" | "STATUS" => Ok(String::new()),
        "VERSION" => Ok(json!({"cniVersion": VERSION, "supportedVersions": VERSIONS}).to_string()),
        other => Err(PluginError::Command(other.to_owned())),
    };
    let is_success = done.is_ok();
    let output = done.unwrap_or_else(|error| {
        tracing::error!(%error, class = error.class(), "the call has failed");
        error.told(&version)
    });
    Answer { output, is_success }
}

/// Has a pod redirected, and gives what the plugin before has made of its network. Once the configuration's version is
/// known, and served, it is told.
fn add(
    namespace: Option<&OsStr>,
    input: impl Read,
    version: &mut String,
) -> Result<String, PluginError> {
    let mut config = Vec::new();
    let mut input = input.take(MAX_CONFIG + 1);
    input.read_to_end(&mut config).map_err(PluginError::Read)?;
    if config.len() as u64 > MAX_CONFIG {
        return Err(PluginError::TooLong);
    }
    let Addition {
        cni_version,
        result,
        redirection,
    } = addition(&config)?;
    *version = cni_version;
    match redirect(redirection, namespace) {
        Err((error, true)) => Err(error),
        Err((error, false)) => {
            tracing::error!(%error, class = error.class(), "traffic is not redirected: this pod goes on unmeasured");
            Ok(result.get().to_owned())
        }
        Ok(()) => Ok(result.get().to_owned()),
    }
}

/// An error comes with whether it fails the pod.
fn redirect(
    redirection: Redirection,
    namespace: Option<&OsStr>,
) -> Result<(), (PluginError, bool)> {
    let (arguments, is_strict) = match redirection {
        Redirection::None => return Ok(()),
        Redirection::Asked {
            arguments,
            is_strict,
        } => (arguments, is_strict),
    };
    let installed = arguments
        .map_err(PluginError::Annotation)
        .and_then(|arguments| {
            let namespace = namespace.filter(|path| !path.is_empty());
            let namespace = namespace.ok_or(PluginError::NoNamespace)?;
            install(&arguments, Path::new(namespace))
        });
    installed.map_err(|error| (error, is_strict))
}

fn install(arguments: &init::Args, namespace: &Path) -> Result<(), PluginError> {
    // What it forgives it would say in its own words, and the runtime would not know.
    let arguments = init::Args {
        best_effort: false,
        ..arguments.clone()
    };
    let pod = tracing::Span::current();
    within(namespace, || pod.in_scope(|| init::run(&arguments)))??;
    Ok(())
}

#[cfg(test)]
mod tests;
