//! Debian's Prometheus scrapes both formats for real: what it stores is what was counted, to the label. Needs Debian's
//! package `prometheus`.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use serde_json::Value;

use crate::parser::{self, Syntax};
use crate::ports::free;
use crate::process::until;
use crate::served::Served;
use crate::{everything, http};

/// What a stranger may send as its authority, at worst.
const AUTHORITY: &str = "a\"b\\c\nd{e=\"f\"},#\u{e9}\r\t\0";
/// As it is stored: Prometheus would stop reading at a NUL.
const STORED: &str = "a\"b\\c\nd{e=\"f\"},#\u{e9}\r\t\u{fffd}";

struct Prometheus {
    addr: SocketAddr,
    child: Child,
    directory: PathBuf,
}

impl Prometheus {
    /// Scrapes each of these addresses every second, under the job of that name.
    fn start(jobs: &[(&str, SocketAddr)]) -> Self {
        let addr = free();
        let directory = Path::new(env!("CARGO_TARGET_TMPDIR"))
            .join(format!("exposition-prometheus-{}", std::process::id()));
        std::fs::create_dir_all(&directory).unwrap();
        let mut config =
            "global: {scrape_interval: 1s, scrape_timeout: 1s}\nscrape_configs:\n".to_owned();
        for (job, target) in jobs {
            config.push_str(&format!(
                "- job_name: {job}\n  static_configs: [{{targets: ['{target}']}}]\n"
            ));
        }
        let file = directory.join("prometheus.yml");
        std::fs::write(&file, config).unwrap();
        let child = Command::new("prometheus")
            .arg(format!("--config.file={}", file.display()))
            .arg(format!(
                "--storage.tsdb.path={}",
                directory.join("data").display()
            ))
            .arg(format!("--web.listen-address={addr}"))
            .arg("--log.level=error")
            .stdout(Stdio::null())
            .spawn()
            .expect("prometheus runs; it is Debian's package `prometheus`");
        let prometheus = Self {
            addr,
            child,
            directory,
        };
        until("Prometheus listens", || TcpStream::connect(addr).is_ok());
        prometheus
    }

    fn api(&self, path: &str) -> Value {
        let answer = http::get(self.addr, &format!("/api/v1/{path}"), "");
        let mut answer: Value = serde_json::from_str(&answer.text()).unwrap_or_default();
        answer["data"].take()
    }

    /// What an instant query of one selector finds.
    fn query(&self, query: &str) -> Vec<Value> {
        let encoded: String = form_urlencoded::byte_serialize(query.as_bytes()).collect();
        let found = self.api(&format!("query?query={encoded}"));
        found["result"].as_array().cloned().unwrap_or_default()
    }
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        let _ended = self.child.kill();
        let _waited = self.child.wait();
        let _removed = std::fs::remove_dir_all(&self.directory);
    }
}

/// Passes connections on to `target`, with another `Accept` in the request, and tells each answer's head.
fn accepting(
    target: SocketAddr,
    accept: &'static str,
) -> (SocketAddr, std::sync::mpsc::Receiver<String>) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let addr = listener.local_addr().unwrap();
    let (tell, told) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        for mut stream in listener.incoming().map_while(Result::ok) {
            let mut head = [0; 4096];
            let n = stream.read(&mut head).unwrap();
            let head = String::from_utf8_lossy(&head[..n]).into_owned();
            let lines = head.lines().skip(1).filter(|line| {
                let name = line
                    .split(':')
                    .next()
                    .unwrap_or_default()
                    .to_ascii_lowercase();
                !line.is_empty() && !["accept", "connection"].contains(&name.as_str())
            });
            let mut asked = head.lines().next().unwrap_or_default().to_owned();
            for line in lines.chain(["Connection: close", &format!("Accept: {accept}"), "", ""]) {
                asked.push_str("\r\n");
                asked.push_str(line);
            }
            let mut upstream = TcpStream::connect(target).unwrap();
            upstream.write_all(asked.as_bytes()).unwrap();
            let mut answer = Vec::new();
            upstream.read_to_end(&mut answer).unwrap();
            let text = String::from_utf8_lossy(&answer);
            let end = text.find("\r\n\r\n").unwrap_or(text.len());
            let _nobody_listens = tell.send(text[..end].to_ascii_lowercase());
            let _gone = stream.write_all(&answer);
        }
    });
    (addr, told)
}

fn up(prometheus: &Prometheus, job: &str) -> bool {
    let found = prometheus.query(&format!("up{{job=\"{job}\"}} == 1"));
    found.len() == 1
}

