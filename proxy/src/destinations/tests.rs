//! One worker's destinations, with a service thread that does as a test says and a clock that stands still.

use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::task::LocalSet;
use tokio::time::{Instant, advance, timeout};
use tokio_util::task::TaskTracker;
use weir_crds::routes::RouteTable;

use super::{Answer, Config, Destinations, Found, Inside, Link, Question};
use crate::endpoints::{self, Listed, Search, Service};
use crate::routes::compile;
use crate::telemetry::Dst;

/// Longest time that anything may take on a clock that only waiting moves.
const DEADLINE: Duration = Duration::from_secs(3600);

struct Desk {
    destinations: Rc<Destinations>,
    questions: mpsc::Receiver<Question>,
    changes: watch::Sender<()>,
}

fn desk(config: Config) -> Desk {
    let (link, questions, changes) = Link::new();
    let balance = endpoints::Config::default();
    let destinations = Destinations::new(config, balance, Some(link), TaskTracker::new());
    tokio::task::spawn_local(Rc::clone(&destinations).follow());
    Desk {
        destinations,
        questions,
        changes,
    }
}

impl Desk {
    /// The next question, which is replied to with a place for answers.
    async fn asked(&mut self) -> (SocketAddr, watch::Sender<Answer>, Arc<super::Usage>) {
        let asked = timeout(DEADLINE, self.questions.recv()).await;
        let question = asked.expect("in time").expect("a worker");
        let (answers, answer) = watch::channel(Answer::Pending);
        question.reply.send(answer).expect("the worker waits");
        (question.to, answers, question.usage)
    }

    async fn publish(&self, answers: &watch::Sender<Answer>, answer: Answer) {
        answers.send_replace(answer);
        self.changed().await;
    }

    async fn changed(&self) {
        self.changes.send_replace(());
        for _ in 0..8 {
            tokio::task::yield_now().await;
        }
    }

    fn find(&self, host: u8) -> tokio::task::JoinHandle<Found> {
        let destinations = Rc::clone(&self.destinations);
        tokio::task::spawn_local(async move { destinations.find(addr(host)).await })
    }

    /// Where a connection leads that does not wait.
    async fn found(&self, host: u8) -> Found {
        let start = Instant::now();
        let found = timeout(DEADLINE, self.destinations.find(addr(host))).await;
        assert_eq!(start.elapsed(), Duration::ZERO, "it waited");
        found.expect("in time")
    }
}

fn addr(host: u8) -> SocketAddr {
    ([10, 0, 0, host], 80).into()
}

fn inside(name: &str, hosts: &[u8]) -> Answer {
    let endpoint = |host: &u8| Listed::plain(addr(*host), Dst::new([("service", name)]));
    let service = Service {
        name: name.to_owned(),
        endpoints: hosts.iter().map(endpoint).collect(),
        ..Service::default()
    };
    Answer::Inside(Arc::new(Inside {
        service,
        is_opaque: name == "opaque",
        is_stale: false,
    }))
}

/// The same, when nobody tells of it any more.
fn stale(name: &str, hosts: &[u8]) -> Answer {
    match inside(name, hosts) {
        Answer::Inside(inside) => Answer::Inside(Arc::new(Inside {
            is_stale: true,
            ..(*inside).clone()
        })),
        other => other,
    }
}

/// The hosts that a connection tries, all of which refuse it.
fn tried(found: &Found) -> Vec<u8> {
    let mut search = Search::new(found.set.clone().expect("a service"));
    let mut tried = Vec::new();
    while let Some(claim) = search.next(Instant::now().into_std()) {
        let SocketAddr::V4(at) = claim.addr else {
            panic!("IPv4");
        };
        tried.push(at.ip().octets()[3]);
        search.failed(claim.addr);
    }
    tried
}

async fn within<T>(awaited: impl Future<Output = T>) -> T {
    timeout(DEADLINE, awaited).await.expect("in time")
}

async fn run(test: impl Future<Output = ()>) {
    LocalSet::new().run_until(test).await;
}

