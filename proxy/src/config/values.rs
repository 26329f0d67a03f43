//! Texts of flags and variables, and the typed parts of the configuration that they make. Used by `config`, which
//! knows where the texts come from; nothing here reads anything but the cgroup files.

use super::args::RunArgs;
use super::{MOST_WORKERS, Problem, Redirected, cgroup, size};
use crate::identity::Files;
use crate::{accept, admin, drain, log, telemetry, worker};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::Path;
use std::time::Duration;
use weir_crds::{duration, env, ports, probe};

/// Less memory for series than this would hold hardly more than what is printed at 0.
const LEAST_METRICS_BYTES: usize = 1024 * 1024;

/// What TCP_KEEPIDLE can say at least (tcp(7)).
const LEAST_KEEPALIVE: Duration = Duration::from_secs(1);

const DEFAULT_LOG: &str = "info";

/// Gives texts their types and keeps what is wrong with them; a wrong value counts as absent meanwhile.
#[derive(Default)]
pub(super) struct Values {
    pub(super) problems: Vec<Problem>,
}

impl Values {
    pub(super) fn wrong(&mut self, name: &'static str, reason: impl Into<String>) {
        self.problems.push(Problem::Value {
            name: name.to_owned(),
            reason: reason.into(),
        });
    }

    pub(super) fn parsed<T: std::str::FromStr>(
        &mut self,
        name: &'static str,
        text: Option<&str>,
        expected: &str,
    ) -> Option<T> {
        let text = text.map(str::trim).filter(|text| !text.is_empty())?;
        let value = text.parse().ok();
        if value.is_none() {
            self.wrong(name, format!("expected {expected}, found {text:?}"));
        }
        value
    }

    /// Where an identity lies: all three files, or none.
    pub(super) fn identity_files(&mut self, args: &RunArgs) -> Option<Files> {
        let given = |file: &Option<String>| super::given(file.clone());
        let files = [
            ("--identity-cert-file", given(&args.identity_cert_file)),
            ("--identity-key-file", given(&args.identity_key_file)),
            ("--identity-ca-file", given(&args.identity_ca_file)),
        ];
        if let [(_, Some(cert)), (_, Some(key)), (_, Some(authority))] = &files {
            return Some(Files {
                cert: cert.into(),
                key: key.into(),
                authority: authority.into(),
            });
        }
        if files.iter().any(|(_, file)| file.is_some()) {
            for (name, _) in files.iter().filter(|(_, file)| file.is_none()) {
                self.wrong(name, "is missing: an identity is a certificate, its key and the authorities, each in a file");
            }
        }
        None
    }

    fn address(&mut self, name: &'static str, text: Option<&str>) -> Option<SocketAddr> {
        self.parsed(name, text, "an address such as 127.0.0.1:4191 or [::]:4191")
    }

    /// A duration that may not be zero unless `zero`.
    fn duration(&mut self, name: &'static str, text: Option<&str>, zero: bool) -> Option<Duration> {
        let text = text.map(str::trim).filter(|text| !text.is_empty())?;
        match duration::parse(text) {
            Ok(Duration::ZERO) if !zero => {
                self.wrong(name, "has to be longer than 0");
                None
            }
            Ok(duration) => Some(duration),
            Err(error) => {
                self.wrong(name, error.to_string());
                None
            }
        }
    }

    /// A number of bytes, at least [`LEAST_METRICS_BYTES`].
    fn size(&mut self, name: &'static str, text: Option<&str>) -> Option<usize> {
        let text = text.map(str::trim).filter(|text| !text.is_empty())?;
        match size::parse(text) {
            Ok(bytes) if bytes < LEAST_METRICS_BYTES => {
                self.wrong(name, format!("has to be at least 1MiB, found {text:?}"));
                None
            }
            Ok(bytes) => Some(bytes),
            Err(error) => {
                self.wrong(name, error.to_string());
                None
            }
        }
    }

