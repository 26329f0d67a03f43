//! Endpoints that have names, while DNS is there and while it is away.

use std::net::{IpAddr, SocketAddr};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use super::super::hosts::{Hosts, Unanswered};
use super::super::reading::News;
use super::*;

/// Longer than anything here takes, however busy the machine is.
const PATIENT: Duration = Duration::from_secs(20);

/// Names and addresses.
type Dns = &'static [(&'static str, &'static str)];

fn look_up(dns: Dns, host: &str) -> io::Result<Vec<SocketAddr>> {
    let found = dns.iter().filter(|(name, _)| *name == host);
    let found = found.map(|(_, address)| address.parse::<IpAddr>().unwrap());
    let found: Vec<SocketAddr> = found.map(|address| (address, 0).into()).collect();
    match found.is_empty() {
        true => Err(io::Error::other("DNS is away")),
        false => Ok(found),
    }
}

fn db(name: &str, host: &str) -> String {
    format!(
        "type: Dataplane\nname: {name}\nnetworking:\n  address: {host}\n  inbound:\n  - port: 5432\n    tags: {{kuma.io/service: db}}\n"
    )
}

fn endpoints(outbounds: &watch::Receiver<Arc<Vec<Outbound>>>) -> Vec<String> {
    let outbounds = outbounds.borrow();
    let endpoints = outbounds.iter().flat_map(|outbound| &outbound.endpoints);
    endpoints.map(|one| one.addr.to_string()).collect()
}

#[test]
fn a_reload_while_dns_is_away_leaves_endpoints_where_they_were() {
    static DNS: Mutex<Dns> = Mutex::new(&[("db.example", "10.0.0.1")]);
    let hosts = Hosts::new(|host| look_up(*DNS.lock().unwrap(), host), PATIENT);
    let folder = Folder::new("names");
    let one = db("one", "db.example");
    let file = folder.write("dp.yaml", &documents(&[WEB, &one]));
    let config = Config {
        dataplane: Some(Input::File(file)),
        ..Config::default()
    };
    let mut sources = load_by(config, hosts).unwrap();
    let outbounds = sources.outbounds();
    assert_eq!(endpoints(&outbounds), ["10.0.0.1:5432"]);
    assert!(sources.is_complete());

    *DNS.lock().unwrap() = &[];
    let (two, new) = (db("two", "10.0.0.9"), db("three", "new.example"));
    folder.write("dp.yaml", &documents(&[WEB, &one, &two, &new]));
    sources.reload();
    let stay = ["10.0.0.1:5432", "10.0.0.9:5432"];
    assert_eq!(endpoints(&outbounds), stay);
    assert!(!sources.is_complete());
    sources.ask_again();
    assert_eq!(endpoints(&outbounds), stay);

    // What is written meanwhile is not taken over before a reload.
    folder.write("dp.yaml", WEB);
    *DNS.lock().unwrap() = &[("db.example", "10.0.0.2"), ("new.example", "10.0.0.3")];
    sources.ask_again();
    let all = ["10.0.0.2:5432", "10.0.0.9:5432", "10.0.0.3:5432"];
    assert_eq!(endpoints(&outbounds), all);
    assert!(sources.is_complete());
    sources.reload();
    assert_eq!(endpoints(&outbounds), [""; 0]);
}

/// Files that are refused, each for something else.
fn refused(one: &str) -> [String; 5] {
    let permission =
        "type: TrafficPermission\nname: all\nmesh: default\nsources: 5\ndestinations: []";
    let strict = "type: Mesh\nname: default\nmtls: {enabledBackend: ca, backends: [{name: ca, type: builtin}]}";
    [
        documents(&[&WEB.replace("web-1", "wbe-1"), one]),
        documents(&[WEB, one, &db("two", "[1]")]),
        documents(&[WEB, one, one]),
        documents(&[WEB, one, &MESH.replace("name: default", "name: other")]),
        documents(&[WEB, one, strict, permission]),
    ]
}

