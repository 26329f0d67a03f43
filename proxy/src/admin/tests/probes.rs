//! `/probe/<n>` against applications of every kind, well and unwell.

use super::*;
use bytes::Bytes;
use hyper::{Response, StatusCode};
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use tokio_rustls::TlsAcceptor;
use weir_crds::probe::ProbeAction;

/// An application that answers every connection with `answer` and tells what it was asked.
async fn application(answer: String) -> (u16, mpsc::UnboundedReceiver<String>) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let (asked, asks) = mpsc::unbounded_channel();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let head = read_head(&mut stream).await;
            stream.write_all(answer.as_bytes()).await.unwrap();
            if asked.send(head).is_err() {
                return;
            }
        }
    });
    (port, asks)
}

async fn read_head(stream: &mut (impl tokio::io::AsyncRead + Unpin)) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        if stream.read_buf(&mut head).await.unwrap() == 0 {
            break;
        }
    }
    String::from_utf8(head).unwrap()
}

fn http(port: u16, path: &str) -> ProbeAction {
    ProbeAction::Http {
        port,
        path: path.into(),
        host: None,
        https: false,
        headers: Vec::new(),
    }
}

/// A server whose only probe is `action`.
fn probing(action: ProbeAction) -> Running {
    let config = Config {
        probes: vec![Probe {
            action,
            timeout_seconds: 2,
        }],
        ..config()
    };
    start(config, echo(), settings_without_metrics())
}

async fn probe(server: &Running, agent: &str) -> Answer {
    let mut stream = TcpStream::connect(server.addr).await.unwrap();
    send(
        &mut stream,
        "GET",
        "/probe/0",
        &format!("User-Agent: {agent}\r\n"),
    )
    .await;
    read_answer(&mut stream, "GET").await
}

async fn outcome(action: ProbeAction) -> (u16, String) {
    let server = probing(action);
    let answer = probe(&server, "kube-probe/1.33").await;
    (answer.status, answer.body)
}

/// A port on which nothing listens.
fn closed_port() -> u16 {
    let listener = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    listener.local_addr().unwrap().port()
}

/// The port of an application that accepts and never says a word.
async fn mute_application() -> u16 {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        let mut held = Vec::new();
        while let Ok(accepted) = listener.accept().await {
            held.push(accepted);
        }
    });
    port
}

#[tokio::test]
async fn http_is_asked_as_a_kubelet_asks() {
    let answer = "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nfine";
    let (port, mut asks) = application(answer.into()).await;
    let headers = [
        ("X-Custom", "1"),
        ("X-Custom", "2"),
        ("Host", "app.example"),
        ("Accept", "a/b"),
    ];
    let action = ProbeAction::Http {
        port,
        path: "/health z?deep=1".into(),
        host: Some("localhost".into()),
        https: false,
        headers: headers.map(|(k, v)| (k.into(), v.into())).to_vec(),
    };
    assert_eq!(outcome(action).await, (200, "fine".into()));
    let ask = asks.recv().await.unwrap().to_ascii_lowercase();
    assert!(
        ask.starts_with("get /health%20z?deep=1 http/1.1\r\n"),
        "{ask}"
    );
    for line in [
        "host: app.example",
        "user-agent: kube-probe/1.33",
        "x-custom: 1",
        "x-custom: 2",
        "accept: a/b",
    ] {
        assert_eq!(
            ask.matches(&format!("{line}\r\n")).count(),
            1,
            "{line} in {ask}"
        );
    }
    assert_eq!(ask.matches("host: ").count(), 1, "{ask}");

    assert_eq!(outcome(http(port, "")).await.0, 200);
    let ask = asks.recv().await.unwrap().to_ascii_lowercase();
    assert!(ask.starts_with("get / http/1.1\r\n"), "{ask}");
    assert!(
        ask.contains(&format!("host: 127.0.0.1:{port}\r\n")),
        "{ask}"
    );
    assert!(ask.contains("accept: */*\r\n"), "{ask}");
}

