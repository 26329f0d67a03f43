//! Choosing with a seeded random source and a clock that the test moves.

use std::net::SocketAddr;
use std::rc::Rc;
use std::time::{Duration, Instant};

use fastrand::Rng;

use super::{Beside, Claim, Config, EndpointSet, Listed, Search, Service};
use crate::telemetry::Dst;

mod search;

fn addr(port: u16) -> SocketAddr {
    ([127, 0, 0, 1], port).into()
}

fn listed(ports: &[u16]) -> Vec<Listed> {
    let listed = ports
        .iter()
        .map(|p| Listed::plain(addr(*p), Dst::unknown()));
    listed.collect()
}

fn set(ports: &[u16], now: Instant) -> Rc<EndpointSet> {
    set_with(ports, Config::default(), now)
}

fn set_with(ports: &[u16], config: Config, now: Instant) -> Rc<EndpointSet> {
    let service = Service {
        name: "web".to_owned(),
        endpoints: listed(ports),
        ..Service::default()
    };
    Rc::new(EndpointSet::new(service, config, Rng::with_seed(7), now))
}

fn ms(n: u64) -> Duration {
    Duration::from_millis(n)
}

/// How often each port is chosen in `n` choices, none of which is held.
fn tally<const N: usize>(set: &EndpointSet, n: usize, now: Instant) -> [usize; N] {
    let mut counts = [0; N];
    for _ in 0..n {
        let port = set.choose(now).expect("an endpoint").addr.port();
        counts[usize::from(port) - 1] += 1;
    }
    counts
}

/// A claim on this endpoint, whatever the choice would be.
fn claim(set: &EndpointSet, port: u16) -> Claim {
    let endpoints = set.endpoints.borrow();
    let found = endpoints.iter().find(|e| e.addr.port() == port);
    Claim::new(found.expect("an endpoint"))
}

fn choose_port(set: &EndpointSet, port: u16, now: Instant) -> Claim {
    let found = (0..1000).find_map(|_| set.choose(now).filter(|c| c.addr.port() == port));
    found.expect("it is chosen now and then")
}

#[test]
fn a_service_without_endpoints_has_no_choice() {
    let now = Instant::now();
    assert!(set(&[], now).choose(now).is_none());
    assert!(Search::new(set(&[], now)).next(now).is_none());
}

#[test]
fn one_endpoint_is_always_chosen() {
    let now = Instant::now();
    let set = set(&[1], now);
    let held: Vec<_> = (0..10).filter_map(|_| set.choose(now)).collect();
    assert_eq!(held.len(), 10);
    assert!(held.iter().all(|c| c.addr.port() == 1));
}

#[test]
fn equals_are_chosen_equally_often() {
    let now = Instant::now();
    let two: [usize; 2] = tally(&set(&[1, 2], now), 2000, now);
    assert!(two.iter().all(|n| (900..=1100).contains(n)), "{two:?}");
    let five: [usize; 5] = tally(&set(&[1, 2, 3, 4, 5], now), 5000, now);
    assert!(five.iter().all(|n| (880..=1120).contains(n)), "{five:?}");
}

#[test]
fn choices_repeat_with_their_random_source() {
    let now = Instant::now();
    let ports = |_| {
        let set = set(&[1, 2, 3, 4, 5, 6, 7], now);
        let chosen = (0..100)
            .filter_map(|_| set.choose(now))
            .map(|c| c.addr.port());
        chosen.collect::<Vec<_>>()
    };
    assert_eq!(ports(0), ports(1));
}

#[test]
fn held_connections_spread_and_their_ends_are_noticed() {
    let now = Instant::now();
    let set = set(&[1, 2], now);
    let mut held: Vec<_> = (0..100).filter_map(|_| set.choose(now)).collect();
    let on_one = held.iter().filter(|c| c.addr.port() == 1).count();
    assert_eq!(on_one, 50, "of two endpoints the one with fewer is chosen");
    held.retain(|c| c.addr.port() == 2);
    let next: Vec<_> = (0..50).filter_map(|_| set.choose(now)).collect();
    assert!(next.iter().all(|c| c.addr.port() == 1));
}

#[test]
fn many_endpoints_are_loaded_within_a_narrow_band() {
    let now = Instant::now();
    let ports: Vec<u16> = (1..=50).collect();
    let set = set(&ports, now);
    let held: Vec<_> = (0..5000).filter_map(|_| set.choose(now)).collect();
    let load = |port: &u16| held.iter().filter(|c| c.addr.port() == *port).count();
    let loads: Vec<_> = ports.iter().map(load).collect();
    // Two choices keep the most loaded within a few of the mean, 100 here.
    assert!(loads.iter().all(|n| (90..=110).contains(n)), "{loads:?}");
}

