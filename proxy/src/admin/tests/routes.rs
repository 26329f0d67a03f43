//! The routes of 4191 and what their answers look like on the wire.

use super::*;

#[tokio::test]
async fn metrics_are_streamed_as_text() {
    let server = start_plain();
    let answer = get(server.addr, "/metrics").await;
    assert_eq!(answer.status, 200);
    assert!(
        answer
            .head
            .contains("content-type: text/plain; version=0.0.4; charset=utf-8")
    );
    assert!(answer.head.contains("transfer-encoding: chunked"));
    assert_eq!(answer.body, "filters=[] used_only=false\n");
    assert!(answer.complete);
}

#[tokio::test]
async fn the_query_selects() {
    let server = start_plain();
    let answer = get(
        server.addr,
        "/metrics?filter=tcp_%5Ba-z%5D%2B&usedonly&format=prometheus",
    )
    .await;
    assert_eq!(answer.body, "filters=[\"tcp_[a-z]+\"] used_only=true\n");
}

#[tokio::test]
async fn a_bad_filter_is_refused_by_name() {
    let server = start_plain();
    let answer = get(server.addr, "/metrics?filter=%28").await;
    assert_eq!(answer.status, 400);
    assert!(
        answer.body.contains("query parameter `filter`"),
        "{}",
        answer.body
    );
    assert_eq!(
        ask(server.addr, "HEAD", "/metrics?filter=%28").await.status,
        400
    );
    let refused = get(server.addr, "/metrics?format=json").await;
    assert_eq!(refused.status, 400);
    assert!(refused.body.contains("query parameter `format`"));
}

#[tokio::test]
async fn head_has_the_headers_of_get_and_no_body() {
    let exposition = Fake(|_: &Selection, _: &mut dyn Write| panic!("HEAD needs no exposition"));
    let server = start(config(), Arc::new(exposition), settings_without_metrics());
    let mut stream = TcpStream::connect(server.addr).await.unwrap();
    for path in ["/metrics", "/live"] {
        send(&mut stream, "HEAD", path, "").await;
        let answer = read_answer(&mut stream, "HEAD").await;
        assert_eq!(answer.status, 200);
        assert!(answer.head.contains("content-type: text/plain"));
    }
    send(&mut stream, "HEAD", "/metrics", "Connection: close\r\n").await;
    let mut rest = String::new();
    stream.read_to_string(&mut rest).await.unwrap();
    assert!(
        rest.ends_with("\r\n\r\n"),
        "a HEAD answer has a body: {rest}"
    );
    assert!(!rest.contains("content-length: 0"), "{rest}");
}

/// Asks for the metrics with these headers.
async fn metrics_with(addr: SocketAddr, method: &str, headers: &str) -> (String, Vec<u8>) {
    let mut stream = TcpStream::connect(addr).await.unwrap();
    let headers = format!("{headers}Connection: close\r\n");
    send(&mut stream, method, "/metrics", &headers).await;
    let mut raw = Vec::new();
    let read = tokio::time::timeout(DEADLINE, stream.read_to_end(&mut raw)).await;
    read.unwrap().unwrap();
    let end = raw.windows(4).position(|w| w == b"\r\n\r\n").unwrap();
    let head = String::from_utf8_lossy(&raw[..end]).to_ascii_lowercase();
    (head, raw.split_off(end + 4))
}

/// The data of a chunked body.
fn dechunked(mut rest: &[u8]) -> Vec<u8> {
    let mut body = Vec::new();
    loop {
        let end = rest.windows(2).position(|w| w == b"\r\n").unwrap();
        let size = usize::from_str_radix(std::str::from_utf8(&rest[..end]).unwrap(), 16).unwrap();
        if size == 0 {
            return body;
        }
        body.extend_from_slice(&rest[end + 2..end + 2 + size]);
        rest = &rest[end + 2 + size + 2..];
    }
}

