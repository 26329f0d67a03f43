//! From flags, environment and files to the typed configuration of every module, with everything that is wrong
//! told at once. Called by `main` before anything is bound; it starts nothing.

mod args;
mod cgroup;
mod operator;
mod report;
mod size;
mod values;

pub use args::RunArgs;

use crate::control::{self, ControlError, Input, Operator, Sources, Universal};
use crate::{accept, admin, drain, identity, telemetry, worker};
use std::fmt;
use std::net::{Ipv6Addr, SocketAddr, TcpListener};
use std::sync::Arc;
use values::Values;
use weir_crds::env;

/// The exit status for wrong flags, variables or files (`EX_USAGE` of sysexits).
pub const EXIT_USAGE: u8 = 64;

/// Most worker threads that can be asked for.
pub const MOST_WORKERS: usize = 256;

/// A proxy's configuration, one part for each module.
#[derive(Debug)]
pub struct Config {
    /// Worker threads, at least 1.
    pub workers: usize,
    /// A filter in the syntax of `tracing`.
    pub log: String,
    pub redirected: Redirected,
    pub worker: worker::Config,
    pub admin: admin::Config,
    pub telemetry: telemetry::Config,
    pub drain: drain::Config,
    /// The operator that flags, or a pod's variables, name. Default none.
    pub operator: Option<Operator>,
    /// Where the certificate of a proxy outside Kubernetes lies, and the name it is for. Default nowhere.
    pub identity: Option<(identity::Files, Arc<str>)>,
    /// Settings, and the Universal Dataplane outside Kubernetes.
    pub sources: Sources,
    /// Whether what fails at the start is tried again.
    pub best_effort: bool,
    /// What was wrong, and its default taken; nothing unless `best_effort`.
    pub ignored: Vec<Problem>,
}

/// Where redirected connections arrive; bound only in a pod.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Redirected {
    /// Connections to the pod. Default `[::]:4143`, without IPv6 `0.0.0.0:4143`.
    pub inbound: SocketAddr,
    /// Connections of the pod. Default `127.0.0.1:4140`, and `[::1]:4140` where there is IPv6.
    pub outbound: Vec<SocketAddr>,
}

/// One thing that is wrong.
#[derive(Debug, thiserror::Error)]
pub enum Problem {
    #[error("{name}: {reason}")]
    Value { name: String, reason: String },
    #[error(transparent)]
    Control(#[from] ControlError),
}

impl Problem {
    /// Names what is wrong as its user does: a pod has variables, and no flags.
    fn name_as_given(&mut self, args: &RunArgs) {
        if let Self::Value { name, .. } = self
            && name.starts_with("--")
            && !args.flags.contains(name)
        {
            *name = args::variable_of(name);
        }
    }
}

/// Everything that is wrong; printed one to a line.
#[derive(Debug, thiserror::Error)]
pub struct Problems(pub Vec<Problem>);

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, problem) in self.0.iter().enumerate() {
            let end = if i + 1 < self.0.len() { "\n" } else { "" };
            write!(f, "{problem}{end}")?;
        }
        Ok(())
    }
}

/// Reads everything: `args` (flags, and the variables that stand for them), `variable` (those that are only for a
/// pod) and the files that these name. Resolves DNS names in a Dataplane; blocks.
///
/// # Errors
/// All problems of all of them; with `--best-effort` only those that leave nothing to run from.
pub fn load(args: RunArgs, variable: impl Fn(&str) -> Option<String>) -> Result<Config, Problems> {
    let ipv6 = has_ipv6();
    let mut values = Values::default();
    let redirected = values.redirected(&args, ipv6);
    let drain = values.drain(&args);
    let telemetry = values.telemetry(&args);
    let pod_ips = values.pod_ips(&variable);
    let mut admin = values.admin(&args, &variable, &pod_ips);
    admin.own_ips = pod_ips.clone();
    admin.application_ports = values.ports(env::APPLICATION_PORTS, &variable);
    let worker = values.worker(
        &args,
        accept::Guard {
            pod_ips,
            own_ports: own_ports(&redirected, &admin),
            application_ports: admin.application_ports.clone(),
        },
    );
    let workers = values.workers(args.concurrency.as_deref());
    let log = values.log(args.log_level.as_deref());
    let metrics_ip = values.parsed("--metrics-ip", args.metrics_ip.as_deref(), "an IP address");
    let mut operator = values.operator(&args, &variable);
    let files = values.identity_files(&args);
    let mut problems = values.problems;
    problems
        .iter_mut()
        .for_each(|problem| problem.name_as_given(&args));
    let sources = sources(&args, (&variable, operator.is_some()), &mut problems);
    let sources = match sources {
        Some(sources) if problems.is_empty() || args.best_effort => sources,
        _ => return Err(Problems(problems)),
    };
    let identity = files.map(|files| identity_of(files, &sources)).transpose();
    let identity = identity.map_err(|problem| Problems(vec![problem]))?;
    let own = sources
        .universal
        .as_ref()
        .map(|Universal { address, .. }| *address);
    if let (Some(operator), Some(universal)) = (&mut operator, &sources.universal) {
        operator.discovery.context = operator::context_of(universal);
    }
    admin.own_ips.extend(own);
    admin.metrics_ip = metrics_ip.or(own).unwrap_or(admin.metrics_ip);
    let mut config = Config {
        workers,
        log,
        redirected,
        worker,
        admin,
        telemetry,
        drain,
        operator,
        identity,
        sources,
        best_effort: args.best_effort,
        ignored: problems,
    };
    config.admin.report = report::entries(&args, &config, &variable);
    Ok(config)
}

