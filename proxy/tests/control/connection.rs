//! The connection: how it is secured, who calls on it, and that it comes back.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::ServerConfig;
use rustls::pki_types::PrivateKeyDer;
use tokio::io::AsyncReadExt;
use tokio_rustls::TlsAcceptor;
use weir_proxy::control::operator::{self, Target};
use weir_proxy::destinations::Answer;

use crate::desk::{RETRY, connection, following, service, soon, start, until};
use crate::operator::{Endpoints, Known, Labels, Operator};

const LOOPBACK: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 0);
const WEB: &str = "web.shop.svc.cluster.local";

/// A certificate authority, and an acceptor whose certificate it has signed for `name`.
fn authority(name: &str) -> (String, TlsAcceptor) {
    let key = KeyPair::generate().expect("a key");
    let mut params = CertificateParams::new(Vec::new()).expect("no names");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let issuer = CertifiedIssuer::self_signed(params, key).expect("an authority");
    let key = KeyPair::generate().expect("a key");
    let params = CertificateParams::new(vec![name.to_owned()]).expect("a name");
    let leaf = params.signed_by(&key, &issuer).expect("a certificate");
    let key = PrivateKeyDer::try_from(key.serialize_der()).expect("a key");
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_no_client_auth()
        .with_single_cert(vec![leaf.der().clone()], key);
    let mut config = config.expect("a usable certificate");
    config.alpn_protocols = vec![b"h2".to_vec()];
    (issuer.pem(), TlsAcceptor::from(Arc::new(config)))
}

/// A service of one endpoint.
pub(crate) fn web(operator: &Operator, at: &str) {
    operator.profile(
        at,
        Known::Service {
            name: WEB,
            is_opaque: false,
        },
    );
    let pod = ("10.1.0.1:8080".parse().expect("an address"), Labels::new());
    operator.endpoints(&format!("{WEB}:80"), Endpoints::Are([pod].into()));
}

#[tokio::test]
async fn every_call_carries_the_token_that_is_in_force() {
    let operator = Operator::new(None);
    let serving = operator.serve(LOOPBACK).await;
    let file = std::env::temp_dir().join(format!("weir-token-{}", std::process::id()));
    std::fs::write(&file, "first\n").expect("a file");
    let mut config = connection(serving.addr);
    config.token = Some(file.clone());
    let running = start(config, following());
    running.learn("10.96.0.1:80").await;
    std::fs::write(&file, "second").expect("a file");
    running.learn("10.96.0.2:80").await;
    std::fs::remove_file(&file).expect("a file");
    let mut unasked = running.ask("10.96.0.3:80").await.expect("room");
    let asked = operator.asked();
    let tokens: Vec<_> = asked.iter().map(|a| a.authorization.as_deref()).collect();
    assert_eq!(tokens, [Some("Bearer first"), Some("Bearer second")]);
    assert!(asked.iter().all(|a| a.context == following().context));
    // Without a token nothing is asked; once there is one again, it is.
    std::fs::write(&file, "third").expect("a file");
    unasked.until(|answer| *answer == Answer::Outside).await;
    assert_eq!(
        operator.asked().last().map(|a| a.authorization.clone()),
        Some(Some("Bearer third".to_owned()))
    );
    std::fs::remove_file(&file).expect("a file");
}

#[tokio::test]
async fn only_the_operator_that_its_authority_vouches_for_is_asked() {
    let (pem, acceptor) = authority("localhost");
    let (other, _) = authority("localhost");
    let (wrong_name_pem, wrong_name) = authority("other.example");
    for (acceptor, pem, is_asked) in [
        (acceptor.clone(), pem, true),
        (acceptor, other, false),
        (wrong_name, wrong_name_pem, false),
    ] {
        let operator = Operator::new(Some(acceptor));
        let serving = operator.serve(LOOPBACK).await;
        web(&operator, "10.96.0.1:80");
        let url = format!("https://localhost:{}", serving.addr.port());
        let target = Target::parse(&url, Some(&pem)).expect("an operator");
        let mut config = operator::Config::new(target);
        config.retry = RETRY;
        let running = start(config, following());
        if is_asked {
            let (_, answer) = running.learn("10.96.0.1:80").await;
            assert_eq!(service(&answer).1, ["10.1.0.1:8080"]);
        } else {
            let watched = running.ask("10.96.0.1:80").await.expect("room");
            tokio::time::sleep(10 * RETRY.max / 4).await;
            assert_eq!(*watched.answers.borrow(), Answer::Pending);
            assert!(operator.asked().is_empty());
        }
    }
}

