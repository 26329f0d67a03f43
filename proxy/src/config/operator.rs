//! What flags, or the variables of a pod, say of the operator. Used by `config`.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use serde_json::json;
use weir_crds::env;

use super::RunArgs;
use super::values::Values;
use crate::control::operator::{self, Target};
use crate::control::{Operator, Universal, discovery};

/// Longest file with the operator's authority, or a token, that is read, in bytes.
const FILE_SIZE: u64 = 1024 * 1024;

/// Most destinations that may be asked for: three calls for each leave a quarter of those that the operator takes at once,
/// for the services that requests are divided among, the settings and certificates.
const MOST_DESTINATIONS: usize = 1500;

impl Values {
    /// The operator that a proxy is told of; none where it is told of none.
    pub(super) fn operator(
        &mut self,
        args: &RunArgs,
        variable: &impl Fn(&str) -> Option<String>,
    ) -> Option<Operator> {
        let of_pod = |name| variable(name).filter(|text| !text.trim().is_empty());
        let given =
            |flag: &Option<String>, name| super::given(flag.clone()).or_else(|| of_pod(name));
        let url = given(&args.control_plane_url, env::CONTROL_PLANE_URL)?;
        let file = given(&args.control_plane_ca_file, env::CONTROL_PLANE_CA_CERT_FILE);
        let (name, authority) = match (of_pod(env::CONTROL_PLANE_CA_CERT), file) {
            (None, Some(file)) => match read(&file) {
                Ok(text) => ("--control-plane-ca-file", Some(text)),
                Err(error) => {
                    self.wrong("--control-plane-ca-file", format!("{file}: {error}"));
                    return None;
                }
            },
            (None, None) if given_dataplane(args) => ("--control-plane-ca-file", None),
            (inline, _) => (env::CONTROL_PLANE_CA_CERT, inline),
        };
        let target = match Target::parse(&url, authority.as_deref()) {
            Ok(target) => target,
            Err(error) => {
                let name = match error.is_of_authority() {
                    true => name,
                    false => "--control-plane-url",
                };
                self.wrong(name, error.to_string());
                return None;
            }
        };
        let mut connection = operator::Config::new(target);
        connection.token = given(&args.dataplane_token_file, env::TOKEN_PATH).map(Into::into);
        if given_dataplane(args) {
            self.judge_token(connection.token.as_deref());
        }
        if super::given(args.identity_cert_file.clone()).is_some() {
            let reason = "is of no use with --control-plane-url: the operator certifies; leave out one of them";
            self.wrong("--identity-cert-file", reason);
        }
        let mut discovery = discovery::Config {
            context: context(&of_pod),
            ..discovery::Config::default()
        };
        let most = args.max_destinations.as_deref();
        let most = self.parsed("--max-destinations", most, "a number of destinations");
        match most.unwrap_or(discovery.most) {
            most @ 1..=MOST_DESTINATIONS => discovery.most = most,
            other => {
                let reason = format!("expected 1 to {MOST_DESTINATIONS}, found {other}");
                self.wrong("--max-destinations", reason);
            }
        }
        Some(Operator {
            connection,
            discovery,
            settings: None,
            services: None,
        })
    }
}

impl Values {
    /// Outside Kubernetes nobody puts a token there later: it has to be there.
    fn judge_token(&mut self, file: Option<&Path>) {
        let reason = match file.map(|file| (file, read(file))) {
            Some((_, Ok(_))) => return,
            Some((file, Err(error))) => format!(
                "{}: {error}: put there what weir-operator token has made",
                file.display()
            ),
            None => "has to be set where --control-plane-url is: a file with what weir-operator token has made"
                .to_owned(),
        };
        self.wrong("--dataplane-token-file", reason);
    }
}

/// Whether the proxy runs outside Kubernetes.
fn given_dataplane(args: &RunArgs) -> bool {
    let given = [&args.dataplane_file, &args.dataplane];
    given
        .into_iter()
        .any(|text| super::given(text.clone()).is_some())
}

fn read(path: impl AsRef<Path>) -> io::Result<String> {
    io::read_to_string(File::open(path)?.take(FILE_SIZE))
}

/// What tells the operator where the pod is, as Linkerd's proxies do.
fn context(given: &impl Fn(&'static str) -> Option<String>) -> String {
    let keys = [
        ("ns", env::POD_NAMESPACE),
        ("pod", env::POD_NAME),
        ("nodeName", env::NODE_NAME),
    ];
    let known = keys.into_iter();
    let known = known.filter_map(|(key, name)| Some((key.to_owned(), given(name)?.into())));
    serde_json::Value::Object(known.collect()).to_string()
}

/// What tells the operator which Dataplane asks, outside Kubernetes.
pub(super) fn context_of(universal: &Universal) -> String {
    json!({"mesh": universal.mesh, "dataplane": universal.name}).to_string()
}