#[test]
fn a_slow_endpoint_is_left_to_a_few() {
    let mut now = Instant::now();
    let set = set(&[1, 2, 3], now);
    let mut counts = [0usize; 3];
    for _ in 0..3000 {
        let claim = set.choose(now).expect("an endpoint");
        let port = usize::from(claim.addr.port());
        counts[port - 1] += 1;
        claim.observe(if port == 3 { ms(200) } else { ms(2) }, now);
        now += ms(10);
    }
    // 200 ms fade to 2 ms in 46 s of its own silence, that is less than 4600 other choices.
    assert!(counts[2] <= 5, "{counts:?}");
    assert!(counts[0] > 1000 && counts[1] > 1000, "{counts:?}");
    now += ms(120_000);
    assert!(
        (0..20).any(|_| set.choose(now).is_some_and(|c| c.addr.port() == 3)),
        "forgiven"
    );
}

#[test]
fn a_slow_endpoint_takes_its_share_of_connections_that_pile_up() {
    let now = Instant::now();
    let set = set(&[1, 2], now);
    claim(&set, 1).observe(ms(40), now);
    claim(&set, 2).observe(ms(10), now);
    let held: Vec<_> = (0..100).filter_map(|_| set.choose(now)).collect();
    let slow = held.iter().filter(|c| c.addr.port() == 1).count();
    assert!(
        (19..=21).contains(&slow),
        "a fifth at four times the latency: {slow}"
    );
}

#[test]
fn differences_below_the_floor_do_not_count() {
    let now = Instant::now();
    let set = set(&[1, 2], now);
    claim(&set, 1).observe(Duration::from_micros(900), now);
    claim(&set, 2).observe(Duration::from_micros(20), now);
    let two: [usize; 2] = tally(&set, 2000, now);
    assert!(two.iter().all(|n| (900..=1100).contains(n)), "{two:?}");
}

#[test]
fn a_stream_is_timed_to_its_first_byte_or_to_its_end() {
    let now = Instant::now();
    let set = set(&[1, 2], now);
    let [one, other] = [1, 2].map(|port| claim(&set, port));
    for claim in [&one, &other] {
        claim.start(now);
        claim.first_byte(now + ms(5));
        claim.first_byte(now + ms(500));
    }
    assert_eq!(one.state.load(now + ms(5)), other.state.load(now + ms(5)));
    one.start(now + ms(5));
    one.end(now + ms(905));
    drop(other);
    let [slow, fast]: [usize; 2] = tally(&set, 100, now + ms(905));
    assert_eq!(
        (slow, fast),
        (0, 100),
        "a request was given up after 900 ms"
    );
}

#[test]
fn who_refuses_rests_longer_each_time_and_returns_by_one_connection() {
    let start = Instant::now();
    let config = Config {
        jitter: 0.0,
        ..Config::default()
    };
    let set = set_with(&[1, 2], config, start);
    let mut now = start;
    choose_port(&set, 1, now).refused(now);
    for rest in [100, 200, 400, 800, 1600, 3200, 6400, 10_000, 10_000] {
        let [one, _]: [usize; 2] = tally(&set, 100, now + ms(rest - 1));
        assert_eq!(one, 0, "it rests for {rest} ms");
        now += ms(rest);
        let probe = choose_port(&set, 1, now);
        let [one, _]: [usize; 2] = tally(&set, 100, now);
        assert_eq!(one, 0, "while one connection tries it, the others do not");
        probe.refused(now);
    }
    now += ms(10_000);
    drop(choose_port(&set, 1, now));
    let probe = choose_port(&set, 1, now);
    probe.accepted();
    drop(probe);
    let two: [usize; 2] = tally(&set, 1000, now);
    assert!(
        two.iter().all(|n| *n > 400),
        "both take part again: {two:?}"
    );
    assert_eq!(set.shared.troubled.get(), 0);
    // It has taken connections for as long as it has rested: that is forgotten.
    now += ms(10_001);
    choose_port(&set, 1, now).refused(now);
    choose_port(&set, 1, now + ms(100));
}

#[test]
fn who_accepts_and_has_nobody_to_answer_rests_longer_each_time() {
    let mut now = Instant::now();
    let config = Config {
        jitter: 0.0,
        ..Config::default()
    };
    let set = set_with(&[1, 2], config, now);
    for rest in [100, 200, 400, 800, 1600, 3200, 6400, 10_000, 10_000] {
        let claim = choose_port(&set, 1, now);
        claim.accepted();
        now += ms(5);
        claim.refused(now);
        assert!(claim.state.is_told(), "that it accepts is no news");
        drop(claim);
        let [one, _]: [usize; 2] = tally(&set, 100, now + ms(rest - 1));
        assert_eq!(one, 0, "it rests for {rest} ms");
        now += ms(rest);
    }
    let claim = choose_port(&set, 1, now);
    claim.accepted();
    claim.observe(ms(5), now);
    assert!(!claim.state.is_told(), "it answers");
}

