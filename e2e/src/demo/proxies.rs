//! The proxies of the demo: one process each, run and ended as a user would run and end
//! `weir-proxy`. Called by `demo`; the program is the demo's own, which is the proxy when it is
//! started under that name (see `bin/demo.rs`).

use std::collections::VecDeque;
use std::process::{ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::{Context as _, anyhow, bail};
use hyper::Method;
use rustix::process::{Pid, Signal, kill_process};
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::process::{Child, Command};
use tokio::time::{sleep, timeout};

use super::client::Client;
use super::crew::Crew;
use super::documents::Member;
use crate::exposition::Scrape;

/// The name under which the program is the proxy.
pub const PROGRAM: &str = "weir-proxy";
/// How long a proxy may take until it is ready.
const READY_LIMIT: Duration = Duration::from_secs(10);
/// Between two questions whether a proxy is ready.
const READY_PAUSE: Duration = Duration::from_millis(20);
/// How long a proxy may take to end when it is told to; it is killed then.
const END_LIMIT: Duration = Duration::from_secs(5);
/// How much of what a proxy logs is kept, to be shown if it fails.
const LOG_LINES: usize = 20;

type Log = Arc<Mutex<VecDeque<String>>>;

/// A proxy that was started.
#[derive(Debug)]
pub(super) struct Proxy {
    pub(super) name: &'static str,
    pub(super) pid: u32,
    admin: Client,
    child: Child,
    log: Log,
}

impl Proxy {
    /// Starts the proxy of a member; `documents` has its Dataplane.
    pub(super) async fn start(
        member: &Member,
        documents: &str,
        crew: &Crew,
    ) -> anyhow::Result<Self> {
        let name = member.name;
        let admin = member.place.admin;
        let program = std::env::current_exe().context("the demo does not find itself")?;
        let mut child = Command::new(program)
            .arg0(PROGRAM)
            .args(["run", "--dataplane-file", "-", "--name", name])
            .args(["--admin-addr", &admin.to_string()])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            // Of its own, so that Ctrl-C reaches the demo alone, which ends the proxies in order.
            .process_group(0)
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("the proxy of {name} does not start"))?;
        let pid = child
            .id()
            .context("a process that has just begun has an id")?;
        let log = Log::default();
        let errors = child.stderr.take().context("stderr is a pipe")?;
        crew.spawn(keep_last(BufReader::new(errors), Arc::clone(&log)));
        let mut input = child.stdin.take().context("stdin is a pipe")?;
        // A proxy that ends before it has read all says why itself.
        drop(input.write_all(documents.as_bytes()).await);
        Ok(Self {
            name,
            pid,
            admin: Client::new(admin, &admin.to_string(), crew.clone()),
            child,
            log,
        })
    }

    /// Waits until the proxy is ready.
    pub(super) async fn ready(&mut self) -> anyhow::Result<()> {
        let Self {
            name, admin, child, ..
        } = self;
        let is_ready = async {
            loop {
                match admin.send(Method::GET, "/ready").await {
                    Ok(answer) if answer.status.is_success() => return,
                    Ok(_) | Err(_) => sleep(READY_PAUSE).await,
                }
            }
        };
        let ended = tokio::select! {
            () = is_ready => return Ok(()),
            ended = child.wait() => ended.map_err(anyhow::Error::from),
            () = sleep(READY_LIMIT) => bail!("the proxy of {name} is not ready after {READY_LIMIT:?}"),
        };
        Err(self.ended(ended).await)
    }

    /// Fails if the proxy has ended.
    pub(super) async fn check(&mut self) -> anyhow::Result<()> {
        match self.child.try_wait() {
            Ok(None) => Ok(()),
            Ok(Some(status)) => Err(self.ended(Ok(status)).await),
            Err(error) => Err(self.ended(Err(error.into())).await),
        }
    }

    async fn ended(&self, ended: anyhow::Result<ExitStatus>) -> anyhow::Error {
        // What it said last may still be on its way.
        let mut said = String::new();
        for _ in 0..LOG_LINES {
            said = self.said();
            if !said.is_empty() {
                break;
            }
            sleep(READY_PAUSE).await;
        }
        match ended {
            Ok(status) => anyhow!("the proxy of {} ended, {status}:\n{said}", self.name),
            Err(error) => error.context(format!("the proxy of {} is lost", self.name)),
        }
    }

    fn said(&self) -> String {
        let log = self.log.lock().expect("no holder of the lock can panic");
        log.iter().map(|line| format!("  {line}\n")).collect()
    }

    /// What `/metrics` of its admin port says now.
    pub(super) async fn scrape(&self) -> anyhow::Result<Scrape> {
        let answer = self.admin.send(Method::GET, "/metrics").await?;
        if !answer.status.is_success() {
            bail!("/metrics answers {}", answer.status);
        }
        Scrape::parse(std::str::from_utf8(&answer.body)?)
    }

    /// Ends the proxy as Kubernetes would: SIGTERM, then after a while SIGKILL.
    pub(super) async fn end(mut self) -> anyhow::Result<()> {
        let pid = i32::try_from(self.pid).ok().and_then(Pid::from_raw);
        // Without an id it has ended, and its number may be another's by now.
        if let (Some(pid), Some(_)) = (pid, self.child.id()) {
            kill_process(pid, Signal::TERM).context("cannot end a proxy")?;
        }
        if timeout(END_LIMIT, self.child.wait()).await.is_err() {
            self.child.kill().await?;
            bail!("the proxy of {} had to be killed", self.name);
        }
        Ok(())
    }
}

async fn keep_last(lines: BufReader<tokio::process::ChildStderr>, log: Log) {
    let mut lines = lines.lines();
    while let Ok(Some(line)) = lines.next_line().await {
        let mut log = log.lock().expect("no holder of the lock can panic");
        log.push_back(line);
        if log.len() > LOG_LINES {
            log.pop_front();
        }
    }
}
