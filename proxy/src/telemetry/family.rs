//! The table of the families that traffic is counted in: names, types and help texts, in the order in which they
//! are printed. A further family is one more row here, and a writer that resolves its cells.

/// What follows the labels of the set where messages were sent by the pod's application.
pub(super) const SENT: &str = "kind=\"sent\"";
/// As [`SENT`], where they were sent to it.
pub(super) const RECEIVED: &str = "kind=\"received\"";
/// What follows the labels of a service's endpoints that may be chosen.
pub(super) const AVAILABLE: &str = "state=\"available\"";
/// As [`AVAILABLE`], of those that have failed and not taken a connection since.
pub(super) const SET_ASIDE: &str = "state=\"set_aside\"";

/// How the cells of a series become lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Value {
    /// One cell, only growing.
    Counter,
    /// Two cells, ups and downs, both only growing; the value is their difference.
    Gauge,
    /// One cell a bucket and one for the sum.
    Histogram,
}

impl Value {
    /// The word of the TYPE line.
    pub(super) fn word(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Histogram => "histogram",
        }
    }
}

/// What a label set is, and thereby which families it has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Kind {
    /// `request_total`, `response_total`, `response_latency_ms`.
    Http,
    /// `route_*`.
    Route,
    /// `route_actual_*`.
    RouteActual,
    /// `control_*`.
    Control,
    /// `tcp_*` but the duration.
    Transport,
    /// `http2_active_*`.
    Http2,
    /// `grpc_messages_total`.
    Grpc,
    /// One family by itself.
    Single(Family),
}

impl Kind {
    /// The families of such a label set.
    pub(super) fn families(self) -> &'static [Family] {
        match self {
            Self::Http => &[
                Family::RequestTotal,
                Family::ResponseTotal,
                Family::ResponseLatency,
            ],
            Self::Route => &[
                Family::RouteRequestTotal,
                Family::RouteResponseTotal,
                Family::RouteLatency,
            ],
            Self::RouteActual => &[
                Family::RouteActualRequestTotal,
                Family::RouteActualResponseTotal,
            ],
            Self::Control => &[
                Family::ControlRequestTotal,
                Family::ControlResponseTotal,
                Family::ControlLatency,
            ],
            Self::Transport => &[
                Family::TcpOpenTotal,
                Family::TcpOpenConnections,
                Family::TcpReadBytes,
                Family::TcpWriteBytes,
                Family::TcpCloseTotal,
            ],
            Self::Http2 => &[Family::Http2Connections, Family::Http2Streams],
            Self::Grpc => &[Family::GrpcMessages],
            Self::Single(family) => std::slice::from_ref(&Family::ALL[family as usize]),
        }
    }
}

macro_rules! families {
    ($($name:ident $kind:expr, $value:ident $text:literal $help:literal;)*) => {
        /// A family of the table, in the order of printing.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[repr(usize)]
        pub(super) enum Family { $($name),* }

        impl Family {
            /// Every family, in the order of printing.
            pub(super) const ALL: &'static [Self] = &[$(Self::$name),*];

            /// The printed name.
            pub(super) const fn name(self) -> &'static str {
                match self { $(Self::$name => $text),* }
            }

            /// The text of the HELP line.
            pub(super) const fn help(self) -> &'static str {
                match self { $(Self::$name => $help),* }
            }

            /// How its cells are read.
            pub(super) const fn value(self) -> Value {
                match self { $(Self::$name => Value::$value),* }
            }

            /// The kind of label set it belongs to.
            pub(super) fn kind(self) -> Kind {
                match self { $(Self::$name => $kind),* }
            }
        }
    };
}

