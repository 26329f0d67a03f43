//! The settings of a proxy, streamed.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex};

use tokio::sync::watch;
use tonic::Code;
use tracing_subscriber::layer::SubscriberExt;
use weir_crds::grpc::v1::WatchRequest;
use weir_crds::grpc::v1::settings_client::SettingsClient;
use weir_crds::settings::Settings;
use weir_proxy::control::{operator, settings};
use weir_proxy::record::CallSource;

use crate::desk::{RETRY, connection, soon, until};
use crate::operator::Operator;

const LOOPBACK: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 0);

fn of(mesh: &str) -> String {
    format!(r#"{{"version":1,"mesh":"{mesh}"}}"#)
}

#[tokio::test]
async fn what_the_operator_says_is_in_force_and_stands_while_it_is_away() {
    let operator = Operator::new(None);
    operator.settings(&of("one"));
    let serving = operator.serve(LOOPBACK).await;
    let addr = serving.addr;
    let config = connection(addr);
    let (log, _calls) = CallSource::new(config.target.addr(), config.target.labels());
    let (client, kept) = operator::open(config, log);
    let stop = tokio_util::sync::CancellationToken::new();
    tokio::spawn(kept.keep(stop.clone()));
    let baked = Settings::parse(&of("baked")).expect("settings");
    let (publisher, mut settings) = watch::channel(Arc::new(baked));
    let following = tokio::spawn(settings::follow(client, RETRY, publisher));
    let in_force = async |settings: &mut watch::Receiver<Arc<Settings>>, mesh: &str| {
        let waited = soon(settings.wait_for(|settings| settings.mesh == mesh)).await;
        waited.map(|_| ()).expect("they are followed");
    };
    in_force(&mut settings, "one").await;
    // What cannot be read changes nothing.
    for unreadable in ["{", r#"{"version":99,"mesh":"two"}"#] {
        operator.settings(unreadable);
    }
    operator.settings(&of("two"));
    in_force(&mut settings, "two").await;
    drop(serving);
    operator.settings(&of("three"));
    assert_eq!(settings.borrow().mesh, "two");
    let _serving = operator.serve(addr).await;
    in_force(&mut settings, "three").await;
    following.abort();
    stop.cancel();
}

#[tokio::test]
async fn an_operator_without_settings_is_asked_once() {
    let operator = Operator::new(None);
    let serving = operator.serve(LOOPBACK).await;
    let config = connection(serving.addr);
    let (log, _calls) = CallSource::new(config.target.addr(), config.target.labels());
    let (client, kept) = operator::open(config, log);
    let stop = tokio_util::sync::CancellationToken::new();
    tokio::spawn(kept.keep(stop.clone()));
    let baked = Settings::parse(&of("baked")).expect("settings");
    let (publisher, settings) = watch::channel(Arc::new(baked));
    soon(settings::follow(client, RETRY, publisher)).await;
    assert_eq!(settings.borrow().mesh, "baked");
    stop.cancel();
}

/// What this thread logs from warnings on.
#[derive(Clone, Default)]
pub(crate) struct Log(Arc<Mutex<Vec<u8>>>);

impl io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().expect("no test panics with it").write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Log {
    pub(crate) fn begin() -> (Self, tracing::subscriber::DefaultGuard) {
        let log = Self::default();
        let writer = log.clone();
        let layer = tracing_subscriber::fmt::layer()
            .with_ansi(false)
            .with_writer(move || writer.clone());
        let filter = tracing_subscriber::filter::LevelFilter::WARN;
        let subscriber = tracing_subscriber::registry().with(filter).with(layer);
        (log, tracing::subscriber::set_default(subscriber))
    }

    /// How many lines have these words.
    pub(crate) fn lines(&self, words: &str) -> usize {
        let bytes = self.0.lock().expect("no test panics with it");
        let text = String::from_utf8_lossy(&bytes);
        text.lines().filter(|line| line.contains(words)).count()
    }
}

#[tokio::test]
async fn a_refusal_is_told_once_however_well_the_stream_began() {
    let (told, _guard) = Log::begin();
    let operator = Operator::new(None);
    operator.settings(&of("one"));
    let serving = operator.serve(LOOPBACK).await;
    let token = std::env::temp_dir().join(format!("weir-settings-{}", std::process::id()));
    std::fs::write(&token, "a.b.c").expect("a file");
    let mut config = connection(serving.addr);
    config.token = Some(token.clone());
    let (log, _calls) = CallSource::new(config.target.addr(), config.target.labels());
    let (client, kept) = operator::open(config, log);
    let stop = tokio_util::sync::CancellationToken::new();
    tokio::spawn(kept.keep(stop.clone()));
    let baked = Settings::parse(&of("baked")).expect("settings");
    let (publisher, mut settings) = watch::channel(Arc::new(baked));
    let following = tokio::spawn(settings::follow(client.clone(), RETRY, publisher));
    let mut in_force = async |mesh: &str| {
        let waited = soon(settings.wait_for(|settings| settings.mesh == mesh)).await;
        waited.map(|_| ()).expect("they are followed");
    };
    let asked_again = async || {
        let before = operator.watches();
        until("it asks again", || operator.watches() > before + 3).await;
    };
    in_force("one").await;
    // As an operator does that closes a connection that is old, and then finds the token expired.
    operator.refuse_settings(Code::Unavailable, "connect again");
    until("it asks again", || operator.watches() > 1).await;
    operator.refuse_settings(Code::Unauthenticated, "it has expired");
    asked_again().await;
    assert_eq!(told.lines("it has expired"), 1);
    operator.refuse_settings(Code::PermissionDenied, "another tag");
    asked_again().await;
    assert_eq!(told.lines("another tag"), 1);
    operator.settings(&of("two"));
    in_force("two").await;
    following.abort();
    // The file of the token is away, for whatever calls.
    std::fs::remove_file(&token).expect("a file");
    let mut asking = SettingsClient::with_origin(client.clone(), client.origin());
    for _ in 0..3 {
        let status = soon(asking.watch(WatchRequest { newest_version: 1 })).await;
        assert!(status.is_err());
    }
    assert_eq!(told.lines("cannot be used"), 1);
    assert_eq!(told.lines("refuses"), 2 + told.lines("connect again"));
    stop.cancel();
}
