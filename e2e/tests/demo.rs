//! `cargo demo` as its users see it: what it prints agrees with what its proxies publish, and it
//! leaves nothing behind, however it ends.

use std::collections::HashMap;
use std::io::{BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command, Output, Stdio};
use std::thread::{sleep, spawn};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process, kill_process_group};
use weir_e2e::exposition::Scrape;

/// Longest time any condition may take.
const DEADLINE: Duration = Duration::from_secs(30);
const PROXIES: [&str; 3] = ["bot", "web", "voting"];

/// A demo that runs, and what its introduction says.
struct Demo {
    child: Child,
    out: BufReader<std::process::ChildStdout>,
    proxies: HashMap<String, Announced>,
}

#[derive(Clone, Debug)]
struct Announced {
    admin: SocketAddr,
    metrics: SocketAddr,
    pid: i32,
}

impl Demo {
    /// Starts it in a process group of its own, as a shell would, and reads the introduction.
    fn start(arguments: &[&str]) -> Self {
        let mut child = command(arguments)
            .process_group(0)
            .spawn()
            .expect("the demo starts");
        let mut out = BufReader::new(child.stdout.take().expect("a pipe"));
        let mut proxies = HashMap::new();
        loop {
            let line = next_line(&mut out).expect("an introduction, then an empty line");
            if line.is_empty() {
                break;
            }
            proxies.extend(announced(&line));
        }
        assert_eq!(proxies.len(), PROXIES.len(), "{proxies:?}");
        Self {
            child,
            out,
            proxies,
        }
    }

    fn wait_for_a_table(&mut self) {
        while let Some(line) = next_line(&mut self.out) {
            if line.starts_with("voting") {
                return;
            }
        }
        panic!("no table");
    }

    fn pid(&self) -> Pid {
        pid(self.child.id().try_into().expect("a process id"))
    }

    /// How it ended, and what it wrote since.
    fn output(mut self) -> Output {
        let mut rest = Vec::new();
        self.out.read_to_end(&mut rest).expect("the rest");
        let mut output = self.child.wait_with_output().expect("an end");
        output.stdout = rest;
        output
    }

    /// What must be gone after it: the proxies, and with them their ports.
    fn assert_nothing_is_left(proxies: &HashMap<String, Announced>) {
        for (name, proxy) in proxies {
            eventually(&format!("the proxy of {name} has ended"), || {
                !is_running(proxy.pid)
            });
        }
    }
}

fn command(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_demo"));
    command
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command
}

/// A process that has ended counts as gone even where nobody asked for its status yet.
fn is_running(pid: i32) -> bool {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"));
    status.is_ok_and(|status| !status.contains("State:\tZ"))
}

fn pid(number: i32) -> Pid {
    Pid::from_raw(number).expect("a process id is not 0")
}

fn next_line(out: &mut impl std::io::BufRead) -> Option<String> {
    let mut line = String::new();
    let read = out.read_line(&mut line).expect("text");
    (read > 0).then(|| line.trim_end().to_owned())
}

/// `name http://admin/metrics http://metrics/metrics process N`
fn announced(line: &str) -> Option<(String, Announced)> {
    let words: Vec<&str> = line.split_whitespace().collect();
    let [name, admin, metrics, "process", pid] = words[..] else {
        return None;
    };
    let address = |url: &str| {
        let address = url.strip_prefix("http://")?.strip_suffix("/metrics")?;
        address.parse().ok()
    };
    let announced = Announced {
        admin: address(admin)?,
        metrics: address(metrics)?,
        pid: pid.parse().ok()?,
    };
    Some((name.to_owned(), announced))
}

fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + DEADLINE;
    while !condition() {
        assert!(Instant::now() < deadline, "not within {DEADLINE:?}: {what}");
        sleep(Duration::from_millis(20));
    }
}

