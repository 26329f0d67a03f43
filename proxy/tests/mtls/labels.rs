//! What both proxies count, series by series.

use std::time::{Duration, Instant};

use tokio::io::AsyncWriteExt;
use weir_crds::settings::MtlsMode;
use weir_proxy::accept::Aim;
use weir_proxy::worker;

use crate::authority::Authority;
use crate::mesh::{CLIENT, LIFE, Pair, Party, SERVER, identity, listed, settings};
use crate::proxy::{DEADLINE, Proxy, answer_heads, application, read_until};

const GET: &[u8] = b"GET / HTTP/1.1\r\nHost: web\r\n\r\n";
const OK: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

/// Where what comes to the server's proxy arrives.
pub(crate) const SRV: &str =
    r#"srv_group="kuma.io",srv_kind="dataplane",srv_name="web",srv_port="80""#;
/// Without routes, and where no permission has let it in.
pub(crate) const ROUTE: &str = r#"route_group="",route_kind="default",route_name="default""#;
pub(crate) const NO_AUTHZ: &str =
    r#"authz_group="",authz_kind="default",authz_name="all-unauthenticated""#;

/// Waits until these families have exactly these series that are not 0.
pub(crate) async fn counts_exactly(proxy: &Proxy, families: &[&str], mut expected: Vec<String>) {
    expected.sort();
    let start = Instant::now();
    while counted(proxy, families) != expected && start.elapsed() < DEADLINE {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert_eq!(counted(proxy, families), expected);
}

/// The series of these families that are not 0, sorted; of a histogram's buckets that of all, because time decides on the
/// others.
fn counted(proxy: &Proxy, families: &[&str]) -> Vec<String> {
    let mut counted: Vec<_> = proxy
        .samples()
        .into_iter()
        .filter(|(series, value)| {
            *value != 0.0
                && (!series.contains(",le=\"") || series.ends_with(",le=\"+Inf\"}"))
                && families
                    .iter()
                    .any(|f| series.starts_with(&format!("{f}{{")))
        })
        .map(|(series, value)| format!("{series} {value}"))
        .collect();
    counted.sort();
    counted
}

const FAMILIES: [&str; 11] = [
    "request_total",
    "response_total",
    "response_latency_ms_bucket",
    "response_latency_ms_count",
    "tcp_open_total",
    "tcp_open_connections",
    "tcp_read_bytes_total",
    "tcp_write_bytes_total",
    "tcp_close_total",
    "tcp_connection_duration_ms_count",
    "inbound_http_authz_allow_total",
];

const ENDED: &str = r#"status_code="200",classification="success",grpc_status_code="",error="""#;
const CLOSED: &str = r#"classification="success",errno="""#;

/// The series of one request over two connections that ended well.
fn exchange(
    direction: &str,
    request: &str,
    [src, dst]: [&str; 2],
    [of_src, of_dst]: [&str; 2],
) -> Vec<String> {
    let lived = |peer: &str, tls: &str| {
        format!(
            r#"tcp_connection_duration_ms_count{{direction="{direction}",peer="{peer}",tls="{tls}",classification="success"}} 1"#
        )
    };
    vec![
        format!("request_total{{{request}}} 1"),
        format!("response_total{{{request},{ENDED}}} 1"),
        format!(r#"response_latency_ms_bucket{{{request},status_code="200",le="+Inf"}} 1"#),
        format!(r#"response_latency_ms_count{{{request},status_code="200"}} 1"#),
        format!("tcp_close_total{{{src},{CLOSED}}} 1"),
        format!("tcp_close_total{{{dst},{CLOSED}}} 1"),
        format!("tcp_open_total{{{src}}} 1"),
        format!("tcp_open_total{{{dst}}} 1"),
        format!("tcp_read_bytes_total{{{src}}} {}", GET.len()),
        format!("tcp_read_bytes_total{{{dst}}} {}", OK.len()),
        format!("tcp_write_bytes_total{{{src}}} {}", OK.len()),
        format!("tcp_write_bytes_total{{{dst}}} {}", GET.len()),
        lived("src", of_src),
        lived("dst", of_dst),
    ]
}

/// The labels of both connections of the client's proxy.
fn ends_of_client(port: u16) -> [String; 2] {
    [
        format!(
            r#"direction="outbound",peer="src",tls="no_identity",no_tls_reason="loopback",target_port="{port}""#
        ),
        format!(
            r#"direction="outbound",peer="dst",tls="true",server_id="{SERVER}",authority="web",dst_service="web",target_port="{port}""#
        ),
    ]
}

/// Those of the server's.
fn ends_of_server(port: u16) -> [String; 2] {
    [
        format!(
            r#"direction="inbound",peer="src",tls="true",client_id="{CLIENT}",{SRV},target_port="{port}""#
        ),
        format!(
            r#"direction="inbound",peer="dst",tls="no_identity",no_tls_reason="loopback",target_port="{port}""#
        ),
    ]
}

/// What the client's proxy counts.
fn of_client(port: u16) -> Vec<String> {
    let [src, dst] = ends_of_client(port);
    let request = format!(
        r#"direction="outbound",authority="web",target_port="{port}",tls="true",server_id="{SERVER}",dst_service="web""#
    );
    exchange("outbound", &request, [&src, &dst], ["no_identity", "true"])
}

/// What the server's proxy counts.
fn of_server(port: u16) -> Vec<String> {
    let [src, dst] = ends_of_server(port);
    let secured = format!(r#"tls="true",client_id="{CLIENT}""#);
    let request = format!(
        r#"direction="inbound",authority="web",target_port="{port}",{secured},{SRV},{ROUTE},{NO_AUTHZ}"#
    );
    let mut series = exchange("inbound", &request, [&src, &dst], ["true", "no_identity"]);
    let allowed =
        format!(r#"direction="inbound",authority="web",{SRV},{ROUTE},{NO_AUTHZ},{secured}"#);
    series.push(format!("inbound_http_authz_allow_total{{{allowed}}} 1"));
    series
}

#[tokio::test]
async fn both_sides_name_each_other() {
    let pair = Pair::start(application(|s| answer_heads(s, OK)).await);
    let [client, server] = [&pair.client.proxy, &pair.server.proxy];
    let mut asks = client.connect().await;
    asks.write_all(GET).await.expect("written");
    assert_eq!(read_until(&mut asks, b"ok").await, OK);
    let ports = (client.addr.port(), server.addr.port());
    // Both are open while the client is there, and neither is afterwards.
    let gauge = "tcp_open_connections";
    let open = |ends: [String; 2]| ends.map(|end| format!("{gauge}{{{end}}} 1")).to_vec();
    counts_exactly(client, &[gauge], open(ends_of_client(ports.0))).await;
    counts_exactly(server, &[gauge], open(ends_of_server(ports.1))).await;
    drop(asks);
    counts_exactly(client, &FAMILIES, of_client(ports.0)).await;
    counts_exactly(server, &FAMILIES, of_server(ports.1)).await;
}

#[tokio::test]
async fn what_is_not_secured_says_why() {
    let app = application(|s| answer_heads(s, OK)).await;
    let permissive = || settings(MtlsMode::Permissive);
    // An endpoint with a name, and no certificate of our own yet; one without a name; no TLS at all.
    let cases = [
        Party::client((permissive(), None), app, Some(SERVER)),
        Party::client((permissive(), None), app, None),
        Party::client((settings(MtlsMode::Disabled), None), app, Some(SERVER)),
        Party::server((permissive(), None), app),
        Party::server((settings(MtlsMode::Disabled), None), app),
    ];
    for (n, party) in cases.iter().enumerate() {
        let mut client = party.proxy.connect().await;
        client.write_all(GET).await.expect("written");
        assert_eq!(read_until(&mut client, b"ok").await, OK, "{n}");
        let reason = match n {
            0..=2 => "not_provided_by_service_discovery",
            _ => "no_tls_from_remote",
        };
        let labels = [
            "tls=\"no_identity\"",
            &format!("no_tls_reason=\"{reason}\"") as &str,
        ];
        party.proxy.counts("request_total", &labels, 1.0).await;
        assert_eq!(party.proxy.sum("request_total", &[]), 1.0, "{n}");
    }
}

#[tokio::test]
async fn a_pod_that_calls_itself_is_loopback() {
    let app = application(|s| answer_heads(s, OK)).await;
    let own = identity(&Authority::new("mesh"), CLIENT, LIFE);
    let mut config = worker::Config::default();
    config.guard.pod_ips = vec![app.ip()];
    let aim = Aim::Service {
        name: "web".to_owned(),
        endpoints: vec![listed(app, Some(SERVER))],
    };
    let party = Party::start((settings(MtlsMode::Strict), Some(own)), aim, config);
    let mut client = party.proxy.connect().await;
    client.write_all(GET).await.expect("written");
    assert_eq!(read_until(&mut client, b"ok").await, OK);
    drop(client);
    let port = party.proxy.addr.port();
    let loopback = r#"tls="no_identity",no_tls_reason="loopback""#;
    let src = format!(r#"direction="outbound",peer="src",{loopback},target_port="{port}""#);
    let dst = format!(
        r#"direction="outbound",peer="dst",{loopback},authority="web",dst_service="web",target_port="{port}""#
    );
    let request = format!(
        r#"direction="outbound",authority="web",target_port="{port}",{loopback},dst_service="web""#
    );
    let expected = exchange("outbound", &request, [&src, &dst], ["no_identity"; 2]);
    counts_exactly(&party.proxy, &FAMILIES, expected).await;
}