    pub(super) fn redirected(&mut self, args: &RunArgs, ipv6: bool) -> Redirected {
        let any = if ipv6 {
            IpAddr::from(Ipv6Addr::UNSPECIFIED)
        } else {
            Ipv4Addr::UNSPECIFIED.into()
        };
        let inbound = self.address("--inbound-addr", args.inbound_addr.as_deref());
        let texts = args.outbound_addr.as_deref().unwrap_or_default().split(',');
        let mut outbound: Vec<_> = texts
            .filter_map(|text| self.address("--outbound-addr", Some(text)))
            .collect();
        if outbound.is_empty() {
            outbound.push((Ipv4Addr::LOCALHOST, ports::OUTBOUND).into());
            if ipv6 {
                outbound.push((Ipv6Addr::LOCALHOST, ports::OUTBOUND).into());
            }
        }
        let inbound = inbound.unwrap_or((any, ports::INBOUND).into());
        let mut taken = vec![inbound];
        for addr in &outbound {
            if taken.contains(addr) && addr.port() != 0 {
                let reason = format!(
                    "{addr} is listened on already: give each address once, and not that of --inbound-addr"
                );
                self.wrong("--outbound-addr", reason);
            }
            taken.push(*addr);
        }
        Redirected { inbound, outbound }
    }

    pub(super) fn drain(&mut self, args: &RunArgs) -> drain::Config {
        let mut config = drain::Config::default();
        let longest = self.duration("--drain-time", args.drain_time.as_deref(), true);
        config.longest = longest.unwrap_or(config.longest);
        let shortest = args.drain_time_min.as_deref();
        let shortest = self.duration("--drain-time-min", shortest, true);
        config.shortest = shortest.unwrap_or(config.shortest);
        config
    }

    pub(super) fn telemetry(&mut self, args: &RunArgs) -> telemetry::Config {
        let mut config = telemetry::Config::default();
        let retain = self.duration("--retain-idle", args.retain_idle.as_deref(), false);
        config.retain_idle = retain.unwrap_or(config.retain_idle);
        let series = args.metrics_max_series.as_deref();
        let series = self.parsed("--metrics-max-series", series, "a number of series");
        config.most_series = series.unwrap_or(config.most_series);
        let bytes = self.size("--metrics-max-bytes", args.metrics_max_bytes.as_deref());
        config.most_bytes = bytes.unwrap_or(config.most_bytes);
        config
    }

    pub(super) fn worker(&mut self, args: &RunArgs, guard: accept::Guard) -> worker::Config {
        let mut config = worker::Config {
            guard,
            ..worker::Config::default()
        };
        let detect = self.duration("--detect-timeout", args.detect_timeout.as_deref(), false);
        config.detect.timeout = detect.unwrap_or(config.detect.timeout);
        let connect = self.duration("--connect-timeout", args.connect_timeout.as_deref(), false);
        config.forward.connect_timeout = connect.unwrap_or(config.forward.connect_timeout);
        let attempt = args.attempt_timeout.as_deref();
        let attempt = self.duration("--attempt-timeout", attempt, false);
        config.forward.attempt_timeout = attempt.unwrap_or(config.forward.attempt_timeout);
        let keepalive = self.keepalive(args.keepalive.as_deref());
        config.forward.keepalive = keepalive.unwrap_or(config.forward.keepalive);
        self.balance(args, &mut config);
        config
    }

    fn balance(&mut self, args: &RunArgs, config: &mut worker::Config) {
        let config = &mut config.endpoints;
        let decay = self.duration("--balance-decay", args.balance_decay.as_deref(), false);
        config.decay = decay.unwrap_or(config.decay);
        let max = args.endpoint_rest_max.as_deref();
        let max = self.duration("--endpoint-rest-max", max, false);
        config.rest_max = max.unwrap_or(config.rest_max);
        let min = args.endpoint_rest_min.as_deref();
        match self.duration("--endpoint-rest-min", min, false) {
            Some(min) if min > config.rest_max => self.wrong(
                "--endpoint-rest-min",
                format!(
                    "has to be at most --endpoint-rest-max, which is {:?}",
                    config.rest_max
                ),
            ),
            min => config.rest_min = min.unwrap_or(config.rest_min.min(config.rest_max)),
        }
    }

