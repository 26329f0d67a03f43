//! What the operator knows of the destinations that this pod's connections are meant for: each is followed for as long as
//! it is used, at most so many at a time. A task of the service thread, started by `app`; workers ask it by
//! [`Question`]s and read the answers, which are plain values: the operator's messages end in `wire`.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::operator::{Client, Retry};
use crate::destinations::{Answer, Question, Usage};

mod addresses;
mod follow;
mod known;
mod resolved;
mod services;
mod tables;
mod wire;

pub use known::{GONE, Known, Names, Told, told};
pub use services::{Asked, Services, follow as follow_services};

use follow::{Lookup, Publisher, follow};

/// How destinations are followed.
#[derive(Clone, Debug)]
pub struct Config {
    /// Most destinations that are followed at a time. Beyond it the one whose last connection is longest ago is
    /// forgotten; where connections are open to all of them, a further one is not asked about. While the operator is
    /// away only those that nothing was said of are forgotten. Each takes up to three calls, of which the operator has
    /// 6,144 for one connection, and up to 24 KiB of memory. Default: 500.
    pub most: usize,
    /// How long a destination without connections is followed, at least until the operator is there. Default: 5 minutes.
    pub idle: Duration,
    /// That time is longer by a random part of itself, at most this. Default: 0.2.
    pub jitter: f64,
    /// How often unused destinations are looked for. Default: 10 s.
    pub sweep: Duration,
    /// Pauses before a stream that has broken is opened again. Default: 100 ms to 4 s.
    pub retry: Retry,
    /// Pauses before the endpoints of a service that the operator does not know are asked for again: it may be named, as a
    /// destination of another's requests, before it is there. Default: 1 s to 30 s.
    pub absence: Retry,
    /// What tells the operator who asks (`context_token` of its API), by which it knows what is near. Default nothing.
    pub context: String,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            most: 500,
            idle: Duration::from_secs(300),
            jitter: 0.2,
            sweep: Duration::from_secs(10),
            retry: Retry {
                min: Duration::from_millis(100),
                max: Duration::from_secs(4),
            },
            absence: Retry {
                min: Duration::from_secs(1),
                max: Duration::from_secs(30),
            },
            context: String::new(),
        }
    }
}

/// Where workers ask, and how they learn that answers have changed.
#[derive(Debug)]
pub struct Desk {
    pub questions: mpsc::Receiver<Question>,
    pub changes: watch::Sender<()>,
    /// What usage is dated from.
    pub epoch: Instant,
}

/// Everything that is followed.
pub struct Discovery {
    config: Config,
    lookup: Lookup,
    publish: Publisher,
    questions: mpsc::Receiver<Question>,
    epoch: Instant,
    destinations: HashMap<SocketAddr, Destination>,
    followers: JoinSet<SocketAddr>,
    /// It was told that there is no room.
    is_full_told: bool,
}

struct Destination {
    answers: watch::Receiver<Answer>,
    /// The operator tells of it at the moment; what it said before would be missed until it does.
    is_told: Arc<AtomicBool>,
    follower: AbortHandle,
    /// How workers use it; of one that has forgotten it, nobody else holds it.
    users: Vec<Arc<Usage>>,
    /// How long it is followed without connections.
    idle: Duration,
}

impl Destination {
    fn is_live(&self) -> bool {
        self.users.iter().any(|usage| usage.is_live())
    }

    /// Whether it can be done without: no connection is open to it, and what is known of it can be asked again.
    fn is_spare(&self) -> bool {
        let is_told = self.is_told.load(Ordering::Relaxed);
        !self.is_live() && (is_told || matches!(*self.answers.borrow(), Answer::Pending))
    }

    /// When it was last used, as time since the epoch.
    fn last(&self) -> Duration {
        let last = self.users.iter().map(|usage| usage.last());
        last.max().unwrap_or_default()
    }
}

impl Discovery {
    /// Asks by `client`; `known` is told which services and endpoints there are.
    pub fn new(config: Config, client: Client, desk: Desk, known: Known) -> Self {
        Self {
            lookup: Lookup::new(client, &config),
            publish: Publisher::new(desk.changes, known),
            config,
            questions: desk.questions,
            epoch: desk.epoch,
            destinations: HashMap::new(),
            followers: JoinSet::new(),
            is_full_told: false,
        }
    }

    /// Follows what is asked about until `stop`.
    pub async fn run(mut self, stop: CancellationToken) {
        let mut sweeps = tokio::time::interval(self.config.sweep);
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                Some(question) = self.questions.recv() => self.answer(question),
                Some(ended) = self.followers.join_next_with_id() => {
                    // One that was aborted is forgotten already.
                    if let Ok((id, to)) = ended
                        && self.destinations.get(&to).is_some_and(|d| d.follower.id() == id)
                    {
                        self.destinations.remove(&to);
                    }
                }
                _ = sweeps.tick() => self.sweep(),
            }
        }
    }

    fn answer(&mut self, question: Question) {
        let Question { to, usage, reply } = question;
        if !self.destinations.contains_key(&to) {
            if self.destinations.len() >= self.config.most && !self.forget_one() {
                return self.tell_full(to);
            }
            self.begin(to);
        }
        let destination = self.destinations.get_mut(&to);
        let destination = destination.expect("it was just looked for");
        destination.users.retain(|user| Arc::strong_count(user) > 1);
        destination.users.push(usage);
        // The worker may have ended.
        let _told = reply.send(destination.answers.clone());
    }

    /// One is not asked about, because none of those that are followed can be done without.
    fn tell_full(&mut self, to: SocketAddr) {
        let most = self.config.most;
        if std::mem::replace(&mut self.is_full_told, true) {
            return tracing::debug!(%to, "not asked about");
        }
        tracing::warn!(
            %to,
            most,
            "connections to further destinations go where they were going, without TLS and without labels: connections are \
             open to as many as are followed, or the operator is away (--max-destinations)"
        );
    }

    fn begin(&mut self, to: SocketAddr) {
        let (answers, answer) = watch::channel(Answer::Pending);
        let is_told = Arc::default();
        let answers = self.publish.to(answers, Arc::clone(&is_told));
        let following = follow(to, self.lookup.clone(), answers);
        let part = fastrand::f64() * self.config.jitter.max(0.0);
        let destination = Destination {
            answers: answer,
            is_told,
            follower: self.followers.spawn(following),
            users: Vec::new(),
            idle: self.config.idle + self.config.idle.mul_f64(part),
        };
        self.destinations.insert(to, destination);
    }

    /// Makes room for one more; false where none can be done without.
    fn forget_one(&mut self) -> bool {
        let spare = self.destinations.iter().filter(|(_, d)| d.is_spare());
        let oldest = spare.min_by_key(|(_, d)| d.last()).map(|(to, _)| *to);
        oldest.is_some_and(|to| {
            self.forget(to);
            true
        })
    }

    fn sweep(&mut self) {
        let now = self.epoch.elapsed();
        let is_idle = |d: &Destination| d.is_spare() && now.saturating_sub(d.last()) >= d.idle;
        let idle = self.destinations.iter().filter(|(_, d)| is_idle(d));
        let idle: Vec<_> = idle.map(|(to, _)| *to).collect();
        idle.into_iter().for_each(|to| self.forget(to));
    }

    /// Workers learn it from the end of the answers.
    fn forget(&mut self, to: SocketAddr) {
        if let Some(destination) = self.destinations.remove(&to) {
            destination.follower.abort();
        }
    }
}