fn load_named(file: std::path::PathBuf, hosts: Hosts) -> Sources {
    let config = Config {
        dataplane: Some(Input::File(file)),
        name: Some("web-1".to_owned()),
        has_identity: true,
        ..Config::default()
    };
    load_by(config, hosts).unwrap()
}

#[test]
fn a_refused_reload_leaves_what_is_asked_for_as_it_was() {
    static DNS: Mutex<Dns> = Mutex::new(&[]);
    let folder = Folder::new("refused");
    let one = db("one", "db.example");
    let file = folder.write("dp.yaml", &documents(&[WEB, &one]));
    for wrong in refused(&one) {
        for is_back in [false, true] {
            folder.write("dp.yaml", &documents(&[WEB, &one]));
            *DNS.lock().unwrap() = &[];
            let hosts = Hosts::new(|host| look_up(*DNS.lock().unwrap(), host), PATIENT);
            let mut sources = load_named(file.clone(), hosts);
            let outbounds = sources.outbounds();
            folder.write("dp.yaml", &wrong);
            if is_back {
                *DNS.lock().unwrap() = &[("db.example", "10.0.0.1")];
            }
            let problems = sources.reading.as_mut().unwrap().read();
            assert!(problems.is_err(), "{wrong}");
            sources.reload();
            assert_eq!(endpoints(&outbounds), [""; 0], "{wrong}");
            assert!(!sources.is_complete(), "{wrong}");
            *DNS.lock().unwrap() = &[("db.example", "10.0.0.1")];
            sources.ask_again();
            assert_eq!(endpoints(&outbounds), ["10.0.0.1:5432"], "{wrong}");
            assert!(sources.is_complete(), "{wrong}");
        }
    }
}

#[test]
fn a_refused_reload_forgets_no_address() {
    static DNS: Mutex<Dns> = Mutex::new(&[]);
    let folder = Folder::new("remembered");
    let one = db("one", "db.example");
    let right = documents(&[WEB, &one]);
    for wrong in refused(&one) {
        let file = folder.write("dp.yaml", &right);
        *DNS.lock().unwrap() = &[("db.example", "10.0.0.1")];
        let hosts = Hosts::new(|host| look_up(*DNS.lock().unwrap(), host), PATIENT);
        let mut sources = load_named(file, hosts);
        *DNS.lock().unwrap() = &[];
        for text in [&wrong, &right] {
            folder.write("dp.yaml", text);
            sources.reload();
            let outbounds = sources.outbounds();
            assert_eq!(endpoints(&outbounds), ["10.0.0.1:5432"], "{text}");
        }
        assert!(!sources.is_complete(), "the name is asked for again");
    }
}

#[test]
fn a_listener_whose_name_resolves_no_more_stays_where_it_was() {
    static DNS: Mutex<Dns> = Mutex::new(&[("own.example", "127.0.0.1")]);
    let hosts = Hosts::new(|host| look_up(*DNS.lock().unwrap(), host), PATIENT);
    let own = WEB.replace("address: 127.0.0.1", "address: own.example");
    let mut sources = load_by(inline(documents(&[&own, DB])), hosts).unwrap();
    *DNS.lock().unwrap() = &[];
    let read = sources.reading.as_mut().unwrap().read().unwrap();
    assert!(sources.universal.unwrap().listens_as(&read.universal));
}

