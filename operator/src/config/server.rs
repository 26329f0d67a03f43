//! The settings of whatever the operator serves, in a cluster and without one. Used by `config` and `documents`.

use std::net::SocketAddr;
use std::time::Duration;

use tracing_subscriber::EnvFilter;

use crate::app;
use crate::serve;

/// What is logged by default. Answers of the API server that mean trouble are ours to report; its
/// client would call every one an error.
const DEFAULT_LOG: &str = "info,kube_client::client::builder=off";

/// What is served where, to how many.
#[derive(Clone, Debug, clap::Args)]
pub(super) struct ServerArgs {
    /// Address of /live, /ready and /metrics [default: port 8080 of every address].
    #[arg(long, env = "WEIR_HTTP_ADDRESS", value_name = "IP:PORT")]
    pub(super) http_address: Option<SocketAddr>,
    /// Address of the gRPC server that proxies call [default: port 8086 of every address].
    #[arg(long, env = "WEIR_GRPC_ADDRESS", value_name = "IP:PORT")]
    grpc_address: Option<SocketAddr>,
    /// Serve gRPC without TLS; only on a loopback --grpc-address.
    #[arg(
        long,
        env = "WEIR_GRPC_PLAINTEXT",
        value_name = "BOOL",
        default_value_t = false,
        action = clap::ArgAction::Set
    )]
    grpc_plaintext: bool,
    /// Most connections of the gRPC server at once; further ones wait.
    #[arg(
        long,
        env = "WEIR_GRPC_CONNECTIONS",
        value_name = "N",
        default_value_t = 16_384
    )]
    grpc_connections: usize,
    /// Minutes after which a connection is ended, give or take a tenth, so that proxies spread over
    /// the replicas.
    #[arg(
        long,
        env = "WEIR_GRPC_CONNECTION_MINUTES",
        value_name = "N",
        default_value_t = 30
    )]
    grpc_connection_minutes: u64,
    /// Seconds that tasks may take to end after SIGTERM. In a cluster the servers go on for as long before, at most 5 s, until
    /// nobody is sent there any more.
    #[arg(
        long,
        env = "WEIR_SHUTDOWN_SECONDS",
        value_name = "N",
        default_value_t = 5
    )]
    shutdown_seconds: u64,
    /// What is logged: a level, or targets with levels such as `info,weir_operator=debug`.
    #[arg(long, env = weir_crds::env::LOG, value_name = "FILTER", default_value = DEFAULT_LOG)]
    log: String,
}

impl ServerArgs {
    /// The log filter; what is wrong with it joins the problems.
    pub(super) fn filter(&self, problems: &mut Vec<String>) -> Option<EnvFilter> {
        let filter = EnvFilter::try_new(&self.log);
        filter
            .map_err(|error| problems.push(format!("--log: {error}")))
            .ok()
    }

    /// What else cannot be used.
    pub(super) fn problems(&self) -> Vec<String> {
        let mut problems = Vec::new();
        if self.grpc_plaintext
            && !self
                .grpc_address
                .is_some_and(|address| address.ip().is_loopback())
        {
            problems.push(
                "--grpc-plaintext: only on loopback; add --grpc-address 127.0.0.1:8086, or serve with TLS"
                    .to_owned(),
            );
        }
        if self.grpc_connections == 0 {
            problems.push("--grpc-connections: must be at least 1".to_owned());
        }
        if !(1..=1440).contains(&self.grpc_connection_minutes) {
            problems.push(format!(
                "--grpc-connection-minutes: {} is not between 1 and 1440",
                self.grpc_connection_minutes
            ));
        }
        problems
    }

    /// How long tasks may take to end.
    pub(super) fn shutdown(&self) -> Duration {
        Duration::from_secs(self.shutdown_seconds)
    }

    /// The gRPC server.
    pub(super) fn grpc(&self) -> app::Grpc {
        let limits = serve::Limits::default();
        app::Grpc {
            address: self.grpc_address,
            plaintext: self.grpc_plaintext,
            limits: serve::Limits {
                connections: self.grpc_connections,
                age: Duration::from_mins(self.grpc_connection_minutes),
                // Streams do not hold up the end.
                grace: limits.grace.min(self.shutdown() * 4 / 5),
                ..limits
            },
        }
    }
}
