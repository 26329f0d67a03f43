//! The webhook and an API server that takes what it is asked and never answers.

use std::time::Duration;

use tokio::{
    io::AsyncReadExt,
    net::TcpListener,
    time::{Instant, timeout_at},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use weir_process::api_server;
use weir_webhook::cluster::watching;

/// Until when everything has happened.
const DEADLINE: Duration = Duration::from_secs(20);

/// The first line of the next request on a connection that is kept open.
async fn asked(listener: &TcpListener, open: &mut Vec<tokio::net::TcpStream>) -> String {
    let (mut stream, _) = listener.accept().await.unwrap();
    let mut head = vec![0; 4096];
    let length = stream.read(&mut head).await.unwrap();
    open.push(stream);
    let head = String::from_utf8_lossy(&head[..length]).into_owned();
    head.lines().next().unwrap_or_default().to_owned()
}

#[tokio::test]
async fn a_list_that_is_never_answered_is_asked_for_again() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    let mut config = kube::Config::new(address.parse().unwrap());
    config.read_timeout = Some(Duration::from_millis(200));
    let client = api_server::client(config).unwrap();
    let names = watching::Names {
        namespace: "kuma-system".to_owned(),
        secret: "weir-webhook-tls".to_owned(),
        configuration: "weir-webhook".to_owned(),
        operator_ca: None,
        native_sidecars: Some(true),
    };
    let provider = rustls::crypto::aws_lc_rs::default_provider();
    let (tasks, stop) = (TaskTracker::new(), CancellationToken::new());
    let _cluster = watching::start(&client, names, provider.into(), (&tasks, &stop));
    let wanted = ["/api/v1/namespaces?", "/meshes?", "/secrets?"];
    let (mut counts, mut open) = ([0; 3], Vec::new());
    let end = Instant::now() + DEADLINE;
    while counts.iter().any(|count| *count < 2) {
        let line = timeout_at(end, asked(&listener, &mut open)).await;
        let line = line.unwrap_or_else(|_| panic!("asked so often: {counts:?} {wanted:?}"));
        for (count, wanted) in counts.iter_mut().zip(wanted) {
            *count += u32::from(line.contains(wanted));
        }
    }
    stop.cancel();
    tasks.close();
    tasks.wait().await;
}
