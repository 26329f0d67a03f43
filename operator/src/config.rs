//! The command line and its environment variables, checked as a whole. Called by `main`. It turns
//! text into `app::Config` and knows nothing of what the settings do.

mod documents;
mod server;
mod token;

use std::net::SocketAddr;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Parser, Subcommand};
use jiff::SignedDuration;
use tracing_subscriber::EnvFilter;
use weir_crds::address::is_dns_name;
use weir_crds::identity::TRUST_DOMAIN;
use weir_crds::names::{OPERATOR, OPERATOR_CA, SYSTEM_NAMESPACE};

use self::documents::RunArgs;
use self::server::ServerArgs;
use self::token::TokenArgs;
use crate::app;
use crate::app::universal;
use crate::ca::{self, Publish};
use crate::index::{self, DEFAULT_OPAQUE_PORTS, Ports};
use crate::leader;
use crate::metrics::Certificate;
use crate::token::TokenRequest;

/// Weir's operator: keeps the cluster side of Weir in order.
///
/// It creates Mesh `default` in an installation that never had a Mesh, writes the status and the
/// events of Meshes, and keeps the webhook's certificate and caBundle with an authority of its own.
/// Proxies get their certificates and settings from it, by gRPC on port 8086, and Prometheus (http_sd)
/// the list of the proxies, by /targets on port 5676.
/// Of several replicas one writes; all serve proxies, /targets, /live, /ready and /metrics.
///
/// Without Kubernetes, `weir-operator run` does for proxies what this does, from a directory of documents.
///
/// The API server is found as kubectl finds it: from the pod it runs in, else from $KUBECONFIG or
/// ~/.kube/config. Exit codes: 0 after SIGTERM or SIGINT, 64 for wrong settings, 1 for the rest.
#[derive(Clone, Debug, Parser)]
#[command(
    name = "weir-operator",
    version,
    args_conflicts_with_subcommands = true
)]
pub struct Args {
    /// Namespace of the Secrets, the Lease and both Services.
    #[arg(long, env = "POD_NAMESPACE", default_value = SYSTEM_NAMESPACE)]
    namespace: String,
    /// Name of this replica in the election and in events; must differ between replicas.
    #[arg(long, env = "POD_NAME", default_value = "weir-operator")]
    identity: String,
    /// The last labels of the DNS names in proxies' certificates.
    #[arg(
        long,
        env = "WEIR_TRUST_DOMAIN",
        value_name = "DOMAIN",
        default_value = TRUST_DOMAIN
    )]
    trust_domain: String,
    /// Days the authority of the operator's own certificate is valid. Pods carry it, so it is long; it
    /// is replaced after two thirds of them, and both are in use until shortly before its end.
    #[arg(
        long,
        env = "WEIR_OPERATOR_AUTHORITY_DAYS",
        value_name = "N",
        default_value_t = 3650
    )]
    operator_authority_days: u32,
    /// Address of /targets, where scrapers are told of the proxies [default: port 5676 of every address].
    #[arg(long, env = "WEIR_MONITORING_ADDRESS", value_name = "IP:PORT")]
    monitoring_address: Option<SocketAddr>,
    /// Create Mesh `default` once, in an installation without a Mesh.
    #[arg(
        long,
        env = "WEIR_CREATE_DEFAULT_MESH",
        value_name = "BOOL",
        default_value_t = true,
        action = clap::ArgAction::Set
    )]
    create_default_mesh: bool,
    /// Name of the Lease that the leader holds.
    #[arg(
        long,
        env = "WEIR_LEASE",
        value_name = "NAME",
        default_value = "weir-operator"
    )]
    lease: String,
    /// Seconds after which another replica takes over from a leader that fell silent.
    #[arg(
        long,
        env = "WEIR_LEASE_SECONDS",
        value_name = "N",
        default_value_t = 15
    )]
    lease_seconds: u64,
    /// Seconds without an answer of the API server after which this replica is not ready and sends proxies away, so that
    /// they ask another one, or keep what they know.
    #[arg(
        long,
        env = "WEIR_API_SILENCE_SECONDS",
        value_name = "N",
        default_value_t = 60
    )]
    api_silence_seconds: u64,
    /// Days a webhook authority is valid; it is replaced after two thirds of them.
    #[arg(
        long,
        env = "WEIR_AUTHORITY_DAYS",
        value_name = "N",
        default_value_t = 365
    )]
    authority_days: u32,
    /// Days the certificates of the webhook and the operator are valid; they are replaced after two thirds of them.
    #[arg(
        long,
        env = "WEIR_CERTIFICATE_DAYS",
        value_name = "N",
        default_value_t = 90
    )]
    certificate_days: u32,
    /// DNS domain of the cluster.
    #[arg(
        long,
        env = "WEIR_CLUSTER_DOMAIN",
        value_name = "NAME",
        default_value = "cluster.local"
    )]
    cluster_domain: String,
    /// Ports whose bytes are not looked at where neither Service nor pod says anything.
    #[arg(long, env = "WEIR_OPAQUE_PORTS", value_name = "LIST", default_value = DEFAULT_OPAQUE_PORTS)]
    opaque_ports: String,
    /// Value of the tag kuma.io/zone of generated Dataplanes [default: no such tag].
    #[arg(long, env = "WEIR_ZONE", value_name = "NAME")]
    zone: Option<String>,
    #[command(flatten)]
    server: ServerArgs,
    #[command(subcommand)]
    command: Option<Command>,
}

