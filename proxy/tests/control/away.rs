//! Destinations while the operator is away: what it last said of them stands, however long that is.

use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use tokio::task::LocalSet;
use tokio_util::task::TaskTracker;
use weir_proxy::destinations::{Answer, Config, Destinations};
use weir_proxy::endpoints;

use crate::connection::web;
use crate::desk::{connection, following, service, soon, start, until};
use crate::discovery::{LOOPBACK, WEB, pods};
use crate::operator::Operator;

const AT: &str = "10.96.0.1:80";

/// Far longer than a destination without connections is followed.
const OUTAGE: Duration = Duration::from_secs(600);

fn is_stale(answer: &Answer) -> bool {
    matches!(answer, Answer::Inside(inside) if inside.is_stale)
}

#[tokio::test]
async fn what_is_known_of_a_destination_without_connections_outlives_an_outage() {
    let test = async {
        let operator = Operator::new(None);
        let serving = operator.serve(LOOPBACK).await;
        let addr = serving.addr;
        web(&operator, AT);
        let running = start(connection(addr), following());
        let link = Some(running.link.clone());
        let balance = endpoints::Config::default();
        let here = Config {
            // A busy machine is no operator that is away.
            wait: Duration::from_secs(20),
            ..Config::default()
        };
        let worker = Destinations::new(here, balance, link, TaskTracker::new());
        tokio::task::spawn_local(Rc::clone(&worker).follow());
        let to: SocketAddr = AT.parse().expect("an address");
        let found = soon(worker.find(to)).await;
        let before = found.set.expect("it is a service");
        drop(found.held);
        let (mut watched, _) = running.learn(AT).await;
        drop(serving);
        watched.until(is_stale).await;
        tokio::time::pause();
        tokio::time::sleep(OUTAGE).await;
        tokio::time::resume();
        let found = soon(worker.find(to)).await;
        let now = found.set.expect("it is still known");
        assert!(Rc::ptr_eq(&before, &now), "endpoint and identity stand");
        assert_eq!(now.len(), 1);
        // The operator is back, and is heard.
        let two = [("10.1.0.1:8080", "a"), ("10.1.0.2:8080", "b")];
        operator.endpoints(&format!("{WEB}:80"), pods(&two));
        let _serving = operator.serve(addr).await;
        until("both are known", || now.len() == 2).await;
    };
    LocalSet::new().run_until(test).await;
}

#[tokio::test]
async fn nothing_that_stands_makes_room_for_what_nobody_can_tell() {
    let operator = Operator::new(None);
    let serving = operator.serve(LOOPBACK).await;
    web(&operator, AT);
    let mut config = following();
    config.most = 2;
    let running = start(connection(serving.addr), config);
    let (mut known, _) = running.learn(AT).await;
    drop(serving);
    known.until(is_stale).await;
    let mut unknown = running.ask("10.96.0.2:80").await.expect("room");
    // One that nothing was said of is forgotten for another.
    let other = running.ask("10.96.0.3:80").await.expect("room");
    unknown.forgotten().await;
    let held = running.connect(&other);
    assert!(running.ask("10.96.0.4:80").await.is_none(), "{held:?}");
    assert!(known.answers.has_changed().is_ok(), "it is forgotten");
    assert_eq!(service(&known.answers.borrow()).1, ["10.1.0.1:8080"]);
}
