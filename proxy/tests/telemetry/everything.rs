//! Something of every family. Used, as a file, by the tests of what reads an exposition, too.

use std::time::{Duration, SystemTime};

use weir_proxy::telemetry::{
    AuthzLabels, Classification, ControlLabels, Direction, EndpointLabels, GrpcLabels,
    HttpErrorLabels, NotFoundLabels, Peer, Recorder, ResponseEnd, RouteLabels, TcpErrorLabels,
    Telemetry,
};

use crate::scrape::Groups;

/// Counts it.
pub(crate) fn count(telemetry: &Telemetry, recorder: &Recorder) {
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
    judged(recorder, &groups);
    told_by_the_operator(recorder, &groups, &end);
    telemetry.certificates().known();
    let ends = SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000);
    telemetry.certificates().renewed(ends);
    telemetry.redirection().set(true);
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
                authz,
                tls: &groups.mutual,
                ..groups.let_in("web")
            });
        }
    }
}
