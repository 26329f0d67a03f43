//! The order in which a search gives endpoints out. A part of the tests of `endpoints`, whose sets it takes; it must not
//! know how one is chosen among equals.

use super::*;

#[test]
fn a_search_tries_each_once_and_those_set_aside_last() {
    let now = Instant::now();
    let set = set(&[1, 2, 3, 4], now);
    claim(&set, 2).refused(now + ms(2));
    claim(&set, 4).refused(now + ms(1));
    let now = now + ms(3);
    let mut search = Search::new(Rc::clone(&set));
    let mut order = Vec::new();
    while let Some(claim) = search.next(now) {
        let port = claim.addr.port();
        assert_eq!(search.has_other(claim.addr, now), order.len() < 3);
        search.failed(claim.addr);
        claim.refused(now);
        order.push(port);
    }
    order[..2].sort_unstable();
    assert_eq!(order, [1, 3, 4, 2], "the last by how long ago they failed");
}

#[test]
fn last_resorts_are_few() {
    let now = Instant::now();
    let ports: Vec<u16> = (1..=30).collect();
    let set = set(&ports, now);
    let mut search = Search::new(Rc::clone(&set));
    let mut tried = 0;
    while let Some(claim) = search.next(now) {
        claim.refused(now);
        search.failed(claim.addr);
        tried += 1;
    }
    assert_eq!(tried, 30, "nobody was known to refuse");
    let mut search = Search::new(Rc::clone(&set));
    let mut tried = 0;
    while let Some(claim) = search.next(now) {
        let is_last = !search.has_other(claim.addr, now);
        search.failed(claim.addr);
        tried += 1;
        assert_eq!(is_last, tried == 3);
    }
    assert_eq!(tried, 3);
}

#[test]
fn the_original_destination_comes_before_those_that_are_set_aside() {
    let now = Instant::now();
    let set = set(&[1, 2], now);
    set.fall_back(Some(addr(9)), now);
    let order = |all: usize, fail: fn(&mut Search, SocketAddr)| {
        let mut search = Search::new(Rc::clone(&set));
        let mut order = Vec::new();
        while let Some(claim) = search.next(now) {
            order.push(claim.addr.port());
            let has_other = search.has_other(claim.addr, now);
            assert_eq!(has_other, order.len() < all, "{order:?}");
            fail(&mut search, claim.addr);
        }
        order
    };
    let (refuses, is_late) = (Search::failed, Search::timed_out);
    assert_eq!(order(3, refuses)[2], 9, "after all that refuse");
    assert_eq!(order(3, is_late)[1], 9, "after the first that is late");
    claim(&set, 1).refused(now);
    for fail in [refuses, is_late] {
        assert_eq!(order(3, fail), [2, 9, 1]);
    }
    set.fall_back(None, now);
    assert_eq!(order(2, refuses).len(), 2);
}

#[test]
fn where_a_request_has_failed_it_is_sent_again_only_without_others() {
    let now = Instant::now();
    let set = set(&[1, 2, 3], now);
    // Who fails at once looks fast.
    for port in [2, 3] {
        claim(&set, port).observe(ms(1000), now);
    }
    let beside = |port| {
        let failed = Some(addr(port));
        let refused = Vec::new();
        Search::new(Rc::clone(&set)).beside(Beside { failed, refused })
    };
    for _ in 0..20 {
        let mut search = beside(1);
        let mut ports = Vec::new();
        while let Some(claim) = search.next(now) {
            ports.push(claim.addr.port());
            search.failed(claim.addr);
        }
        assert!(matches!(ports[..], [2, 3, 1] | [3, 2, 1]), "{ports:?}");
    }
    for port in [2, 3] {
        claim(&set, port).refused(now);
    }
    let chosen = beside(1).next(now).expect("an endpoint");
    assert_eq!(chosen.addr, addr(1), "the others are set aside");
}

#[test]
fn who_has_not_seen_a_request_is_not_sent_it_again() {
    let now = Instant::now();
    let set = set(&[1, 2], now);
    let refused = |ports: &[u16]| ports.iter().map(|p| addr(*p)).collect::<Vec<_>>();
    let next = |ports| {
        let beside = Beside {
            failed: Some(addr(1)),
            refused: refused(ports),
        };
        let mut search = Search::new(Rc::clone(&set)).beside(beside);
        search.next(now).map(|claim| claim.addr.port())
    };
    let has_other = |tried: &[u16]| set.has_other(addr(1), &refused(tried));
    assert_eq!((next(&[1]), has_other(&[])), (Some(2), true));
    assert_eq!((next(&[1, 2]), has_other(&[2])), (None, false));
    set.fall_back(Some(addr(9)), now);
    assert_eq!((next(&[1]), has_other(&[2])), (Some(2), true));
    assert_eq!(next(&[1, 2]), Some(9));
}