#[tokio::test]
async fn the_headers_choose_format_and_coding_and_head_tells_the_same() {
    let text = "content-type: text/plain; version=0.0.4; charset=utf-8";
    let open_metrics = "content-type: application/openmetrics-text; version=1.0.0; charset=utf-8";
    let server = start_plain();
    for (headers, content_type, gzip) in [
        ("", text, false),
        ("Accept-Encoding: deflate, gzip\r\n", text, true),
        (
            "Accept: application/openmetrics-text\r\n",
            open_metrics,
            false,
        ),
        (
            "Accept: application/openmetrics-text\r\naccept-encoding: gzip\r\n",
            open_metrics,
            true,
        ),
    ] {
        let (head, body) = metrics_with(server.addr, "GET", headers).await;
        assert!(head.contains(content_type), "{head}");
        assert!(head.contains("vary: accept, accept-encoding"), "{head}");
        assert_eq!(head.contains("content-encoding: gzip"), gzip, "{head}");
        let body = dechunked(&body);
        let decoded = match gzip {
            false => String::from_utf8(body).unwrap(),
            true => std::io::read_to_string(flate2::read::GzDecoder::new(&body[..])).unwrap(),
        };
        assert_eq!(decoded, "filters=[] used_only=false\n");
        let (of_head, body) = metrics_with(server.addr, "HEAD", headers).await;
        assert!(body.is_empty());
        let lines = |head: &str| -> Vec<String> {
            let lines = head.lines().filter(|line| !line.starts_with("date:"));
            lines.map(str::to_owned).collect()
        };
        let without_framing = lines(&head);
        let without_framing = without_framing
            .iter()
            .filter(|l| !l.starts_with("transfer-encoding"));
        for line in without_framing {
            assert!(lines(&of_head).contains(line), "{line} in {of_head}");
        }
    }
}

#[tokio::test]
async fn a_compressed_exposition_that_breaks_has_no_end() {
    let exposition = Fake(|_: &Selection, out: &mut dyn Write| {
        out.write_all(&[b'x'; 100_000])?;
        Err(io::Error::other("broken"))
    });
    let server = start(config(), Arc::new(exposition), settings_without_metrics());
    let mut stream = TcpStream::connect(server.addr).await.unwrap();
    send(&mut stream, "GET", "/metrics", "Accept-Encoding: gzip\r\n").await;
    let mut raw = Vec::new();
    let _ = stream.read_to_end(&mut raw).await;
    assert!(!raw.ends_with(b"\r\n0\r\n\r\n"), "the last chunk has come");
}

#[tokio::test]
async fn everything_else_is_not_found_and_other_methods_are_refused() {
    let server = start_plain();
    for path in [
        "/metrics/",
        "/config/",
        "/Metrics",
        "/probe/",
        "/probe/0",
        "/probe/x",
        "/quitquitquit",
    ] {
        assert_eq!(get(server.addr, path).await.status, 404, "{path}");
    }
    let refused = ask(server.addr, "POST", "/metrics").await;
    assert_eq!(refused.status, 405);
    assert!(refused.head.contains("allow: get, head"));
}

#[tokio::test]
async fn live_and_ready_follow_their_reasons() {
    let server = start_plain();
    assert_eq!(get(server.addr, "/live").await.status, 200);
    assert_eq!(get(server.addr, "/ready").await.status, 200);

    for (service, reason) in [
        (Service::Starting, "not bound"),
        (Service::Stuck, "does not move"),
    ] {
        server.service.send_replace(service);
        for path in ["/live", "/ready"] {
            let answer = get(server.addr, path).await;
            assert_eq!(answer.status, 503);
            assert!(answer.body.contains(reason), "{}", answer.body);
        }
    }

    server.service.send_replace(Service::Running);
    server.draining.send_replace(true);
    assert_eq!(get(server.addr, "/live").await.status, 200);
    let answer = get(server.addr, "/ready").await;
    assert_eq!(answer.status, 503);
    assert!(answer.body.contains("draining"), "{}", answer.body);
}

