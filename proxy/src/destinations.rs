//! Where the connections of the application lead: what one worker knows of the original destinations that they are meant
//! for.
//!
//! `accept` asks it for every redirected connection. What it does not know it asks the service thread, which follows the
//! operator's answer and publishes it by `watch` for as long as the destination is used. A known destination costs a
//! look-up in a table of this worker's own: no lock, no allocation. It must not know sockets or the operator.

use std::cell::{Cell, RefCell};
use std::collections::{HashMap, VecDeque};
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Notify, mpsc, oneshot, watch};
use tokio::time::{Instant, timeout_at};
use tokio_util::task::TaskTracker;

use crate::endpoints::{self, EndpointSet, Service};

mod usage;

pub use usage::{InUse, Usage};

/// Questions of all workers that may wait for the service thread; further ones are not asked, and their connections go
/// where they were going.
pub const QUESTIONS: usize = 1024;

/// How unknown destinations are dealt with.
#[derive(Clone, Copy, Debug)]
pub struct Config {
    /// How long connections to a destination wait that nothing is known of, from the first of them on. Default: 500 ms;
    /// then they go where they were going, until there is an answer.
    pub wait: Duration,
    /// How long it stands that a destination is not in the cluster. Default: 5 minutes; then it is asked again, and the
    /// answer stands until there is another.
    pub outside: Duration,
    /// Most destinations that are remembered to be outside; beyond it those learned first are forgotten. Default: 1,000.
    pub most_outside: usize,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            wait: Duration::from_millis(500),
            outside: Duration::from_secs(300),
            most_outside: 1_000,
        }
    }
}

/// What is known of a destination.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Answer {
    /// Nothing yet.
    #[default]
    Pending,
    /// It is not in the cluster.
    Outside,
    Inside(Arc<Inside>),
}

/// A destination in the cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Inside {
    /// Its name is empty where the destination is an endpoint itself.
    pub service: Service,
    /// Nothing is to be read into its bytes.
    pub is_opaque: bool,
    /// Nobody tells of its endpoints at the moment: there may be others by now.
    pub is_stale: bool,
}

/// A destination that a worker wants to know of.
#[derive(Debug)]
pub struct Question {
    pub to: SocketAddr,
    /// How that worker uses it; one that has forgotten it has dropped its own.
    pub usage: Arc<Usage>,
    /// Where the answers will be. Dropped where there is no room for the destination.
    pub reply: oneshot::Sender<watch::Receiver<Answer>>,
}

/// The way to the service thread.
#[derive(Clone, Debug)]
pub struct Link {
    questions: mpsc::Sender<Question>,
    /// Changes whenever an answer does.
    changes: watch::Receiver<()>,
    /// What usage is dated from.
    epoch: Instant,
}

impl Link {
    /// With the end where questions arrive, and the one that tells of changes.
    pub fn new() -> (Self, mpsc::Receiver<Question>, watch::Sender<()>) {
        let (questions, asked) = mpsc::channel(QUESTIONS);
        let (change, changes) = watch::channel(());
        let link = Self {
            questions,
            changes,
            epoch: Instant::now(),
        };
        (link, asked, change)
    }

    /// What usage is dated from.
    pub fn epoch(&self) -> Instant {
        self.epoch
    }

    /// Asks. Where too many questions wait already, this one is dropped, and so is the place for its reply.
    pub fn ask(&self, question: Question) {
        if let Err(error) = self.questions.try_send(question) {
            tracing::debug!(%error, "a destination is not asked about");
        }
    }
}

/// The destinations that a worker knows.
pub struct Destinations {
    config: Config,
    balance: endpoints::Config,
    link: Option<Link>,
    tasks: TaskTracker,
    places: RefCell<HashMap<SocketAddr, Place>>,
    /// Those that are outside, the first learned first.
    outside: RefCell<VecDeque<SocketAddr>>,
    passthrough: Cell<bool>,
    is_strict: Cell<bool>,
    /// Where connections go that may go nowhere: a service without endpoints.
    nowhere: Rc<EndpointSet>,
}

enum Place {
    Outside { until: Instant },
    Followed(Rc<Entry>),
}

