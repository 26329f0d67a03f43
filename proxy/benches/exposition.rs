//! What a scrape costs, from the cells to the bytes that are sent: each format, as it is and compressed, and the whole
//! way over loopback. Targets for 100,000 lines: 30 ms of one core as they are, 150 ms compressed.

use std::hint::black_box;
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;
use weir_crds::settings::Settings;
use weir_proxy::admin::{self, Gzip};
use weir_proxy::telemetry::{
    self, Authz, Classification, Config, Format, HttpLabels, HttpSide, NoTlsReason, Recorder,
    ResponseEnd, Route, Selection, Server, Telemetry, Tls,
};

/// Authorities for 100,000 lines: each has a request, two statuses, and so 1 + 2 + 2 * 28 of them.
const AUTHORITIES: usize = 100_000 / 59 + 1;

fn filled() -> (Telemetry, Recorder) {
    let (telemetry, mut seats) = telemetry::new(Config::default(), 1);
    let recorder = seats.remove(0).take();
    let server = Server::new("kuma.io", "dataplane", "web_shop_svc_8080", 8080);
    let route = Route::new("", "default", "default");
    let authz = Authz::new("", "default", "all-unauthenticated");
    for n in 0..AUTHORITIES {
        let series = recorder.http(&HttpLabels {
            authority: &format!("{n}.shop.svc.cluster.local"),
            target_port: 8080,
            tls: &Tls::NoIdentity(NoTlsReason::NoTlsFromRemote),
            side: HttpSide::Inbound {
                server: &server,
                route: &route,
                authz: &authz,
            },
        });
        for (status, micros) in [(200, 700), (200, 3_700 + n as u64), (404, 80_000)] {
            series.request();
            series.latency(Some(status), Duration::from_micros(micros));
            series.response(&ResponseEnd {
                status: Some(status),
                classification: Classification::Success,
                grpc_status: "",
                error: "",
            });
        }
    }
    (telemetry, recorder)
}

/// Counts lines and bytes and forgets them.
#[derive(Default)]
struct Counts {
    lines: usize,
    bytes: u64,
}

impl Write for Counts {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.lines += bytes.iter().filter(|b| **b == b'\n').count();
        self.bytes += bytes.len() as u64;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn counts(telemetry: &Telemetry, selection: &Selection) -> Counts {
    let mut counts = Counts::default();
    let exposed = telemetry.expose(selection, &mut counts);
    exposed.expect("counting cannot fail");
    counts
}

fn compressed(telemetry: &Telemetry, selection: &Selection) -> u64 {
    let mut gzip = Gzip::new(Counts::default());
    let exposed = telemetry.expose(selection, &mut gzip);
    let finished = exposed.and_then(|()| gzip.finish());
    finished.expect("counting cannot fail").bytes
}

fn formats(c: &mut Criterion) {
    let (telemetry, _recorder) = filled();
    let mut group = c.benchmark_group("100,000 lines");
    group.sample_size(30);
    for (name, format) in [("text", Format::Text), ("OpenMetrics", Format::OpenMetrics)] {
        let selection = Selection {
            format,
            ..Selection::default()
        };
        let Counts { lines, bytes } = counts(&telemetry, &selection);
        assert!((100_000..101_000).contains(&lines), "{lines} lines");
        let small = compressed(&telemetry, &selection);
        println!("{name}: {lines} lines, {bytes} bytes, {small} compressed");
        group.throughput(Throughput::Bytes(bytes));
        group.bench_function(name, |b| {
            b.iter(|| telemetry.expose(black_box(&selection), &mut io::sink()));
        });
        group.bench_function(format!("{name}, gzip"), |b| {
            b.iter(|| compressed(&telemetry, black_box(&selection)));
        });
    }
    group.finish();
}

/// An admin server on a thread of its own, ended when the guard is dropped.
fn served(telemetry: Telemetry) -> (SocketAddr, impl Drop) {
    let stop = CancellationToken::new();
    let stopped = stop.clone();
    let (tell, told) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let mut runtime = tokio::runtime::Builder::new_current_thread();
        let runtime = runtime.enable_all().build().expect("a runtime");
        runtime.block_on(async {
            let config = admin::Config {
                addr: (Ipv4Addr::LOCALHOST, 0).into(),
                ..admin::Config::default()
            };
            let bound = admin::bind(config).expect("a free port");
            tell.send(bound.addr).expect("someone waits");
            let settings = Settings::without_metrics("default");
            let deps = admin::Deps {
                identity: None,
                exposition: Arc::new(telemetry),
                settings: watch::channel(Arc::new(settings)).1,
                handoffs: mpsc::channel(1).1,
                service: watch::channel(admin::Service::Running).1,
                redirection: None,
                draining: watch::channel(false).1,
                drain: CancellationToken::new(),
                levels: None,
            };
            admin::serve(bound, deps, stopped).await;
        });
    });
    (told.recv().expect("bound"), stop.drop_guard())
}