#[tokio::test]
async fn the_applications_own_answer_is_passed_on() {
    let answer = "HTTP/1.1 500 Oops\r\nContent-Length: 12\r\n\r\ndb is down\r\n";
    let (port, _asks) = application(answer.into()).await;
    assert_eq!(
        outcome(http(port, "/")).await,
        (500, "db is down\r\n".into())
    );

    let long = "x".repeat(20_000);
    let answer = format!("HTTP/1.1 418 T\r\nContent-Length: 20000\r\n\r\n{long}");
    let (port, _asks) = application(answer).await;
    let (status, body) = outcome(http(port, "/")).await;
    assert_eq!((status, body.len()), (418, 10 * 1024));
}

#[tokio::test]
async fn redirects_go_as_far_as_a_kubelets() {
    let (there, mut asks) = application("HTTP/1.1 204 No\r\n\r\n".into()).await;
    let redirect =
        |to: String| format!("HTTP/1.1 302 F\r\nLocation: {to}\r\nContent-Length: 0\r\n\r\n");
    let local = redirect(format!("http://127.0.0.1:{there}/there"));
    let (port, _asks) = application(local).await;
    assert_eq!(outcome(http(port, "/")).await.0, 204);
    assert!(asks.recv().await.unwrap().starts_with("GET /there "));

    // Another host is not asked: the redirect itself is success, and leads the kubelet nowhere.
    let foreign = redirect(format!("http://localhost:{there}/there"));
    let (port, _asks) = application(foreign).await;
    let server = probing(http(port, "/"));
    let answer = probe(&server, "kube-probe/1.33").await;
    assert_eq!(answer.status, 302);
    assert!(!answer.head.contains("location"), "{}", answer.head);
    assert!(asks.try_recv().is_err());

    let (port, _asks) = application(redirect("/again".into())).await;
    let (status, body) = outcome(http(port, "/")).await;
    assert_eq!(status, 502);
    assert!(body.contains("10 redirects"), "{body}");
}

#[tokio::test]
async fn nothing_listening_fails_every_kind() {
    let port = closed_port();
    let (status, body) = outcome(http(port, "/")).await;
    assert_eq!(status, 502);
    assert!(
        body.contains(&format!("cannot connect to 127.0.0.1:{port}")),
        "{body}"
    );
    for action in [
        ProbeAction::Tcp { port, host: None },
        ProbeAction::Grpc {
            port,
            service: String::new(),
        },
    ] {
        let (status, body) = outcome(action).await;
        assert_eq!(status, 503);
        assert!(body.contains("cannot connect"), "{body}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_mute_application_runs_into_the_probes_timeout() {
    let port = mute_application().await;
    let (status, body) = outcome(http(port, "/")).await;
    assert_eq!(status, 504);
    assert!(body.contains("within 2 s"), "{body}");
    let service = String::new();
    assert_eq!(outcome(ProbeAction::Grpc { port, service }).await.0, 503);
    // To connect is all that a TCP probe asks for.
    assert_eq!(outcome(ProbeAction::Tcp { port, host: None }).await.0, 200);
}

#[tokio::test]
async fn a_hook_that_reaches_nobody_gets_no_answer() {
    let server = probing(http(closed_port(), "/stop"));
    let mut stream = TcpStream::connect(server.addr).await.unwrap();
    send(
        &mut stream,
        "GET",
        "/probe/0",
        "User-Agent: kube-lifecycle/1.33\r\n",
    )
    .await;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.unwrap();
    assert!(answer.is_empty());

    let (port, _asks) = application("HTTP/1.1 500 No\r\nContent-Length: 0\r\n\r\n".into()).await;
    let server = probing(http(port, "/stop"));
    assert_eq!(probe(&server, "kube-lifecycle/1.33").await.status, 500);
}

/// An HTTPS application with a certificate nobody has reason to trust.
async fn https_application() -> u16 {
    let key = rcgen::KeyPair::generate().unwrap();
    let mut names = rcgen::CertificateParams::new(vec!["unrelated.example".into()]).unwrap();
    names.not_after = rcgen::date_time_ymd(2001, 1, 1);
    let certificate = names.self_signed(&key).unwrap();
    let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.serialize_der()));
    let provider = rustls::crypto::aws_lc_rs::default_provider();
    let config = rustls::ServerConfig::builder_with_provider(Arc::new(provider))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate.der().clone()], key)
        .unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let mut stream = acceptor.accept(stream).await.unwrap();
            read_head(&mut stream).await;
            let answer = b"HTTP/1.1 202 OK\r\nContent-Length: 6\r\n\r\nsecure";
            stream.write_all(answer).await.unwrap();
            stream.flush().await.unwrap();
        }
    });
    port
}

