//! What a worker has learned of peers by what they did, to wait for them rightly the next time. Kept by a worker, asked by
//! `connection`. It knows no connection.

use std::collections::HashSet;
use std::hash::Hash;
use std::net::{IpAddr, SocketAddr};

/// Addresses whose application speaks first.
pub type ServerFirst = Learned<SocketAddr>;

/// Clients that have spoken the mesh's TLS before, by the port they came to: one of them that is silent is believed to be
/// slow, as in a burst of connections, rather than to wait for its server.
pub type Patience = Learned<(IpAddr, u16)>;

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
    use super::Learned;

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
}
