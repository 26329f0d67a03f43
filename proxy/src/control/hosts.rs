//! The names in Dataplanes, with the address that each is reached by: what DNS last said stands for as long as it says
//! nothing. Asked by `universal` for addresses, moved on by `reading`, which never does so on the service thread, because
//! it waits. It knows no document.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs};
use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

/// How long is waited for the names of endpoints, for all of them together. What is answered later is taken over when they
/// are asked for again. Default: 2 s.
const LOOKUP: Duration = Duration::from_secs(2);
/// Most names that are asked for at a time: each takes a thread until the system gives it up. Default: 16.
const AT_ONCE: usize = 16;

/// What answers for a name.
pub(super) type Resolver = fn(&str) -> io::Result<Vec<IpAddr>>;
type Answer = (String, io::Result<Vec<IpAddr>>);

/// The names in Dataplanes.
#[derive(Debug)]
pub(super) struct Hosts {
    resolver: Resolver,
    patience: Duration,
    names: BTreeMap<String, Name>,
    queue: Arc<Mutex<Queue>>,
    tell: Sender<Answer>,
    answers: Receiver<Answer>,
}

/// What was known of names, to be put back.
#[derive(Debug)]
pub(super) struct Known(BTreeMap<String, Name>);

/// One name.
#[derive(Clone, Debug)]
struct Name {
    address: Option<IpAddr>,
    /// Why the last question for it was not answered.
    failure: Option<String>,
    is_used: bool,
    /// Nothing can begin without it.
    is_needed: bool,
    /// A question for it is under way.
    is_asked: bool,
}

/// A name that is not answered for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Unanswered {
    pub(super) host: String,
    pub(super) why: String,
    /// What it was reached by before, and is still.
    pub(super) last: Option<IpAddr>,
}

/// The questions that wait for a thread.
#[derive(Debug, Default)]
struct Queue {
    waiting: VecDeque<String>,
    threads: usize,
}

impl Default for Hosts {
    fn default() -> Self {
        Self::new(lookup, LOOKUP)
    }
}

fn lookup(host: &str) -> io::Result<Vec<IpAddr>> {
    let addresses = (host, 0).to_socket_addrs()?;
    Ok(addresses.map(|address| address.ip()).collect())
}

impl Hosts {
    pub(super) fn new(resolver: Resolver, patience: Duration) -> Self {
        let (tell, answers) = mpsc::channel();
        Self {
            resolver,
            patience,
            names: BTreeMap::new(),
            queue: Arc::default(),
            tell,
            answers,
        }
    }

    /// Begins to go over all Dataplanes.
    pub(super) fn begin(&mut self) {
        for name in self.names.values_mut() {
            name.is_used = false;
            name.is_needed = false;
        }
    }

    /// Forgets what no Dataplane has any more.
    pub(super) fn end(&mut self) {
        self.names.retain(|_, name| name.is_used);
    }

    /// What is known now.
    pub(super) fn known(&self) -> Known {
        Known(self.names.clone())
    }

    /// Puts back what was known; the questions that are under way go on.
    pub(super) fn restore(&mut self, known: Known) {
        let mut now = std::mem::replace(&mut self.names, known.0);
        for (host, name) in &mut self.names {
            name.is_asked = now.remove(host).is_some_and(|now| now.is_asked);
        }
    }

    /// The address of an endpoint, as far as it is known.
    ///
    /// # Errors
    /// Says why there is none.
    pub(super) fn resolve(&mut self, host: &str, port: u16) -> Result<SocketAddr, String> {
        self.find(host, port, false)
    }

    /// The same of what the proxy cannot begin without: an answer is waited for until the system gives it up.
    ///
    /// # Errors
    /// Says why there is none.
    pub(super) fn require(&mut self, host: &str, port: u16) -> Result<SocketAddr, String> {
        self.find(host, port, true)
    }

    fn find(&mut self, host: &str, port: u16, is_needed: bool) -> Result<SocketAddr, String> {
        if let Ok(address) = host.parse::<IpAddr>() {
            return Ok((address, port).into());
        }
        let name = self.names.entry(host.to_owned()).or_insert(Name {
            address: None,
            failure: Some("it has not been asked for".to_owned()),
            is_used: true,
            is_needed,
            is_asked: false,
        });
        name.is_used = true;
        name.is_needed |= is_needed;
        let why = || name.failure.clone().unwrap_or_default();
        let address = name.address.ok_or_else(why)?;
        Ok((address, port).into())
    }

