//! Performs the probes and lifecycle hooks that the webhook moved to `/probe/<n>`: each against the pod's own
//! IP, as a kubelet would, so that it fails exactly when the application does. Called by `routes`; touches no
//! traffic metric.

mod grpc;
mod http;
mod target;
mod trust;

use http::Request;
use hyper::StatusCode;
use hyper::header::HeaderValue;
use std::io;
use std::net::IpAddr;
use std::time::Duration;
use target::Target;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use weir_crds::probe::{Probe, ProbeAction};

/// What a probe found, as it is answered to the kubelet.
#[derive(Debug)]
pub(super) struct Verdict {
    /// The application's own status for HTTP; 200 or 503 for TCP and gRPC; 502 or 504 where nothing answered.
    pub(super) status: StatusCode,
    /// The application's body (its first 10 KiB), or one line that says what was found.
    pub(super) body: Vec<u8>,
    /// The application was reached and answered, whatever it said.
    pub(super) reached: bool,
}

/// Why the application gave no answer to judge by.
#[derive(Debug, thiserror::Error)]
pub(super) enum ProbeError {
    #[error("cannot resolve {host}: {error}")]
    Resolve { host: String, error: io::Error },
    #[error("cannot connect to {to}: {error}")]
    Connect { to: String, error: io::Error },
    #[error("TLS handshake with {to} failed: {error}")]
    Tls { to: String, error: io::Error },
    #[error("the probe's {what} is not usable: {value:?}")]
    Unusable { what: &'static str, value: String },
    #[error("no usable HTTP answer from {to}: {error}")]
    Http { to: String, error: hyper::Error },
    #[error("no usable gRPC answer from {to}: {error}")]
    Grpc { to: String, error: h2::Error },
    #[error("gRPC health check of {service:?} at {to}: {found}")]
    Unhealthy {
        to: String,
        service: String,
        found: String,
    },
    #[error("stopped after {0} redirects")]
    Redirects(usize),
    #[error("no answer within {} s, the probe's timeout", .0.as_secs())]
    Timeout(Duration),
}

impl ProbeError {
    fn status(&self) -> StatusCode {
        match self {
            Self::Timeout(_) => StatusCode::GATEWAY_TIMEOUT,
            Self::Unhealthy { .. } => StatusCode::SERVICE_UNAVAILABLE,
            _ => StatusCode::BAD_GATEWAY,
        }
    }
}

/// The pod's probes and what is needed to perform them.
pub(super) struct Prober {
    probes: Vec<Probe>,
    pod_ip: IpAddr,
    tls: TlsConnector,
}

impl Prober {
    pub(super) fn new(probes: Vec<Probe>, pod_ip: IpAddr) -> Self {
        Self {
            probes,
            pod_ip,
            tls: trust::connector(),
        }
    }

    /// Performs the `n`-th probe; `None` where there is no such probe.
    pub(super) async fn perform(&self, n: usize, agent: Option<&HeaderValue>) -> Option<Verdict> {
        let probe = self.probes.get(n)?;
        // A kubelet takes an unset timeout for one second.
        let limit = Duration::from_secs(u64::from(probe.timeout_seconds.max(1)));
        let done = timeout(limit, self.act(&probe.action, agent))
            .await
            .unwrap_or(Err(ProbeError::Timeout(limit)));
        Some(done.unwrap_or_else(|error| Verdict {
            status: match probe.action {
                ProbeAction::Http { .. } => error.status(),
                ProbeAction::Tcp { .. } | ProbeAction::Grpc { .. } => {
                    StatusCode::SERVICE_UNAVAILABLE
                }
            },
            reached: matches!(error, ProbeError::Unhealthy { .. }),
            body: format!("{error}\n").into_bytes(),
        }))
    }

    async fn act(
        &self,
        action: &ProbeAction,
        agent: Option<&HeaderValue>,
    ) -> Result<Verdict, ProbeError> {
        match action {
            ProbeAction::Http {
                port,
                path,
                host,
                https,
                headers,
            } => {
                let request = Request {
                    headers,
                    agent,
                    tls: &self.tls,
                };
                let target = Target::new(*https, self.host(host.as_deref()), *port, path);
                request.get(target).await
            }
            ProbeAction::Tcp { port, host } => {
                connect(&self.host(host.as_deref()), *port).await?;
                Ok(success())
            }
            ProbeAction::Grpc { port, service } => {
                grpc::check(&self.host(None), *port, service, agent).await?;
                Ok(success())
            }
        }
    }

    /// The probe's own host where it names one, else the pod.
    fn host(&self, named: Option<&str>) -> String {
        match named {
            Some(host) if !host.is_empty() => host.to_owned(),
            _ => self.pod_ip.to_string(),
        }
    }
}

fn success() -> Verdict {
    Verdict {
        status: StatusCode::OK,
        body: b"ok\n".to_vec(),
        reached: true,
    }
}

/// `host:port`, with the brackets an IPv6 address needs.
fn authority(host: &str, port: u16) -> String {
    if host.contains(':') {
        format!("[{host}]:{port}")
    } else {
        format!("{host}:{port}")
    }
}

/// Connects to the first address of `host` that accepts.
async fn connect(host: &str, port: u16) -> Result<TcpStream, ProbeError> {
    let addresses: Vec<_> = match host.parse::<IpAddr>() {
        Ok(ip) => vec![(ip, port).into()],
        Err(_) => tokio::net::lookup_host((host, port))
            .await
            .map_err(|error| ProbeError::Resolve {
                host: host.to_owned(),
                error,
            })?
            .collect(),
    };
    let mut failure = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
    for address in addresses {
        match TcpStream::connect(address).await {
            Ok(stream) => return Ok(stream),
            Err(error) => failure = error,
        }
    }
    Err(ProbeError::Connect {
        to: authority(host, port),
        error: failure,
    })
}