/// `/metrics` of an address; none once nobody listens there.
fn scrape(address: SocketAddr) -> Option<Scrape> {
    let mut stream = TcpStream::connect(address).ok()?;
    stream
        .write_all(b"GET /metrics HTTP/1.1\r\nHost: demo\r\nConnection: close\r\n\r\n")
        .ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    let (head, body) = answer.split_once("\r\n\r\n")?;
    assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
    // Chunks of a body have their sizes on lines of their own, in hexadecimal digits.
    let is_chunked = head.to_lowercase().contains("transfer-encoding: chunked");
    let body = match is_chunked {
        true => unchunked(body)?,
        false => body.to_owned(),
    };
    Some(Scrape::parse(&body).expect("an exposition"))
}

fn unchunked(mut rest: &str) -> Option<String> {
    let mut body = String::new();
    loop {
        let (size, after) = rest.split_once("\r\n")?;
        let size = usize::from_str_radix(size, 16).ok()?;
        if size == 0 {
            return Some(body);
        }
        body.push_str(after.get(..size)?);
        rest = after.get(size + 2..)?;
    }
}

/// A row of the table, by its columns.
#[derive(Debug)]
struct Row {
    rate: f64,
    success: f64,
    p50: f64,
    p99: f64,
    open: f64,
    bytes_in: f64,
    requests: f64,
}

/// The rows of the last table of a text: by proxy, direction and authority.
fn last_table(text: &str) -> HashMap<(String, String, String), Row> {
    let (_, table) = text.rsplit_once("PROXY ").expect("a table");
    table.lines().skip(1).filter_map(row).collect()
}

fn row(line: &str) -> Option<((String, String, String), Row)> {
    let words: Vec<&str> = line.split_whitespace().collect();
    let [proxy, direction, authority, numbers @ ..] = words.as_slice() else {
        return None;
    };
    let numbers: Vec<f64> = numbers
        .iter()
        .map(|word| word.trim_end_matches('%').parse().ok())
        .collect::<Option<_>>()?;
    let [rate, success, p50, p99, open, bytes_in, _, requests] = numbers[..] else {
        return None;
    };
    let key = [proxy, direction, authority].map(|word| (*word).to_owned());
    let row = Row {
        rate,
        success,
        p50,
        p99,
        open,
        bytes_in,
        requests,
    };
    Some((key.into(), row))
}

/// Where the bot's requests pass: proxy, direction, authority.
const PASSED: [(&str, &str, &str); 4] = [
    ("bot", "outbound", "web"),
    ("web", "inbound", "web"),
    ("web", "outbound", "voting"),
    ("voting", "inbound", "voting"),
];

#[test]
fn the_table_agrees_with_what_the_proxies_publish() {
    let began = Instant::now();
    let demo = Demo::start(&["--duration", "6", "--plain"]);
    let polls: Vec<_> = PASSED
        .into_iter()
        .map(|(proxy, direction, authority)| {
            let places = demo.proxies[proxy].clone();
            spawn(move || last_published(&places, direction, authority))
        })
        .collect();
    let output = demo.output();
    let elapsed = began.elapsed().as_secs_f64();
    let text = String::from_utf8(output.stdout).expect("text");
    assert!(output.status.success(), "{text}{:?}", output.stderr);
    assert!(text.matches("PROXY ").count() > 1, "{text}");
    let table = last_table(&text);
    let sent = sent(&text);
    let jammed = (votes(sent) / 12) as f64;
    let success = 100.0 * (1.0 - jammed / sent as f64);
    for ((proxy, direction, authority), poll) in PASSED.into_iter().zip(polls) {
        let key = (proxy.to_owned(), direction.to_owned(), authority.to_owned());
        let row = table.get(&key).unwrap_or_else(|| panic!("{key:?}: {text}"));
        let published = poll.join().expect("scrapes");
        // The last table is of when all was at rest: nothing published can be more.
        assert!(
            0.0 < published && published <= row.requests,
            "{key:?}: {published} published, {row:?}"
        );
        assert_eq!(row.requests, sent as f64, "{key:?}: {text}");
        // The window is all that was: no shorter than asked, no longer than the process lived.
        let rates = row.requests / elapsed - 0.05..=row.requests / 6.0 + 0.05;
        assert!(rates.contains(&row.rate), "{key:?}: {row:?} {rates:?}");
        assert!(
            (row.success - success).abs() < 0.06,
            "{key:?}: {row:?} {success}"
        );
        // Of 25 votes one takes 150 ms.
        assert!(row.p50 > 0.0 && row.p50 <= row.p99, "{key:?}: {row:?}");
        assert!(row.open > 0.0, "{key:?}: {row:?}");
        assert!(row.p99 > 100.0 && row.bytes_in > 0.0, "{key:?}: {row:?}");
    }
}