#[tokio::test(start_paused = true)]
async fn an_endpoint_without_an_address_at_the_start_is_found_later_and_holds_up_nobody() {
    static DNS: Mutex<Option<Dns>> = Mutex::new(Some(&[]));
    static ASKED: AtomicUsize = AtomicUsize::new(0);
    let hosts = Hosts::new(
        |host| {
            ASKED.fetch_add(1, Ordering::Relaxed);
            loop {
                if let Some(dns) = *DNS.lock().unwrap() {
                    return look_up(dns, host);
                }
                std::thread::yield_now();
            }
        },
        PATIENT,
    );
    let described = documents(&[WEB, &db("one", "db.example")]);
    let sources = load_by(inline(described), hosts).unwrap();
    let mut outbounds = sources.outbounds();
    assert_eq!(endpoints(&outbounds), [""; 0]);
    // From now on it does not answer.
    *DNS.lock().unwrap() = None;
    let (begun, stop) = (Instant::now(), CancellationToken::new());
    let following = tokio::spawn(sources.follow(stop.clone()));
    let asked = || ASKED.load(Ordering::Relaxed);
    tokio::time::sleep(ASK_AGAIN).await;
    while asked() < 2 {
        assert!(begun.elapsed() < PATIENT, "it is not asked for again");
        tokio::task::yield_now().await;
    }
    // The one thread of this runtime goes on meanwhile.
    *DNS.lock().unwrap() = Some(&[("db.example", "10.0.0.1")]);
    outbounds.changed().await.unwrap();
    assert_eq!(endpoints(&outbounds), ["10.0.0.1:5432"]);
    assert!(begun.elapsed() < PATIENT, "it was held up");
    stop.cancel();
    following.await.unwrap();
}

#[test]
fn of_names_is_told_whose_they_are_and_what_has_changed() {
    static DNS: Mutex<Dns> = Mutex::new(&[]);
    let there: Dns = &[("own.example", "127.0.0.1"), ("db.example", "10.0.0.1")];
    let folder = Folder::new("news");
    let own = WEB.replace("address: 127.0.0.1", "address: own.example");
    let both = documents(&[&own, &db("one", "db.example")]);
    let file = folder.write("dp.yaml", &both);
    *DNS.lock().unwrap() = &[("own.example", "127.0.0.1")];
    let hosts = Hosts::new(|host| look_up(*DNS.lock().unwrap(), host), PATIENT);
    let mut sources = load_named(file, hosts);
    let reading = sources.reading.as_mut().unwrap();
    let unanswered = |host: &str, dataplane: &str, last: Option<&str>| {
        News::Unanswered(Unanswered {
            host: host.to_owned(),
            dataplane: dataplane.to_owned(),
            is_needed: dataplane == "web-1",
            why: "DNS is away".to_owned(),
            last: last.map(|address| address.parse().unwrap()),
        })
    };
    let again = |host: &str, dataplane: &str| News::Answered {
        host: host.to_owned(),
        dataplane: dataplane.to_owned(),
    };
    let left_out = || unanswered("db.example", "one", None);
    assert_eq!(reading.news(), [left_out()]);
    assert!(reading.ask_again().is_none());
    assert_eq!(reading.news(), [], "it is said once");
    reading.read().unwrap();
    assert_eq!(
        reading.news(),
        [left_out()],
        "and once more when it is read"
    );
    *DNS.lock().unwrap() = there;
    reading.read().unwrap();
    assert_eq!(reading.news(), [again("db.example", "one")]);
    *DNS.lock().unwrap() = &[];
    reading.read().unwrap();
    let away = [
        unanswered("db.example", "one", Some("10.0.0.1")),
        unanswered("own.example", "web-1", Some("127.0.0.1")),
    ];
    assert_eq!(reading.news(), away);
    // What is refused is no news, and neither is a name that is gone.
    folder.write(
        "dp.yaml",
        &documents(&[&own, &own, &db("new", "new.example")]),
    );
    reading.read().unwrap_err();
    assert_eq!(reading.news(), []);
    folder.write("dp.yaml", &own);
    *DNS.lock().unwrap() = there;
    reading.read().unwrap();
    assert_eq!(reading.news(), [again("own.example", "web-1")]);
}

#[test]
fn a_dataplane_without_an_address_is_refused() {
    let nowhere = db("one", "").replace("  address: \n", "");
    let problems = problems(inline(documents(&[WEB, &nowhere])));
    let told = "networking.address: address can't be empty";
    assert!(problems.contains(told), "{problems}");
}
