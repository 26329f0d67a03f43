//! The program itself, between a client and an application, on free ports of loopback.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::Instant;

use crate::http::{self, DEADLINE};
use crate::ports::free;

pub(crate) struct Proxy {
    child: Child,
    pub(crate) admin: SocketAddr,
    /// The Mesh's endpoint.
    pub(crate) metrics: SocketAddr,
    pub(crate) inbound: SocketAddr,
}

impl Proxy {
    /// Starts it with what the Mesh says below `envoy` of its metrics, and waits until it serves.
    pub(crate) fn start(envoy: &str) -> Self {
        let [admin, metrics, inbound] = [(); 3].map(|()| free());
        let documents = format!(
            "\
type: Mesh
name: default
metrics:
  enabledBackend: p
  backends:
  - name: p
    type: prometheus
    conf: {{port: {}, path: /mesh, envoy: {{{envoy}}}}}
---
type: Dataplane
mesh: default
name: web
networking:
  address: 127.0.0.1
  inbound:
  - {{port: {}, servicePort: {}, tags: {{kuma.io/service: web}}}}
",
            metrics.port(),
            inbound.port(),
            application().port()
        );
        let child = Command::new(env!("CARGO_BIN_EXE_weir-proxy"))
            .args(["run", "--admin-addr", &admin.to_string()])
            .args(["--dataplane", &documents])
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let proxy = Self {
            child,
            admin,
            metrics,
            inbound,
        };
        for addr in [admin, metrics, inbound] {
            until("it listens", || TcpStream::connect(addr).is_ok());
        }
        proxy
    }

    /// So many requests over one connection, each to another authority.
    pub(crate) fn request(&self, authorities: usize, path: &str) {
        let mut stream = TcpStream::connect(self.inbound).unwrap();
        stream.set_read_timeout(Some(DEADLINE)).unwrap();
        for n in 0..authorities {
            let head = format!("GET {path} HTTP/1.1\r\nHost: {n}.shop.svc.cluster.local\r\n\r\n");
            stream.write_all(head.as_bytes()).unwrap();
            let mut answer = [0; 256];
            assert!(stream.read(&mut answer).unwrap() > 0);
        }
    }

    /// A figure of its process in kibibytes, such as `VmRSS` or `VmHWM`.
    pub(crate) fn memory(&self, figure: &str) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status
            .lines()
            .find_map(|line| line.strip_prefix(figure))
            .unwrap();
        line.trim_matches(|c: char| !c.is_ascii_digit())
            .parse()
            .unwrap()
    }

    /// The peak of its memory is counted from now on.
    pub(crate) fn forget_peak(&self) {
        std::fs::write(format!("/proc/{}/clear_refs", self.child.id()), "5").unwrap();
    }

    /// The exit status, once it has ended by itself.
    pub(crate) fn ended(&mut self) -> Option<i32> {
        until("it ends", || self.child.try_wait().unwrap().is_some());
        self.child.wait().unwrap().code()
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        let _ended = self.child.kill();
        let _waited = self.child.wait();
    }
}

pub(crate) fn until(what: &str, mut done: impl FnMut() -> bool) {
    let end = Instant::now() + DEADLINE;
    while !done() {
        assert!(Instant::now() < end, "not in time: {what}");
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
}

/// Answers every request with two bytes, 404 below `/missing`; lives as long as the test.
fn application() -> SocketAddr {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let addr = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            std::thread::spawn(move || {
                let mut head = [0; 4096];
                while let Ok(n) = stream.read(&mut head)
                    && n > 0
                {
                    let status = match head.starts_with(b"GET /missing") {
                        true => "404 Not Found",
                        false => "200 OK",
                    };
                    let answer = format!("HTTP/1.1 {status}\r\nContent-Length: 2\r\n\r\nok");
                    if stream.write_all(answer.as_bytes()).is_err() {
                        return;
                    }
                }
            });
        }
    });
    addr
}

fn weir(args: &[&str]) -> (Option<i32>, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_weir-proxy"))
        .args(args)
        .output()
        .unwrap();
    let said = [output.stdout, output.stderr].concat();
    (output.status.code(), String::from_utf8(said).unwrap())
}

#[test]
fn the_program_ends_a_running_proxy() {
    let mut proxy = Proxy::start("");
    let admin = proxy.admin.to_string();
    let (status, said) = weir(&["shutdown", "--admin-addr", &admin]);
    assert_eq!(status, Some(0), "{said}");
    assert!(said.starts_with("draining: "), "{said}");
    assert_eq!(proxy.ended(), Some(0));
    let (status, said) = weir(&["shutdown", "--admin-addr", &admin]);
    assert_eq!(status, Some(1));
    assert!(
        said.contains("no answer from the proxy's admin port"),
        "{said}"
    );
}

#[test]
fn the_configuration_tells_the_sources_of_a_running_proxy() {
    let proxy = Proxy::start("usedOnly: true");
    let answer = http::get(proxy.admin, "/config", "");
    let report: serde_json::Value = serde_json::from_str(&answer.text()).unwrap();
    let source = |name: &str| {
        report["settings"][name]["source"]
            .as_str()
            .unwrap_or("none")
            .to_owned()
    };
    for (name, expected) in [
        ("--admin-addr", "flag"),
        ("--dataplane", "flag"),
        ("--drain-time", "default"),
        ("--metrics-ip", "dataplane"),
        ("metrics.port", "mesh"),
        ("metrics.usedOnly", "mesh"),
        ("metrics.filter", "default"),
    ] {
        assert_eq!(source(name), expected, "{name}");
    }
    let level = http::get(proxy.admin, "/log-level", "");
    assert_eq!((level.status, level.text().as_str()), (200, "info\n"));
}
