//! The program itself with many proxies connected, each with TLS and ten watches, of its settings and
//! of nine services: what it takes of memory, that all are told of a change, and that none of them holds up its end.
//!
//! `WEIR_TEST_PROXIES=2000 cargo test --release --test cluster process -- --nocapture` prints the
//! figures of a large installation (`ulimit -n` has to allow the connections).

#![allow(clippy::unwrap_used, reason = "what fails here fails the test")]

use std::net::SocketAddr;
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use futures::future::join_all;
use linkerd2_proxy_api::destination::{GetDestination, Update};
use serde_json::json;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};
use tokio::time::timeout;
use tonic::Streaming;
use weir_crds::Settings;
use weir_crds::grpc::destination::destination_client::DestinationClient;
use weir_crds::grpc::v1::Document;

use crate::api::Api;
use crate::mesh::{certify, channel, put_mesh, put_pod, watch};

/// Every wait ends by then.
const DEADLINE: Duration = Duration::from_secs(60);
/// The services that every proxy follows, beside its settings.
const SERVICES: usize = 9;
const ENDPOINTS: usize = 3;
/// Requests for a certificate at once.
const CROWD: usize = 1_000;
/// Connections that are being opened at once.
const OPENING: usize = 16;
/// Most memory of the program with one proxy connected, in KiB.
const BASE: u64 = 60 * 1024;
/// Most memory a connected proxy, in KiB; without optimization futures are larger.
const EACH: u64 = if cfg!(debug_assertions) { 50 } else { 40 };
/// Most memory that the program takes once while its first proxies connect, in KiB.
const ONCE: u64 = 512;

/// The program, pointed to the API server of the test.
async fn start(api: &Api) -> (Child, SocketAddr) {
    let folder =
        Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("operator-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let config = folder.join("kubeconfig");
    let text = json!({
        "apiVersion": "v1", "kind": "Config", "current-context": "test",
        "clusters": [{"name": "test", "cluster": {"server": format!("http://{}", api.address())}}],
        "contexts": [{"name": "test", "context": {"cluster": "test", "user": "test"}}],
        "users": [{"name": "test", "user": {}}],
    });
    std::fs::write(&config, text.to_string()).unwrap();
    let mut child = Command::new(env!("CARGO_BIN_EXE_weir-operator"))
        .args([
            "--http-address=127.0.0.1:0",
            "--grpc-address=127.0.0.1:0",
            "--monitoring-address=127.0.0.1:0",
            "--shutdown-seconds=1",
        ])
        .env_clear()
        .env("KUBECONFIG", &config)
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let started = async {
        loop {
            let line = lines.next_line().await.unwrap().expect("it starts");
            if let Some((_, rest)) = line.split_once("grpc=") {
                return rest.split(' ').next().unwrap().parse().unwrap();
            }
        }
    };
    let address = timeout(DEADLINE, started).await.unwrap();
    // What it says later is of no interest, but has to go somewhere.
    tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
    (child, address)
}

/// Resident memory in KiB.
fn resident(child: &Child) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", child.id().unwrap())).unwrap();
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))
        .unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

/// CPU time the program has taken; the kernel counts in hundredths of a second.
fn processor_time(child: &Child) -> Duration {
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", child.id().unwrap())).unwrap();
    let fields: Vec<&str> = stat.rsplit_once(") ").unwrap().1.split(' ').collect();
    let ticks: u64 = fields[11..13]
        .iter()
        .map(|field| field.parse::<u64>().unwrap())
        .sum();
    Duration::from_millis(ticks * 10)
}

/// A proxy that is connected, with what it watches.
struct Connected {
    settings: Streaming<Document>,
    services: Vec<Streaming<Update>>,
}

/// A proxy with its watches, each past its first message.
async fn proxy(api: &Api, address: SocketAddr, number: usize) -> Connected {
    let channel = channel(api, address).await;
    let mut settings = watch(channel.clone(), &format!("token-{number}")).await;
    next(&mut settings).await;
    let mut services = Vec::new();
    for service in 0..SERVICES {
        let asked = GetDestination {
            path: format!("service-{service}.shop.svc.cluster.local:80"),
            ..GetDestination::default()
        };
        let stream = DestinationClient::new(channel.clone()).get(asked).await;
        let mut stream = stream.unwrap().into_inner();
        next(&mut stream).await;
        services.push(stream);
    }
    Connected { settings, services }
}

/// The next message of a stream.
async fn next<T>(stream: &mut Streaming<T>) -> T {
    let message = timeout(DEADLINE, stream.message()).await.unwrap();
    message.unwrap().unwrap()
}

