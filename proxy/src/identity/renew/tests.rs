//! Renewal by a clock that runs when nothing else does.

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::*;
use crate::identity::tests::Authority;

/// Signs for `life`, or refuses; notes when it was asked.
struct Signer {
    authority: Authority,
    life: Duration,
    refusals: AtomicUsize,
    asked: Mutex<Vec<(Instant, Vec<u8>)>>,
    is_there: watch::Sender<bool>,
    start: Instant,
}

impl Signer {
    fn new(life: Duration, refusals: usize) -> Arc<Self> {
        Arc::new(Self {
            authority: Authority::new("mesh"),
            life,
            refusals: refusals.into(),
            asked: Mutex::default(),
            is_there: watch::Sender::new(true),
            start: Instant::now(),
        })
    }

    /// Seconds from the start to each request.
    fn asked(&self) -> Vec<f64> {
        let asked = self.asked.lock().unwrap();
        let since = asked.iter().map(|(at, _)| (*at - self.start).as_secs_f64());
        since.collect()
    }

    fn requests(&self) -> Vec<Vec<u8>> {
        let asked = self.asked.lock().unwrap();
        asked.iter().map(|(_, csr)| csr.clone()).collect()
    }
}

impl Certifier for Arc<Signer> {
    async fn ready(&self) {
        let mut is_there = self.is_there.subscribe();
        is_there.wait_for(|it| *it).await.expect("the signer lives");
    }

    async fn certify(&self, request: Request) -> Result<Certified, CertifyError> {
        let now = Instant::now();
        self.asked.lock().unwrap().push((now, request.csr.clone()));
        let left = self.refusals.load(Ordering::Relaxed);
        if left > 0 {
            self.refusals.store(left - 1, Ordering::Relaxed);
            return Err(CertifyError("not today".into()));
        }
        // The certificate itself holds throughout: its dates are not the test clock's.
        let mut certified = self
            .authority
            .sign(&request.csr, &[], Duration::from_secs(1 << 20));
        certified.valid_until = SystemTime::now() + self.life;
        Ok(certified)
    }
}

fn settings(bundle: &str, mtls: MtlsMode, uris: &[&str]) -> Arc<Settings> {
    let mut settings = Settings::without_metrics("default");
    settings.mtls = mtls;
    settings.identity = Some(IdentitySettings {
        name: "web.test".into(),
        uris: uris.iter().map(|uri| (*uri).to_owned()).collect(),
        trust_bundle: bundle.to_owned(),
    });
    Arc::new(settings)
}

struct Bench {
    signer: Arc<Signer>,
    settings: watch::Sender<Arc<Settings>>,
    force: watch::Receiver<Option<Arc<Identity>>>,
    figures: Certificates,
    stop: CancellationToken,
}

impl Bench {
    fn start(signer: Arc<Signer>, first: Arc<Settings>) -> Self {
        let (settings, changes) = watch::channel(first);
        let (tell, force) = watch::channel(None);
        let (figures, stop) = (Certificates::default(), CancellationToken::new());
        figures.known();
        tokio::spawn(keep(
            (Config::default(), Arc::clone(&signer)),
            changes,
            (tell, figures.clone()),
            stop.clone(),
        ));
        Self {
            signer,
            settings,
            force,
            figures,
            stop,
        }
    }

    /// The identity that comes next; within an hour of the test's clock.
    async fn next(&mut self) -> Option<Arc<Identity>> {
        let changed = timeout(Duration::from_secs(3600), self.force.changed()).await;
        changed.expect("in time").expect("it is kept");
        self.force.borrow_and_update().clone()
    }
}