/// The requests that the proxy's two endpoints publish, polled until it is gone.
fn last_published(proxy: &Announced, direction: &str, authority: &str) -> f64 {
    let labels = [("direction", direction), ("authority", authority)];
    let mut last = 0.0;
    for address in [proxy.admin, proxy.metrics].into_iter().cycle() {
        let Some(scrape) = scrape(address) else { break };
        let now = scrape.sum("request_total", &labels);
        assert!(now >= last, "{address}: {now} after {last}");
        last = now;
        sleep(Duration::from_millis(200));
    }
    last
}

/// What the bot says it sent, after it has checked that its proxy and web's counted the same.
fn sent(text: &str) -> u64 {
    let line = text.lines().last().expect("a last line");
    let numbers: Vec<u64> = line
        .split(|c: char| !c.is_ascii_digit())
        .filter_map(|word| word.parse().ok())
        .collect();
    let [sent, at_bot, at_web] = numbers[..] else {
        panic!("three numbers: {line}")
    };
    assert_eq!((sent, sent), (at_bot, at_web), "{line}");
    assert!(sent >= 75, "{line}");
    sent
}

/// How many of the first requests are votes: two of three.
fn votes(sent: u64) -> u64 {
    sent - sent / 3
}

#[test]
fn ctrl_c_ends_all_of_it() {
    let mut demo = Demo::start(&["--plain"]);
    demo.wait_for_a_table();
    let proxies = demo.proxies.clone();
    kill_process_group(demo.pid(), Signal::INT).expect("it runs");
    let output = demo.output();
    assert!(output.status.success(), "{output:?}");
    assert!(output.stderr.is_empty(), "{output:?}");
    Demo::assert_nothing_is_left(&proxies);
}

#[test]
fn proxies_do_not_outlive_a_demo_that_is_killed() {
    let mut demo = Demo::start(&["--plain"]);
    demo.wait_for_a_table();
    let proxies = demo.proxies.clone();
    kill_process(demo.pid(), Signal::KILL).expect("it runs");
    assert!(!demo.output().status.success());
    Demo::assert_nothing_is_left(&proxies);
}

#[test]
fn a_proxy_that_is_lost_ends_the_demo_with_its_name() {
    let demo = Demo::start(&["--plain"]);
    let proxies = demo.proxies.clone();
    kill_process(pid(proxies["voting"].pid), Signal::KILL).expect("it runs");
    let output = demo.output();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{errors}");
    assert!(errors.contains("the proxy of voting"), "{errors}");
    Demo::assert_nothing_is_left(&proxies);
}

#[test]
fn the_usage_is_what_the_alias_takes() {
    let output = command(&["--help"]).output().expect("the demo starts");
    let help = String::from_utf8_lossy(&output.stdout);
    assert!(help.contains("Usage: cargo demo [OPTIONS]"), "{help}");
}

#[test]
fn a_port_that_is_taken_is_named_and_nothing_starts() {
    let taken = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let port = taken.local_addr().expect("an address").port();
    let output = command(&["--plain", "--ports-from", &port.to_string()])
        .output()
        .expect("the demo starts");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{errors}");
    let expected = format!("demo: port {port} (admin of bot) cannot be used: ");
    assert!(errors.starts_with(&expected), "{errors}");
    assert!(output.stdout.is_empty(), "{output:?}");
}
