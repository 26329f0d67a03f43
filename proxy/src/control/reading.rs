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
        self.told.clear();
        Ok(self.remark(described))
    }

    /// Asks again for the names without an answer; `None` where nothing is another by that.
    pub(super) fn ask_again(&mut self) -> Option<Read> {
        self.hosts.ask_again();
        if !self.hosts.settle() {
            return None;
        }
        let in_force = self.in_force.as_ref()?;
        let read = self.files.judge(in_force, &mut self.hosts);
        Some(read.map(|described| self.remark(described)))
    }

    fn remark(&mut self, described: Described) -> Described {
        self.remarks.clone_from(&described.remarks);
        described
    }

    /// Whether every name has an answer.
    pub(super) fn is_complete(&self) -> bool {
        self.hosts.is_answered()
    }

    /// Logs what was remarked, and of names what has not been said before.
    pub(super) fn tell(&mut self) {
        self.remarks.drain(..).for_each(|remark| remark.tell());
        let unanswered = self.hosts.unanswered();
        for Unanswered { host, why, last } in &unanswered {
            if self.told.contains(host) {
                continue;
            }
            match last {
                Some(address) => warn!(
                    host, why, %address,
                    "a name of a Dataplane does not resolve: the address that it had stays in use, and it is asked for again"
                ),
                None => warn!(
                    host,
                    why,
                    "a name of a Dataplane does not resolve: its endpoints are left out until it does, and it is asked for again"
                ),
            }
        }
        let now: BTreeSet<String> = unanswered.into_iter().map(|name| name.host).collect();
        for host in self.told.difference(&now) {
            info!(host, "a name of a Dataplane resolves again");
        }
        self.told = now;
    }
}
