//! Labels to text: `key="value"` pairs joined by commas, escaped as the text format asks. Called when a label set
//! is registered, never per event. Knows the order of the labels of every family, and nothing of their cells.

use std::fmt::Write;

use super::control::ControlLabels;
use super::http2::Http2Labels;
use super::labels::{
    ANY_PORT, AuthzLabels, Classification, Direction, EndpointLabels, GrpcLabels, HttpErrorLabels,
    HttpLabels, HttpSide, NoTlsReason, NotFoundLabels, OVERFLOW, Peer, ResponseEnd, TcpErrorLabels,
    Tls, TransportEnd, TransportLabels,
};
use super::route::RouteLabels;

/// Something whose labels identify a label set. The text is the identity: equal text, equal set.
pub(super) trait Render {
    /// Appends the labels, without braces.
    fn render(&self, out: &mut String);
}

/// Appends `key="value"`, after a comma unless it is the first.
pub(super) fn label(out: &mut String, key: &str, value: &str) {
    separate(out);
    out.push_str(key);
    out.push_str("=\"");
    escape(out, value);
    out.push('"');
}

fn port(out: &mut String, key: &str, value: u16) {
    match value {
        ANY_PORT => label(out, key, OVERFLOW),
        value => number(out, key, value),
    }
}

fn number(out: &mut String, key: &str, value: u16) {
    separate(out);
    write!(out, "{key}=\"{value}\"").expect("a String takes any text");
}

fn text(out: &mut String, rendered: &str) {
    if !rendered.is_empty() {
        separate(out);
        out.push_str(rendered);
    }
}

fn separate(out: &mut String) {
    if !out.is_empty() {
        out.push(',');
    }
}

/// Escapes as both formats do. A NUL, which is valid in them, becomes U+FFFD: there Prometheus' reader takes the body
/// for ended and fails the whole scrape.
fn escape(out: &mut String, value: &str) {
    if !value.contains(['\\', '"', '\n', '\0']) {
        return out.push_str(value);
    }
    for c in value.chars() {
        match c {
            '\\' => out.push_str("\\\\"),
            '"' => out.push_str("\\\""),
            '\n' => out.push_str("\\n"),
            '\0' => out.push(char::REPLACEMENT_CHARACTER),
            c => out.push(c),
        }
    }
}

/// The pairs of rendered labels: each key, and the pair as it is rendered.
pub(super) fn pairs(labels: &str) -> impl Iterator<Item = (&str, &str)> {
    let mut rest = labels;
    std::iter::from_fn(move || {
        let (key, value) = rest.split_once("=\"")?;
        let mut escaped = false;
        let end = value.find(|c| {
            let ends = c == '"' && !escaped;
            escaped = c == '\\' && !escaped;
            ends
        })?;
        let (pair, after) = rest.split_at(key.len() + 2 + end + 1);
        rest = after.strip_prefix(',').unwrap_or(after);
        Some((key, pair))
    })
}

/// Rendered labels without those for which `is_dropped`.
pub(super) fn without(labels: &str, is_dropped: impl Fn(&str) -> bool) -> String {
    let mut out = String::with_capacity(labels.len());
    for (key, pair) in pairs(labels) {
        if !is_dropped(key) {
            text(&mut out, pair);
        }
    }
    out
}

/// `prefix` and `key` with every character that a label name cannot hold made an underscore.
pub(super) fn label_name(prefix: &str, key: &str) -> String {
    let mut name = String::with_capacity(prefix.len() + key.len());
    name.push_str(prefix);
    name.extend(key.chars().map(|c| match c {
        'a'..='z' | 'A'..='Z' | '0'..='9' | '_' => c,
        _ => '_',
    }));
    name
}

impl Direction {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Inbound => "inbound",
            Self::Outbound => "outbound",
        }
    }
}

impl Peer {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Src => "src",
            Self::Dst => "dst",
        }
    }
}

impl Classification {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Success => "success",
            Self::Failure => "failure",
        }
    }
}

impl NoTlsReason {
    fn name(self) -> &'static str {
        match self {
            Self::NoTlsFromRemote => "no_tls_from_remote",
            Self::NotProvidedByServiceDiscovery => "not_provided_by_service_discovery",
            Self::Loopback => "loopback",
            Self::PortSkipped => "port_skipped",
        }
    }
}

impl Tls {
    pub(super) fn name(&self) -> &'static str {
        match self {
            Self::Mutual { .. } => "true",
            Self::NoIdentity(_) => "no_identity",
            Self::Opaque { .. } => "opaque",
        }
    }

    fn render(&self, direction: Direction, out: &mut String) {
        label(out, "tls", self.name());
        match (self, direction) {
            (Self::Mutual { id }, Direction::Inbound) => label(out, "client_id", id),
            (Self::Mutual { id }, Direction::Outbound) => label(out, "server_id", id),
            (Self::NoIdentity(reason), _) => label(out, "no_tls_reason", reason.name()),
            (Self::Opaque { sni }, _) => label(out, "sni", sni),
        }
    }
}

impl Render for HttpLabels<'_> {
    fn render(&self, out: &mut String) {
        let direction = match self.side {
            HttpSide::Inbound { .. } => Direction::Inbound,
            HttpSide::Outbound { .. } => Direction::Outbound,
        };
        label(out, "direction", direction.name());
        label(out, "authority", self.authority);
        port(out, "target_port", self.target_port);
        self.tls.render(direction, out);
        match self.side {
            HttpSide::Inbound {
                server,
                route,
                authz,
            } => {
                text(out, server.0.text());
                text(out, route.0.text());
                text(out, authz.0.text());
            }
            HttpSide::Outbound { dst } => text(out, dst.0.text()),
        }
    }
}

