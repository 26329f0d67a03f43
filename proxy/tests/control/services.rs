//! The endpoints of the services that a proxy outside Kubernetes calls, as its operator tells them.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use tokio::sync::watch;
use tokio_util::sync::{CancellationToken, DropGuard};
use tonic::Code;
use weir_proxy::control::discovery::{self, Asked, Services, follow_services};
use weir_proxy::control::operator;
use weir_proxy::endpoints::{Listed, Roster, Service};
use weir_proxy::record::CallSource;
use weir_proxy::telemetry::Dst;

use crate::desk::{RETRY, connection, soon};
use crate::operator::{Endpoints, Labels, Operator};

const LOOPBACK: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 0);

/// The service `name` at this port; the files know an endpoint of it.
fn asked(name: &str, port: u16) -> Asked {
    let tags = [("kuma.io/service", name), ("version", "2")];
    Asked {
        listen: ([127, 0, 0, 1], port).into(),
        tags: tags.map(|(k, v)| (k.to_owned(), v.to_owned())).into(),
        service: in_files(name, 9),
    }
}

/// What files say of a service.
fn in_files(name: &str, last: u8) -> Service {
    Service {
        name: name.to_owned(),
        endpoints: vec![Listed::plain(([10, 0, 0, last], 80).into(), Dst::unknown())],
        branches: Vec::new(),
        routes: None,
    }
}

fn are(addrs: &[&str]) -> Endpoints {
    let labels = Labels::from([("zone", "east")]);
    let addrs = addrs.iter();
    Endpoints::Are(
        addrs
            .map(|addr| (addr.parse().expect("an address"), labels.clone()))
            .collect(),
    )
}

/// Waits until the service at a port has these endpoints.
async fn until(rosters: &mut watch::Receiver<Arc<Roster>>, port: u16, addrs: &[&str]) {
    let at: SocketAddr = ([127, 0, 0, 1], port).into();
    let is_so = |roster: &Arc<Roster>| {
        let service = roster.get(&at);
        let listed = service.map(|service| {
            let listed = service.endpoints.iter();
            listed.map(|one| one.addr.to_string()).collect::<Vec<_>>()
        });
        listed.is_some_and(|listed| listed == addrs)
    };
    soon(rosters.wait_for(is_so)).await.expect("it is kept");
}

type Rosters = (watch::Sender<Arc<Roster>>, watch::Receiver<Arc<Roster>>);

/// Follows `web` and `db` with the operator there, until the guard is dropped: from what files say to what holds.
fn follow(addr: SocketAddr, context: &str) -> (DropGuard, Rosters) {
    let config = connection(addr);
    let (log, _calls) = CallSource::new(config.target.addr(), config.target.labels());
    let (client, kept) = operator::open(config, log);
    let stop = CancellationToken::new();
    tokio::spawn(kept.keep(stop.clone()));
    let (roster, rosters) = watch::channel(Arc::default());
    let (in_files, files) = watch::channel(Arc::default());
    let services = Services {
        asked: vec![asked("web", 9000), asked("db", 9001)],
        files,
        roster,
    };
    let config = discovery::Config {
        retry: RETRY,
        context: context.to_owned(),
        ..discovery::Config::default()
    };
    let following = follow_services(services, client, config);
    tokio::spawn(stop.clone().run_until_cancelled_owned(following));
    (stop.drop_guard(), (in_files, rosters))
}

#[tokio::test]
async fn what_the_operator_says_of_services_is_their_roster_and_stands_while_it_is_away() {
    let control = Operator::new(None);
    control.endpoints("web.mesh:9000", are(&["10.0.0.1:80", "10.0.0.2:80"]));
    let serving = control.serve(LOOPBACK).await;
    let context = r#"{"mesh":"default","dataplane":"shop-1"}"#;
    let (_stop, (_files, mut rosters)) = follow(serving.addr, context);
    until(&mut rosters, 9000, &["10.0.0.1:80", "10.0.0.2:80"]).await;
    // One that no Dataplane offers has none, whatever the files say.
    control.endpoints("db.mesh:9001", Endpoints::NoSuchService);
    until(&mut rosters, 9001, &[]).await;
    let asked = control.asked();
    let web = asked.iter().find(|asked| asked.path == "web.mesh:9000");
    assert_eq!(
        web.expect("it was asked").context,
        r#"{"dataplane":"shop-1","mesh":"default","tags":{"kuma.io/service":"web","version":"2"}}"#
    );

    control.endpoints("web.mesh:9000", are(&["10.0.0.2:80"]));
    control.endpoints("db.mesh:9001", are(&["10.0.0.3:80"]));
    until(&mut rosters, 9000, &["10.0.0.2:80"]).await;
    until(&mut rosters, 9001, &["10.0.0.3:80"]).await;
    let addr = serving.addr;
    drop(serving);
    control.endpoints("web.mesh:9000", Endpoints::Refused(Code::Unavailable));
    assert_eq!(rosters.borrow().len(), 2);
    let _serving = control.serve(addr).await;
    control.endpoints("web.mesh:9000", are(&["10.0.0.4:80"]));
    until(&mut rosters, 9000, &["10.0.0.4:80"]).await;
    until(&mut rosters, 9001, &["10.0.0.3:80"]).await;
}

#[tokio::test]
async fn until_the_operator_says_something_the_files_stand() {
    let control = Operator::new(None);
    control.endpoints("web.mesh:9000", are(&["10.0.0.1:80"]));
    control.endpoints("db.mesh:9001", Endpoints::Refused(Code::Unavailable));
    let serving = control.serve(LOOPBACK).await;
    let context = discovery::Config::default().context;
    let (_stop, (files, mut rosters)) = follow(serving.addr, &context);
    until(&mut rosters, 9000, &["10.0.0.1:80"]).await;
    until(&mut rosters, 9001, &["10.0.0.9:80"]).await;
    // So does what they say later, but not of another service.
    let say = |db: &str| {
        let said = [("web", 9000), (db, 9001)];
        let said = said.map(|(name, port)| (([127, 0, 0, 1], port).into(), in_files(name, 8)));
        files.send_replace(Arc::new(Roster::from(said)));
    };
    say("db");
    until(&mut rosters, 9001, &["10.0.0.8:80"]).await;
    until(&mut rosters, 9000, &["10.0.0.1:80"]).await;
    say("cache");
    until(&mut rosters, 9001, &["10.0.0.9:80"]).await;
    // And when nobody reads files any more, the operator is still heard.
    drop(files);
    control.endpoints("web.mesh:9000", are(&["10.0.0.2:80"]));
    until(&mut rosters, 9000, &["10.0.0.2:80"]).await;
}
