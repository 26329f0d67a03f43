//! The settings of a proxy, streamed.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use tokio::sync::watch;
use weir_crds::settings::Settings;
use weir_proxy::control::{operator, settings};
use weir_proxy::record::CallSource;

use crate::desk::{RETRY, connection, soon};
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
