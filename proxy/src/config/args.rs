//! The flags of `weir-proxy run` and the environment variables that stand for them, as text: `config` gives them
//! their types, so that all that is wrong is told at once. Knows no default but those it documents.

use std::collections::BTreeSet;

use clap::parser::ValueSource;
use clap::{ArgMatches, Args, Command};
use serde_json::Value;
use weir_crds::env;

use crate::admin::{Entry, Source};

const EXAMPLES: &str = "\
Examples:
  A service at 8080 behind the proxy at 11010, metrics on 5670/metrics:
    weir-proxy run --dataplane-file web.yaml

  The same from the standard input, with the metrics of a Mesh of your own:
    weir-proxy run --dataplane-file - --mesh-file mesh.yaml < web.yaml

  web.yaml:
    type: Dataplane
    mesh: default
    name: web-1
    networking:
      address: 127.0.0.1
      inbound:
        - port: 11010
          servicePort: 8080
          tags: {kuma.io/service: web}

In a pod no flag is needed: the webhook sets WEIR_SETTINGS, WEIR_PROBES, WEIR_APPLICATION_PORTS (ports that stay the
application's, as 80,443), WEIR_POD_IPS, INSTANCE_IP, POD_NAME, POD_NAMESPACE, WEIR_NODE_NAME, and where there is an
operator KUMA_CONTROL_PLANE_URL, KUMA_CONTROL_PLANE_CA_CERT (PEM) and KUMA_DATAPLANE_RUNTIME_TOKEN_PATH.
Ends with status 64 where anything here or in the files is wrong, unless --best-effort.";

/// The flags of `weir-proxy run`.
#[derive(Clone, Debug, Default, clap::Args)]
#[command(after_help = EXAMPLES, after_long_help = EXAMPLES)]
pub struct RunArgs {
    /// Universal documents with this proxy's Dataplane, and those of the services it calls; - is the standard
    /// input. SIGHUP has the files read again
    #[arg(short, long, value_name = "FILE", env = env::RESOURCE_PATH, help_heading = "Outside Kubernetes")]
    pub dataplane_file: Option<String>,

    /// The same documents as text
    #[arg(long, value_name = "YAML", env = env::RESOURCE, help_heading = "Outside Kubernetes")]
    pub dataplane: Option<String>,

    /// Universal document with the Dataplane's Mesh [default: a Mesh with metrics on 5670/metrics]
    #[arg(
        long,
        value_name = "FILE",
        env = "WEIR_MESH_FILE",
        help_heading = "Outside Kubernetes"
    )]
    pub mesh_file: Option<String>,

    /// Which of the Dataplanes is this proxy's [default: the first]
    #[arg(long, value_name = "NAME", env = env::NAME, help_heading = "Outside Kubernetes")]
    pub name: Option<String>,

    /// The Mesh that Dataplane is in [default: any]
    #[arg(long, value_name = "NAME", env = env::MESH, help_heading = "Outside Kubernetes")]
    pub mesh: Option<String>,

    /// An operator that reads documents (weir-operator run), such as https://operator.example:8086: certificates, settings,
    /// permissions and the endpoints of services come from it
    #[arg(
        long,
        visible_alias = "cp-address",
        value_name = "URL",
        env = env::CONTROL_PLANE_URL,
        help_heading = "Outside Kubernetes"
    )]
    pub control_plane_url: Option<String>,

    /// The authority that has signed that operator's certificate, PEM
    #[arg(
        long,
        visible_alias = "ca-cert-file",
        value_name = "FILE",
        env = env::CONTROL_PLANE_CA_CERT_FILE,
        help_heading = "Outside Kubernetes"
    )]
    pub control_plane_ca_file: Option<String>,

    /// The token by which this proxy says to the operator whose it is (weir-operator token); read anew for each call
    #[arg(long, value_name = "FILE", env = env::TOKEN_PATH, help_heading = "Outside Kubernetes")]
    pub dataplane_token_file: Option<String>,

    /// The proxy's certificate in a Mesh with mTLS, PEM, its chain after it; looked at again every 10 s
    #[arg(
        long,
        value_name = "FILE",
        env = "WEIR_IDENTITY_CERT_FILE",
        help_heading = "Outside Kubernetes"
    )]
    pub identity_cert_file: Option<String>,

    /// That certificate's key, PEM
    #[arg(
        long,
        value_name = "FILE",
        env = "WEIR_IDENTITY_KEY_FILE",
        help_heading = "Outside Kubernetes"
    )]
    pub identity_key_file: Option<String>,

    /// The authorities that certify the proxies of the Mesh, PEM
    #[arg(
        long,
        value_name = "FILE",
        env = "WEIR_IDENTITY_CA_FILE",
        help_heading = "Outside Kubernetes"
    )]
    pub identity_ca_file: Option<String>,

    /// Where redirected connections to the pod arrive [default: [::]:4143, IPv4 too]
    #[arg(
        long,
        value_name = "IP:PORT",
        env = "WEIR_INBOUND_ADDR",
        help_heading = "Listeners"
    )]
    pub inbound_addr: Option<String>,

    /// Where redirected connections of the pod arrive, separated by commas [default: 127.0.0.1:4140,[::1]:4140]
    #[arg(
        long,
        value_name = "IP:PORT",
        env = "WEIR_OUTBOUND_ADDR",
        help_heading = "Listeners"
    )]
    pub outbound_addr: Option<String>,

    /// Where /metrics, /live, /ready and /probe are served [default: [::]:4191, IPv4 too]
    #[arg(
        long,
        value_name = "IP:PORT",
        env = "WEIR_ADMIN_ADDR",
        help_heading = "Listeners"
    )]
    pub admin_addr: Option<String>,

    /// The IP of the Mesh's metrics endpoint [default: the Dataplane's networking.address; in a pod any]
    #[arg(
        long,
        value_name = "IP",
        env = "WEIR_METRICS_IP",
        help_heading = "Listeners"
    )]
    pub metrics_ip: Option<String>,

    /// Worker threads; 0 is as many whole CPUs as the cgroup's quota allows, and 1 without a quota [default: 0]
    #[arg(long, value_name = "N", env = env::CONCURRENCY, help_heading = "Behaviour")]
    pub concurrency: Option<String>,

    /// Longest wait for the rest of a first request line, after which the bytes pass as opaque [default: 10s]
    #[arg(
        long,
        value_name = "DURATION",
        env = "WEIR_DETECT_TIMEOUT",
        help_heading = "Behaviour"
    )]
    pub detect_timeout: Option<String>,

    /// Longest time for a TCP connection to be accepted by its target [default: 10s]
    #[arg(
        long,
        value_name = "DURATION",
        env = "WEIR_CONNECT_TIMEOUT",
        help_heading = "Behaviour"
    )]
    pub connect_timeout: Option<String>,

    /// Longest time for one endpoint of a service to accept, while there are others to try: all of them share
    /// --connect-timeout [default: 1s]
    #[arg(
        long,
        value_name = "DURATION",
        env = "WEIR_ATTEMPT_TIMEOUT",
        help_heading = "Behaviour"
    )]
    pub attempt_timeout: Option<String>,

    /// How long an endpoint that took no connection is set aside at first; each further failure doubles it
    /// [default: 100ms]
    #[arg(
        long,
        value_name = "DURATION",
        env = "WEIR_ENDPOINT_REST_MIN",
        help_heading = "Behaviour"
    )]
    pub endpoint_rest_min: Option<String>,

    /// How long it is set aside at most [default: 10s]
    #[arg(
        long,
        value_name = "DURATION",
        env = "WEIR_ENDPOINT_REST_MAX",
        help_heading = "Behaviour"
    )]
    pub endpoint_rest_max: Option<String>,

    /// Time in which a latency that was measured of an endpoint fades to a third, for the choice between them
    /// [default: 10s]
    #[arg(
        long,
        value_name = "DURATION",
        env = "WEIR_BALANCE_DECAY",
        help_heading = "Behaviour"
    )]
    pub balance_decay: Option<String>,

    /// Most destinations that the operator is asked about at a time, 1 to 1500: the operator takes 6,144 calls from one
    /// proxy, and a destination may take three. Connections to further ones go where they were going, without TLS and
    /// without labels, while connections are open to all [default: 500]
    #[arg(
        long,
        value_name = "N",
        env = "WEIR_MAX_DESTINATIONS",
        help_heading = "Behaviour"
    )]
    pub max_destinations: Option<String>,

    /// Silence after which a peer is asked whether it is still there (SO_KEEPALIVE); at least 1s [default: 60s]
    #[arg(
        long,
        value_name = "DURATION",
        env = "WEIR_KEEPALIVE",
        help_heading = "Behaviour"
    )]
    pub keepalive: Option<String>,

    /// How long a proxy that was told to end waits for what is under way [default: 30s]
    #[arg(long, value_name = "DURATION", env = env::DRAIN_TIME, help_heading = "Behaviour")]
    pub drain_time: Option<String>,

    /// How long it stays at least after a signal, as long as --drain-time allows: one that is told to end together with
    /// its application, not after it, is still asked until the redirection ends, 2.5s later [default: 0]
    #[arg(long, value_name = "DURATION", env = env::DRAIN_TIME_MIN, help_heading = "Behaviour")]
    pub drain_time_min: Option<String>,

    /// How long a series that is not written to stays exposed [default: 10m]
    #[arg(
        long,
        value_name = "DURATION",
        env = "WEIR_RETAIN_IDLE",
        help_heading = "Behaviour"
    )]
    pub retain_idle: Option<String>,

    /// YAML document that leaves out labels and families or changes buckets; SIGHUP has it read again, `weir-proxy plan`
    /// tells what it would save [default: everything is recorded]
    #[arg(
        long,
        value_name = "FILE",
        env = "WEIR_METRICS_POLICY_FILE",
        help_heading = "Behaviour"
    )]
    pub metrics_policy_file: Option<String>,

    /// Most series of each family, past which labels that anybody can make up become __overflow__ [default: 10000]
    #[arg(
        long,
        value_name = "N",
        env = "WEIR_METRICS_MAX_SERIES",
        help_heading = "Behaviour"
    )]
    pub metrics_max_series: Option<String>,

    /// Most memory for all series, past which the same happens; at least 1MiB [default: 32MiB]
    #[arg(
        long,
        value_name = "BYTES",
        env = "WEIR_METRICS_MAX_BYTES",
        help_heading = "Behaviour"
    )]
    pub metrics_max_bytes: Option<String>,

    /// What is logged: a level, or levels by module such as info,weir_proxy::admin=debug [default: info]
    #[arg(long, value_name = "FILTER", env = env::LOG, help_heading = "Behaviour")]
    pub log_level: Option<String>,

    /// Use the default of what is wrong here, and try again to listen where that fails: for a pod, whose application
    /// must not wait for it
    #[arg(long, help_heading = "Behaviour")]
    pub best_effort: bool,

    /// Those of the above that were flags; what else is given was a variable. See [`note_flags`](Self::note_flags).
    #[arg(skip)]
    pub flags: BTreeSet<String>,
}