/// What is done in place of keeping a cluster.
#[derive(Clone, Debug, Subcommand)]
enum Command {
    Run(Box<RunArgs>),
    Token(TokenArgs),
}

/// What there is to do.
#[derive(Debug)]
pub enum Task {
    /// Keep a cluster.
    Cluster(EnvFilter, Box<app::Config>),
    /// Serve what a directory of documents says.
    Documents(EnvFilter, Box<universal::Config>),
    /// Make a data plane token.
    Token(TokenRequest),
}

/// Every setting that cannot be used, one a line.
#[derive(Debug, thiserror::Error)]
#[error("{}", .0.join("\n"))]
pub struct ConfigError(Vec<String>);

/// The shortest lease: its renewals and two answers must fit into it.
const SHORTEST_LEASE_SECONDS: u64 = 15;

/// The shortest silence: some answers may be late before it is one.
const SHORTEST_SILENCE_SECONDS: u64 = 15;

/// The exit code for settings that cannot be used (`EX_USAGE`).
const USAGE: u8 = 64;

/// Reads the command line and the environment. Help and what is wrong are printed here.
///
/// # Errors
/// With the code to exit with where there is nothing to run.
pub fn read() -> Result<Task, ExitCode> {
    let args = Args::try_parse().map_err(|error| {
        // Nothing is left to do where even this cannot be printed.
        let _ = error.print();
        ExitCode::from(if error.use_stderr() { USAGE } else { 0 })
    })?;
    args.task().map_err(|error| {
        eprintln!("{error}");
        ExitCode::from(USAGE)
    })
}

impl Args {
    fn task(&self) -> Result<Task, ConfigError> {
        match &self.command {
            None => {
                let (filter, config) = self.check()?;
                Ok(Task::Cluster(filter, Box::new(config)))
            }
            Some(Command::Run(args)) => {
                let (filter, config) = args.check()?;
                Ok(Task::Documents(filter, Box::new(config)))
            }
            Some(Command::Token(args)) => Ok(Task::Token(args.check()?)),
        }
    }

