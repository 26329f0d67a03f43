//! Names and a resolver that says what it is told to, or nothing until it is let.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Condvar, Mutex};
use std::thread;

use super::asking::AT_ONCE;
use super::*;

/// Longer than anything here takes, however busy the machine is.
const DEADLINE: Duration = Duration::from_secs(20);

fn used(hosts: &mut Hosts, names: &[&str]) -> Vec<Result<String, String>> {
    hosts.begin();
    let found = names.iter().map(|name| hosts.resolve((name, 80), "web-1"));
    let found = found.map(|found| found.map(|address| address.to_string()));
    let found = found.collect();
    hosts.end();
    found
}

fn ok(address: &str) -> Vec<Result<String, String>> {
    vec![Ok(address.to_owned())]
}

#[test]
fn an_address_stays_while_it_is_among_the_answers_or_there_is_none() {
    static SAID: Mutex<&[&str]> = Mutex::new(&[]);
    let mut hosts = Hosts::new(
        |_| match *SAID.lock().unwrap() {
            ["away"] => Err(io::Error::other("DNS is away")),
            said => {
                let found = said.iter().map(|one| one.parse::<IpAddr>().unwrap());
                Ok(found.map(|one| (one, 0).into()).collect())
            }
        },
        DEADLINE,
    );
    let mut say = |said: &'static [&'static str]| {
        *SAID.lock().unwrap() = said;
        let before = used(&mut hosts, &["web.example"]);
        hosts.ask();
        let is_changed = hosts.settle();
        let after = used(&mut hosts, &["web.example"]);
        assert_eq!(is_changed, before != after && after[0].is_ok(), "{said:?}");
        (after, hosts.unanswered())
    };
    let unanswered = |why: &str, last: Option<&str>| {
        vec![Unanswered {
            host: "web.example".to_owned(),
            dataplane: "web-1".to_owned(),
            is_needed: false,
            why: why.to_owned(),
            last: last.map(|address| address.parse().unwrap()),
        }]
    };
    let (told, names) = say(&["away"]);
    assert_eq!(told, [Err("DNS is away".to_owned())]);
    assert_eq!(names, unanswered("DNS is away", None));
    // The resolver's first, as it prefers it.
    let both = &["10.0.0.2", "10.0.0.1"];
    assert_eq!(say(both), (ok("10.0.0.2:80"), vec![]));
    assert_eq!(say(&["10.0.0.1", "10.0.0.2"]), (ok("10.0.0.2:80"), vec![]));
    let last = Some("10.0.0.2");
    let away = unanswered("DNS is away", last);
    assert_eq!(say(&["away"]), (ok("10.0.0.2:80"), away));
    let none = unanswered("it has no address", last);
    assert_eq!(say(&[]), (ok("10.0.0.2:80"), none));
    let others = &["10.0.0.3", "10.0.0.1"];
    assert_eq!(say(others), (ok("10.0.0.3:80"), vec![]));
    // Numbers are asked of nobody, and what is not used is forgotten.
    assert_eq!(
        used(&mut hosts, &["10.9.9.9", "::1"]),
        [ok("10.9.9.9:80"), ok("[::1]:80")].concat()
    );
    let nothing = Err("no address is given".to_owned());
    assert_eq!(used(&mut hosts, &[""]), [nothing]);
    assert!(hosts.names.is_empty());
}

#[test]
fn names_without_an_answer_are_waited_for_together_and_asked_for_once() {
    static ASKED: AtomicUsize = AtomicUsize::new(0);
    static OPEN: (Mutex<bool>, Condvar) = (Mutex::new(false), Condvar::new());
    let patience = Duration::from_millis(20);
    let mut hosts = Hosts::new(
        |_| {
            ASKED.fetch_add(1, Ordering::Relaxed);
            let (is_open, opened) = &OPEN;
            let open = opened.wait_while(is_open.lock().unwrap(), |is_open| !*is_open);
            drop(open);
            Ok(vec![([10, 0, 0, 1], 0).into()])
        },
        patience,
    );
    let names: Vec<String> = (0..AT_ONCE * 2).map(|number| number.to_string()).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    used(&mut hosts, &names);
    hosts.ask();
    for _ in 0..3 {
        assert!(!hosts.settle() && !hosts.is_answered());
        hosts.ask_again();
    }
    let unanswered = hosts.unanswered();
    assert_eq!(unanswered.len(), names.len());
    assert!(unanswered.iter().all(|name| name.why.contains("20ms")));
    assert!(ASKED.load(Ordering::Relaxed) <= AT_ONCE, "others wait");
    *OPEN.0.lock().unwrap() = true;
    OPEN.1.notify_all();
    let begun = Instant::now();
    while !hosts.is_answered() {
        assert!(begun.elapsed() < DEADLINE, "{:?}", hosts.unanswered());
        hosts.ask_again();
        hosts.settle();
    }
    assert_eq!(ASKED.load(Ordering::Relaxed), names.len());
    let found = used(&mut hosts, &names);
    assert!(found.iter().all(|one| *one == ok("10.0.0.1:80")[0]));
}

