//! Requests that are divided among several destinations by weight: which of them the next one goes to.
//!
//! A destination whose endpoints are all set aside, or that has none, gets nothing: the others take its part, because an
//! endpoint that is there is better than none.

use super::{Endpoint, EndpointSet};

/// Most destinations that requests are divided among: what the Gateway API allows in a rule.
pub const MOST_DESTINATIONS: usize = 16;

/// The part of the requests that the endpoints of one destination have together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Share {
    /// Its number, below [`MOST_DESTINATIONS`].
    pub destination: u8,
    /// Its part in the sum of all weights.
    pub weight: u32,
}

impl EndpointSet {
    /// The number of a random destination of these endpoints, by weight; none where they are not divided.
    pub(super) fn draw<'e>(&self, endpoints: impl Iterator<Item = &'e Endpoint>) -> Option<u8> {
        let mut weights = [0; MOST_DESTINATIONS];
        for share in endpoints.filter_map(|endpoint| endpoint.share) {
            if let Some(weight) = weights.get_mut(usize::from(share.destination)) {
                *weight = share.weight;
            }
        }
        let total: u64 = weights.iter().copied().map(u64::from).sum();
        if total == 0 {
            return None;
        }
        let mut drawn = self.shared.random.borrow_mut().u64(..total);
        let mut weights = (0..).zip(weights.map(u64::from));
        let found = weights.find(|(_, weight)| {
            let is_it = drawn < *weight;
            drawn = drawn.saturating_sub(*weight);
            is_it
        });
        found.map(|(destination, _)| destination)
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;
    use std::time::{Duration, Instant};

    use fastrand::Rng;

    use super::*;
    use crate::endpoints::{Config, Listed, Service};
    use crate::telemetry::Dst;

    fn listed(host: u8, destination: u8, weight: u32) -> Listed {
        let share = Share {
            destination,
            weight,
        };
        Listed {
            share: Some(share),
            ..Listed::plain(addr(host), Dst::new([("service", "web")]))
        }
    }

    fn addr(host: u8) -> SocketAddr {
        ([10, 0, 0, host], 80).into()
    }

    fn set(endpoints: Vec<Listed>, now: Instant) -> EndpointSet {
        let service = Service {
            endpoints,
            ..Service::default()
        };
        EndpointSet::new(service, Config::default(), Rng::with_seed(7), now)
    }

    /// How many of 1,000 choices are of each host.
    fn chosen(set: &EndpointSet, hosts: u8, now: Instant) -> Vec<usize> {
        let mut counts = vec![0; usize::from(hosts)];
        for _ in 0..1000 {
            let claim = set.choose(now).expect("there is one");
            let host = (1..=hosts).find(|host| claim.addr == addr(*host));
            counts[usize::from(host.expect("one of them")) - 1] += 1;
        }
        counts
    }

    #[test]
    fn destinations_have_their_parts_however_many_endpoints_they_have() {
        let now = Instant::now();
        let endpoints = vec![listed(1, 0, 900), listed(2, 1, 100), listed(3, 1, 100)];
        let counts = chosen(&set(endpoints, now), 3, now);
        assert!((870..930).contains(&counts[0]), "{counts:?}");
        assert!(counts[1] > 20 && counts[2] > 20, "{counts:?}");
    }

    #[test]
    fn one_that_has_nobody_gets_nothing_and_is_back_with_its_endpoints() {
        let now = Instant::now();
        let set = set(vec![listed(1, 0, 900), listed(2, 1, 100)], now);
        let choose = |host: u8, now| {
            let mut claims = (0..1000).map(|_| set.choose(now).expect("there is one"));
            claims
                .find(|claim| claim.addr == addr(host))
                .expect("it is chosen")
        };
        choose(1, now).refused(now);
        assert_eq!(chosen(&set, 2, now), [0, 1000]);
        let later = now + Duration::from_secs(60);
        choose(1, later).accepted();
        assert!(chosen(&set, 2, later)[0] > 800);
        // No longer divided: as before.
        set.replace(&[Listed::plain(addr(2), Dst::unknown())], now);
        assert_eq!(chosen(&set, 2, later), [0, 1000]);
    }
}
