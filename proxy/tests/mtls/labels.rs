//! What both proxies count, series by series.

use tokio::io::AsyncWriteExt;

use crate::mesh::{CLIENT, Pair, Party, SERVER, settings};
use crate::proxy::{Proxy, answer_heads, application, read_until};
use weir_crds::settings::MtlsMode;

const GET: &[u8] = b"GET / HTTP/1.1\r\nHost: web\r\n\r\n";
const OK: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

/// The series of these families that are not 0, sorted.
fn counted(proxy: &Proxy, families: &[&str]) -> Vec<String> {
    let mut counted: Vec<_> = proxy
        .samples()
        .into_iter()
        .filter(|(series, value)| {
            *value != 0.0
                && families
                    .iter()
                    .any(|f| series.starts_with(&format!("{f}{{")))
        })
        .map(|(series, value)| format!("{series} {value}"))
        .collect();
    counted.sort();
    counted
}

#[tokio::test]
async fn both_sides_name_each_other() {
    let pair = Pair::start(application(|s| answer_heads(s, OK)).await);
    let mut client = pair.client.proxy.connect().await;
    client.write_all(GET).await.expect("written");
    assert_eq!(read_until(&mut client, b"ok").await, OK);
    drop(client);
    for party in [&pair.client, &pair.server] {
        party.proxy.counts("tcp_close_total", &[], 2.0).await;
    }
    let families = [
        "request_total",
        "response_total",
        "tcp_open_total",
        "tcp_read_bytes_total",
        "tcp_close_total",
        "tcp_connection_duration_ms_count",
        "inbound_http_authz_allow_total",
    ];
    let (port, server) = (pair.client.proxy.addr.port(), pair.server.proxy.addr.port());
    let secured = format!(r#"tls="true",server_id="{SERVER}""#);
    let close = r#"classification="success",errno="""#;
    let src = format!(
        r#"direction="outbound",peer="src",tls="no_identity",no_tls_reason="loopback",target_port="{port}""#
    );
    let dst = format!(
        r#"direction="outbound",peer="dst",{secured},authority="web",dst_service="web",target_port="{port}""#
    );
    let request = format!(
        r#"direction="outbound",authority="web",target_port="{port}",{secured},dst_service="web""#
    );
    let ended = r#"status_code="200",classification="success",grpc_status_code="",error="""#;
    let mut expected = vec![
        format!("request_total{{{request}}} 1"),
        format!("response_total{{{request},{ended}}} 1"),
        format!("tcp_close_total{{{dst},{close}}} 1"),
        format!("tcp_close_total{{{src},{close}}} 1"),
        r#"tcp_connection_duration_ms_count{direction="outbound",peer="dst",tls="true",classification="success"} 1"#.to_owned(),
        r#"tcp_connection_duration_ms_count{direction="outbound",peer="src",tls="no_identity",classification="success"} 1"#.to_owned(),
        format!("tcp_open_total{{{dst}}} 1"),
        format!("tcp_open_total{{{src}}} 1"),
        format!("tcp_read_bytes_total{{{dst}}} {}", OK.len()),
        format!("tcp_read_bytes_total{{{src}}} {}", GET.len()),
    ];
    expected.sort();
    assert_eq!(counted(&pair.client.proxy, &families), expected);

    let secured = format!(r#"tls="true",client_id="{CLIENT}""#);
    let srv = r#"srv_group="kuma.io",srv_kind="dataplane",srv_name="web",srv_port="80""#;
    let route = r#"route_group="",route_kind="default",route_name="default""#;
    let authz = r#"authz_group="",authz_kind="default",authz_name="all-unauthenticated""#;
    let src = format!(r#"direction="inbound",peer="src",{secured},{srv},target_port="{server}""#);
    let dst = format!(
        r#"direction="inbound",peer="dst",tls="no_identity",no_tls_reason="loopback",target_port="{server}""#
    );
    let request = format!(
        r#"direction="inbound",authority="web",target_port="{server}",{secured},{srv},{route},{authz}"#
    );
    let allowed = format!(r#"direction="inbound",authority="web",{srv},{route},{authz},{secured}"#);
    let mut expected = vec![
        format!("inbound_http_authz_allow_total{{{allowed}}} 1"),
        format!("request_total{{{request}}} 1"),
        format!("response_total{{{request},{ended}}} 1"),
        format!("tcp_close_total{{{dst},{close}}} 1"),
        format!("tcp_close_total{{{src},{close}}} 1"),
        r#"tcp_connection_duration_ms_count{direction="inbound",peer="dst",tls="no_identity",classification="success"} 1"#.to_owned(),
        r#"tcp_connection_duration_ms_count{direction="inbound",peer="src",tls="true",classification="success"} 1"#.to_owned(),
        format!("tcp_open_total{{{dst}}} 1"),
        format!("tcp_open_total{{{src}}} 1"),
        format!("tcp_read_bytes_total{{{dst}}} {}", OK.len()),
        format!("tcp_read_bytes_total{{{src}}} {}", GET.len()),
    ];
    expected.sort();
    assert_eq!(counted(&pair.server.proxy, &families), expected);
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