#[test]
fn what_is_needed_is_waited_for_however_long_it_takes() {
    let mut hosts = Hosts::new(|_| Ok(vec![([10, 0, 0, 1], 0).into()]), Duration::ZERO);
    let required = hosts.require(("own.example", 80), "web-1");
    assert!(required.is_err(), "it is not known yet");
    hosts.ask();
    assert!(hosts.settle());
    let address = "10.0.0.1:80".parse().unwrap();
    assert_eq!(hosts.require(("own.example", 80), "web-1"), Ok(address));
}

/// A resolver's word that comes only once a gate is open, or the test has failed.
struct Gate(Mutex<bool>, Condvar);

impl Gate {
    const fn new() -> Self {
        Self(Mutex::new(false), Condvar::new())
    }

    fn wait(&self) {
        let closed = self.0.lock().unwrap();
        let open = self
            .1
            .wait_timeout_while(closed, DEADLINE, |is_open| !*is_open);
        drop(open);
    }

    fn open(&self) {
        *self.0.lock().unwrap() = true;
        self.1.notify_all();
    }
}

#[test]
fn a_name_that_comes_back_is_not_answered_by_what_was_asked_before() {
    static SAID: Mutex<[u8; 4]> = Mutex::new([10, 0, 0, 1]);
    static ASKED: AtomicUsize = AtomicUsize::new(0);
    let mut hosts = Hosts::new(
        |_| {
            let said = *SAID.lock().unwrap();
            ASKED.fetch_add(1, Ordering::Relaxed);
            Ok(vec![(said, 0).into()])
        },
        DEADLINE,
    );
    used(&mut hosts, &["web.example"]);
    hosts.ask();
    let begun = Instant::now();
    while ASKED.load(Ordering::Relaxed) == 0 {
        assert!(begun.elapsed() < DEADLINE, "it is not asked for");
        thread::yield_now();
    }
    used(&mut hosts, &[]);
    *SAID.lock().unwrap() = [10, 0, 0, 2];
    used(&mut hosts, &["web.example"]);
    hosts.ask();
    assert!(hosts.settle());
    assert_eq!(used(&mut hosts, &["web.example"]), ok("10.0.0.2:80"));
}

#[test]
fn what_is_asked_anew_is_not_answered_by_what_was_asked_before() {
    static IS_SLOW: Mutex<bool> = Mutex::new(true);
    static GATE: Gate = Gate::new();
    let patience = Duration::from_millis(20);
    let mut hosts = Hosts::new(
        |_| {
            let is_slow = *IS_SLOW.lock().unwrap();
            if is_slow {
                GATE.wait();
                return Ok(vec![([10, 0, 0, 1], 0).into()]);
            }
            GATE.open();
            Ok(vec![([10, 0, 0, 2], 0).into()])
        },
        patience,
    );
    let names: Vec<String> = (0..AT_ONCE - 1).map(|number| number.to_string()).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    used(&mut hosts, &names);
    hosts.ask();
    assert!(!hosts.settle());
    *IS_SLOW.lock().unwrap() = false;
    hosts.patience = DEADLINE;
    hosts.ask();
    assert!(hosts.settle());
    let found = used(&mut hosts, &names);
    assert!(
        found.iter().all(|one| *one == ok("10.0.0.2:80")[0]),
        "{found:?}"
    );
}

#[test]
fn what_is_needed_waits_for_no_endpoint() {
    static GATE: Gate = Gate::new();
    static ASKED: AtomicUsize = AtomicUsize::new(0);
    let names: Vec<String> = (0..AT_ONCE * 2).map(|number| number.to_string()).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    for is_busy in [false, true] {
        ASKED.store(0, Ordering::Relaxed);
        let mut hosts = Hosts::new(
            |host| {
                if host != "own.example" {
                    ASKED.fetch_add(1, Ordering::Relaxed);
                    GATE.wait();
                }
                Ok(vec![([10, 0, 0, 1], 0).into()])
            },
            Duration::from_millis(20),
        );
        used(&mut hosts, &names);
        if is_busy {
            hosts.ask();
            hosts.settle();
        }
        let _unknown = hosts.require(("own.example", 80), "web-1");
        let begun = Instant::now();
        hosts.ask();
        assert!(hosts.settle());
        assert!(begun.elapsed() < DEADLINE, "it waited for others");
        let address = "10.0.0.1:80".parse().unwrap();
        assert_eq!(hosts.require(("own.example", 80), "web-1"), Ok(address));
        assert!(ASKED.load(Ordering::Relaxed) <= AT_ONCE, "others wait");
    }
    GATE.open();
}

#[test]
fn an_address_with_a_zone_keeps_it() {
    let mut hosts = Hosts::default();
    let local = ["fe80::1%1", "fe80::1%2"];
    used(&mut hosts, &local);
    hosts.ask();
    assert!(hosts.settle());
    let found = local.map(|name| ok(&format!("[{name}]:80")));
    assert_eq!(used(&mut hosts, &local), found.concat());
}
