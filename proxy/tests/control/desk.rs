//! Discovery with a client of its own, asked as workers ask it.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::watch;
use tokio_util::sync::{CancellationToken, DropGuard};
use weir_proxy::control::discovery::{self, Desk, Discovery};
use weir_proxy::control::operator::{self, Retry, Target};
use weir_proxy::destinations::{Answer, InUse, Link, Question, Usage};
use weir_proxy::record::CallSource;

/// Longest time any condition may take.
pub(crate) const DEADLINE: Duration = Duration::from_secs(20);

/// Pauses that no test has to wait for.
pub(crate) const RETRY: Retry = Retry {
    min: Duration::from_millis(10),
    max: Duration::from_millis(200),
};

pub(crate) fn connection(addr: SocketAddr) -> operator::Config {
    let target = Target::parse(&format!("http://{addr}"), None).expect("an operator");
    let mut config = operator::Config::new(target);
    config.retry = RETRY;
    config
}

pub(crate) fn following() -> discovery::Config {
    discovery::Config {
        retry: RETRY,
        absence: RETRY,
        context: r#"{"ns":"shop","pod":"web-1"}"#.to_owned(),
        ..discovery::Config::default()
    }
}

/// A discovery that runs until it is dropped.
pub(crate) struct Running {
    /// What a worker is given of it.
    pub(crate) link: Link,
    pub(crate) calls: CallSource,
    pub(crate) told: discovery::Told,
    _stop: DropGuard,
}

pub(crate) fn start(connection: operator::Config, following: discovery::Config) -> Running {
    let target = &connection.target;
    let (log, calls) = CallSource::new(target.addr(), target.labels());
    let (client, connection) = operator::open(connection, log);
    let (link, questions, changes) = Link::new();
    let desk = Desk {
        questions,
        changes,
        epoch: link.epoch(),
    };
    let (known, told) = discovery::told();
    let stop = CancellationToken::new();
    tokio::spawn(connection.keep(stop.clone()));
    tokio::spawn(Discovery::new(following, client, desk, known).run(stop.clone()));
    Running {
        link,
        calls,
        told,
        _stop: stop.drop_guard(),
    }
}

/// One destination, asked about.
pub(crate) struct Watched {
    pub(crate) answers: watch::Receiver<Answer>,
    pub(crate) usage: Arc<Usage>,
}

impl Running {
    /// Asks; none where there is no room.
    pub(crate) async fn ask(&self, to: &str) -> Option<Watched> {
        let (reply, replied) = tokio::sync::oneshot::channel();
        let usage = Arc::new(Usage::new(self.link.epoch()));
        let question = Question {
            to: to.parse().expect("an address"),
            usage: Arc::clone(&usage),
            reply,
        };
        self.link.ask(question);
        let answers = soon(replied).await.ok()?;
        Some(Watched { answers, usage })
    }

    /// Asks, and waits for the first answer.
    pub(crate) async fn learn(&self, to: &str) -> (Watched, Answer) {
        let mut watched = self.ask(to).await.expect("room");
        let answer = watched.until(|answer| *answer != Answer::Pending).await;
        (watched, answer)
    }

    /// A connection that is open to a destination.
    pub(crate) fn connect(&self, watched: &Watched) -> InUse {
        InUse::begin(&watched.usage, self.link.epoch())
    }
}

impl Watched {
    /// Waits for an answer that is as it should be.
    pub(crate) async fn until(&mut self, is_it: impl Fn(&Answer) -> bool) -> Answer {
        let waited = soon(self.answers.wait_for(|answer| is_it(answer))).await;
        waited.expect("it is followed").clone()
    }

    /// Waits until it is forgotten.
    pub(crate) async fn forgotten(&mut self) {
        soon(async { while self.answers.changed().await.is_ok() {} }).await;
    }
}

/// The name and the addresses of a service.
pub(crate) fn service(answer: &Answer) -> (String, Vec<String>) {
    let Answer::Inside(inside) = answer else {
        panic!("{answer:?} is not in the cluster");
    };
    let endpoints = inside.service.endpoints.iter();
    let addrs = endpoints.map(|listed| listed.addr.to_string()).collect();
    (inside.service.name.clone(), addrs)
}

/// What is awaited, which has to be there in time.
pub(crate) async fn soon<T>(awaited: impl Future<Output = T>) -> T {
    tokio::time::timeout(DEADLINE, awaited)
        .await
        .expect("in time")
}

/// Waits until it is true.
pub(crate) async fn until(what: &str, is_it: impl Fn() -> bool) {
    let start = Instant::now();
    while !is_it() {
        assert!(start.elapsed() < DEADLINE, "not in time: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}