/// A destination that the service thread was asked about.
struct Entry {
    usage: Arc<Usage>,
    /// None until the service thread has replied.
    answers: RefCell<Option<watch::Receiver<Answer>>>,
    /// None while it is not known to be in the cluster.
    set: RefCell<Option<Rc<EndpointSet>>>,
    /// Nobody waits for an answer any more: there is one, or there will be none.
    is_settled: Cell<bool>,
    settled: Notify,
    /// When connections stop waiting.
    deadline: Instant,
    /// It was outside before it was asked about again, which stands.
    was_outside: bool,
}

/// Where a connection leads.
pub struct Found {
    /// None: where it was going.
    pub set: Option<Rc<EndpointSet>>,
    /// To be held as long as the connection lives.
    pub held: Option<InUse>,
}

impl Destinations {
    /// Without a link nothing is asked. Questions are tasks that `tasks` tracks.
    pub fn new(
        config: Config,
        balance: endpoints::Config,
        link: Option<Link>,
        tasks: TaskTracker,
    ) -> Rc<Self> {
        let nobody = Service::default();
        let now = Instant::now().into_std();
        let nowhere = EndpointSet::new(nobody, balance, fastrand::Rng::new(), now);
        Rc::new(Self {
            passthrough: Cell::new(true),
            is_strict: Cell::new(false),
            config,
            balance,
            link,
            tasks,
            places: RefCell::default(),
            outside: RefCell::default(),
            nowhere: Rc::new(nowhere),
        })
    }

    /// Says whether connections may go to destinations that are not known (`networking.outbound.passthrough` of a
    /// Mesh), which they may until this is called. Without an operator nothing is known, and they always may.
    pub fn set_passthrough(&self, passthrough: bool) {
        self.passthrough.set(passthrough);
    }

    /// Says whether nothing may go out in plaintext that could be secured (a STRICT Mesh), which it may until this is
    /// called. Else connections to a service may go where they were going once nobody tells of its endpoints and none
    /// accepts.
    pub fn set_strict(&self, is_strict: bool) {
        if is_strict == self.is_strict.replace(is_strict) {
            return;
        }
        let now = Instant::now().into_std();
        for place in self.places.borrow().values() {
            if let Place::Followed(entry) = place
                && is_strict
                && let Some(set) = &*entry.set.borrow()
            {
                set.fall_back(None, now);
            }
        }
    }

    /// How many destinations are remembered.
    pub fn len(&self) -> usize {
        self.places.borrow().len()
    }

    /// Whether none is.
    pub fn is_empty(&self) -> bool {
        self.places.borrow().is_empty()
    }

    /// Where a connection to `to` leads. Waits, for as long as it may, where that has to be asked; else it is ready at
    /// once.
    pub async fn find(self: &Rc<Self>, to: SocketAddr) -> Found {
        let Some(link) = self.link.as_ref().filter(|_| !to.ip().is_loopback()) else {
            return Found {
                set: None,
                held: None,
            };
        };
        let Some(entry) = self.entry(to, link) else {
            return self.unknown();
        };
        if !entry.is_settled.get() {
            let _late = timeout_at(entry.deadline, entry.settle()).await;
        }
        let set = entry.set.borrow().clone();
        match set {
            None => self.unknown(),
            Some(set) => Found {
                set: Some(set),
                held: Some(InUse::begin(&entry.usage, link.epoch)),
            },
        }
    }

    /// Takes over every answer that has changed.
    fn update(&self) {
        let changed = |(to, place): (&SocketAddr, &Place)| match place {
            Place::Followed(entry) if entry.has_changed() => Some((*to, Rc::clone(entry))),
            _ => None,
        };
        let places = self.places.borrow();
        let changed: Vec<_> = places.iter().filter_map(changed).collect();
        drop(places);
        for (to, entry) in changed {
            self.take_over(to, &entry);
        }
    }

    /// Takes over answers as they change, for as long as somebody answers; then what was said stands.
    pub async fn follow(self: Rc<Self>) {
        let Some(mut changes) = self.link.as_ref().map(|link| link.changes.clone()) else {
            return;
        };
        while changes.changed().await.is_ok() {
            self.update();
        }
    }

    fn unknown(&self) -> Found {
        let refused = (!self.passthrough.get()).then(|| Rc::clone(&self.nowhere));
        Found {
            set: refused,
            held: None,
        }
    }

