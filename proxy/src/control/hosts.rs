//! The names in Dataplanes, with the address that each is reached by: what DNS last said stands for as long as it says
//! nothing. Asked by `universal` for addresses, moved on by `reading`, which never does so on the service thread, because
//! it waits. It knows no document.

mod asking;

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs};
use std::time::{Duration, Instant};

use self::asking::{Answer, Asking, Question, Resolver};

/// How long is waited for the names of endpoints, for all of them together. What is answered later is taken over when they
/// are asked for again. Default: 2 s.
const LOOKUP: Duration = Duration::from_secs(2);
/// The names in Dataplanes.
#[derive(Debug)]
pub(super) struct Hosts {
    patience: Duration,
    names: BTreeMap<String, Name>,
    asking: Asking,
    /// That of the questions asked last.
    number: u64,
}

/// What was known of names, to be put back.
#[derive(Debug)]
pub(super) struct Known(BTreeMap<String, Name>);

/// One name.
#[derive(Clone, Debug)]
struct Name {
    /// The first that it stands in; the own one before others.
    dataplane: String,
    /// With the zone that an address of IPv6 may have; its port means nothing.
    address: Option<SocketAddr>,
    /// Why the last question for it was not answered.
    failure: Option<String>,
    is_used: bool,
    /// Nothing can begin without it.
    is_needed: bool,
    /// The number of the question that is under way for it. No other answer counts.
    asked: Option<u64>,
}

/// A name that is not answered for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Unanswered {
    pub(super) host: String,
    pub(super) dataplane: String,
    /// The proxy listens at it or forwards to it.
    pub(super) is_needed: bool,
    pub(super) why: String,
    /// What it was reached by before, and is still.
    pub(super) last: Option<IpAddr>,
}

impl Default for Hosts {
    fn default() -> Self {
        Self::new(lookup, LOOKUP)
    }
}

fn lookup(host: &str) -> io::Result<Vec<SocketAddr>> {
    Ok((host, 0).to_socket_addrs()?.collect())
}

impl Hosts {
    pub(super) fn new(resolver: Resolver, patience: Duration) -> Self {
        Self {
            patience,
            names: BTreeMap::new(),
            asking: Asking::new(resolver),
            number: 0,
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
        self.asking.take_back(|host| self.names.contains_key(host));
    }

    /// What is known now.
    pub(super) fn known(&self) -> Known {
        Known(self.names.clone())
    }

    /// Puts back what was known; the questions that are under way go on.
    pub(super) fn restore(&mut self, known: Known) {
        let mut now = std::mem::replace(&mut self.names, known.0);
        for (host, name) in &mut self.names {
            name.asked = now.remove(host).and_then(|now| now.asked);
        }
        self.asking.take_back(|host| self.names.contains_key(host));
    }

    /// The address of an endpoint of a Dataplane, as far as it is known.
    ///
    /// # Errors
    /// Says why there is none.
    pub(super) fn resolve(
        &mut self,
        (host, port): (&str, u16),
        dataplane: &str,
    ) -> Result<SocketAddr, String> {
        self.find((host, port), dataplane, false)
    }

    /// The same of what the proxy cannot begin without: an answer is waited for until the system gives it up.
    ///
    /// # Errors
    /// Says why there is none.
    pub(super) fn require(
        &mut self,
        (host, port): (&str, u16),
        dataplane: &str,
    ) -> Result<SocketAddr, String> {
        self.find((host, port), dataplane, true)
    }

    fn find(
        &mut self,
        (host, port): (&str, u16),
        dataplane: &str,
        is_needed: bool,
    ) -> Result<SocketAddr, String> {
        if host.is_empty() {
            return Err("no address is given".to_owned());
        }
        if let Ok(address) = host.parse::<IpAddr>() {
            return Ok((address, port).into());
        }
        let name = self.names.entry(host.to_owned()).or_insert(Name {
            dataplane: String::new(),
            address: None,
            failure: Some("it has not been asked for".to_owned()),
            is_used: false,
            is_needed: false,
            asked: None,
        });
        if !name.is_used || is_needed {
            name.dataplane = dataplane.to_owned();
        }
        name.is_used = true;
        name.is_needed |= is_needed;
        let why = || name.failure.clone().unwrap_or_default();
        let mut address = name.address.ok_or_else(why)?;
        address.set_port(port);
        Ok(address)
    }

    /// Asks for every name anew, also where an earlier question is under way: that was asked of what may have changed.
    pub(super) fn ask(&mut self) {
        self.asking.take_back(|_| false);
        let names = self.names.values_mut();
        names.for_each(|name| name.asked = None);
        self.ask_for(|_| true);
    }

    /// Asks again for those that were not answered for.
    pub(super) fn ask_again(&mut self) {
        self.ask_for(|name| name.failure.is_some());
    }

    fn ask_for(&mut self, is_meant: fn(&Name) -> bool) {
        self.number += 1;
        let number = self.number;
        let names = self.names.iter_mut();
        let meant =
            names.filter(|(_, name)| name.is_used && name.asked.is_none() && is_meant(name));
        self.asking.ask(meant.map(|(host, name)| {
            name.asked = Some(number);
            Question {
                host: host.clone(),
                number,
                is_urgent: name.holds_up(),
            }
        }));
    }

    /// Waits for the answers, for those to what is needed until there are any; whether an address is another.
    pub(super) fn settle(&mut self) -> bool {
        let deadline = Instant::now() + self.patience;
        let mut is_changed = false;
        while self.names.values().any(|name| name.asked.is_some()) {
            let left = deadline.saturating_duration_since(Instant::now());
            let answer = match self.names.values().any(Name::holds_up) {
                true => self.asking.answer(),
                false => self.asking.answer_within(left),
            };
            let Some(answer) = answer else { break };
            is_changed |= self.take(answer);
        }
        let names = self.names.values_mut();
        let late = names.filter(|name| name.asked.is_some());
        let why = format!("no answer within {:?}", self.patience);
        late.for_each(|name| name.failure = Some(why.clone()));
        is_changed
    }

    /// An address that is among the answers stays, in whatever order they come, so that no connection moves for nothing;
    /// else the resolver's first takes its place. While there is no answer it stays, too.
    fn take(&mut self, answer: Answer) -> bool {
        let name = self.names.get_mut(&answer.host);
        let Some(name) = name.filter(|name| name.asked == Some(answer.number)) else {
            return false;
        };
        name.asked = None;
        let found = match answer.found {
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

    /// The Dataplane that a name stands in, where any has it.
    pub(super) fn dataplane_of(&self, host: &str) -> Option<&str> {
        let name = self.names.get(host);
        name.map(|name| name.dataplane.as_str())
    }

    /// The names that were not answered for when they were last asked for.
    pub(super) fn unanswered(&self) -> Vec<Unanswered> {
        let names = self.names.iter();
        let unanswered = names.filter_map(|(host, name)| {
            Some(Unanswered {
                host: host.clone(),
                dataplane: name.dataplane.clone(),
                is_needed: name.is_needed,
                why: name.failure.clone()?,
                last: name.address.map(|address| address.ip()),
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
        self.asked.is_some() && self.is_needed && self.address.is_none()
    }
}

#[cfg(test)]
mod tests;
