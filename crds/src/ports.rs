//! Port numbers, port names and the metrics path that every process agrees on.
//! Used by the webhook (what it writes into a pod), the proxy (what it binds) and the operator (what it
//! advertises). Knows nothing of who listens where: a port in force may differ from its default here.

/// Outbound proxy port; bound on loopback, reached by redirection.
pub const OUTBOUND: u16 = 4140;
/// Inbound proxy port; reached by redirection.
pub const INBOUND: u16 = 4143;
/// Port on loopback. By UDP the proxy beats to it: the packets are counted by nftables and read by nobody. Connections of
/// the proxy to it by TCP are led to its own outbound listener, which tells it that its pod is redirected.
pub const HEARTBEAT: u16 = 4189;
/// Admin port: `/metrics`, `/ready`, `/live`, `/probe/<n>`.
pub const ADMIN: u16 = 4191;
/// Default of `Mesh.metrics.backends[].conf.port` (the Kuma page).
pub const METRICS: u16 = 5670;
/// The webhook's HTTPS port.
pub const WEBHOOK: u16 = 9443;
/// The operator's `/metrics`, `/live`, `/ready`.
pub const OPERATOR_HTTP: u16 = 8080;
/// What there is to scrape, told by the operator: `/targets` for Prometheus' `http_sd`, and the place of the monitoring
/// assignments of its `kuma_sd`.
pub const OPERATOR_MONITORING: u16 = 5676;
/// The operator's gRPC port.
pub const OPERATOR_GRPC: u16 = 8086;

/// Container port name of [`ADMIN`]; scrape configurations select it by this name.
pub const LINKERD_ADMIN: &str = "linkerd-admin";
/// Container port name of [`INBOUND`].
pub const LINKERD_PROXY: &str = "linkerd-proxy";

/// Default path of the metrics endpoint and of every aggregated application (the Kuma page).
pub const METRICS_PATH: &str = "/metrics";

/// The ports that are always the proxy's own: never an application's, never redirected to it.
pub const OWN: [u16; 3] = [OUTBOUND, INBOUND, ADMIN];

/// The rule every port of a resource or an annotation obeys, in Kuma's words.
pub const RANGE_MESSAGE: &str = "port must be in the range [1, 65535]";

/// What a metrics endpoint is told that was given one of [`OWN`].
pub const OWN_MESSAGE: &str = "must not be 4140, 4143 or 4191, which the proxy itself uses";

/// A number from a resource as a port: `None` where it is 0 or above 65535.
pub fn checked(number: u32) -> Option<u16> {
    u16::try_from(number).ok().filter(|port| *port != 0)
}