#[tokio::test]
async fn a_connection_serves_many_requests() {
    let server = start_plain();
    let mut stream = TcpStream::connect(server.addr).await.unwrap();
    for path in [
        "/metrics",
        "/live",
        "/nothing",
        "/metrics?usedonly",
        "/ready",
    ] {
        send(&mut stream, "GET", path, "").await;
        let answer = read_answer(&mut stream, "GET").await;
        assert!(
            answer.complete && !answer.head.contains("connection: close"),
            "{answer:?}"
        );
    }
}

#[tokio::test]
async fn a_large_exposition_arrives_whole() {
    let exposition = Fake(|_: &Selection, out: &mut dyn Write| {
        (0..100_000).try_for_each(|n| writeln!(out, "line {n} of many"))
    });
    let server = start(config(), Arc::new(exposition), settings_without_metrics());
    let answer = get(server.addr, "/metrics").await;
    assert!(answer.complete);
    assert_eq!(answer.body.lines().count(), 100_000);
    assert!(answer.body.ends_with("line 99999 of many\n"));
}

#[tokio::test]
async fn an_exposition_under_way_holds_nobody_up() {
    let (resume, resumed) = std::sync::mpsc::channel::<()>();
    let resumed = std::sync::Mutex::new(resumed);
    let exposition = Fake(move |_: &Selection, out: &mut dyn Write| {
        out.write_all(&[b'x'; 100_000])?;
        resumed.lock().unwrap().recv().map_err(io::Error::other)?;
        out.write_all(b"end\n")
    });
    let server = start(config(), Arc::new(exposition), settings_without_metrics());
    let mut scraper = TcpStream::connect(server.addr).await.unwrap();
    send(&mut scraper, "GET", "/metrics", "").await;
    let mut first = [0; 1];
    scraper.read_exact(&mut first).await.unwrap();

    // The exposition cannot go on before this answer has come.
    assert_eq!(get(server.addr, "/live").await.status, 200);
    resume.send(()).unwrap();
    let mut rest = Vec::new();
    let whole = async {
        while !rest.ends_with(b"0\r\n\r\n") {
            assert_ne!(scraper.read_buf(&mut rest).await.unwrap(), 0);
        }
    };
    tokio::time::timeout(DEADLINE, whole).await.unwrap();
}

#[tokio::test]
async fn a_broken_exposition_is_not_taken_for_a_whole_one() {
    let exposition = Fake(|_: &Selection, out: &mut dyn Write| {
        out.write_all(b"half\n")?;
        Err(io::Error::other("broken"))
    });
    let server = start(config(), Arc::new(exposition), settings_without_metrics());
    let mut scraper = TcpStream::connect(server.addr).await.unwrap();
    send(&mut scraper, "GET", "/metrics", "").await;
    let mut raw = Vec::new();
    // The connection breaks off, with or without the part that was written.
    let _ = scraper.read_to_end(&mut raw).await;
    let answer = parse(&raw, "GET", false);
    assert!(answer.is_none(), "{answer:?}");
}

#[tokio::test]
async fn shutdown_ends_the_server_and_idle_connections() {
    let mut server = start_plain();
    let mut idle = TcpStream::connect(server.addr).await.unwrap();
    send(&mut idle, "GET", "/live", "").await;
    read_answer(&mut idle, "GET").await;
    server.shutdown.cancel();
    let ended = tokio::time::timeout(DEADLINE, &mut server.served).await;
    ended.expect("the server ends").unwrap();
    assert_eq!(idle.read(&mut [0; 1]).await.unwrap(), 0);
    assert!(TcpStream::connect(server.addr).await.is_err());
}

#[tokio::test]
async fn an_address_in_use_is_a_clear_error() {
    let server = start_plain();
    let taken = Config {
        addr: server.addr,
        ..config()
    };
    let error = bind(taken).map(|bound| bound.addr).unwrap_err().to_string();
    assert!(
        error.contains("--admin-addr") && error.contains(&server.addr.to_string()),
        "{error}"
    );
}
