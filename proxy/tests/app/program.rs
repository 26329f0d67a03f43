//! The binary under limits of the system: it ends where it cannot run, takes what it may have, and counts what it has no
//! room for.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;

use super::ports::free;
use super::{DEADLINE, LOOPBACK, ask, get};

/// A child that ends with its test.
struct Program(std::process::Child);

impl Drop for Program {
    fn drop(&mut self) {
        let _ended = self.0.kill();
        let _reaped = self.0.wait();
    }
}

/// The binary with so few file descriptors, and where it listens.
fn binary(descriptors: u32) -> (Program, SocketAddr) {
    limited(&format!("-n {descriptors}"), LOOPBACK)
}

/// The binary under this limit of the shell's, its admin port here, and where it listens.
fn limited(limit: &str, admin: SocketAddr) -> (Program, SocketAddr) {
    let port = free().port();
    let dataplane = format!(
        "{{type: Dataplane, mesh: default, name: web, networking: {{address: 127.0.0.1, inbound: [{{port: {port}, servicePort: 1, tags: {{kuma.io/service: web}}}}]}}}}"
    );
    let limit = format!("ulimit {limit}; exec \"$0\" \"$@\"");
    let proxy = std::process::Command::new("sh")
        .args(["-c", &limit, env!("CARGO_BIN_EXE_weir-proxy"), "run"])
        .args([
            "--admin-addr",
            &admin.to_string(),
            "--dataplane",
            &dataplane,
        ])
        .stderr(std::process::Stdio::null())
        .spawn()
        .expect("a shell");
    (Program(proxy), SocketAddr::from(([127, 0, 0, 1], port)))
}

/// Waits until it has ended, or `is_done`; how it ended.
async fn watch_until(mut proxy: Program, mut is_done: impl AsyncFnMut(u32) -> bool) -> Option<i32> {
    let start = std::time::Instant::now();
    while !is_done(proxy.0.id()).await {
        assert!(start.elapsed() < DEADLINE, "it neither ends nor is done");
        tokio::time::sleep(Duration::from_millis(10)).await;
        if let Some(status) = proxy.0.try_wait().expect("a child") {
            return status.code();
        }
    }
    None
}

#[tokio::test]
async fn a_proxy_whose_worker_cannot_run_ends() {
    for descriptors in 10..20 {
        let (proxy, listens) = binary(descriptors);
        let accepts = async |_| TcpStream::connect(listens).await.is_ok();
        let status = watch_until(proxy, accepts).await;
        assert_ne!(status, Some(0), "{descriptors} descriptors");
    }
}

/// The priorities of its threads (proc(5), `nice`), the first one's first.
fn priorities(process: u32) -> Vec<i32> {
    let tasks = std::fs::read_dir(format!("/proc/{process}/task"))
        .into_iter()
        .flatten();
    let mut tasks: Vec<(u32, i32)> = tasks
        .filter_map(|task| {
            let task = task.ok()?;
            let text = std::fs::read_to_string(task.path().join("stat")).ok()?;
            let (_, after_name) = text.rsplit_once(')')?;
            let nice = after_name.split_whitespace().nth(16)?.parse().ok()?;
            Some((task.file_name().to_str()?.parse().ok()?, nice))
        })
        .collect();
    tasks.sort_unstable();
    tasks.into_iter().map(|(_, nice)| nice).collect()
}

#[tokio::test]
async fn workers_come_before_the_service_thread() {
    let (proxy, _) = binary(1024);
    let given = rustix::process::getpriority_process(None).expect("a priority");
    let wanted = (given + 10).min(19);
    let is_done = async |process| {
        let priorities = priorities(process);
        let [service, others @ ..] = priorities.as_slice() else {
            return false;
        };
        // The allocator's threads are as the workers.
        *service == wanted && !others.is_empty() && others.iter().all(|one| *one == given)
    };
    let status = watch_until(proxy, is_done);
    assert_eq!(status.await, None, "it has ended by itself");
}

#[tokio::test]
async fn it_takes_the_descriptors_that_it_may_have() {
    let (proxy, _) = limited("-Sn 256; ulimit -Hn 512", LOOPBACK);
    let is_raised = async |process| {
        let limits = std::fs::read_to_string(format!("/proc/{process}/limits"));
        let limits = limits.unwrap_or_default();
        let files = limits
            .lines()
            .find(|line| line.starts_with("Max open files"));
        let soft = files.and_then(|line| line.split_whitespace().nth(3));
        soft == Some("512")
    };
    assert_eq!(
        watch_until(proxy, is_raised).await,
        None,
        "it has ended by itself"
    );
}

#[tokio::test]
async fn connections_that_there_is_no_room_for_are_counted() {
    let admin = free();
    let (proxy, listens) = limited("-n 64", admin);
    // Those that are not accepted yet, and those for which no connection can be made.
    let shed = ["dst", "src"].map(|peer| {
        format!(
            r#"inbound_tcp_errors_total{{direction="inbound",peer="{peer}",error="loadshed",target_port="{}"}}"#,
            listens.port()
        )
    });
    // There is no application: each is held until that is found out, together they are too many.
    let is_counted = async |_| {
        let mut held = Vec::new();
        for _ in 0..200 {
            match TcpStream::connect(listens).await {
                Ok(stream) => held.push(stream),
                Err(_not_yet) => return false,
            }
        }
        for mut stream in held {
            let _ended = stream.read(&mut [0; 1]).await;
        }
        let metrics = ask(admin, &get("/metrics?filter=_tcp_errors_total$")).await;
        let samples = metrics.lines().filter_map(|line| line.rsplit_once(' '));
        let of_them = samples.filter(|(series, _)| series.contains("loadshed"));
        let mut of_them: Vec<_> = of_them.map(|(series, _)| series).collect();
        of_them.sort_unstable();
        assert!(
            of_them
                .iter()
                .all(|series| shed.iter().any(|one| one == series)),
            "{of_them:?}"
        );
        of_them == shed
    };
    let status = watch_until(proxy, is_counted).await;
    assert_eq!(status, None, "it has ended by itself");
}
