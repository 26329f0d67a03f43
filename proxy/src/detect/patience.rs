//! Clients that have spoken the mesh's TLS before, by the port they came to: one of them that is silent is believed to be
//! slow, as in a burst of connections, rather than to wait for its server. Kept by a worker, asked by `connection`.

use std::collections::HashSet;
use std::net::IpAddr;

/// The clients that one worker remembers.
#[derive(Debug, Default)]
pub struct Patience(HashSet<(IpAddr, u16)>);

impl Patience {
    /// Most clients remembered; beyond it learning starts anew.
    pub const CAPACITY: usize = 1024;

    pub fn knows(&self, client: IpAddr, port: u16) -> bool {
        self.0.contains(&(client, port))
    }

    /// This client has shown a certificate of the mesh.
    pub fn learn(&mut self, client: IpAddr, port: u16) {
        if self.0.len() >= Self::CAPACITY && !self.knows(client, port) {
            self.0.clear();
        }
        self.0.insert((client, port));
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::Patience;

    #[test]
    fn clients_are_remembered_by_port_and_not_without_bound() {
        let addr = |n: usize| Ipv4Addr::from(u32::try_from(n).expect("small")).into();
        let mut patience = Patience::default();
        patience.learn(addr(0), 80);
        assert!(patience.knows(addr(0), 80) && !patience.knows(addr(0), 81));
        (0..Patience::CAPACITY).for_each(|n| patience.learn(addr(n), 80));
        assert!(patience.knows(addr(0), 80), "no more than fit");
        patience.learn(addr(Patience::CAPACITY), 80);
        assert_eq!(patience.0.len(), 1);
    }
}