/// The files of an identity, once they hold, and the name that this proxy's Dataplane asks of them. In a pod they are of
/// no use: there the operator certifies.
fn identity_of(
    files: identity::Files,
    sources: &Sources,
) -> Result<(identity::Files, Arc<str>), Problem> {
    let Some(universal) = &sources.universal else {
        return Err(Problem::Value {
            name: "--identity-cert-file".into(),
            reason: "is of no use without --dataplane-file: in a pod the operator certifies".into(),
        });
    };
    let name = universal.identity.as_str().into();
    files.read(&name).map_err(|error| Problem::Value {
        name: "--identity-cert-file, --identity-key-file, --identity-ca-file".into(),
        reason: error.to_string(),
    })?;
    Ok((files, name))
}

/// What the documents make; with `--best-effort`, in a pod, what is left without them.
fn sources(
    args: &RunArgs,
    (variable, has_operator): (&impl Fn(&str) -> Option<String>, bool),
    problems: &mut Vec<Problem>,
) -> Option<Sources> {
    let config = control_config(args.clone(), (variable, has_operator))
        .map_err(|problem| problems.push(problem))
        .ok()?;
    let unread = args.best_effort && config.dataplane.is_none();
    let mesh = config.mesh.clone().unwrap_or_default();
    match control::load(config) {
        Ok(sources) => Some(sources),
        Err(errors) => {
            problems.extend(errors.into_iter().map(Problem::from));
            unread.then(|| Sources::unread(&mesh))
        }
    }
}

fn control_config(
    args: RunArgs,
    (variable, has_operator): (&impl Fn(&str) -> Option<String>, bool),
) -> Result<control::Config, Problem> {
    let dataplane = match (given(args.dataplane_file), given(args.dataplane)) {
        (Some(_), Some(_)) => {
            return Err(Problem::Value {
                name: "--dataplane".into(),
                reason: "cannot be given together with --dataplane-file: keep one of them".into(),
            });
        }
        (Some(file), None) if file == "-" => Some(Input::Stdin),
        (Some(file), None) => Some(Input::File(file.into())),
        (None, text) => text.map(Input::Inline),
    };
    Ok(control::Config {
        settings: given(variable(env::SETTINGS)),
        dataplane,
        mesh_file: given(args.mesh_file).map(Into::into),
        name: given(args.name),
        mesh: given(args.mesh),
        metrics_policy_file: given(args.metrics_policy_file).map(Into::into),
        has_identity: given(args.identity_cert_file).is_some(),
        has_operator,
    })
}

/// An empty value is the same as none, as in Kuma.
fn given(value: Option<String>) -> Option<String> {
    value.filter(|value| !value.is_empty())
}

fn own_ports(redirected: &Redirected, admin: &admin::Config) -> Vec<u16> {
    let outbound = redirected.outbound.iter().map(SocketAddr::port);
    let mut own = vec![redirected.inbound.port(), admin.addr.port()];
    own.extend(outbound);
    own.sort_unstable();
    own.dedup();
    own
}

/// Whether this network namespace has an IPv6 loopback.
fn has_ipv6() -> bool {
    TcpListener::bind((Ipv6Addr::LOCALHOST, 0)).is_ok()
}

#[cfg(test)]
mod tests;