#[tokio::test(start_paused = true)]
async fn the_first_connection_waits_for_the_answer_and_others_do_not() {
    run(async {
        let mut desk = desk(Config::default());
        let (first, second) = (desk.find(1), desk.find(1));
        let (to, answers, usage) = desk.asked().await;
        assert_eq!(to, addr(1));
        advance(Duration::from_millis(100)).await;
        desk.publish(&answers, inside("web", &[11, 12])).await;
        let [first, second] = [first, second].map(|found| async { within(found).await.unwrap() });
        let (first, second) = (first.await, second.await);
        let set = first.set.expect("a service");
        assert_eq!((&*set.name, set.len()), ("web", 2));
        assert!(Rc::ptr_eq(&set, second.set.as_ref().expect("a service")));
        assert!(desk.questions.try_recv().is_err(), "it was asked twice");
        assert!(usage.is_live());
        drop((first.held, second.held));
        assert!(!usage.is_live());
        assert_eq!(usage.last(), Duration::from_millis(100));
        // The set is kept: what is known of its endpoints stays.
        desk.publish(&answers, inside("web", &[12, 13, 14])).await;
        let third = desk.found(1).await.set.expect("a service");
        assert!(Rc::ptr_eq(&set, &third) && third.len() == 3 && !third.is_opaque.get());
        desk.publish(&answers, inside("opaque", &[12])).await;
        let other = desk.found(1).await.set.expect("a service");
        assert!(!Rc::ptr_eq(&set, &other) && other.is_opaque.get());
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn routes_change_in_the_set_that_connections_have() {
    run(async {
        let mut desk = desk(Config::default());
        let first = desk.find(1);
        let (_, answers, _) = desk.asked().await;
        let routed = |closed| {
            let table = RouteTable {
                closed,
                ..RouteTable::default()
            };
            let Answer::Inside(mut inside) = inside("web", &[11]) else {
                panic!("it is a service");
            };
            let routes = closed.then(|| Arc::new(compile(&table).expect("a table")));
            Arc::make_mut(&mut inside).service.routes = routes;
            Answer::Inside(inside)
        };
        desk.publish(&answers, routed(true)).await;
        let set = within(first).await.unwrap().set.expect("a service");
        assert!(set.routing.has_routes());
        for closed in [false, true] {
            desk.publish(&answers, routed(closed)).await;
            let now = desk.found(1).await.set.expect("a service");
            assert!(Rc::ptr_eq(&set, &now) && set.routing.has_routes() == closed);
        }
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn without_an_answer_connections_wait_half_a_second_from_the_first_on() {
    run(async {
        let mut desk = desk(Config::default());
        let start = Instant::now();
        let first = desk.find(1);
        let (_, answers, _) = desk.asked().await;
        advance(Duration::from_millis(300)).await;
        let second = desk.find(1);
        assert!(within(second).await.unwrap().set.is_none());
        assert_eq!(start.elapsed(), Duration::from_millis(500));
        assert!(within(first).await.unwrap().set.is_none());
        assert!(desk.found(1).await.set.is_none());
        desk.publish(&answers, inside("web", &[11])).await;
        assert!(desk.found(1).await.set.is_some(), "a late answer is one");
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn what_is_outside_is_asked_again_after_five_minutes_and_nobody_waits() {
    run(async {
        let mut desk = desk(Config::default());
        let first = desk.find(1);
        let (_, answers, _) = desk.asked().await;
        desk.publish(&answers, Answer::Outside).await;
        drop(answers);
        desk.changed().await;
        assert!(within(first).await.unwrap().set.is_none());
        advance(Duration::from_secs(299)).await;
        assert!(desk.found(1).await.set.is_none());
        assert!(desk.questions.try_recv().is_err(), "it was asked too soon");
        advance(Duration::from_secs(1)).await;
        assert!(desk.found(1).await.set.is_none());
        let (_, answers, _) = desk.asked().await;
        // Nobody answers: what was said stands.
        assert!(desk.found(1).await.set.is_none());
        desk.publish(&answers, inside("web", &[11])).await;
        assert!(desk.found(1).await.set.is_some());
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn where_there_is_no_room_connections_go_on_at_once_and_ask_again() {
    run(async {
        let mut desk = desk(Config::default());
        let start = Instant::now();
        for _ in 0..2 {
            let found = desk.find(1);
            drop(within(desk.questions.recv()).await.expect("a question"));
            assert!(within(found).await.unwrap().set.is_none());
            assert!(desk.destinations.is_empty());
        }
        assert_eq!(start.elapsed(), Duration::ZERO);
        // More than may wait: the last are not asked.
        let asked = super::QUESTIONS + 8;
        let waiting: Vec<_> = (0..asked).map(|n| desk.find_far(n)).collect();
        for (n, found) in waiting.into_iter().enumerate().skip(super::QUESTIONS) {
            assert!(within(found).await.unwrap().set.is_none(), "{n}");
        }
        assert_eq!(start.elapsed(), Duration::ZERO);
    })
    .await;
}

impl Desk {
    fn find_far(&self, n: usize) -> tokio::task::JoinHandle<Found> {
        let destinations = Rc::clone(&self.destinations);
        let port = u16::try_from(n + 1).expect("few");
        tokio::task::spawn_local(
            async move { destinations.find(([10, 9, 9, 9], port).into()).await },
        )
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_forgotten_is_asked_anew_and_open_connections_go_on() {
    run(async {
        let mut desk = desk(Config::default());
        let first = desk.find(1);
        let (_, answers, _) = desk.asked().await;
        desk.publish(&answers, inside("web", &[11])).await;
        let first = within(first).await.unwrap();
        drop(answers);
        desk.changed().await;
        assert!(desk.destinations.is_empty());
        assert_eq!(first.set.as_ref().map(|set| set.len()), Some(1));
        let again = desk.find(1);
        let (_, answers, _) = desk.asked().await;
        desk.publish(&answers, inside("web", &[12])).await;
        assert!(within(again).await.unwrap().set.is_some());
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn only_so_many_are_remembered_to_be_outside() {
    run(async {
        let mut desk = desk(Config {
            most_outside: 2,
            ..Config::default()
        });
        for host in 1..=5 {
            let found = desk.find(host);
            let (_, answers, _) = desk.asked().await;
            desk.publish(&answers, Answer::Outside).await;
            assert!(within(found).await.unwrap().set.is_none());
        }
        assert_eq!(desk.destinations.len(), 2);
        for host in [4, 5] {
            assert!(desk.found(host).await.set.is_none());
        }
        assert!(desk.questions.try_recv().is_err());
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn without_passthrough_what_is_unknown_leads_nowhere() {
    run(async {
        let mut desk = desk(Config::default());
        desk.destinations.set_passthrough(false);
        let (known, outside, silent) = (desk.find(1), desk.find(2), desk.find(3));
        let mut kept = Vec::new();
        for _ in 0..3 {
            let (to, answers, _) = desk.asked().await;
            match to {
                to if to == addr(1) => desk.publish(&answers, inside("web", &[11])).await,
                to if to == addr(2) => desk.publish(&answers, Answer::Outside).await,
                _ => {}
            }
            kept.push(answers);
        }
        let len = |found: Found| found.set.map(|set| set.len());
        assert_eq!(len(within(known).await.unwrap()), Some(1));
        assert_eq!(len(within(outside).await.unwrap()), Some(0));
        assert_eq!(len(within(silent).await.unwrap()), Some(0));
        desk.destinations.set_passthrough(true);
        assert_eq!(len(desk.found(2).await), None);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn connections_go_where_they_were_going_once_nobody_tells_of_endpoints_and_none_accepts() {
    run(async {
        let mut desk = desk(Config::default());
        let first = desk.find(1);
        let (_, answers, _) = desk.asked().await;
        desk.publish(&answers, inside("web", &[11])).await;
        assert_eq!(tried(&within(first).await.unwrap()), [11]);
        desk.publish(&answers, stale("web", &[11])).await;
        assert_eq!(tried(&desk.found(1).await), [11, 1]);
        let len = desk.found(1).await.set.map(|set| set.len());
        assert_eq!(len, Some(1), "it is no endpoint of the service");
        desk.publish(&answers, stale("web", &[])).await;
        assert_eq!(tried(&desk.found(1).await), [1]);
        desk.publish(&answers, inside("web", &[12])).await;
        assert_eq!(tried(&desk.found(1).await), [12]);
        desk.publish(&answers, stale("web", &[12])).await;
        assert_eq!(tried(&desk.found(1).await), [12, 1]);
        // It would be in plaintext.
        desk.destinations.set_strict(true);
        assert_eq!(tried(&desk.found(1).await), [12]);
        desk.publish(&answers, stale("web", &[13])).await;
        assert_eq!(tried(&desk.found(1).await), [13]);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn nothing_is_asked_of_loopback_or_without_an_operator() {
    run(async {
        let mut with = desk(Config::default());
        let found = with.destinations.find(([127, 0, 0, 1], 80).into()).await;
        assert!(found.set.is_none() && with.questions.try_recv().is_err());
        let (config, balance) = (Config::default(), endpoints::Config::default());
        let without = Destinations::new(config, balance, None, TaskTracker::new());
        without.set_passthrough(false);
        assert!(without.find(addr(1)).await.set.is_none());
        assert!(without.is_empty());
    })
    .await;
}