/// The services that are followed, with an endpoint or a few each.
fn put_services(api: &Api) {
    for service in 0..SERVICES {
        let name = format!("service-{service}");
        let metadata = json!({"name": name, "namespace": "shop"});
        let port = json!({"port": 80, "protocol": "TCP"});
        let spec = json!({"clusterIP": format!("10.96.0.{}", service + 1), "ports": [port]});
        api.put(
            "/api/v1/services",
            json!({"metadata": metadata, "spec": spec}),
        );
        let endpoint = |number: usize| {
            json!({
                "addresses": [format!("10.1.{service}.{}", number + 1)],
                "conditions": {"ready": true},
            })
        };
        let endpoints: Vec<_> = (0..ENDPOINTS).map(endpoint).collect();
        let labels = json!({"kubernetes.io/service-name": name});
        api.put(
            "/apis/discovery.k8s.io/v1/endpointslices",
            json!({
                "metadata": {"name": name, "namespace": "shop", "labels": labels},
                "addressType": "IPv4",
                "ports": [{"name": "", "port": 8080, "protocol": "TCP"}],
                "endpoints": endpoints,
            }),
        );
    }
}

/// A crowd at once: every one gets its certificate.
async fn crowd(api: &Api, address: SocketAddr, child: &Child, proxies: usize) {
    let (started, before) = (Instant::now(), processor_time(child));
    let channel = channel(api, address).await;
    let asking = (0..CROWD).map(|number| {
        let token = format!("token-{}", number % proxies);
        let channel = channel.clone();
        async move { certify(channel, &token).await.map(drop) }
    });
    let answers = join_all(asking).await.into_iter();
    let refused: Vec<_> = answers.filter_map(Result::err).collect();
    assert!(refused.is_empty(), "{refused:?}");
    let each = (processor_time(child) - before) / u32::try_from(CROWD).unwrap();
    let took = started.elapsed();
    println!("{CROWD} certificates within {took:?}, {each:?} of CPU each");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_proxies_take_little_memory_and_hold_up_nothing() {
    let proxies: usize =
        std::env::var("WEIR_TEST_PROXIES").map_or(150, |text| text.parse().unwrap());
    let (api, _client) = Api::start().await;
    put_mesh(&api, json!({"name": "ca-1", "type": "builtin"}));
    for number in 0..=proxies {
        put_pod(&api, &format!("web-{number}"), &format!("token-{number}"));
    }
    put_services(&api);
    let (mut child, address) = start(&api).await;
    let mut connected = vec![proxy(&api, address, proxies).await];
    let base = resident(&child);
    let numbers: Vec<usize> = (0..proxies).collect();
    for some in numbers.chunks(OPENING) {
        connected.extend(join_all(some.iter().map(|number| proxy(&api, address, *number))).await);
    }
    let (grown, count) = (resident(&child).saturating_sub(base), proxies as u64);
    println!(
        "{proxies} proxies: {base} KiB, and {} KiB each with {} watches",
        grown / count,
        1 + SERVICES
    );
    assert!(base <= BASE, "{base} KiB with one proxy connected");
    assert!(
        grown <= ONCE + EACH * count,
        "{grown} KiB for {count} proxies"
    );

    crowd(&api, address, &child, proxies).await;

    // A change of the Mesh reaches every stream.
    let told = Instant::now();
    put_mesh(
        &api,
        json!({"name": "ca-1", "type": "builtin", "mode": "PERMISSIVE"}),
    );
    for proxy in &mut connected {
        // What went before it may still be under way.
        let document = loop {
            let document = next(&mut proxy.settings).await;
            if document.json.contains(r#""mtls":"permissive""#) {
                break document;
            }
        };
        Settings::parse(&document.json).unwrap();
    }
    println!("all were told of a change within {:?}", told.elapsed());

    let ended = Instant::now();
    let pid = child.id().unwrap().to_string();
    Command::new("kill")
        .args(["-TERM", &pid])
        .status()
        .await
        .unwrap();
    let status = timeout(DEADLINE, child.wait()).await.unwrap().unwrap();
    println!("it ended within {:?}", ended.elapsed());
    assert!(status.success(), "{status}");
    for proxy in &mut connected {
        let end = timeout(DEADLINE, proxy.settings.message()).await.unwrap();
        assert_eq!(end.unwrap_err().code(), tonic::Code::Unavailable);
        for service in &mut proxy.services {
            let end = timeout(DEADLINE, service.message()).await.unwrap();
            assert_eq!(end.unwrap_err().code(), tonic::Code::Unavailable);
        }
    }
}
