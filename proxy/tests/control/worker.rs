//! A worker's own table beside the service thread's: what is forgotten there is forgotten here.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use tokio::task::LocalSet;
use tokio_util::task::TaskTracker;
use weir_proxy::destinations::{Config, Destinations, Found};
use weir_proxy::endpoints;

use crate::desk::{connection, following, soon, start, until};
use crate::operator::{Known, Labels, Operator};

const LOOPBACK: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 0);

fn addr(n: usize) -> SocketAddr {
    let [_, _, a, b] = u32::try_from(n).expect("few").to_be_bytes();
    ([10, a, b, 1], 80).into()
}

fn endpoints_of(found: &Found) -> usize {
    found.set.as_ref().map_or(0, |set| set.len())
}

#[tokio::test]
async fn a_worker_remembers_as_many_destinations_as_are_followed_and_some_that_are_outside() {
    let test = async {
        let operator = Operator::new(None);
        let serving = operator.serve(LOOPBACK).await;
        let mut config = following();
        config.most = 100;
        let running = start(connection(serving.addr), config);
        let here = Config {
            // A busy machine is no operator that is away.
            wait: Duration::from_secs(20),
            most_outside: 50,
            ..Config::default()
        };
        let link = Some(running.link.clone());
        let worker =
            Destinations::new(here, endpoints::Config::default(), link, TaskTracker::new());
        tokio::task::spawn_local(std::rc::Rc::clone(&worker).follow());
        let mut open = Vec::new();
        for n in 0..1000 {
            if n % 2 == 0 {
                let pod = Known::Pod(addr(n), Labels::new());
                operator.profile(&addr(n).to_string(), pod);
            }
            let found = soon(worker.find(addr(n))).await;
            assert_eq!(endpoints_of(&found), (n + 1) % 2, "{n}");
            if n < 20 {
                open.push(found);
            }
            assert!(worker.len() <= 100 + 50 + 2, "{} at {n}", worker.len());
        }
        until("what is forgotten is forgotten", || worker.len() <= 150).await;
        // The last question was about one that is outside, and has taken the place of one that is not.
        until("99 are followed", || operator.streams().0 == 99).await;
        // What connections are open to is still known, and is followed.
        for (n, found) in open.iter().enumerate().step_by(2) {
            assert_eq!(operator.times(&addr(n).to_string()), 1);
            let again = soon(worker.find(addr(n))).await;
            let (before, now) = (found.set.as_ref(), again.set.as_ref());
            let (before, now) = (before.expect("a set"), now.expect("a set"));
            assert!(std::rc::Rc::ptr_eq(before, now), "{n}");
        }
    };
    LocalSet::new().run_until(test).await;
}
