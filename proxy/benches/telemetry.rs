//! What telemetry costs: a worker per event and per look-up, a scraper per line. Targets: a request on a resolved
//! handle at most 100 ns, 100,000 lines at most 30 ms.

use std::hint::black_box;
use std::io::{self, Write};
use std::time::{Duration, Instant};

use criterion::{Criterion, criterion_group, criterion_main};
use weir_proxy::telemetry::{
    self, Authz, Classification, Config, HttpLabels, HttpSide, NoTlsReason, Recorder, ResponseEnd,
    Route, Selection, Server, Telemetry, Tls, TransportEnd, TransportLabels,
};

struct Groups {
    server: Server,
    route: Route,
    authz: Authz,
    tls: Tls,
}

impl Groups {
    fn new() -> Self {
        Self {
            server: Server::new("kuma.io", "dataplane", "web_shop_svc_8080", 8080),
            route: Route::new("", "default", "default"),
            authz: Authz::new("", "default", "all-unauthenticated"),
            tls: Tls::NoIdentity(NoTlsReason::NoTlsFromRemote),
        }
    }

    fn http<'a>(&'a self, authority: &'a str) -> HttpLabels<'a> {
        HttpLabels {
            authority,
            target_port: 8080,
            tls: &self.tls,
            side: HttpSide::Inbound {
                server: &self.server,
                route: &self.route,
                authz: &self.authz,
            },
        }
    }
}

fn one_worker() -> (Telemetry, Recorder) {
    let (telemetry, mut seats) = telemetry::new(Config::default(), 1);
    (telemetry, seats.remove(0).take())
}

const OK: ResponseEnd<'static> = ResponseEnd {
    status: Some(200),
    classification: Classification::Success,
    grpc_status: "",
    error: "",
};

fn record(c: &mut Criterion) {
    let (_telemetry, recorder) = one_worker();
    let groups = Groups::new();
    let series = recorder.http(&groups.http("web.shop.svc.cluster.local"));
    let latency = Duration::from_micros(3_700);
    c.bench_function("record a request", |b| {
        b.iter(|| {
            let series = black_box(&series);
            series.request();
            series.latency(black_box(Some(200)), black_box(latency));
            series.response(black_box(&OK));
        });
    });
    for n in 0..1_000 {
        let authority = format!("{n}.shop.svc.cluster.local");
        recorder.http(&groups.http(&authority)).request();
    }
    c.bench_function("resolve a known label set, of 1000", |b| {
        b.iter(|| recorder.http(black_box(&groups.http("7.shop.svc.cluster.local"))));
    });
    let end = TransportEnd::InboundSrc {
        server: &groups.server,
    };
    let labels = TransportLabels {
        target_port: 8080,
        tls: &groups.tls,
        end,
    };
    c.bench_function("record a connection, resolved anew", |b| {
        b.iter(|| {
            let series = recorder.transport(black_box(&labels));
            series.opened();
            series.read(black_box(100));
            series.written(black_box(100));
            series.closed(Classification::Success, "", black_box(latency));
        });
    });
}

/// The budget is spent: what every request of a flood costs, each with an authority of its own.
fn spent(c: &mut Criterion) {
    let groups = Groups::new();
    let latency = Duration::from_micros(3_700);
    let strangers: Vec<_> = (0..4_096)
        .map(|n| format!("{n}.tenant.example.com"))
        .collect();
    for (name, config) in [
        (
            "series",
            Config {
                most_series: 1_000,
                ..Config::default()
            },
        ),
        (
            "bytes",
            Config {
                most_bytes: 2 * 1024 * 1024,
                ..Config::default()
            },
        ),
    ] {
        let (telemetry, mut seats) = telemetry::new(config, 1);
        telemetry
            .known()
            .set((0..100).map(|n| format!("{n}.shop.svc.cluster.local")));
        let recorder = seats.remove(0).take();
        recorder.tick(Instant::now());
        for n in 0..5_000 {
            let authority = format!("{n}.example.com");
            recorder.http(&groups.http(&authority)).request();
        }
        let mut next = strangers.iter().cycle();
        c.bench_function(&format!("resolve a stranger, no {name} left"), |b| {
            b.iter(|| {
                let authority = next.next().expect("it never ends");
                recorder.http(black_box(&groups.http(authority)))
            });
        });
        let series = recorder.http(&groups.http("stranger.example.com"));
        series.response(&OK);
        let reference = series.downgrade();
        c.bench_function(
            &format!("record a stranger's request, no {name} left"),
            |b| {
                b.iter(|| {
                    let series = reference.pin().expect("there is nothing better");
                    series.request();
                    series.latency(black_box(Some(200)), black_box(latency));
                    series.response(black_box(&OK));
                });
            },
        );
    }
}

/// Counts lines and forgets them.
#[derive(Default)]
struct Lines(usize);

impl Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0 += bytes.iter().filter(|b| **b == b'\n').count();
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Authorities for 100,000 lines: each has a request, two statuses, and so 1 + 2 + 2 * 28 of them.
const AUTHORITIES: usize = 100_000 / 59 + 1;

fn fill(recorder: &Recorder, groups: &Groups) {
    for n in 0..AUTHORITIES {
        let authority = format!("{n}.shop.svc.cluster.local");
        let series = recorder.http(&groups.http(&authority));
        for status in [200, 404] {
            for took in [700, 3_700, 80_000] {
                series.request();
                series.latency(Some(status), Duration::from_micros(took));
                series.response(&ResponseEnd {
                    status: Some(status),
                    ..OK
                });
            }
        }
    }
}

fn expose(c: &mut Criterion) {
    let (telemetry, recorder) = one_worker();
    let groups = Groups::new();
    fill(&recorder, &groups);
    let mut lines = Lines::default();
    telemetry
        .expose(&Selection::default(), &mut lines)
        .expect("counting cannot fail");
    assert!((100_000..101_000).contains(&lines.0), "{} lines", lines.0);
    let mut group = c.benchmark_group("expose");
    group.sample_size(50);
    group.bench_function("100,000 lines", |b| {
        b.iter(|| telemetry.expose(&Selection::default(), &mut io::sink()));
    });
    group.finish();
    c.bench_function("a worker's tick, 1695 label sets", |b| {
        let now = Instant::now();
        b.iter(|| recorder.tick(black_box(now)));
    });
}

criterion_group!(benches, record, spent, expose);
criterion_main!(benches);
