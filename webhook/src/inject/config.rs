//! How the injected containers look: flags of the webhook, and what is wrong with them. Read by `containers`. It knows no
//! pod.

use clap::{Args, ValueEnum};
use tracing_subscriber::filter::{LevelFilter, Targets};
use weir_crds::{duration, names, ports};

use super::quantity::{is_less, quantity};
use crate::{decide::PodSecurity, redirection::Redirection};

/// How the injected containers look; flags of the webhook.
#[derive(Debug, Clone, Args)]
pub struct Config {
    /// Image of kuma-init and kuma-sidecar
    #[arg(long, env = "WEIR_PROXY_IMAGE", default_value = concat!("weir-proxy:", env!("CARGO_PKG_VERSION")))]
    pub proxy_image: String,
    /// When the kubelet pulls that image
    #[arg(long, env = "WEIR_PROXY_PULL_POLICY", value_enum, default_value_t = PullPolicy::IfNotPresent)]
    pub proxy_pull_policy: PullPolicy,
    /// CPU request of both containers; empty sets none
    #[arg(long, env = "WEIR_PROXY_CPU_REQUEST", default_value = "10m", value_parser = quantity)]
    pub proxy_cpu_request: String,
    /// Memory request of both containers; empty sets none
    #[arg(long, env = "WEIR_PROXY_MEMORY_REQUEST", default_value = "20Mi", value_parser = quantity)]
    pub proxy_memory_request: String,
    /// CPU limit of both containers, not less than the request; empty sets none, so that measuring never throttles traffic
    #[arg(long, env = "WEIR_PROXY_CPU_LIMIT", default_value = "", value_parser = quantity)]
    pub proxy_cpu_limit: String,
    /// Memory limit of both containers, not less than the request; empty sets none
    #[arg(long, env = "WEIR_PROXY_MEMORY_LIMIT", default_value = "256Mi", value_parser = quantity)]
    pub proxy_memory_limit: String,
    /// Log filter of the proxy, in the syntax of tracing: info, or weir_proxy=debug,warn
    #[arg(long, env = "WEIR_PROXY_LOG", default_value = "info", value_parser = log_filter)]
    pub proxy_log: String,
    /// How long the containers after it wait for a starting proxy, as in 30s; then they start without it,
    /// in a STRICT Mesh the proxy is started again
    #[arg(long, env = "WEIR_PROXY_START_TIMEOUT", default_value = "30s", value_parser = duration_text)]
    pub proxy_start_timeout: String,
    /// How long a stopping proxy waits for open connections, as in 30s
    #[arg(long, env = "WEIR_PROXY_DRAIN_TIME", default_value = "30s", value_parser = duration_text)]
    pub proxy_drain_time: String,
    /// What redirects a pod's traffic, where neither the pod nor its namespace says it by weir.io/redirection: an init
    /// container, or the CNI plugin, which has to be on every node
    #[arg(long, env = "WEIR_REDIRECTION", value_enum, default_value_t = Redirection::Init)]
    pub redirection: Redirection,
    /// The Pod Security level that the API server enforces where a namespace has no label of it (defaults.enforce of its
    /// AdmissionConfiguration): kuma-init is allowed in privileged alone
    #[arg(long, env = "WEIR_POD_SECURITY_DEFAULT", value_enum, default_value_t = PodSecurity::Privileged)]
    pub pod_security_default: PodSecurity,
    /// Where proxies reach the operator; empty leaves them to what the webhook tells them
    #[arg(long, env = "WEIR_CONTROL_PLANE_URL", default_value_t = control_plane_url(), value_parser = url_text)]
    pub control_plane_url: String,
}

impl Config {
    /// What cannot be together, each with the flags and the remedy: the API server would refuse every pod that gets the proxy.
    pub fn problems(&self) -> Vec<String> {
        let pairs = [
            ("cpu", &self.proxy_cpu_limit, &self.proxy_cpu_request),
            (
                "memory",
                &self.proxy_memory_limit,
                &self.proxy_memory_request,
            ),
        ];
        let wrong = pairs
            .into_iter()
            .filter(|(_, limit, request)| is_less(limit, request));
        let told = wrong.map(|(what, limit, request)| {
            let variable = what.to_uppercase();
            format!(
                "--proxy-{what}-limit (WEIR_PROXY_{variable}_LIMIT) is {limit}, less than --proxy-{what}-request \
                 (WEIR_PROXY_{variable}_REQUEST), which is {request}: no pod could be made. Raise the limit, lower the \
                 request, or give an empty limit for none"
            )
        });
        told.collect()
    }
}

/// `imagePullPolicy`, in Kubernetes' spelling.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum PullPolicy {
    /// At every start.
    #[value(name = "Always")]
    Always,
    /// When the node has no such image.
    #[value(name = "IfNotPresent")]
    IfNotPresent,
    /// Never; the image was loaded onto the node.
    #[value(name = "Never")]
    Never,
}

impl PullPolicy {
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Always => "Always",
            Self::IfNotPresent => "IfNotPresent",
            Self::Never => "Never",
        }
    }
}

/// A duration, checked as a quantity is and handed on as it was written.
fn duration_text(text: &str) -> Result<String, duration::NotADuration> {
    duration::parse(text).map(|_| text.to_owned())
}

/// A log filter as the proxy reads it: one that it refuses would end every proxy at its start.
fn log_filter(text: &str) -> Result<String, String> {
    let is_level = |directive: &str| {
        let level = directive.rsplit('=').next().unwrap_or_default().trim();
        !level.is_empty() && level.parse::<LevelFilter>().is_ok()
    };
    match text.split(',').all(is_level) && text.parse::<Targets>().is_ok() {
        true => Ok(text.to_owned()),
        false => Err(format!(
            "{text:?} is no log filter: use for example info, or info,weir_proxy::admin=debug"
        )),
    }
}

fn control_plane_url() -> String {
    let (service, namespace) = (names::OPERATOR, names::SYSTEM_NAMESPACE);
    format!("https://{service}.{namespace}.svc:{}", ports::OPERATOR_GRPC)
}

/// The operator's URL, checked as a quantity is.
fn url_text(text: &str) -> Result<String, String> {
    let authority = text.strip_prefix("https://");
    let has_port = authority.and_then(|authority| authority.rsplit_once(':'));
    let is_good =
        has_port.is_some_and(|(host, port)| !host.is_empty() && port.parse::<u16>().is_ok());
    match text.is_empty() || is_good {
        true => Ok(text.to_owned()),
        false => Err(format!(
            "{text:?} is no URL of an operator: use for example {}",
            control_plane_url()
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_operators_url_is_checked() {
        for good in [control_plane_url().as_str(), "https://[::1]:8086", ""] {
            assert_eq!(url_text(good).as_deref(), Ok(good));
        }
        for bad in [
            "weir-operator:8086",
            "http://op:8086",
            "https://op",
            "https://:1",
            "https://op:x",
        ] {
            assert!(url_text(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_log_filter_that_would_end_every_proxy_is_refused() {
        for good in ["info", "info,weir_proxy::admin=debug"] {
            assert_eq!(log_filter(good).unwrap(), good);
        }
        assert!(log_filter("a=b=c").is_err());
        assert!(log_filter("weir_proxy=debugg").is_err());
        assert!(log_filter("info,weir_proxy").is_err());
    }
}