families! {
    InboundHttpAuthzAllow Kind::Single(Self::InboundHttpAuthzAllow), Counter "inbound_http_authz_allow_total"
        "Inbound requests of peers that may connect.";
    InboundHttpAuthzDeny Kind::Single(Self::InboundHttpAuthzDeny), Counter "inbound_http_authz_deny_total"
        "Inbound requests that no permission allows, which the proxy has answered with 403.";
    InboundHttpRouteNotFound Kind::Single(Self::InboundHttpRouteNotFound), Counter "inbound_http_route_not_found_total"
        "Inbound requests that there is no route for, which the proxy has answered with 404, or UNIMPLEMENTED.";
    InboundTcpAuthzAllow Kind::Single(Self::InboundTcpAuthzAllow), Counter "inbound_tcp_authz_allow_total"
        "Inbound connections without HTTP of peers that may connect.";
    InboundTcpAuthzDeny Kind::Single(Self::InboundTcpAuthzDeny), Counter "inbound_tcp_authz_deny_total"
        "Inbound connections without HTTP that no permission allows, which the proxy has closed.";
    RequestTotal Kind::Http, Counter "request_total"
        "Requests whose head the proxy has parsed.";
    ResponseTotal Kind::Http, Counter "response_total"
        "Responses whose stream has ended, however it ended.";
    ResponseLatency Kind::Http, Histogram "response_latency_ms"
        "Milliseconds from the parsed head of a request to the first data of its response.";
    RouteRequestTotal Kind::Route, Counter "route_request_total"
        "Requests to destinations with routes, by the route that they are of.";
    RouteResponseTotal Kind::Route, Counter "route_response_total"
        "Responses from destinations with routes whose stream has ended, however it ended.";
    RouteLatency Kind::Route, Histogram "route_response_latency_ms"
        "Milliseconds from the parsed head of a request of a route to the first data of its response.";
    RouteActualRequestTotal Kind::RouteActual, Counter "route_actual_request_total"
        "Attempts at requests to destinations with routes: one more for each retry.";
    RouteActualResponseTotal Kind::RouteActual, Counter "route_actual_response_total"
        "Responses that attempts at requests to destinations with routes have come to.";
    ControlRequestTotal Kind::Control, Counter "control_request_total"
        "Calls of the proxy to the operator.";
    ControlResponseTotal Kind::Control, Counter "control_response_total"
        "Calls to the operator that have ended, however they ended; a watch ends with its stream.";
    ControlLatency Kind::Control, Histogram "control_response_latency_ms"
        "Milliseconds from the beginning of a call to the operator to its first message.";
    InboundHttpErrors Kind::Single(Self::InboundHttpErrors), Counter "inbound_http_errors_total"
        "Answers to inbound requests that the proxy made up itself.";
    OutboundHttpErrors Kind::Single(Self::OutboundHttpErrors), Counter "outbound_http_errors_total"
        "Answers to outbound requests that the proxy made up itself.";
    Http2Connections Kind::Http2, Gauge "http2_active_connections"
        "HTTP/2 connections open now.";
    Http2Streams Kind::Http2, Gauge "http2_active_streams"
        "HTTP/2 streams open now.";
    GrpcMessages Kind::Grpc, Counter "grpc_messages_total"
        "gRPC messages that have passed, those of open streams included.";
    TcpOpenTotal Kind::Transport, Counter "tcp_open_total"
        "Connections opened.";
    TcpOpenConnections Kind::Transport, Gauge "tcp_open_connections"
        "Connections open now.";
    TcpReadBytes Kind::Transport, Counter "tcp_read_bytes_total"
        "Bytes of application data read from the peer.";
    TcpWriteBytes Kind::Transport, Counter "tcp_write_bytes_total"
        "Bytes of application data written to the peer.";
    TcpCloseTotal Kind::Transport, Counter "tcp_close_total"
        "Connections closed.";
    TcpDuration Kind::Single(Self::TcpDuration), Histogram "tcp_connection_duration_ms"
        "Milliseconds that a connection was open, recorded when it closes.";
    InboundTcpErrors Kind::Single(Self::InboundTcpErrors), Counter "inbound_tcp_errors_total"
        "Inbound connections that the proxy could not process.";
    OutboundTcpErrors Kind::Single(Self::OutboundTcpErrors), Counter "outbound_tcp_errors_total"
        "Outbound connections that the proxy could not process.";
    DetectTimeout Kind::Single(Self::DetectTimeout), Counter "weir_http_detect_timeout_total"
        "Connections passed on unrecognised because they began like HTTP and did not end their request line in time.";
    Endpoints Kind::Single(Self::Endpoints), Gauge "weir_endpoints"
        "Endpoints of a service, as each worker sees them for itself.";
    Unparsed Kind::Single(Self::Unparsed), Counter "weir_http_unparsed_total"
        "Connections that began as HTTP and go on unmeasured.";
}

impl Family {
    /// How many families there are.
    pub(super) const COUNT: usize = Self::ALL.len();

    /// True where every label has few values that are all known beforehand: such series never retire.
    pub(super) fn bounded(self) -> bool {
        matches!(
            self,
            Self::TcpDuration | Self::DetectTimeout | Self::Unparsed | Self::OutboundHttpErrors
        )
    }

    /// The series that a label set has from its beginning: of each, the labels that follow those of the set.
    pub(super) fn base(self) -> &'static [&'static str] {
        match self {
            Self::ResponseTotal
            | Self::ResponseLatency
            | Self::RouteResponseTotal
            | Self::RouteLatency
            | Self::RouteActualResponseTotal
            | Self::ControlResponseTotal
            | Self::ControlLatency
            | Self::TcpCloseTotal => &[],
            Self::GrpcMessages => &[SENT, RECEIVED],
            Self::Endpoints => &[AVAILABLE, SET_ASIDE],
            _ => &[""],
        }
    }

    /// The labels that follow those of the set.
    pub(super) fn trailing(self) -> &'static [&'static str] {
        match self {
            Self::ResponseTotal | Self::ControlResponseTotal => {
                &["status_code", "classification", "grpc_status_code", "error"]
            }
            Self::RouteResponseTotal | Self::RouteActualResponseTotal => {
                &["status_code", "classification", "error"]
            }
            Self::ResponseLatency | Self::RouteLatency | Self::ControlLatency => &["status_code"],
            Self::GrpcMessages => &["kind"],
            Self::Endpoints => &["state"],
            Self::TcpCloseTotal => &["classification", "errno"],
            _ => &[],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_has_the_families_that_say_so() {
        for family in Family::ALL {
            let kind = family.kind();
            let says_so = Family::ALL.iter().filter(|f| f.kind() == kind);
            assert!(says_so.eq(kind.families()), "{}", family.name());
        }
    }
}