#[tokio::test]
async fn https_trusts_anyone() {
    let mut action = http(https_application().await, "/");
    let ProbeAction::Http { https, .. } = &mut action else {
        panic!("not HTTP");
    };
    *https = true;
    assert_eq!(outcome(action.clone()).await, (202, "secure".into()));

    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let plain = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        stream.write_all(b"220 this is no TLS\r\n").await.unwrap();
        let _ = stream.read_to_end(&mut Vec::new()).await;
    });
    let ProbeAction::Http { port, .. } = &mut action else {
        panic!("not HTTP");
    };
    *port = plain;
    let (status, body) = outcome(action).await;
    assert_eq!(status, 502);
    assert!(body.contains("TLS handshake"), "{body}");
}

/// A gRPC health server: `up` is serving, `down` is not, any other service is unknown to it.
async fn grpc_application() -> u16 {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut connection = h2::server::handshake(stream).await.unwrap();
                while let Some(call) = connection.accept().await {
                    let Ok((request, respond)) = call else { return };
                    tokio::spawn(answer_health(request, respond));
                }
            });
        }
    });
    port
}

async fn answer_health(
    request: hyper::Request<h2::RecvStream>,
    mut respond: h2::server::SendResponse<Bytes>,
) {
    assert_eq!(request.uri().path(), "/grpc.health.v1.Health/Check");
    assert_eq!(request.headers()["user-agent"], "kube-probe/1.33");
    let mut body = request.into_body();
    let mut message = Vec::new();
    while let Some(data) = body.data().await {
        message.extend_from_slice(&data.unwrap());
    }
    let mut response = Response::new(());
    let status = match &message[..] {
        [0, 0, 0, 0, 4, 10, 2, b'u', b'p'] => 1,
        [0, 0, 0, 0, 6, 10, 4, b'd', b'o', b'w', b'n'] => 2,
        [0, 0, 0, 0, 0] => {
            *response.status_mut() = StatusCode::NOT_FOUND;
            respond.send_response(response, true).unwrap();
            return;
        }
        _ => {
            response
                .headers_mut()
                .insert("grpc-status", "5".parse().unwrap());
            response
                .headers_mut()
                .insert("grpc-message", "unknown".parse().unwrap());
            respond.send_response(response, true).unwrap();
            return;
        }
    };
    let mut stream = respond.send_response(response, false).unwrap();
    let answer = Bytes::copy_from_slice(&[0, 0, 0, 0, 2, 8, status]);
    stream.send_data(answer, false).unwrap();
    let mut trailers = hyper::HeaderMap::new();
    trailers.insert("grpc-status", "0".parse().unwrap());
    stream.send_trailers(trailers).unwrap();
}

#[tokio::test]
async fn grpc_asks_the_health_service() {
    let port = grpc_application().await;
    let check = |service: &str| {
        outcome(ProbeAction::Grpc {
            port,
            service: service.into(),
        })
    };
    assert_eq!(check("up").await, (200, "ok\n".into()));
    for (service, found) in [
        ("down", "NOT_SERVING"),
        ("other", "gRPC status 5 unknown"),
        ("", "HTTP status 404"),
    ] {
        let (status, body) = check(service).await;
        assert_eq!(status, 503);
        assert!(body.contains(found), "{body}");
    }
    let (plain, _asks) = application("HTTP/1.1 400 Bad\r\n\r\n".into()).await;
    let service = String::new();
    let (status, body) = outcome(ProbeAction::Grpc {
        port: plain,
        service,
    })
    .await;
    assert_eq!(status, 503, "{body}");
}