/// The variable that stands for a flag.
pub(super) fn variable_of(flag: &str) -> String {
    let command = RunArgs::augment_args(Command::new("run"));
    let mut args = command.get_arguments();
    let arg = args.find(|arg| arg.get_long() == flag.strip_prefix("--"));
    let name = arg.and_then(|arg| arg.get_env());
    name.map(|name| name.to_string_lossy().into_owned())
        .unwrap_or_default()
}

impl RunArgs {
    /// Remembers which were given on the command line.
    pub fn note_flags(&mut self, matches: Option<&ArgMatches>) {
        let given = matches.into_iter().flat_map(|matches| {
            let by_flag = |id: &&str| matches.value_source(id) == Some(ValueSource::CommandLine);
            matches.ids().map(clap::Id::as_str).filter(by_flag)
        });
        self.flags = given
            .map(|id| format!("--{}", id.replace('_', "-")))
            .collect();
    }

    /// The entry of a flag: `text` is what was given, `value` what is in force.
    pub(super) fn entry(&self, name: &'static str, text: &Option<String>, value: Value) -> Entry {
        let source = match text.as_deref().map(str::trim) {
            None | Some("") => Source::Default,
            Some(_) if self.flags.contains(name) => Source::Flag,
            Some(_) => Source::Variable(variable_of(name)),
        };
        Entry {
            name,
            value,
            source,
        }
    }
}
