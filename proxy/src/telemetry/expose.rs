//! The exposition: streams family by family, in the order of the table, series in the order of their registration;
//! then the proxy's own families. Called by `Telemetry::expose` on the thread of the scraper. It reads cells and never
//! writes them, and measures itself: how long it took, and for how long it can have kept a worker waiting.

use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use super::Selection;
use super::certificates::Certificates;
use super::family::Family;
use super::process::Process;
use super::redirection::Redirection;
use super::render;
use super::store::{Exposition, Store};

mod body;
mod metadata;

use body::Body;

/// What the exposition tells about itself and its process.
pub(super) struct Own {
    process: Process,
    pub(super) certificates: Certificates,
    pub(super) redirection: Redirection,
    /// Nanoseconds that the last exposition took; 0 before the first.
    last_nanos: AtomicU64,
    /// Nanoseconds of the longest hold of a lock in the last exposition; 0 before the first.
    held_nanos: AtomicU64,
}

impl Own {
    pub(super) fn new() -> Self {
        Self {
            process: Process::new(),
            certificates: Certificates::default(),
            redirection: Redirection::default(),
            last_nanos: AtomicU64::new(0),
            held_nanos: AtomicU64::new(0),
        }
    }
}

/// Writes the selected families to `out`.
pub(super) fn expose(
    store: &Store,
    own: &Own,
    selection: &Selection,
    out: &mut dyn Write,
) -> io::Result<()> {
    let mut exposition = store.begin();
    let rules = Arc::clone(&exposition.rules);
    let mut body = Body::new(selection, &rules, out);
    for family in Family::ALL {
        write_family(*family, &mut exposition, &mut body)?;
    }
    write_own(store, own, &mut body);
    body.finish()?;
    let took = nanos(exposition.began.elapsed());
    own.last_nanos.store(took.max(1), Ordering::Relaxed);
    let held = nanos(exposition.longest_hold);
    own.held_nanos.store(held.max(1), Ordering::Relaxed);
    exposition.finish(selection.filters.is_empty());
    Ok(())
}

fn write_family(
    family: Family,
    exposition: &mut Exposition<'_>,
    body: &mut Body<'_>,
) -> io::Result<()> {
    let rules = Arc::clone(&exposition.rules);
    let recorded = rules.records(family);
    if !recorded || !body.begin(family.name(), family.value().word(), family.help()) {
        return Ok(());
    }
    let bounds = rules.bounds(family);
    let mut longest = Duration::ZERO;
    for shown in exposition.sets(family.kind()) {
        let began = Instant::now();
        let series = shown.set.series();
        longest = longest.max(began.elapsed());
        for series in series.iter() {
            if series.family == family && !series.is_hidden() {
                let reading = series.read(bounds);
                shown.checksum = shown.checksum.wrapping_add(reading.checksum());
                body.series([&shown.set.labels, &series.suffix], &reading, bounds);
                body.flush_full()?;
            }
        }
    }
    exposition.longest_hold = exposition.longest_hold.max(longest);
    Ok(())
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

fn write_own(store: &Store, own: &Own, body: &mut Body<'_>) {
    write_certificates(&own.certificates, body);
    write_redirection(&own.redirection, body);
    write_counts(store, body);
    let scrapes = [
        (
            "weir_scrape_duration_seconds",
            "Seconds that the scrape before this one took, the sending included.",
            &own.last_nanos,
        ),
        (
            "weir_scrape_worker_delay_seconds",
            "Seconds for which the scrape before this one can have kept a worker waiting for a lock, at most.",
            &own.held_nanos,
        ),
    ];
    for (name, help, nanos) in scrapes {
        let nanos = nanos.load(Ordering::Relaxed);
        if body.begin(name, "gauge", help) && nanos > 0 {
            body.sample("", Duration::from_nanos(nanos).as_secs_f64());
        }
    }
    for family in own.process.read() {
        if body.begin(family.name, family.word, family.help) {
            body.sample("", family.value);
        }
    }
    let build = &store.config().build;
    let help = "What this proxy was built from; always 1.";
    if body.begin("proxy_build_info", "gauge", help) {
        let mut labels = String::new();
        render::label(&mut labels, "version", &build.version);
        render::label(&mut labels, "git_sha", &build.git_sha);
        render::label(&mut labels, "profile", &build.profile);
        render::label(&mut labels, "vendor", &build.vendor);
        body.sample(&labels, 1);
    }
}

/// The families of the page, then the same under the names of today's Linkerd.
fn write_certificates(certificates: &Certificates, body: &mut Body<'_>) {
    let Some((expires, renewed, failed)) = certificates.read() else {
        return;
    };
    let ends = "When the proxy's certificate ends, in seconds since the Unix epoch.";
    let taken = "Certificates that the proxy has taken, the first included.";
    let asked = "Requests for a certificate, by whether one was taken.";
    if body.begin("identity_cert_expiration_timestamp_seconds", "gauge", ends) && expires > 0.0 {
        body.sample("", expires);
    }
    if body.begin("identity_cert_refresh_count", "counter", taken) {
        body.known_sample("", renewed);
    }
    let name = "control_identity_cert_expiration_timestamp_seconds";
    if body.begin(name, "gauge", ends) && expires > 0.0 {
        body.sample("", expires);
    }
    let name = "control_identity_cert_refreshes_total";
    if body.begin(name, "counter", asked) {
        body.known_sample("result=\"ok\"", renewed);
        body.known_sample("result=\"error\"", failed);
    }
}

fn write_redirection(redirection: &Redirection, body: &mut Body<'_>) {
    let help = "Whether the pod's connections are led to this proxy; 0: they go direct, unmeasured and unsecured.";
    if let Some(is_redirected) = redirection.read()
        && body.begin("weir_redirected", "gauge", help)
    {
        body.sample("", u8::from(is_redirected));
    }
}

fn write_counts(store: &Store, body: &mut Body<'_>) {
    let families = [
        (
            "weir_series",
            "gauge",
            "Series held, those included that are about to be forgotten; a histogram is one.",
        ),
        (
            "weir_series_evicted_total",
            "counter",
            "Series forgotten because they were idle.",
        ),
        (
            "weir_series_dropped_total",
            "counter",
            "How often a series was refused by the budget, and counted under __overflow__ instead.",
        ),
    ];
    for (at, (name, word, help)) in families.into_iter().enumerate() {
        if !body.begin(name, word, help) {
            continue;
        }
        for family in Family::ALL {
            let counts = store.budget.counts(*family);
            let mut labels = String::new();
            render::label(&mut labels, "family", family.name());
            body.known_sample(&labels, [counts.held, counts.evicted, counts.refused][at]);
        }
    }
}
