//! `weir-proxy cni` as a DaemonSet runs it: what it installs is the plugin, and a signal ends it and nothing else.

#![expect(
    clippy::unwrap_used,
    reason = "a helper of a test fails as the test does"
)]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

const PROGRAM: &str = env!("CARGO_BIN_EXE_weir-proxy");
const LIST: &str = r#"{"cniVersion":"1.0.0","name":"net","plugins":[{"type":"bridge"}]}"#;

/// Every wait ends by then.
const DEADLINE: Duration = Duration::from_secs(20);

/// A node's directories and the keepers there; gone at the end.
struct Node(PathBuf);

impl Node {
    fn new() -> Self {
        let root = std::env::temp_dir().join(format!("weir-keeper-{}", std::process::id()));
        fs::create_dir_all(root.join("bin")).unwrap();
        fs::create_dir_all(root.join("net.d")).unwrap();
        fs::write(root.join("net.d/10-net.conflist"), LIST).unwrap();
        Self(root)
    }

    /// A keeper with what a DaemonSet gives it.
    fn keeper(&self, remove: bool) -> Command {
        let mut keeper = Command::new(PROGRAM);
        keeper
            .arg("cni")
            .env("WEIR_CNI_BIN_DIR", self.0.join("bin"))
            .env("WEIR_CNI_CONF_DIR", self.0.join("net.d"))
            .env("WEIR_CNI_REMOVE", remove.to_string())
            .env("WEIR_CNI_INTERVAL", "100ms")
            .stderr(Stdio::null());
        keeper
    }

    /// What `--check` ends with.
    fn check(&self, remove: bool) -> Option<i32> {
        let status = self.keeper(remove).arg("--check").status();
        status.unwrap().code()
    }

    fn list(&self) -> String {
        fs::read_to_string(self.0.join("net.d/10-net.conflist")).unwrap()
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        // What is left lies in a directory for such things.
        let _left = fs::remove_dir_all(&self.0);
    }
}

/// Ends a keeper by `signal`, once `is_done`; it may not take a look's time for it.
fn end_once(keeper: &mut Child, signal: Signal, is_done: impl Fn() -> bool) {
    let begun = Instant::now();
    while !is_done() {
        assert!(begun.elapsed() < DEADLINE, "nothing is done");
        sleep(Duration::from_millis(10));
    }
    assert_eq!(keeper.try_wait().unwrap(), None, "it stays");
    kill_process(Pid::from_child(keeper), signal).unwrap();
    assert!(keeper.wait().unwrap().success());
}

fn versions(plugin: &Path) -> String {
    let mut call = Command::new(plugin);
    let output = call.env("CNI_COMMAND", "VERSION").output().unwrap();
    assert!(output.status.success());
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn it_installs_itself_as_the_plugin_and_takes_that_away_again() {
    let node = Node::new();
    let plugin = node.0.join("bin/weir-cni");
    assert_eq!((node.check(false), node.check(true)), (Some(1), Some(0)));
    let mut keeper = node.keeper(false).spawn().unwrap();
    end_once(&mut keeper, Signal::TERM, || node.check(false) == Some(0));
    // Pods that come while it is being replaced find everything.
    assert!(versions(&plugin).contains(r#""cniVersion":"1.1.0""#));
    assert!(node.list().contains("weir-cni"));
    let mut keeper = node.keeper(true).spawn().unwrap();
    end_once(&mut keeper, Signal::INT, || node.check(true) == Some(0));
    assert_eq!((node.list().as_str(), plugin.exists()), (LIST, false));
}
