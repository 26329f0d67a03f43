//! What a worker has learned of peers by what they did, to wait for them rightly the next time. Kept by a worker, asked by
//! `connection`. It knows no connection.

use std::collections::HashSet;
use std::hash::Hash;
use std::net::{IpAddr, SocketAddr};

/// Addresses whose application speaks first.
pub type ServerFirst = Learned<SocketAddr>;

/// A client, by the port it came to.
pub type Client = (IpAddr, u16);

/// What a client does with a connection before its server has spoken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Habit {
    /// It begins the mesh's TLS. Where it is silent it is believed to be slow, as in a burst of connections.
    Secures,
    /// It waits for the server.
    Waits,
}

/// The habits of clients.
#[derive(Debug, Default)]
pub struct Habits {
    secures: Learned<Client>,
    waits: Learned<Client>,
}

impl Habits {
    /// None of a stranger's. Who has begun TLS once may always do it again.
    pub fn of(&self, client: Client) -> Option<Habit> {
        if self.secures.contains(client) {
            Some(Habit::Secures)
        } else {
            self.waits.contains(client).then_some(Habit::Waits)
        }
    }

    /// A client has begun the mesh's TLS.
    pub fn has_secured(&mut self, client: Client) {
        self.waits.forget(client);
        self.secures.learn(client);
    }

    /// A client has said nothing for as long as it was waited for.
    pub fn has_waited(&mut self, client: Client) {
        self.waits.learn(client);
    }
}

/// The peers of which one thing is known.
#[derive(Debug)]
pub struct Learned<T>(HashSet<T>);

impl<T> Default for Learned<T> {
    fn default() -> Self {
        Self(HashSet::new())
    }
}

impl<T: Eq + Hash> Learned<T> {
    /// Most peers remembered; beyond it learning starts anew.
    pub const CAPACITY: usize = 1024;

    pub fn contains(&self, peer: T) -> bool {
        self.0.contains(&peer)
    }

    pub fn learn(&mut self, peer: T) {
        if self.0.len() >= Self::CAPACITY && !self.0.contains(&peer) {
            self.0.clear();
        }
        self.0.insert(peer);
    }

    /// It is not so any more.
    pub fn forget(&mut self, peer: T) {
        self.0.remove(&peer);
    }
}

#[cfg(test)]
mod tests {
    use super::{Habit, Habits, Learned};

    #[test]
    fn peers_are_remembered_and_not_without_bound() {
        let mut learned = Learned::default();
        (0..Learned::<usize>::CAPACITY).for_each(|n| learned.learn(n));
        learned.learn(0);
        assert!(
            learned.contains(0) && learned.contains(1),
            "what is known takes no room"
        );
        learned.forget(0);
        assert!(!learned.contains(0));
        learned.learn(0);
        learned.learn(Learned::<usize>::CAPACITY);
        assert_eq!(learned.0.len(), 1);
    }

    #[test]
    fn who_has_begun_tls_is_waited_for_whatever_it_did_before() {
        let (mut habits, client) = (Habits::default(), ([10, 0, 0, 7].into(), 80));
        assert_eq!(habits.of(client), None);
        habits.has_waited(client);
        assert_eq!(habits.of(client), Some(Habit::Waits));
        habits.has_secured(client);
        habits.has_waited(client);
        assert_eq!(habits.of(client), Some(Habit::Secures));
        assert_eq!(habits.of((client.0, 81)), None);
    }
}