    /// What is followed of a destination, asking for it if nothing is known; none where it is outside.
    fn entry(self: &Rc<Self>, to: SocketAddr, link: &Link) -> Option<Rc<Entry>> {
        let was_outside = match self.places.borrow().get(&to) {
            Some(Place::Followed(entry)) => return Some(Rc::clone(entry)),
            Some(Place::Outside { until }) if Instant::now() < *until => return None,
            Some(Place::Outside { .. }) => true,
            None => false,
        };
        let entry = Rc::new(Entry {
            usage: Arc::new(Usage::new(link.epoch)),
            answers: RefCell::default(),
            set: RefCell::default(),
            is_settled: Cell::new(was_outside),
            settled: Notify::new(),
            deadline: Instant::now() + self.config.wait,
            was_outside,
        });
        let place = Place::Followed(Rc::clone(&entry));
        if was_outside {
            self.outside.borrow_mut().retain(|other| *other != to);
        }
        self.places.borrow_mut().insert(to, place);
        let asking = Rc::clone(self).ask(to, Rc::clone(&entry), link.clone());
        self.tasks.spawn_local(asking);
        Some(entry)
    }

    async fn ask(self: Rc<Self>, to: SocketAddr, entry: Rc<Entry>, link: Link) {
        let (reply, replied) = oneshot::channel();
        link.ask(Question {
            to,
            usage: Arc::clone(&entry.usage),
            reply,
        });
        *entry.answers.borrow_mut() = replied.await.ok();
        self.take_over(to, &entry);
    }

    /// Takes over the answer about a destination, and forgets it where nobody follows it any more.
    fn take_over(&self, to: SocketAddr, entry: &Rc<Entry>) {
        let (answer, is_over) = entry.look();
        match answer {
            Answer::Inside(inside) => {
                let original = (inside.is_stale && !self.is_strict.get()).then_some(to);
                entry.lead(&inside, self.balance, original);
            }
            Answer::Outside => self.leave(to, entry),
            Answer::Pending if !is_over => return,
            Answer::Pending if entry.was_outside => self.leave(to, entry),
            Answer::Pending => {}
        }
        entry.is_settled.set(true);
        entry.settled.notify_waiters();
        if is_over && self.follows(to, entry) {
            self.places.borrow_mut().remove(&to);
        }
    }

    /// The destination is outside.
    fn leave(&self, to: SocketAddr, entry: &Rc<Entry>) {
        entry.set.take();
        if !self.follows(to, entry) {
            return;
        }
        let until = Instant::now() + self.config.outside;
        let mut places = self.places.borrow_mut();
        places.insert(to, Place::Outside { until });
        let mut outside = self.outside.borrow_mut();
        outside.push_back(to);
        if outside.len() > self.config.most_outside
            && let Some(first) = outside.pop_front()
        {
            places.remove(&first);
        }
    }

    fn follows(&self, to: SocketAddr, entry: &Rc<Entry>) -> bool {
        let places = self.places.borrow();
        matches!(places.get(&to), Some(Place::Followed(known)) if Rc::ptr_eq(known, entry))
    }
}

impl Entry {
    /// Waits until there is an answer, or will be none.
    async fn settle(&self) {
        let settled = self.settled.notified();
        if !self.is_settled.get() {
            settled.await;
        }
    }

    fn has_changed(&self) -> bool {
        let answers = self.answers.borrow();
        answers
            .as_ref()
            .is_some_and(|answers| answers.has_changed().unwrap_or(true))
    }

    /// The answer, and whether there will be no other.
    fn look(&self) -> (Answer, bool) {
        match &mut *self.answers.borrow_mut() {
            None => (Answer::Pending, true),
            Some(answers) => {
                let is_over = answers.has_changed().is_err();
                (answers.borrow_and_update().clone(), is_over)
            }
        }
    }

    /// Connections from now on go to these endpoints, and where none accepts to the original destination, if it is given.
    fn lead(&self, inside: &Inside, balance: endpoints::Config, original: Option<SocketAddr>) {
        let service = &inside.service;
        let now = Instant::now().into_std();
        let mut set = self.set.borrow_mut();
        match &*set {
            Some(same) if *same.name == *service.name => same.update(service, now),
            _ => {
                let (service, random) = (service.clone(), fastrand::Rng::new());
                *set = Some(Rc::new(EndpointSet::new(service, balance, random, now)));
            }
        }
        if let Some(set) = &*set {
            set.is_opaque.set(inside.is_opaque);
            set.fall_back(original, now);
        }
    }
}

#[cfg(test)]
mod tests;