fn scrape(addr: SocketAddr, headers: &str) -> usize {
    let mut stream = TcpStream::connect(addr).expect("it listens");
    let head =
        format!("GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n{headers}\r\n");
    stream.write_all(head.as_bytes()).expect("written");
    let mut read = 0;
    let mut buffer = vec![0; 256 * 1024];
    loop {
        match stream.read(&mut buffer).expect("an answer") {
            0 => return read,
            n => read += n,
        }
    }
}

fn over_loopback(c: &mut Criterion) {
    let (telemetry, _recorder) = filled();
    let (addr, _guard) = served(telemetry);
    let mut group = c.benchmark_group("100,000 lines over loopback");
    group.sample_size(20);
    for (name, headers) in [("text", ""), ("text, gzip", "Accept-Encoding: gzip\r\n")] {
        group.bench_function(name, |b| b.iter(|| scrape(addr, black_box(headers))));
    }
    group.finish();
}

/// How late a worker is that shares its CPU with the scrapes: it sleeps for a millisecond at a time. The scraper is
/// elsewhere. Prints; criterion measures means, and this is about the worst.
fn lateness(_: &mut Criterion) {
    // On a thread of its own, which is pinned, and with it all that it starts.
    std::thread::scope(|scope| scope.spawn(lateness_on_one_cpu).join()).expect("no panic");
}

fn lateness_on_one_cpu() {
    let everywhere = sched_getaffinity(None).expect("the CPUs of this thread");
    let mut here = CpuSet::new();
    here.set(0);
    sched_setaffinity(None, &here).expect("there is a first CPU");
    let (telemetry, recorder) = filled();
    let (addr, _guard) = served(telemetry);
    let over = &AtomicBool::new(false);
    let told = |what: &str| {
        let mut late: Vec<_> = (0..4_000).map(|n| late_by(&recorder, n)).collect();
        late.sort_unstable();
        let [half, most] = [late.len() / 2, late.len() * 99 / 100].map(|at| late[at]);
        println!("a worker is late by {half:?} in the middle, {most:?} in 1 of 100: {what}");
    };
    told("no scrape");
    for (what, headers) in [
        ("10 scrapes a second", ""),
        (
            "10 compressed scrapes a second",
            "Accept-Encoding: gzip\r\n",
        ),
    ] {
        std::thread::scope(|scope| {
            scope.spawn(move || {
                sched_setaffinity(None, &everywhere).expect("as before");
                while !over.load(Ordering::Relaxed) {
                    scrape(addr, headers);
                    std::thread::sleep(Duration::from_millis(100));
                }
            });
            told(what);
            over.store(true, Ordering::Relaxed);
        });
        over.store(false, Ordering::Relaxed);
    }
    told("no scrape");
}

/// Sleeps for a millisecond, then meets a new label set; answers how much longer that took.
fn late_by(recorder: &Recorder, n: usize) -> Duration {
    let sleep = Duration::from_millis(1);
    let began = Instant::now();
    std::thread::sleep(sleep);
    recorder.unparsed(telemetry::Direction::Inbound, ["a", "b", "c", "d"][n % 4]);
    began.elapsed().saturating_sub(sleep)
}

criterion_group!(benches, lateness, formats, over_loopback);
criterion_main!(benches);
