//! `promtool check metrics` on an exposition that has every family of the table in it. It may complain of nothing but
//! what follows from the names that Linkerd's page fixes.

use std::io::Write;
use std::process::{Command, Stdio};
use std::time::Duration;

use weir_proxy::telemetry::{
    self, Classification, Config, Direction, GrpcLabels, HttpErrorLabels, NotFoundLabels, Peer,
    ResponseEnd, RouteLabels, Selection, TcpErrorLabels,
};

use crate::scrape::{Groups, text};

/// Every complaint that is allowed, and must be there.
const ALLOWED: [&str; 3] = [
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
    telemetry.redirection().set(true);
    text(&telemetry, &Selection::default());
    text(&telemetry, &Selection::default())
}

#[test]
fn promtool_says_only_what_the_names_entail() {
    let body = everything_counted();
    let spawned = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    let mut promtool = spawned.expect("promtool runs; it is in Debian's package `prometheus`");
    let mut stdin = promtool.stdin.take().unwrap();
    stdin.write_all(body.as_bytes()).unwrap();
    drop(stdin);
    let output = promtool.wait_with_output().unwrap();
    let said = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
    let mut said: Vec<&str> = said.lines().collect();
    said.sort_unstable();
    assert_eq!(said, ALLOWED);
}