#[tokio::test]
async fn what_was_said_stands_while_the_operator_is_away_and_it_is_back_in_time() {
    let operator = Operator::new(None);
    let serving = operator.serve(LOOPBACK).await;
    web(&operator, "10.96.0.1:80");
    let addr = serving.addr;
    let mut config = connection(addr);
    // The pauses of every proxy: the promise is 10 s.
    config.retry = operator::Config::new(config.target.clone()).retry;
    let running = start(config, following());
    let (mut watched, _) = running.learn("10.96.0.1:80").await;
    drop(serving);
    until("the streams are broken", || operator.streams().0 == 0).await;
    let pod = ("10.1.0.2:8080".parse().expect("an address"), Labels::new());
    operator.endpoints(&format!("{WEB}:80"), Endpoints::Are([pod].into()));
    // Asked while nobody answers.
    let mut other = running.ask("10.96.0.2:80").await.expect("room");
    tokio::time::sleep(Duration::from_secs(3)).await;
    let answer = watched.answers.borrow().clone();
    assert_eq!(service(&answer).1, ["10.1.0.1:8080"], "it stands");
    assert_eq!(*other.answers.borrow(), Answer::Pending);
    let back = Instant::now();
    let _serving = operator.serve(addr).await;
    let is_new = |answer: &Answer| service(answer).1 == ["10.1.0.2:8080"];
    watched.until(is_new).await;
    other.until(|answer| *answer == Answer::Outside).await;
    let took = back.elapsed();
    assert!(took < Duration::from_secs(10), "{took:?}");
    println!("every stream was back after {took:?}");
}

#[tokio::test]
async fn an_operator_that_is_silent_is_left_for_another() {
    let listener = tokio::net::TcpListener::bind(LOOPBACK)
        .await
        .expect("a port");
    let addr = listener.local_addr().expect("an address");
    let mut config = connection(addr);
    config.ping_interval = Duration::from_millis(50);
    config.ping_timeout = Duration::from_millis(50);
    let _running = start(config, following());
    for _ in 0..2 {
        let (mut stream, _) = soon(listener.accept()).await.expect("it connects");
        let mut bytes = Vec::new();
        // It reads everything and says nothing, until the proxy has given it up.
        let _eof_or_reset = soon(stream.read_to_end(&mut bytes)).await;
        assert!(bytes.starts_with(b"PRI * HTTP/2.0"));
    }
}

#[tokio::test]
async fn calls_move_to_another_connection_and_those_under_way_go_on() {
    let operator = Operator::new(None);
    let mut serving = operator.serve(LOOPBACK).await;
    web(&operator, "10.96.0.1:80");
    let running = start(connection(serving.addr), following());
    let (mut watched, _) = running.learn("10.96.0.1:80").await;
    serving.leave();
    let (_, other) = running.learn("10.96.0.2:80").await;
    assert_eq!(other, Answer::Outside);
    let pod = ("10.1.0.3:8080".parse().expect("an address"), Labels::new());
    operator.endpoints(&format!("{WEB}:80"), Endpoints::Are([pod].into()));
    watched
        .until(|answer| service(answer).1 == ["10.1.0.3:8080"])
        .await;
    assert_eq!(
        operator.times("10.96.0.1:80"),
        1,
        "its streams were not broken"
    );
}
