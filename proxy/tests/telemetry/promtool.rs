//! `promtool check metrics`, of Debian's package `prometheus`. Used, as a file, by the tests of all that has an exposition.

#![allow(clippy::unwrap_used, reason = "what fails here fails the test")]

use std::io::Write;
use std::process::{Command, Stdio};

/// Every line that promtool says of a text, sorted.
pub(crate) fn said_of(exposition: &str) -> Vec<String> {
    let spawned = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    let mut promtool = spawned.expect("promtool runs; it is in Debian's package `prometheus`");
    let mut stdin = promtool.stdin.take().unwrap();
    stdin.write_all(exposition.as_bytes()).unwrap();
    drop(stdin);
    let output = promtool.wait_with_output().unwrap();
    let said = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
    let mut said: Vec<String> = said.lines().map(str::to_owned).collect();
    said.sort_unstable();
    said
}