impl Render for TransportLabels<'_> {
    fn render(&self, out: &mut String) {
        let direction = self.end.direction();
        label(out, "direction", direction.name());
        label(out, "peer", self.end.peer().name());
        self.tls.render(direction, out);
        match self.end {
            TransportEnd::InboundSrc { server } => text(out, server.0.text()),
            TransportEnd::InboundDst | TransportEnd::OutboundSrc => {}
            TransportEnd::OutboundDst { authority, dst } => {
                label(out, "authority", authority);
                text(out, dst.0.text());
            }
        }
        port(out, "target_port", self.target_port);
    }
}

impl Render for AuthzLabels<'_> {
    fn render(&self, out: &mut String) {
        let direction = Direction::Inbound;
        label(out, "direction", direction.name());
        match self.authority {
            Some(authority) => label(out, "authority", authority),
            None => label(out, "peer", Peer::Src.name()),
        }
        text(out, self.server.0.text());
        if self.authority.is_some() {
            text(out, self.route.0.text());
        }
        if let Some(authz) = self.authz {
            text(out, authz.0.text());
        }
        self.tls.render(direction, out);
    }
}

impl Render for NotFoundLabels<'_> {
    fn render(&self, out: &mut String) {
        let direction = Direction::Inbound;
        label(out, "direction", direction.name());
        label(out, "authority", self.authority);
        text(out, self.server.0.text());
        self.tls.render(direction, out);
    }
}

impl Render for TcpErrorLabels {
    fn render(&self, out: &mut String) {
        label(out, "direction", self.direction.name());
        label(out, "peer", self.peer.name());
        label(out, "error", self.error);
        port(out, "target_port", self.target_port);
    }
}

impl Render for HttpErrorLabels<'_> {
    fn render(&self, out: &mut String) {
        label(out, "direction", self.direction.name());
        label(out, "error", self.error);
        match (self.direction, self.server) {
            (Direction::Outbound, _) => {}
            (Direction::Inbound, Some(server)) => text(out, server.0.text()),
            (Direction::Inbound, None) => {
                for key in ["srv_group", "srv_kind", "srv_name", "srv_port"] {
                    label(out, key, "");
                }
            }
        }
    }
}

/// `direction`, `peer` of `http2_active_*`.
impl Render for Http2Labels {
    fn render(&self, out: &mut String) {
        label(out, "direction", self.0.name());
        label(out, "peer", self.1.name());
    }
}

impl Render for GrpcLabels<'_> {
    fn render(&self, out: &mut String) {
        label(out, "direction", self.direction.name());
        label(out, "authority", self.authority);
    }
}

impl Render for ControlLabels<'_> {
    fn render(&self, out: &mut String) {
        label(out, "addr", self.addr);
        self.tls.render(Direction::Outbound, out);
    }
}

impl Render for RouteLabels<'_> {
    fn render(&self, out: &mut String) {
        label(out, "direction", self.direction.name());
        label(out, "dst", self.dst);
        if let Some(route) = self.route {
            label(out, "rt_route", route);
        }
    }
}

impl Render for EndpointLabels<'_> {
    fn render(&self, out: &mut String) {
        label(out, "authority", self.authority);
        port(out, "target_port", self.target_port);
    }
}

/// `direction`, `reason` of `weir_http_unparsed_total`.
#[derive(Clone, Copy)]
pub(super) struct Unparsed(pub(super) Direction, pub(super) &'static str);

impl Render for Unparsed {
    fn render(&self, out: &mut String) {
        label(out, "direction", self.0.name());
        label(out, "reason", self.1);
    }
}

impl Render for Direction {
    fn render(&self, out: &mut String) {
        label(out, "direction", self.name());
    }
}

/// `direction`, `peer`, `tls`, `classification` of `tcp_connection_duration_ms`.
pub(super) struct Duration(
    pub(super) Direction,
    pub(super) Peer,
    pub(super) &'static str,
    pub(super) Classification,
);

impl Render for Duration {
    fn render(&self, out: &mut String) {
        label(out, "direction", self.0.name());
        label(out, "peer", self.1.name());
        label(out, "tls", self.2);
        label(out, "classification", self.3.name());
    }
}

/// What `response_latency_ms` adds to the request's labels.
pub(super) fn latency_suffix(status: Option<u16>) -> String {
    let mut out = String::new();
    if let Some(status) = status {
        number(&mut out, "status_code", status);
    }
    out
}

/// What `response_total` adds to the request's labels, or a family like it that has no `grpc_status_code`.
pub(super) fn response_suffix(end: &ResponseEnd<'_>, has_grpc: bool) -> String {
    let mut out = latency_suffix(end.status);
    label(&mut out, "classification", end.classification.name());
    if has_grpc {
        label(&mut out, "grpc_status_code", end.grpc_status);
    }
    label(&mut out, "error", end.error);
    out
}

/// What `tcp_close_total` adds to the connection's labels.
pub(super) fn close_suffix(classification: Classification, errno: &str) -> String {
    let mut out = String::new();
    label(&mut out, "classification", classification.name());
    label(&mut out, "errno", errno);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rendered_labels_can_be_taken_apart() {
        let mut labels = String::new();
        for (key, value) in [("a", "1,b=\"2\""), ("c", "\\"), ("d", ""), ("e", "\\\"\n")] {
            label(&mut labels, key, value);
        }
        let keys: Vec<_> = pairs(&labels).map(|(key, _)| key).collect();
        assert_eq!(keys, ["a", "c", "d", "e"]);
        assert_eq!(without(&labels, |_| false), labels);
        assert_eq!(without(&labels, |key| key != "e"), "e=\"\\\\\\\"\\n\"");
        assert_eq!(without("", |_| true), "");
    }
}