    /// The system counts whole seconds.
    fn keepalive(&mut self, text: Option<&str>) -> Option<Duration> {
        let keepalive = self.duration("--keepalive", text, false)?;
        if keepalive < LEAST_KEEPALIVE {
            self.wrong("--keepalive", "has to be at least 1s");
            return None;
        }
        Some(keepalive)
    }

    /// A list of ports.
    pub(super) fn ports(
        &mut self,
        name: &'static str,
        variable: &impl Fn(&str) -> Option<String>,
    ) -> Vec<u16> {
        let text = variable(name).unwrap_or_default();
        let ports = text.split(',').filter(|port| !port.trim().is_empty());
        ports
            .filter_map(|port| self.parsed(name, Some(port), "ports separated by commas"))
            .collect()
    }

    /// All of the pod's addresses, else its first, else none.
    pub(super) fn pod_ips(&mut self, variable: &impl Fn(&str) -> Option<String>) -> Vec<IpAddr> {
        for name in [env::POD_IPS, env::INSTANCE_IP] {
            let text = variable(name).unwrap_or_default();
            let ips: Vec<_> = text
                .split(',')
                .filter_map(|ip| self.parsed(name, Some(ip), "IP addresses separated by commas"))
                .collect();
            if !ips.is_empty() {
                return ips;
            }
        }
        Vec::new()
    }

    pub(super) fn admin(
        &mut self,
        args: &RunArgs,
        variable: &impl Fn(&str) -> Option<String>,
        pod_ips: &[IpAddr],
    ) -> admin::Config {
        let mut config = admin::Config::default();
        let addr = self.address("--admin-addr", args.admin_addr.as_deref());
        config.addr = addr.unwrap_or(config.addr);
        match probe::parse(&variable(env::PROBES).unwrap_or_default()) {
            Ok(probes) => config.probes = probes,
            Err(error) => self.wrong(env::PROBES, error.to_string()),
        }
        match pod_ips.first() {
            Some(ip) => config.pod_ip = *ip,
            None if config.probes.is_empty() => {}
            None => self.wrong(
                env::POD_IPS,
                format!(
                    "has to be set, or {}, where {} is: probes go to the pod's IP",
                    env::INSTANCE_IP,
                    env::PROBES
                ),
            ),
        }
        config
    }

    pub(super) fn workers(&mut self, text: Option<&str>) -> usize {
        let asked = self
            .parsed("--concurrency", text, "a number of threads")
            .unwrap_or(0);
        match asked {
            0 => default_workers(cgroup::quota(Path::new("/"))),
            1..=MOST_WORKERS => asked,
            _ => {
                self.wrong(
                    "--concurrency",
                    format!("expected at most {MOST_WORKERS}, found {asked}"),
                );
                1
            }
        }
    }

    pub(super) fn log(&mut self, text: Option<&str>) -> String {
        let text = text.map(str::trim).filter(|text| !text.is_empty());
        let text = text.unwrap_or(DEFAULT_LOG);
        match log::filter(text) {
            Ok(_) => text.to_owned(),
            Err(error) => {
                self.wrong("--log-level", error.to_string());
                DEFAULT_LOG.to_owned()
            }
        }
    }
}

/// The whole CPUs of a quota, at least 1; without a quota 1.
pub(super) fn default_workers(quota: Option<f64>) -> usize {
    let available = std::thread::available_parallelism().map_or(1, usize::from);
    // Saturates: no quota is negative, and the available CPUs bound a huge one.
    let whole = quota.unwrap_or(1.0).floor() as usize;
    whole.clamp(1, available)
}
