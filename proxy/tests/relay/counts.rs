//! Counted: what a proxy publishes of traffic that went well.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::proxy::{Proxy, answer_heads, application, read_until};

const GET: &[u8] = b"GET / HTTP/1.1\r\nHost: Web.example:80\r\n\r\n";
const OK: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

#[tokio::test]
async fn the_series_of_an_inbound_request_have_exactly_these_labels() {
    let proxy = Proxy::inbound(application(|s| answer_heads(s, OK)).await);
    let port = proxy.addr.port();
    let mut client = proxy.connect().await;
    client.write_all(GET).await.expect("written");
    assert_eq!(read_until(&mut client, b"ok").await, OK);
    drop(client);
    proxy.counts("tcp_close_total", &[], 2.0).await;
    let samples = proxy.samples();
    let app = samples
        .iter()
        .find_map(|(s, _)| {
            s.strip_prefix("request_total{")?
                .split("srv_port=\"")
                .nth(1)
        })
        .and_then(|s| s.split('"').next())
        .expect("a server port")
        .to_owned();
    let labels = format!(
        "direction=\"inbound\",authority=\"web.example\",target_port=\"{port}\",tls=\"no_identity\",no_tls_reason=\"no_tls_from_remote\",srv_group=\"kuma.io\",srv_kind=\"dataplane\",srv_name=\"web\",srv_port=\"{app}\",route_group=\"\",route_kind=\"default\",route_name=\"default\",authz_group=\"\",authz_kind=\"default\",authz_name=\"all-unauthenticated\""
    );
    for series in [
        format!("request_total{{{labels}}}"),
        format!(
            "response_total{{{labels},status_code=\"200\",classification=\"success\",grpc_status_code=\"\",error=\"\"}}"
        ),
        format!("response_latency_ms_count{{{labels},status_code=\"200\"}}"),
    ] {
        let value = samples.iter().find(|(s, _)| *s == series).map(|(_, v)| *v);
        assert_eq!(value, Some(1.0), "{series} in {samples:#?}");
    }
}

#[tokio::test]
async fn bytes_are_the_applications_on_all_four_sides() {
    let proxy = Proxy::outbound(&[application(|s| answer_heads(s, OK)).await]);
    let mut client = proxy.connect().await;
    client.write_all(GET).await.expect("written");
    read_until(&mut client, b"ok").await;
    let (up, down) = (GET.len() as f64, OK.len() as f64);
    // They move while the connection is open.
    for (family, peer, bytes) in [
        ("tcp_read_bytes_total", "src", up),
        ("tcp_write_bytes_total", "dst", up),
        ("tcp_read_bytes_total", "dst", down),
        ("tcp_write_bytes_total", "src", down),
    ] {
        proxy
            .counts(
                family,
                &[&format!("peer=\"{peer}\""), "direction=\"outbound\""],
                bytes,
            )
            .await;
    }
    proxy.counts("tcp_open_connections", &[], 2.0).await;
    proxy
        .counts(
            "tcp_open_total",
            &["peer=\"dst\"", "authority=\"web\"", "dst_service=\"web\""],
            1.0,
        )
        .await;
    drop(client);
    proxy.counts("tcp_open_connections", &[], 0.0).await;
    proxy
        .counts(
            "tcp_connection_duration_ms_count",
            &["classification=\"success\""],
            2.0,
        )
        .await;
}

#[tokio::test]
async fn many_requests_on_many_connections_add_up() {
    let proxy = Proxy::inbound(application(|s| answer_heads(s, OK)).await);
    let clients = (0..20).map(|_| async {
        let mut client = proxy.connect().await;
        for _ in 0..50 {
            client.write_all(GET).await.expect("written");
            read_until(&mut client, b"ok").await;
        }
    });
    futures::future::join_all(clients).await;
    proxy.counts("request_total", &[], 1000.0).await;
    proxy
        .counts("response_total", &["status_code=\"200\""], 1000.0)
        .await;
    proxy
        .counts("response_latency_ms_bucket", &["le=\"+Inf\""], 1000.0)
        .await;
    proxy.counts("tcp_open_connections", &[], 0.0).await;
}

