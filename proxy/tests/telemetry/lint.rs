//! `promtool check metrics` on an exposition that has every family of the table in it. It may complain of nothing but
//! what follows from the names that Linkerd's page fixes.

use std::time::{Duration, SystemTime};

use weir_proxy::telemetry::{
    self, AuthzLabels, Classification, Config, ControlLabels, Direction, EndpointLabels,
    GrpcLabels, HttpErrorLabels, NotFoundLabels, Peer, Recorder, ResponseEnd, RouteLabels,
    Selection, TcpErrorLabels,
};

use crate::promtool;
use crate::scrape::{Groups, text};

/// Every complaint that is allowed, and must be there.
const ALLOWED: [&str; 6] = [
    "control_response_latency_ms metric names should not contain abbreviated units",
    "identity_cert_refresh_count counter metrics should have \"_total\" suffix",
    "identity_cert_refresh_count non-histogram and non-summary metrics should not have \"_count\" suffix",
    "response_latency_ms metric names should not contain abbreviated units",
    "route_response_latency_ms metric names should not contain abbreviated units",
    "tcp_connection_duration_ms metric names should not contain abbreviated units",
];

fn everything_counted() -> String {
    let (telemetry, mut seats) = telemetry::new(Config::default(), 1);
    let recorder = seats.remove(0).take();
    let groups = Groups::new();
    let end = ResponseEnd {
        status: Some(200),
        classification: Classification::Success,
        grpc_status: "",
        error: "",
    };
    for labels in [groups.inbound("web"), groups.outbound("web")] {
        let http = recorder.http(&labels);
        http.request();
        http.latency(Some(200), Duration::from_millis(3));
        http.response(&end);
    }
    let route = recorder.route(&RouteLabels {
        direction: Direction::Outbound,
        dst: "web.a.svc.cluster.local:80",
        route: Some("GET /"),
    });
    route.request();
    route.latency(Some(200), Duration::from_millis(3));
    route.response(&end);
    let tcp = recorder.transport(&groups.accepted(8080));
    tcp.opened();
    tcp.closed(Classification::Success, "", Duration::from_secs(1));
    for direction in [Direction::Inbound, Direction::Outbound] {
        recorder.tcp_error(&TcpErrorLabels {
            direction,
            peer: Peer::Src,
            error: "connect",
            target_port: 80,
        });
        recorder.http_error(&HttpErrorLabels {
            direction,
            server: Some(&groups.server),
            error: "connect",
        });
        recorder.route_not_found(&NotFoundLabels {
            authority: "web",
            target_port: 8080,
            server: &groups.server,
            tls: &groups.mutual,
        });
        recorder.unparsed(direction, "head too large");
        let authority = "web";
        let labels = GrpcLabels {
            direction,
            authority,
            target_port: 80,
        };
        recorder.grpc(&labels).sent(1);
    }
    judged(&recorder, &groups);
    told_by_the_operator(&recorder, &groups, &end);
    telemetry.certificates().known();
    telemetry.certificates().renewed(SystemTime::now());
    telemetry.redirection().set(true);
    text(&telemetry, &Selection::default());
    text(&telemetry, &Selection::default())
}

/// The endpoints of a service, and the calls by which they are asked for.
fn told_by_the_operator(recorder: &Recorder, groups: &Groups, end: &ResponseEnd<'_>) {
    let service = EndpointLabels {
        authority: "web",
        target_port: 80,
    };
    recorder.endpoints(&service).set(2, 1);
    let control = recorder.control(&ControlLabels {
        addr: "operator:8086",
        tls: &groups.mutual,
    });
    control.request();
    control.latency(Some(200), Duration::from_millis(3));
    control.response(end);
}

/// Who may connect, and who may not, by HTTP and without.
fn judged(recorder: &Recorder, groups: &Groups) {
    for authority in [Some("web"), None] {
        for authz in [Some(&groups.authz), None] {
            recorder.authz(&AuthzLabels {
                authority,
                target_port: 8080,
                server: &groups.server,
                route: &groups.route,
                authz,
                tls: &groups.mutual,
            });
        }
    }
}

#[test]
fn promtool_says_only_what_the_names_entail() {
    let body = everything_counted();
    assert_eq!(promtool::said_of(&body), ALLOWED);
}
