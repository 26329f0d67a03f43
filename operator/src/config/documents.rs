//! The settings of `weir-operator run`, checked as a whole. Used by `config`.

use std::path::PathBuf;
use std::time::Duration;

use tracing_subscriber::EnvFilter;

use super::server::ServerArgs;
use super::{ConfigError, days};
use crate::app::universal;
use crate::ca::Source;
use crate::documents;

/// Where the operator keeps what it makes, unless a setting says otherwise.
pub(super) const STATE: &str = "/var/lib/weir-operator";

const EXAMPLES: &str = "\
A proxy is given the operator's authority and a token of its own:
    weir-operator run --documents /etc/weir --state-dir /var/lib/weir-operator --serving-name operator.example
    weir-operator token --name web-1 --tag kuma.io/service=web > web-1.token
    weir-proxy run --dataplane-file web-1.yaml --dataplane-token-file web-1.token \\
      --control-plane-url https://operator.example:8086 --control-plane-ca-file operator-ca.pem

operator-ca.pem lies in --state-dir. What is wrong with a document is logged with its file, line and field, and counted
in weir_operator_documents{state=\"wrong\"}; what was right before stays in force.";

/// Serve proxies without Kubernetes: read Meshes, Dataplanes and TrafficPermissions from a directory of Universal documents,
/// and give proxies their certificates, settings and endpoints.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct RunArgs {
    /// Directory of documents: every *.yaml and *.yml in it, several documents a file.
    #[arg(long, env = "WEIR_DOCUMENTS", value_name = "DIR")]
    documents: PathBuf,
    /// Directory that only the operator reads: keys and certificates of its own authority, of the Meshes' and of tokens,
    /// each made once.
    #[arg(long, env = "WEIR_STATE_DIR", value_name = "DIR", default_value = STATE)]
    state_dir: PathBuf,
    /// Seconds between two looks at the documents.
    #[arg(
        long,
        env = "WEIR_DOCUMENTS_SECONDS",
        value_name = "N",
        default_value_t = documents::LOOK.as_secs()
    )]
    documents_seconds: u64,
    /// DNS names and IP addresses by which proxies reach the operator, separated by commas; its certificate is for them
    /// [default: localhost and the name of this host].
    #[arg(
        long,
        env = "WEIR_SERVING_NAME",
        value_name = "NAME",
        value_delimiter = ','
    )]
    serving_name: Vec<String>,
    /// Certificate to serve in place of one of its own authority, PEM; looked at again every 10 s.
    #[arg(long, env = "WEIR_TLS_CERT_FILE", value_name = "FILE")]
    tls_cert_file: Option<PathBuf>,
    /// That certificate's key, PEM.
    #[arg(long, env = "WEIR_TLS_KEY_FILE", value_name = "FILE")]
    tls_key_file: Option<PathBuf>,
    /// Days the operator's own certificate is valid; it is replaced after two thirds of them.
    #[arg(
        long,
        env = "WEIR_CERTIFICATE_DAYS",
        value_name = "N",
        default_value_t = 90
    )]
    certificate_days: u32,
    #[command(flatten)]
    server: ServerArgs,
}

impl RunArgs {
    /// The log filter and the settings, all problems at once.
    pub(super) fn check(&self) -> Result<(EnvFilter, universal::Config), ConfigError> {
        let mut problems = Vec::new();
        let filter = self.server.filter(&mut problems);
        problems.extend(self.server.problems());
        if !(1..=3600).contains(&self.documents_seconds) {
            problems.push(format!(
                "--documents-seconds: {} is not between 1 and 3600",
                self.documents_seconds
            ));
        }
        if !(1..=3650).contains(&self.certificate_days) {
            problems.push(format!(
                "--certificate-days: {} is not between 1 and 3650",
                self.certificate_days
            ));
        }
        let source = self.source(&mut problems);
        match (filter, source) {
            (Some(filter), Some(serving)) if problems.is_empty() => {
                Ok((filter, self.config(serving)))
            }
            _ => Err(ConfigError(problems)),
        }
    }

    /// Where the serving certificate comes from.
    fn source(&self, problems: &mut Vec<String>) -> Option<Source> {
        let mut missing = |flag: &str, other: &str| {
            problems.push(format!("{flag}: is missing beside {other}"));
            None
        };
        match (&self.tls_cert_file, &self.tls_key_file) {
            (Some(certificate), Some(key)) => Some(Source::Files {
                certificate: certificate.clone(),
                key: key.clone(),
            }),
            (None, Some(_)) => missing("--tls-cert-file", "--tls-key-file"),
            (Some(_), None) => missing("--tls-key-file", "--tls-cert-file"),
            (None, None) => Some(Source::Own {
                names: self.names(),
                validity: days(self.certificate_days.clamp(1, 3650)),
            }),
        }
    }

    fn names(&self) -> Vec<String> {
        let given: Vec<String> = self
            .serving_name
            .iter()
            .map(|one| one.trim().to_owned())
            .collect();
        if !given.is_empty() {
            return given;
        }
        let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
        let host = host.trim();
        let mut names = vec!["localhost".to_owned()];
        names.extend((!host.is_empty() && host != "localhost").then(|| host.to_owned()));
        names
    }

    fn config(&self, serving: Source) -> universal::Config {
        universal::Config {
            http_address: self.server.http_address,
            shutdown: self.server.shutdown(),
            grpc: self.server.grpc(),
            documents: documents::Config {
                directory: self.documents.clone(),
                look: Duration::from_secs(self.documents_seconds),
                settle: documents::SETTLE,
            },
            state_dir: self.state_dir.clone(),
            serving,
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Command {
        #[command(flatten)]
        args: RunArgs,
    }

    fn check(args: &[&str]) -> Result<universal::Config, String> {
        let all = ["run", "--documents=/d"].iter().chain(args);
        let args = Command::try_parse_from(all).unwrap().args;
        args.check()
            .map(|(_, config)| config)
            .map_err(|error| error.to_string())
    }

    #[test]
    fn the_defaults_can_be_used_and_the_certificate_is_for_this_host() {
        let config = check(&[]).unwrap();
        assert_eq!(config.documents.look, documents::LOOK);
        let Source::Own { names, .. } = config.serving else {
            panic!("{:?}", config.serving)
        };
        assert_eq!(names[0], "localhost");
        let config = check(&["--serving-name=a.example, 10.0.0.1"]).unwrap();
        let Source::Own { names, .. } = config.serving else {
            panic!("{:?}", config.serving)
        };
        assert_eq!(names, ["a.example", "10.0.0.1"]);
    }

    #[test]
    fn all_problems_are_named_at_once() {
        let told = check(&[
            "--documents-seconds=0",
            "--certificate-days=0",
            "--tls-cert-file=c",
            "--grpc-connections=0",
            "--log=weir_operator=loud",
        ]);
        let told = told.unwrap_err();
        for flag in [
            "--documents-seconds",
            "--certificate-days",
            "--tls-key-file",
            "--grpc-connections",
            "--log",
        ] {
            assert!(told.contains(flag), "{flag} is not in {told}");
        }
    }
}