#[test]
fn failures_that_were_under_way_together_are_one() {
    let now = Instant::now();
    let set = set(&[1, 2], now);
    let together: Vec<_> = (0..20).map(|_| claim(&set, 1)).collect();
    for claim in together {
        claim.refused(now + ms(1));
    }
    // 100 ms, and a fifth of it at most.
    choose_port(&set, 1, now + ms(122));
}

#[test]
fn jitter_keeps_rests_apart() {
    let now = Instant::now();
    let ports: Vec<u16> = (1..=20).collect();
    let set = set(&ports, now);
    let claims: Vec<_> = ports.iter().map(|p| claim(&set, *p)).collect();
    claims.iter().for_each(|c| c.refused(now));
    let fit = |after| {
        let fits = |c: &&Claim| c.state.health.is_fit(now + ms(after));
        claims.iter().filter(fits).count()
    };
    assert_eq!((fit(99), fit(121)), (0, 20));
    assert!((1..20).contains(&fit(110)), "{}", fit(110));
}

#[test]
fn a_replaced_set_keeps_what_is_known_of_those_that_stay() {
    let now = Instant::now();
    let set = set(&[1, 2, 3], now);
    let held: Vec<_> = (0..5).map(|_| claim(&set, 1)).collect();
    claim(&set, 1).observe(ms(80), now);
    claim(&set, 2).refused(now);
    let load = held[0].state.load(now);
    let labelled = Dst::new([("service", "web")]);
    let next = [addr(1), addr(2), addr(4), addr(4)].map(|a| Listed::plain(a, labelled.clone()));
    set.replace(&next, now);
    assert_eq!(set.len(), 3, "an address counts once");
    let kept = set.endpoints.borrow()[0].clone();
    assert_eq!((kept.addr, &kept.dst), (addr(1), &labelled));
    assert_eq!(kept.state.load(now), load, "latency and connections");
    let chosen: Vec<_> = (0..50).filter_map(|_| set.choose(now)).collect();
    assert!(chosen.iter().all(|c| c.addr.port() != 2), "still set aside");
    drop((held, chosen));
    assert!(
        kept.state.load(now) < load,
        "ends are noticed across the change"
    );
    set.replace(&listed(&[1]), now);
    assert_eq!(set.shared.troubled.get(), 0, "who is gone troubles nobody");
}

proptest::proptest! {
    /// Whatever happens, counts return to nothing and a search ends.
    #[test]
    fn accounts_balance(steps in proptest::collection::vec((0u8..7, 0u16..6), 0..200)) {
        let mut now = Instant::now();
        let set = set(&[1, 2, 3], now);
        let mut held = Vec::new();
        for (step, n) in steps {
            now += ms(u64::from(n) * 40);
            match step {
                0 => held.extend(set.choose(now)),
                1 => held.truncate(usize::from(n)),
                2 => held.iter().take(usize::from(n)).for_each(|c: &Claim| c.refused(now)),
                3 => held.iter().for_each(Claim::accepted),
                4 => set.replace(&listed(&[1, 2, 3, 4, 5, 6][usize::from(n)..]), now),
                5 => held.iter().for_each(|c| c.observe(ms(u64::from(n)), now)),
                _ => {
                    let mut search = Search::new(Rc::clone(&set));
                    let mut tried = 0;
                    while let Some(claim) = search.next(now) {
                        search.failed(claim.addr);
                        tried += 1;
                    }
                    proptest::prop_assert!(tried <= set.len());
                }
            }
        }
        drop(held);
        let endpoints = set.endpoints.borrow();
        let troubled = endpoints.iter().filter(|e| e.state.health.is_troubled()).count();
        proptest::prop_assert_eq!(set.shared.troubled.get(), troubled);
        for endpoint in endpoints.iter() {
            proptest::prop_assert_eq!(endpoint.state.open.get(), 0);
        }
    }
}

#[test]
fn a_census_tells_who_is_set_aside() {
    let now = Instant::now();
    let set = set(&[1, 2, 3], now);
    assert_eq!(set.census(), (3, 0));
    claim(&set, 2).refused(now);
    assert_eq!(set.census(), (2, 1));
    // Its rest is over, and it has still to prove itself.
    let later = now + Duration::from_secs(60);
    assert_eq!(set.census(), (2, 1));
    let probe = choose_port(&set, 2, later);
    probe.accepted();
    assert_eq!(set.census(), (3, 0));
    claim(&set, 3).refused(later);
    set.replace(&listed(&[1, 2]), later);
    assert_eq!(set.census(), (2, 0), "who is gone does not count");
}