#[tokio::test]
async fn only_what_is_under_way_keeps_the_proxy() {
    let proxy = Proxy::inbound(application(|s| answer_heads(s, OK)).await);
    let mut client = proxy.connect().await;
    proxy.counts("tcp_open_total", &["peer=\"dst\""], 1.0).await;
    assert_eq!(proxy.gauge.get(), 0, "nobody has said anything");
    client
        .write_all(b"GET / HTTP/1.1\r\n")
        .await
        .expect("written");
    let busy = |expected: usize| {
        let gauge = &proxy.gauge;
        async move {
            let wait = async {
                while gauge.get() != expected {
                    tokio::time::sleep(Duration::from_millis(2)).await;
                }
            };
            tokio::time::timeout(super::proxy::DEADLINE, wait)
                .await
                .expect("in time");
        }
    };
    busy(1).await;
    client.write_all(b"\r\n").await.expect("written");
    read_until(&mut client, b"ok").await;
    busy(0).await;
}

/// A client that is silent, or whose server speaks first: both connections are open, and shown as such.
#[tokio::test]
async fn a_connection_that_is_dialed_for_a_silent_client_is_counted_at_once() {
    let quiet = application(|mut stream| async move {
        let _closed = stream.read(&mut [0]).await;
    });
    let quiet = quiet.await;
    for proxy in [Proxy::inbound(quiet), Proxy::outbound(&[quiet])] {
        let client = proxy.connect().await;
        for (family, open) in [("tcp_open_total", 1.0), ("tcp_open_connections", 1.0)] {
            proxy.counts(family, &["peer=\"dst\""], open).await;
            proxy.counts(family, &["peer=\"src\""], open).await;
        }
        assert_eq!(proxy.gauge.get(), 0, "nobody has said anything");
        drop(client);
        let ended = |peer| [peer, "classification=\"success\"", "errno=\"\""];
        for peer in ["peer=\"src\"", "peer=\"dst\""] {
            proxy.counts("tcp_close_total", &ended(peer), 1.0).await;
        }
        proxy.counts("tcp_open_connections", &[], 0.0).await;
        assert_eq!(proxy.sum("tcp_open_total", &[]), 2.0, "once each");
    }
}

#[tokio::test]
async fn a_silent_client_that_resets_has_its_server_reset() {
    let (tell, told) = tokio::sync::oneshot::channel();
    let tell = std::sync::Mutex::new(Some(tell));
    let serve = move |mut stream: TcpStream| {
        let tell = tell.lock().expect("nobody panics").take();
        async move {
            let read = stream.read(&mut [0]).await;
            let _only_once = tell.map(|tell| tell.send(read.map_err(|e| e.kind())));
        }
    };
    let proxy = Proxy::inbound(application(serve).await);
    let client = proxy.connect().await;
    proxy.counts("tcp_open_total", &["peer=\"dst\""], 1.0).await;
    client.set_zero_linger().expect("a socket option");
    drop(client);
    let read = tokio::time::timeout(super::proxy::DEADLINE, told);
    let read = read.await.expect("in time").expect("an application");
    assert_eq!(read, Err(std::io::ErrorKind::ConnectionReset));
    let ended = ["classification=\"failure\"", "errno=\"ECONNRESET\""];
    proxy.counts("tcp_close_total", &ended, 2.0).await;
}

#[tokio::test]
async fn the_authority_is_without_the_port_that_its_scheme_implies() {
    let proxy = Proxy::inbound(application(|s| answer_heads(s, OK)).await);
    for (target, label) in [
        ("/", "web.example:443"),
        ("http://a.example:80/", "a.example"),
        ("http://b.example:443/", "b.example:443"),
        ("https://c.example:443/", "c.example"),
        ("HTTPS://d.example:80/", "d.example:80"),
    ] {
        let mut client = proxy.connect().await;
        let request = format!("GET {target} HTTP/1.1\r\nHost: Web.example:443\r\n\r\n");
        client.write_all(request.as_bytes()).await.expect("written");
        read_until(&mut client, b"ok").await;
        let label = format!("authority=\"{label}\"");
        proxy.counts("request_total", &[&label], 1.0).await;
    }
}
