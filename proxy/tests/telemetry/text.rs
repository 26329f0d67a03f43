//! What is printed of each family, to the letter: names, label order, presence of labels, buckets.

use std::sync::Arc;
use std::time::Duration;

use weir_proxy::telemetry::{
    self, Classification, Config, Direction, Format, GrpcLabels, HttpErrorLabels, NoTlsReason,
    NotFoundLabels, Peer, ResponseEnd, Selection, TcpErrorLabels, Tls, TransportEnd,
    TransportLabels,
};

use crate::scrape::{Groups, scrape, text, traffic};

pub(crate) const SUCCESS: Classification = Classification::Success;

pub(crate) fn one_worker() -> (telemetry::Telemetry, telemetry::Recorder) {
    let (telemetry, mut seats) = telemetry::new(Config::default(), 1);
    (telemetry, seats.remove(0).take())
}

/// A response that ended so; an error is a failure.
pub(crate) fn end(
    status: Option<u16>,
    grpc_status: &'static str,
    error: &'static str,
) -> ResponseEnd<'static> {
    ResponseEnd {
        status,
        classification: if error.is_empty() {
            SUCCESS
        } else {
            Classification::Failure
        },
        grpc_status,
        error,
    }
}

#[test]
fn http_counters() {
    let (telemetry, recorder) = one_worker();
    let groups = Groups::new();
    let inbound = recorder.http(&groups.inbound("web.a"));
    inbound.request();
    inbound.response(&end(Some(200), "0", ""));
    inbound.request();
    inbound.response(&end(None, "", "canceled"));
    recorder.http(&groups.outbound("")).request();
    let expected = "\
# HELP request_total Requests whose head the proxy has parsed.
# TYPE request_total counter
request_total{direction=\"inbound\",authority=\"web.a\",target_port=\"8080\",tls=\"no_identity\",\
no_tls_reason=\"no_tls_from_remote\",srv_group=\"kuma.io\",srv_kind=\"dataplane\",srv_name=\"web\",srv_port=\"8080\",\
route_group=\"\",route_kind=\"default\",route_name=\"default\",authz_group=\"\",authz_kind=\"default\",\
authz_name=\"all-unauthenticated\"} 2
request_total{direction=\"outbound\",authority=\"\",target_port=\"80\",tls=\"true\",\
server_id=\"default.a.serviceaccount.identity.kuma-system.cluster.local\",dst_deployment=\"web\",dst_namespace=\"a\",\
dst_service=\"web\"} 1
# HELP response_total Responses whose stream has ended, however it ended.
# TYPE response_total counter
response_total{direction=\"inbound\",authority=\"web.a\",target_port=\"8080\",tls=\"no_identity\",\
no_tls_reason=\"no_tls_from_remote\",srv_group=\"kuma.io\",srv_kind=\"dataplane\",srv_name=\"web\",srv_port=\"8080\",\
route_group=\"\",route_kind=\"default\",route_name=\"default\",authz_group=\"\",authz_kind=\"default\",\
authz_name=\"all-unauthenticated\",status_code=\"200\",classification=\"success\",grpc_status_code=\"0\",error=\"\"} 1
response_total{direction=\"inbound\",authority=\"web.a\",target_port=\"8080\",tls=\"no_identity\",\
no_tls_reason=\"no_tls_from_remote\",srv_group=\"kuma.io\",srv_kind=\"dataplane\",srv_name=\"web\",srv_port=\"8080\",\
route_group=\"\",route_kind=\"default\",route_name=\"default\",authz_group=\"\",authz_kind=\"default\",\
authz_name=\"all-unauthenticated\",classification=\"failure\",grpc_status_code=\"\",error=\"canceled\"} 1
";
    assert_eq!(
        text(&telemetry, &traffic("^(request|response)_total$")),
        expected
    );
}

#[test]
fn http2_families() {
    let (telemetry, recorder) = one_worker();
    let accepted = recorder.http2(Direction::Outbound, Peer::Src);
    for _ in 0..2 {
        accepted.connection_opened();
        accepted.stream_opened();
    }
    accepted.stream_closed();
    let grpc = recorder.grpc(&GrpcLabels {
        direction: Direction::Outbound,
        authority: "web:50051",
        target_port: 50_051,
    });
    grpc.sent(2);
    grpc.sent(1);
    let expected = "\
# HELP http2_active_connections HTTP/2 connections open now.
# TYPE http2_active_connections gauge
http2_active_connections{direction=\"inbound\",peer=\"src\"} 0
http2_active_connections{direction=\"inbound\",peer=\"dst\"} 0
http2_active_connections{direction=\"outbound\",peer=\"src\"} 2
http2_active_connections{direction=\"outbound\",peer=\"dst\"} 0
# HELP http2_active_streams HTTP/2 streams open now.
# TYPE http2_active_streams gauge
http2_active_streams{direction=\"inbound\",peer=\"src\"} 0
http2_active_streams{direction=\"inbound\",peer=\"dst\"} 0
http2_active_streams{direction=\"outbound\",peer=\"src\"} 1
http2_active_streams{direction=\"outbound\",peer=\"dst\"} 0
# HELP grpc_messages_total gRPC messages that have passed, those of open streams included.
# TYPE grpc_messages_total counter
grpc_messages_total{direction=\"outbound\",authority=\"web:50051\",kind=\"sent\"} 3
grpc_messages_total{direction=\"outbound\",authority=\"web:50051\",kind=\"received\"} 0
";
    assert_eq!(text(&telemetry, &traffic("^(http2|grpc)_")), expected);
}

#[test]
fn transport_families() {
    let (telemetry, recorder) = one_worker();
    let tls = Tls::NoIdentity(NoTlsReason::Loopback);
    let series = recorder.transport(&TransportLabels {
        target_port: 80,
        tls: &tls,
        end: TransportEnd::InboundDst,
    });
    for _ in 0..2 {
        series.opened();
    }
    series.read(3);
    series.read(4);
    series.written(5);
    series.closed(
        Classification::Failure,
        "ECONNRESET",
        Duration::from_millis(7),
    );
    let labels = "direction=\"inbound\",peer=\"dst\",tls=\"no_identity\",no_tls_reason=\"loopback\",target_port=\"80\"";
    let expected = format!(
        "\
# HELP tcp_open_total Connections opened.
# TYPE tcp_open_total counter
tcp_open_total{{{labels}}} 2
# HELP tcp_open_connections Connections open now.
# TYPE tcp_open_connections gauge
tcp_open_connections{{{labels}}} 1
# HELP tcp_read_bytes_total Bytes of application data read from the peer.
# TYPE tcp_read_bytes_total counter
tcp_read_bytes_total{{{labels}}} 7
# HELP tcp_write_bytes_total Bytes of application data written to the peer.
# TYPE tcp_write_bytes_total counter
tcp_write_bytes_total{{{labels}}} 5
# HELP tcp_close_total Connections closed.
# TYPE tcp_close_total counter
tcp_close_total{{{labels},classification=\"failure\",errno=\"ECONNRESET\"}} 1
"
    );
    assert_eq!(
        text(&telemetry, &traffic("^tcp_(open|read|write|close)")),
        expected
    );
    let durations = scrape(&telemetry, &traffic("^tcp_connection_duration_ms$"));
    let labels =
        "direction=\"inbound\",peer=\"dst\",tls=\"no_identity\",classification=\"failure\"";
    let sum = &format!("tcp_connection_duration_ms_sum{{{labels}}}");
    let five = &format!("tcp_connection_duration_ms_bucket{{{labels},le=\"5\"}}");
    let ten = &format!("tcp_connection_duration_ms_bucket{{{labels},le=\"10\"}}");
    assert_eq!(
        [durations[sum], durations[five], durations[ten]],
        [7.0, 0.0, 1.0]
    );
}

#[test]
fn open_metrics_names_families_by_their_type_and_ends() {
    let (telemetry, recorder) = one_worker();
    let tls = Tls::NoIdentity(NoTlsReason::Loopback);
    let series = recorder.transport(&TransportLabels {
        target_port: 80,
        tls: &tls,
        end: TransportEnd::InboundDst,
    });
    series.opened();
    series.read(3);
    series.closed(SUCCESS, "", Duration::from_micros(1_500));
    let selection = Selection {
        format: Format::OpenMetrics,
        ..traffic("^tcp_(open|read)|duration_ms$|build_info$")
    };
    let printed = text(&telemetry, &selection);
    let labels = "direction=\"inbound\",peer=\"dst\",tls=\"no_identity\",no_tls_reason=\"loopback\",target_port=\"80\"";
    let expected = format!(
        "\
# TYPE tcp_open counter
# HELP tcp_open Connections opened.
tcp_open_total{{{labels}}} 1
# TYPE tcp_open_connections gauge
# HELP tcp_open_connections Connections open now.
tcp_open_connections{{{labels}}} 0
# TYPE tcp_read_bytes counter
# UNIT tcp_read_bytes bytes
# HELP tcp_read_bytes Bytes of application data read from the peer.
tcp_read_bytes_total{{{labels}}} 3
# TYPE tcp_connection_duration_ms histogram
# UNIT tcp_connection_duration_ms ms
"
    );
    assert!(printed.starts_with(&expected), "{printed}");
    let labels =
        "direction=\"inbound\",peer=\"dst\",tls=\"no_identity\",classification=\"success\"";
    for line in [
        format!("tcp_connection_duration_ms_bucket{{{labels},le=\"1.0\"}} 0\n"),
        format!("tcp_connection_duration_ms_bucket{{{labels},le=\"2.0\"}} 1\n"),
        format!("tcp_connection_duration_ms_bucket{{{labels},le=\"50000.0\"}} 1\n"),
        format!("tcp_connection_duration_ms_bucket{{{labels},le=\"+Inf\"}} 1\n"),
        format!("tcp_connection_duration_ms_sum{{{labels}}} 1.5\n"),
        format!("tcp_connection_duration_ms_count{{{labels}}} 1\n"),
        "# TYPE proxy_build info\n".to_owned(),
        "\nproxy_build_info{version=\"".to_owned(),
    ] {
        assert!(printed.contains(&line), "{line} in {printed}");
    }
    assert!(printed.ends_with("} 1\n# EOF\n"), "{printed}");
    let nothing = Selection {
        format: Format::OpenMetrics,
        ..traffic("^nothing$")
    };
    assert_eq!(text(&telemetry, &nothing), "# EOF\n");
}

#[test]
fn every_kind_of_end_has_its_labels() {
    let (telemetry, recorder) = one_worker();
    let groups = Groups::new();
    let opaque = Tls::Opaque { sni: Arc::from("") };
    let ends = [
        (
            &groups.mutual,
            TransportEnd::InboundSrc {
                server: &groups.server,
            },
        ),
        (&groups.plain, TransportEnd::OutboundSrc),
        (
            &opaque,
            TransportEnd::OutboundDst {
                authority: "web.a.svc.cluster.local",
                dst: &groups.dst,
            },
        ),
    ];
    let series = ends.map(|(tls, end)| {
        recorder.transport(&TransportLabels {
            target_port: 1,
            tls,
            end,
        })
    });
    let printed = text(&telemetry, &traffic("^tcp_open_total$"));
    let id = "default.a.serviceaccount.identity.kuma-system.cluster.local";
    let expected = [
        format!(
            "direction=\"inbound\",peer=\"src\",tls=\"true\",client_id=\"{id}\",srv_group=\"kuma.io\",\
             srv_kind=\"dataplane\",srv_name=\"web\",srv_port=\"8080\",target_port=\"1\""
        ),
        "direction=\"outbound\",peer=\"src\",tls=\"no_identity\",no_tls_reason=\"no_tls_from_remote\",target_port=\"1\""
            .to_owned(),
        "direction=\"outbound\",peer=\"dst\",tls=\"opaque\",sni=\"\",authority=\"web.a.svc.cluster.local\",\
         dst_deployment=\"web\",dst_namespace=\"a\",dst_service=\"web\",target_port=\"1\""
            .to_owned(),
    ];
    let lines: Vec<_> = printed.lines().skip(2).map(str::to_owned).collect();
    assert_eq!(
        lines,
        expected.map(|labels| format!("tcp_open_total{{{labels}}} 0"))
    );
    drop(series);
}

#[test]
fn errors_and_detection() {
    let (telemetry, recorder) = one_worker();
    let groups = Groups::new();
    recorder.tcp_error(&TcpErrorLabels {
        direction: Direction::Inbound,
        peer: Peer::Src,
        error: "i/o",
        target_port: 80,
    });
    for (direction, server) in [
        (Direction::Inbound, Some(&groups.server)),
        (Direction::Inbound, None),
        (Direction::Outbound, None),
    ] {
        recorder.http_error(&HttpErrorLabels {
            direction,
            server,
            error: "bad request",
        });
    }
    recorder.unparsed(Direction::Outbound, "head too large");
    recorder.detect_timeout(Direction::Outbound);
    let expected = "\
inbound_http_errors_total{direction=\"inbound\",error=\"bad request\",srv_group=\"kuma.io\",srv_kind=\"dataplane\",\
srv_name=\"web\",srv_port=\"8080\"} 1
inbound_http_errors_total{direction=\"inbound\",error=\"bad request\",srv_group=\"\",srv_kind=\"\",srv_name=\"\",\
srv_port=\"\"} 1
outbound_http_errors_total{direction=\"outbound\",error=\"bad request\"} 1
outbound_http_errors_total{direction=\"outbound\",error=\"too large\"} 0
outbound_http_errors_total{direction=\"outbound\",error=\"connect\"} 0
outbound_http_errors_total{direction=\"outbound\",error=\"timeout\"} 0
outbound_http_errors_total{direction=\"outbound\",error=\"loadshed\"} 0
outbound_http_errors_total{direction=\"outbound\",error=\"no backend\"} 0
inbound_tcp_errors_total{direction=\"inbound\",peer=\"src\",error=\"i/o\",target_port=\"80\"} 1
weir_http_detect_timeout_total{direction=\"inbound\"} 0
weir_http_detect_timeout_total{direction=\"outbound\"} 1
weir_http_unparsed_total{direction=\"outbound\",reason=\"head too large\"} 1
";
    let printed = text(&telemetry, &traffic("errors_total|weir_http"));
    let lines: String = printed
        .split_inclusive('\n')
        .filter(|l| !l.starts_with('#'))
        .collect();
    assert_eq!(lines, expected);
}

#[test]
fn requests_of_no_route() {
    let (telemetry, recorder) = one_worker();
    let groups = Groups::new();
    for (authority, tls) in [("web.a", &groups.mutual), ("", &groups.plain)] {
        recorder.route_not_found(&NotFoundLabels {
            authority,
            target_port: 8080,
            server: &groups.server,
            tls,
        });
    }
    let expected = "\
# HELP inbound_http_route_not_found_total Inbound requests that there is no route for, which the proxy has answered with \
404, or UNIMPLEMENTED.
# TYPE inbound_http_route_not_found_total counter
inbound_http_route_not_found_total{direction=\"inbound\",authority=\"web.a\",srv_group=\"kuma.io\",\
srv_kind=\"dataplane\",srv_name=\"web\",srv_port=\"8080\",tls=\"true\",\
client_id=\"default.a.serviceaccount.identity.kuma-system.cluster.local\"} 1
inbound_http_route_not_found_total{direction=\"inbound\",authority=\"\",srv_group=\"kuma.io\",\
srv_kind=\"dataplane\",srv_name=\"web\",srv_port=\"8080\",tls=\"no_identity\",\
no_tls_reason=\"no_tls_from_remote\"} 1
";
    assert_eq!(text(&telemetry, &traffic("route_not_found")), expected);
}
