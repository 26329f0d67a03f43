//! Reads the files of a proxy outside Kubernetes, again whenever `control` says so, and asks for the names in them until
//! each has an answer. It blocks while it reads and waits. What documents mean is `files`' and `universal`'s.

use std::collections::BTreeSet;

use tracing::{info, warn};

use super::ControlError;
use super::files::{Described, Documents, Files, Remark};
use super::hosts::{Hosts, Unanswered};

/// Files, and the names in them.
#[derive(Debug)]
pub(super) struct Reading {
    files: Files,
    hosts: Hosts,
    /// What is in force; `None` before anything is.
    in_force: Option<Documents>,
    remarks: Vec<Remark>,
    /// The names that the log says have no answer.
    told: BTreeSet<String>,
    /// Everything was read since: what has no answer is told once more.
    is_anew: bool,
}

/// What the log is told.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum News {
    Remark(Remark),
    Unanswered(Unanswered),
    /// A name that had no answer has one.
    Answered {
        host: String,
        dataplane: String,
    },
}

/// What files describe, or all that is wrong with them.
pub(super) type Read = Result<Described, Vec<ControlError>>;

impl Reading {
    pub(super) fn new(files: Files, hosts: Hosts) -> Self {
        Self {
            files,
            hosts,
            in_force: None,
            remarks: Vec::new(),
            told: BTreeSet::new(),
            is_anew: false,
        }
    }

    /// Reads everything anew, and asks for every name anew. Where anything is wrong, all stays as it was: the names too, and
    /// what of them is asked for again.
    pub(super) fn read(&mut self) -> Read {
        let documents = self.files.documents()?;
        let known = self.hosts.known();
        self.hosts.begin();
        // At first only to learn which names there are.
        let _names = self.files.locate(&documents, &mut self.hosts);
        self.hosts.ask();
        self.hosts.settle();
        let described = match self.files.judge(&documents, &mut self.hosts) {
            Ok(described) => described,
            Err(problems) => {
                self.hosts.restore(known);
                return Err(problems);
            }
        };
        self.hosts.end();
        self.in_force = Some(documents);
        self.remarks.clone_from(&described.remarks);
        self.is_anew = true;
        Ok(described)
    }

    /// Asks again for the names without an answer; `None` where nothing is another by that.
    pub(super) fn ask_again(&mut self) -> Option<Read> {
        self.hosts.ask_again();
        if !self.hosts.settle() {
            return None;
        }
        let in_force = self.in_force.as_ref()?;
        Some(self.files.judge(in_force, &mut self.hosts))
    }

    /// Whether every name has an answer.
    pub(super) fn is_complete(&self) -> bool {
        self.hosts.is_answered()
    }

    /// What nobody has been told yet.
    pub(super) fn news(&mut self) -> Vec<News> {
        let mut news: Vec<_> = self.remarks.drain(..).map(News::Remark).collect();
        let is_anew = std::mem::take(&mut self.is_anew);
        let unanswered = self.hosts.unanswered();
        let now = unanswered.iter().map(|name| name.host.clone());
        let now: BTreeSet<String> = now.collect();
        let told = |host: &String| self.told.contains(host) && !is_anew;
        let untold = unanswered.into_iter().filter(|name| !told(&name.host));
        news.extend(untold.map(News::Unanswered));
        // A name that no Dataplane has any more is no news.
        news.extend(self.told.difference(&now).filter_map(|host| {
            Some(News::Answered {
                host: host.clone(),
                dataplane: self.hosts.dataplane_of(host)?.to_owned(),
            })
        }));
        self.told = now;
        news
    }
}

impl News {
    /// Logs it.
    pub(super) fn tell(self) {
        match self {
            Self::Remark(remark) => remark.tell(),
            Self::Unanswered(name) => name.tell(),
            Self::Answered { host, dataplane } => {
                info!(host, dataplane, "a name of a Dataplane resolves again");
            }
        }
    }
}

impl Unanswered {
    fn tell(self) {
        let Self {
            host,
            dataplane,
            is_needed,
            why,
            last,
        } = self;
        match last {
            Some(address) if is_needed => warn!(
                host, dataplane, why, %address,
                "a name that this proxy listens at or forwards to does not resolve: the address that it had stays in use, and it \
                 is asked for again"
            ),
            Some(address) => warn!(
                host, dataplane, why, %address,
                "a name of a Dataplane does not resolve: its endpoints stay at the address that it had, and it is asked for again"
            ),
            None => warn!(
                host,
                dataplane,
                why,
                "a name of a Dataplane does not resolve: its endpoints are left out until it does, and it is asked for again"
            ),
        }
    }
}