#[tokio::test(start_paused = true)]
async fn a_certificate_is_renewed_at_70_percent_of_its_life_with_another_key() {
    let signer = Signer::new(Duration::from_secs(1000), 0);
    let settings = settings(&signer.authority.bundle(), MtlsMode::Strict, &[]);
    let mut bench = Bench::start(signer, settings);
    for _ in 0..5 {
        assert_eq!(&*bench.next().await.expect("in force").name, "web.test");
    }
    let asked = bench.signer.asked();
    assert_eq!(asked[0], 0.0);
    for pair in asked.windows(2) {
        let after = pair[1] - pair[0];
        assert!((629.0..=701.0).contains(&after), "after {after} s");
    }
    let requests = bench.signer.requests();
    assert!(
        requests.windows(2).all(|pair| pair[0] != pair[1]),
        "one key"
    );
    let (expires, renewed, failed) = bench.figures.read().expect("known");
    assert!(expires > 1e9);
    assert_eq!((renewed, failed), (5, 0));
    bench.stop.cancel();
}

#[tokio::test(start_paused = true)]
async fn what_fails_is_tried_again_ever_later() {
    let signer = Signer::new(Duration::from_secs(1 << 20), 10);
    let settings = settings(&signer.authority.bundle(), MtlsMode::Permissive, &[]);
    let mut bench = Bench::start(signer, settings);
    bench.next().await.expect("in force");
    let asked = bench.signer.asked();
    for (n, pair) in asked.windows(2).enumerate() {
        let pause = f64::min(0.5 * f64::from(1u32 << n), 30.0);
        let after = pair[1] - pair[0];
        assert!(
            (pause..=pause * 1.5 + 0.01).contains(&after),
            "{n}: {after}"
        );
    }
    assert_eq!(asked.len(), 11);
    assert_eq!(bench.figures.read().expect("known").2, 10);
    bench.stop.cancel();
}

#[tokio::test(start_paused = true)]
async fn a_certificate_that_cannot_be_renewed_ends() {
    let signer = Signer::new(Duration::from_secs(100), 0);
    let settings = settings(&signer.authority.bundle(), MtlsMode::Strict, &[]);
    let mut bench = Bench::start(signer, settings);
    bench.next().await.expect("in force");
    bench.signer.refusals.store(usize::MAX, Ordering::Relaxed);
    let start = Instant::now();
    assert!(bench.next().await.is_none());
    let after = start.elapsed().as_secs_f64();
    assert!((98.0..=101.0).contains(&after), "it ended after {after} s");
    bench.signer.refusals.store(0, Ordering::Relaxed);
    bench.next().await.expect("in force again");
    bench.stop.cancel();
}

#[tokio::test(start_paused = true)]
async fn other_tags_or_authorities_mean_another_certificate_and_no_gap() {
    let signer = Signer::new(Duration::from_secs(1000), 0);
    let bundle = signer.authority.bundle();
    let mut bench = Bench::start(signer, settings(&bundle, MtlsMode::Strict, &[]));
    let first = bench.next().await.expect("in force");
    // The same again is nothing new.
    bench
        .settings
        .send_replace(settings(&bundle, MtlsMode::Strict, &[]));
    tokio::time::sleep(Duration::from_secs(10)).await;
    assert_eq!(bench.signer.asked().len(), 1);
    assert!(!bench.force.has_changed().expect("it is kept"));
    let overlap = format!("{bundle}{}", Authority::new("next").bundle());
    let changes = [
        settings(&bundle, MtlsMode::Strict, &["kuma://version/v2"]),
        settings(&overlap, MtlsMode::Strict, &["kuma://version/v2"]),
    ];
    for (n, change) in changes.into_iter().enumerate() {
        bench.settings.send_replace(change);
        // What there is goes on under the new authorities until the next one is there.
        let same = bench.next().await.expect("no gap");
        assert!(!Arc::ptr_eq(&same, &first));
        assert_eq!(bench.signer.asked().len(), n + 1);
        let changed = Instant::now();
        bench.next().await.expect("renewed");
        assert!(changed.elapsed() <= Duration::from_secs(3));
        assert_eq!(bench.signer.asked().len(), n + 2);
    }
    bench
        .settings
        .send_replace(settings(&bundle, MtlsMode::Disabled, &[]));
    assert!(bench.next().await.is_none());
    bench.stop.cancel();
}