    /// The log filter and the settings, all problems at once.
    ///
    /// # Errors
    /// Names every setting that cannot be used and what would be right.
    pub fn check(&self) -> Result<(EnvFilter, app::Config), ConfigError> {
        let mut problems = Vec::new();
        let filter = self.server.filter(&mut problems);
        for (flag, value) in [
            ("--namespace", &self.namespace),
            ("--identity", &self.identity),
            ("--lease", &self.lease),
            ("--cluster-domain", &self.domain()),
            ("--trust-domain", &self.trust_domain),
        ] {
            if value.is_empty() {
                problems.push(format!("{flag}: must not be empty"));
            }
        }
        let domain = self.domain();
        if !domain.is_empty() && !is_dns_name(&domain) {
            problems.push(format!(
                "--cluster-domain: {domain:?} is no DNS name: give what the names of Services end with, as cluster.local"
            ));
        }
        problems.extend(Ports::unreadable(&self.opaque_ports).map(not_a_port));
        if !(SHORTEST_LEASE_SECONDS..=3600).contains(&self.lease_seconds) {
            problems.push(format!(
                "--lease-seconds: {} is not between {SHORTEST_LEASE_SECONDS} and 3600",
                self.lease_seconds
            ));
        }
        if !(SHORTEST_SILENCE_SECONDS..=3600).contains(&self.api_silence_seconds) {
            problems.push(format!(
                "--api-silence-seconds: {} is not between {SHORTEST_SILENCE_SECONDS} and 3600",
                self.api_silence_seconds
            ));
        }
        for (flag, days) in [
            ("--authority-days", self.authority_days),
            ("--certificate-days", self.certificate_days),
            ("--operator-authority-days", self.operator_authority_days),
        ] {
            if !(1..=3650).contains(&days) {
                problems.push(format!("{flag}: {days} is not between 1 and 3650"));
            }
        }
        for (flag, days) in [
            ("--authority-days", self.authority_days),
            ("--operator-authority-days", self.operator_authority_days),
        ] {
            if self.certificate_days > days {
                problems.push(format!(
                    "--certificate-days: must not be more than {flag}, a certificate does not outlive its authority"
                ));
            }
        }
        problems.extend(self.server.problems());
        match filter {
            Some(filter) if problems.is_empty() => Ok((filter, self.config())),
            _ => Err(ConfigError(problems)),
        }
    }

    /// The cluster's DNS domain as names end with it.
    fn domain(&self) -> String {
        let domain = self.cluster_domain.trim_matches('.');
        domain.to_ascii_lowercase()
    }

    fn own_ca(&self) -> ca::Config {
        ca::Config {
            server: "operator",
            metrics: [Certificate::OperatorAuthority, Certificate::Operator],
            namespace: self.namespace.clone(),
            authority_secret: OPERATOR_CA.to_owned(),
            serving_secret: "weir-operator-tls".to_owned(),
            service: OPERATOR.to_owned(),
            cluster_domain: self.domain(),
            publish: Publish::ConfigMap(OPERATOR_CA.to_owned()),
            authority_validity: days(self.operator_authority_days),
            serving_validity: days(self.certificate_days),
        }
    }

    fn config(&self) -> app::Config {
        app::Config {
            http_address: self.server.http_address,
            monitoring_address: self.monitoring_address,
            create_default_mesh: self.create_default_mesh,
            shutdown: self.server.shutdown(),
            leader: leader::Config {
                namespace: self.namespace.clone(),
                lease: self.lease.clone(),
                identity: self.identity.clone(),
                duration: Duration::from_secs(self.lease_seconds),
                silence: Duration::from_secs(self.api_silence_seconds),
            },
            own_ca: self.own_ca(),
            grpc: self.server.grpc(),
            trust_domain: self.trust_domain.clone(),
            ca: ca::Config {
                server: "webhook",
                metrics: [Certificate::Authority, Certificate::Webhook],
                namespace: self.namespace.clone(),
                authority_secret: "weir-ca".to_owned(),
                serving_secret: "weir-webhook-tls".to_owned(),
                service: "weir-webhook".to_owned(),
                cluster_domain: self.domain(),
                publish: Publish::Webhooks("weir-webhook".to_owned()),
                authority_validity: days(self.authority_days),
                serving_validity: days(self.certificate_days),
            },
            index: index::Config {
                cluster_domain: self.domain().into(),
                trust_domain: self.trust_domain.as_str().into(),
                opaque_ports: Ports::parse(&self.opaque_ports, |_| None),
            },
            zone: self.zone.clone().filter(|zone| !zone.is_empty()),
        }
    }
}