    /// Asks for every name anew.
    pub(super) fn ask(&mut self) {
        self.ask_for(|_| true);
    }

    /// Asks again for those that were not answered for.
    pub(super) fn ask_again(&mut self) {
        self.ask_for(|name| name.failure.is_some());
    }

    fn ask_for(&mut self, is_meant: fn(&Name) -> bool) {
        let meant = self.names.iter_mut();
        let meant = meant.filter(|(_, name)| is_meant(name) && !name.is_asked);
        let mut queue = locked(&self.queue);
        for (host, name) in meant {
            name.is_asked = true;
            queue.waiting.push_back(host.clone());
        }
        let more = queue.waiting.len().min(AT_ONCE - queue.threads);
        queue.threads += more;
        drop(queue);
        for _ in 0..more {
            self.start();
        }
    }

    /// Starts a thread that asks for what waits, and ends with it.
    fn start(&self) {
        let (queue, tell, resolver) = (Arc::clone(&self.queue), self.tell.clone(), self.resolver);
        let asking = move || {
            while let Some(host) = next(&queue) {
                let answer = resolver(&host);
                // Nobody may wait for it any more.
                let _told = tell.send((host, answer));
            }
        };
        let thread = thread::Builder::new().name("resolver".to_owned());
        if let Err(error) = thread.spawn(asking) {
            let mut queue = locked(&self.queue);
            queue.threads -= 1;
            if queue.threads > 0 {
                return;
            }
            for host in queue.waiting.drain(..) {
                let why = io::Error::new(error.kind(), format!("no thread to ask by: {error}"));
                let _told = self.tell.send((host, Err(why)));
            }
        }
    }

    /// Waits for the answers, for those to what is needed until there are any; whether an address is another.
    pub(super) fn settle(&mut self) -> bool {
        let deadline = Instant::now() + self.patience;
        let mut is_changed = false;
        while self.names.values().any(|name| name.is_asked) {
            let answer = match self.names.values().any(Name::holds_up) {
                true => self.answers.recv().ok(),
                false => {
                    let left = deadline.saturating_duration_since(Instant::now());
                    self.answers.recv_timeout(left).ok()
                }
            };
            let Some(answer) = answer else { break };
            is_changed |= self.take(answer);
        }
        let late = self.names.values_mut().filter(|name| name.is_asked);
        let why = format!("no answer within {:?}", self.patience);
        late.for_each(|name| name.failure = Some(why.clone()));
        is_changed
    }

    /// An address that is among the answers stays, in whatever order they come, so that no connection moves for nothing;
    /// else the resolver's first takes its place. While there is no answer it stays, too.
    fn take(&mut self, (host, answer): Answer) -> bool {
        let Some(name) = self.names.get_mut(&host) else {
            return false;
        };
        name.is_asked = false;
        let found = match answer {
            Ok(found) => found,
            Err(error) => {
                name.failure = Some(error.to_string());
                return false;
            }
        };
        let kept = name.address.filter(|address| found.contains(address));
        let Some(now) = kept.or(found.first().copied()) else {
            name.failure = Some("it has no address".to_owned());
            return false;
        };
        name.failure = None;
        name.address.replace(now) != Some(now)
    }

    /// The names that were not answered for when they were last asked for.
    pub(super) fn unanswered(&self) -> Vec<Unanswered> {
        let names = self.names.iter();
        let unanswered = names.filter_map(|(host, name)| {
            Some(Unanswered {
                host: host.clone(),
                why: name.failure.clone()?,
                last: name.address,
            })
        });
        unanswered.collect()
    }

    /// Whether every name was answered for when it was last asked for.
    pub(super) fn is_answered(&self) -> bool {
        self.names.values().all(|name| name.failure.is_none())
    }
}

impl Name {
    fn holds_up(&self) -> bool {
        self.is_asked && self.is_needed && self.address.is_none()
    }
}

fn locked(queue: &Mutex<Queue>) -> MutexGuard<'_, Queue> {
    queue.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The next question of a thread, which ends where there is none.
fn next(queue: &Mutex<Queue>) -> Option<String> {
    let mut queue = locked(queue);
    let host = queue.waiting.pop_front();
    if host.is_none() {
        queue.threads -= 1;
    }
    host
}

#[cfg(test)]
mod tests;