#[test]
fn prometheus_reads_both_formats() {
    let served = Served::start();
    everything::count(&served.telemetry, &served.recorder);
    served.record("web.shop", &[200, 200, 503]);
    served.record(AUTHORITY, &[200]);
    let (text, text_heads) = accepting(served.addr, "text/plain;version=0.0.4;q=0.5,*/*;q=0.1");
    let (as_sent, heads) = accepting(
        served.addr,
        "application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75,\
         text/plain;version=0.0.4;q=0.5,*/*;q=0.1",
    );
    let prometheus = Prometheus::start(&[
        ("text", text),
        ("as-sent", as_sent),
        ("itself", served.addr),
    ]);
    for (heads, content_type) in [
        (text_heads, "text/plain"),
        (heads, "application/openmetrics-text"),
    ] {
        let head = heads.recv_timeout(http::DEADLINE).unwrap();
        assert!(
            head.contains(&format!("content-type: {content_type}")),
            "{head}"
        );
        assert!(
            head.contains("content-encoding: gzip"),
            "Prometheus asks for it: {head}"
        );
    }
    for (job, accept, syntax) in [
        ("text", "", Syntax::Text),
        (
            "as-sent",
            "Accept: application/openmetrics-text\r\n",
            Syntax::OpenMetrics,
        ),
        (
            "itself",
            "Accept: application/openmetrics-text\r\n",
            Syntax::OpenMetrics,
        ),
    ] {
        until(&format!("{job} is up"), || up(&prometheus, job));
        let body = http::get(served.addr, "/metrics", accept).text();
        let families = parser::parse(&body, syntax).unwrap();
        let samples = families.iter().map(|family| family.samples.len()).sum();
        has_stored(&prometheus, job, samples);
    }
    knows_the_types(&prometheus);
}

/// All samples of the job were stored, those of the authorities among them as they were recorded.
fn has_stored(prometheus: &Prometheus, job: &str, samples: usize) {
    // What a scrape has stored is asked for, also after one that has taken too long.
    let ask = |of: &str, name: &str| {
        let query = format!("{of}_over_time({name}{{job=\"{job}\"}}[1m])");
        prometheus.query(&query)
    };
    let of = |name: &str| ask("last", name);
    let scraped = ask("max", "scrape_samples_scraped");
    let count: usize = scraped[0]["value"][1].as_str().unwrap().parse().unwrap();
    // The very first scrape does not tell yet of those before it.
    let expected = samples - 2..=samples;
    assert!(expected.contains(&count), "{job}: {count} of {samples}");
    let requests = of("request_total");
    let mut authorities: Vec<_> = requests
        .iter()
        .map(|request| request["metric"]["authority"].as_str().unwrap())
        .collect();
    authorities.sort_unstable();
    assert_eq!(authorities, [STORED, "web", "web", "web.shop"], "{job}");
    assert_eq!(of("response_latency_ms_count").len(), 5);
    assert_eq!(of("response_latency_ms_bucket").len(), 5 * 26);
    for one in [
        "control_request_total",
        "identity_cert_refresh_count",
        "route_request_total",
        "weir_redirected",
    ] {
        assert_eq!(of(one)[0]["value"][1], "1", "{job}: {one}");
    }
    assert_eq!(of("proxy_build_info")[0]["value"][1], "1");
}

fn knows_the_types(prometheus: &Prometheus) {
    for (job, metric, kind, unit) in [
        ("text", "request_total", "counter", ""),
        ("text", "response_latency_ms", "histogram", ""),
        ("text", "proxy_build_info", "gauge", ""),
        ("as-sent", "request", "counter", ""),
        ("as-sent", "response_latency_ms", "histogram", "ms"),
        ("as-sent", "tcp_read_bytes", "counter", "bytes"),
        ("as-sent", "tcp_open_connections", "gauge", ""),
        ("as-sent", "proxy_build", "info", ""),
    ] {
        let target: String =
            form_urlencoded::byte_serialize(format!("{{job=\"{job}\"}}").as_bytes()).collect();
        let path = format!("targets/metadata?match_target={target}&metric={metric}");
        let mut found = Value::Null;
        until(metric, || {
            found = prometheus.api(&path)[0].take();
            !found.is_null()
        });
        assert_eq!(
            (found["type"].as_str(), found["unit"].as_str()),
            (Some(kind), Some(unit)),
            "{job} {metric}"
        );
        assert!(
            found["help"].as_str().unwrap().ends_with('.') || metric.starts_with("proxy_build"),
            "{found}"
        );
    }
}