fn not_a_port(item: &str) -> String {
    format!(
        "--opaque-ports: {item:?} is no port: give numbers from 1 to 65535 and ranges such as 8000-8010, separated by commas"
    )
}

fn days(count: u32) -> SignedDuration {
    SignedDuration::from_hours(24) * i32::try_from(count).expect("checked to be at most 3650")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(args: &[&str]) -> Args {
        Args::try_parse_from(std::iter::once(&"weir-operator").chain(args)).unwrap()
    }

    #[test]
    fn the_defaults_can_be_used() {
        let (_, config) = parse(&[]).check().unwrap();
        assert!(config.create_default_mesh);
        assert_eq!(config.leader.duration, Duration::from_secs(15));
        assert_eq!(
            config.ca.serving_names()[0],
            format!("weir-webhook.{}.svc", config.ca.namespace)
        );
    }

    #[test]
    fn both_certificates_name_the_domain_of_the_cluster() {
        let args = parse(&["--namespace=ns", "--cluster-domain=Corp.Example."]);
        let (_, config) = args.check().unwrap();
        for (service, ca) in [
            ("weir-webhook", &config.ca),
            ("weir-operator", &config.own_ca),
        ] {
            let names = ca.serving_names();
            let full = format!("{service}.ns.svc.corp.example");
            assert!(names.contains(&full), "{names:?}");
            let other = names.iter().any(|name| name.ends_with("cluster.local"));
            assert!(!other, "{names:?}");
        }
        assert_eq!(&*config.index.cluster_domain, "corp.example");
    }

    #[test]
    fn plaintext_is_for_loopback_and_the_end_waits_for_no_stream() {
        let args = parse(&["--grpc-plaintext=true", "--grpc-address=127.0.0.1:0"]);
        let (_, config) = args.check().unwrap();
        assert!(config.grpc.plaintext && config.grpc.limits.grace < config.shutdown);
        let (_, config) = parse(&["--shutdown-seconds=1"]).check().unwrap();
        assert!(config.grpc.limits.grace < config.shutdown);
        assert!(
            parse(&["--grpc-plaintext=true", "--grpc-address=10.0.0.1:80"])
                .check()
                .is_err()
        );
    }

    #[test]
    fn scrapers_may_be_told_elsewhere() {
        let (_, config) = parse(&[]).check().unwrap();
        assert_eq!(config.monitoring_address, None);
        let args = parse(&["--monitoring-address=127.0.0.1:5677"]);
        let (_, config) = args.check().unwrap();
        let address = config.monitoring_address.unwrap();
        assert_eq!(address.to_string(), "127.0.0.1:5677");
    }

    #[test]
    fn creating_the_mesh_can_be_switched_off() {
        let (_, config) = parse(&["--create-default-mesh=false"]).check().unwrap();
        assert!(!config.create_default_mesh);
    }

    #[test]
    fn all_problems_are_named_at_once() {
        let args = parse(&[
            "--lease-seconds=5",
            "--api-silence-seconds=0",
            "--authority-days=0",
            "--certificate-days=9999",
            "--identity=",
            "--log=weir_operator=loud",
            "--grpc-plaintext=true",
            "--grpc-connections=0",
            "--grpc-connection-minutes=0",
            "--trust-domain=",
            "--cluster-domain=clus ter.local",
        ]);
        let text = args.check().unwrap_err().to_string();
        for flag in [
            "--lease-seconds",
            "--api-silence-seconds",
            "--authority-days",
            "--certificate-days",
            "--identity",
            "--log",
            "--grpc-plaintext",
            "--grpc-connections",
            "--grpc-connection-minutes",
            "--trust-domain",
            "--cluster-domain: \"clus ter.local\" is no DNS name",
        ] {
            assert!(text.contains(flag), "{flag} is not in {text}");
        }
        assert!(text.lines().count() >= 5);
    }
}
