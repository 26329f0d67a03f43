//! The program itself with many proxies connected, each with TLS and ten watches: what it takes of
//! memory, that all are told of a change, and that none of them holds up its end.
//!
//! `WEIR_TEST_PROXIES=2000 cargo test --release --test cluster process -- --nocapture` prints the
//! figures of a large installation (`ulimit -n` has to allow the connections).

#![allow(clippy::unwrap_used, reason = "what fails here fails the test")]

use std::net::SocketAddr;
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use futures::future::join_all;
use serde_json::json;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};
use tokio::time::timeout;
use tonic::Streaming;
use weir_crds::Settings;
use weir_crds::grpc::v1::Document;

use crate::api::Api;
use crate::mesh::{certify, channel, put_mesh, put_pod, watch};

/// Every wait ends by then.
const DEADLINE: Duration = Duration::from_secs(60);
const WATCHES: usize = 10;
/// Requests for a certificate at once.
const CROWD: usize = 1_000;
/// Connections that are being opened at once.
const OPENING: usize = 16;
/// Most memory of the program with one proxy connected, in KiB.
const BASE: u64 = 60 * 1024;
/// Most memory a connected proxy, in KiB; without optimization futures are several times as large.
const EACH: u64 = if cfg!(debug_assertions) { 100 } else { 40 };

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
        .args(["--http-address=127.0.0.1:0", "--grpc-address=127.0.0.1:0"])
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

/// A proxy with its watches, each past its first document.
async fn proxy(api: &Api, address: SocketAddr, number: usize) -> Vec<Streaming<Document>> {
    let channel = channel(api, address).await;
    let mut streams = Vec::new();
    for _ in 0..WATCHES {
        let mut stream = watch(channel.clone(), &format!("token-{number}")).await;
        timeout(DEADLINE, stream.message())
            .await
            .unwrap()
            .unwrap()
            .unwrap();
        streams.push(stream);
    }
    streams
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
    let (mut child, address) = start(&api).await;
    let mut connected = vec![proxy(&api, address, proxies).await];
    let base = resident(&child);
    let numbers: Vec<usize> = (0..proxies).collect();
    for some in numbers.chunks(OPENING) {
        connected.extend(join_all(some.iter().map(|number| proxy(&api, address, *number))).await);
    }
    let each = resident(&child).saturating_sub(base) / u64::try_from(proxies).unwrap();
    println!("{proxies} proxies: {base} KiB, and {each} KiB each with {WATCHES} watches");
    assert!(base <= BASE, "{base} KiB with one proxy connected");
    assert!(each <= EACH, "{each} KiB a proxy");

    crowd(&api, address, &child, proxies).await;

    // A change of the Mesh reaches every stream.
    let told = Instant::now();
    put_mesh(
        &api,
        json!({"name": "ca-1", "type": "builtin", "mode": "PERMISSIVE"}),
    );
    for stream in connected.iter_mut().flatten() {
        let document = timeout(DEADLINE, stream.message())
            .await
            .unwrap()
            .unwrap()
            .unwrap();
        assert!(
            document.json.contains(r#""mtls":"permissive""#),
            "{}",
            document.json
        );
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
    for stream in connected.iter_mut().flatten() {
        let end = timeout(DEADLINE, stream.message()).await.unwrap();
        assert_eq!(end.unwrap_err().code(), tonic::Code::Unavailable);
    }
}