#[tokio::test(start_paused = true)]
async fn an_authority_that_nobody_trusts_certifies_nothing() {
    let signer = Signer::new(Duration::from_secs(1000), 0);
    let foreign = settings(&Authority::new("other").bundle(), MtlsMode::Strict, &[]);
    let own = settings(&signer.authority.bundle(), MtlsMode::Strict, &[]);
    let mut bench = Bench::start(signer, foreign);
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert!(bench.force.borrow_and_update().is_none());
    let (_, renewed, failed) = bench.figures.read().expect("known");
    assert_eq!(renewed, 0);
    assert!(failed >= 5, "{failed}");
    bench.settings.send_replace(own);
    bench.next().await.expect("in force at once");
    bench.stop.cancel();
}

#[tokio::test(start_paused = true)]
async fn an_outage_is_no_failure_and_costs_no_pause_after_it() {
    let signer = Signer::new(Duration::from_secs(300), 0);
    signer.is_there.send_replace(false);
    let settings = settings(&signer.authority.bundle(), MtlsMode::Strict, &[]);
    let mut bench = Bench::start(signer, settings);
    let outage = Duration::from_secs(600);
    tokio::time::sleep(outage).await;
    assert!(bench.signer.asked().is_empty());
    bench.signer.is_there.send_replace(true);
    let back = Instant::now();
    bench.next().await.expect("in force");
    assert!(back.elapsed() < Duration::from_secs(1), "{back:?}");
    // Another: the certificate ends meanwhile, in time.
    bench.signer.is_there.send_replace(false);
    assert!(bench.next().await.is_none());
    let ended = back.elapsed().as_secs();
    assert!((298..=301).contains(&ended), "after {ended} s");
    tokio::time::sleep(outage).await;
    bench.signer.is_there.send_replace(true);
    let back = Instant::now();
    bench.next().await.expect("in force again");
    assert!(back.elapsed() < Duration::from_secs(1), "{back:?}");
    assert_eq!(bench.figures.read().expect("known").2, 0, "failures");
    bench.stop.cancel();
}

/// How often a thread has warned.
#[derive(Clone, Default)]
struct Warnings(Arc<Mutex<Vec<u8>>>);

impl std::io::Write for Warnings {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[tokio::test(start_paused = true)]
async fn a_failure_that_lasts_is_warned_of_again() {
    let warnings = Warnings::default();
    let writer = warnings.clone();
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(tracing::Level::WARN)
        .with_writer(move || writer.clone())
        .finish();
    let _guard = tracing::subscriber::set_default(subscriber);
    let signer = Signer::new(Duration::from_secs(1000), usize::MAX);
    let settings = settings(&signer.authority.bundle(), MtlsMode::Strict, &[]);
    let bench = Bench::start(signer, settings);
    tokio::time::sleep(Duration::from_secs(3600)).await;
    let text = String::from_utf8(warnings.0.lock().unwrap().clone()).unwrap();
    // Of each reminder, the next failure after five minutes: at most 45 s later.
    let lines = text.lines().filter(|line| line.contains("not today"));
    let lines = lines.count();
    assert!((10..=12).contains(&lines), "{text}");
    assert!(bench.signer.asked().len() > 5 * lines);
    bench.stop.cancel();
}

#[tokio::test(start_paused = true)]
async fn another_mode_means_other_sessions_and_the_same_certificate() {
    let signer = Signer::new(Duration::from_secs(1000), 0);
    let bundle = signer.authority.bundle();
    let mut bench = Bench::start(signer, settings(&bundle, MtlsMode::Permissive, &[]));
    let mut before = bench.next().await.expect("in force");
    for mode in [MtlsMode::Strict, MtlsMode::Permissive] {
        bench.settings.send_replace(settings(&bundle, mode, &[]));
        let now = bench.next().await.expect("no gap");
        // Both stores are in these.
        assert!(!Arc::ptr_eq(now.server(), before.server()));
        assert!(!Arc::ptr_eq(now.client(), before.client()));
        assert_eq!(now.expires, before.expires);
        before = now;
    }
    assert_eq!(bench.signer.asked().len(), 1, "no other certificate");
    bench.stop.cancel();
}
