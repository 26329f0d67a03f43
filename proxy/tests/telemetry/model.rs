//! A property: over any interleaving of requests, resets, calls, connections of TCP and HTTP/2, ticks, sweeps, idle times
//! and scrapes on one to three workers, a scraper that is never away for long gets every event exactly once and sees no counter go back; what is
//! in use never retires; at rest the families agree with each other. A second one does the same with a budget that is
//! soon spent, with policies that change and destinations that end.

use proptest::prelude::*;
use proptest::sample::Index;

mod calls;
mod events;
mod ledger;
mod observer;
mod spent;

use calls::{ENDS, Event};
use events::Proxy;

/// One step of an interleaving.
#[derive(Clone, Debug)]
enum Step {
    /// Worker, label: a connection opens on series resolved anew.
    Open(usize, usize),
    Read(Index, u64),
    Close(Index, bool),
    /// Worker, label: a request begins on series resolved anew.
    Request(usize, usize),
    /// Through a reference that was kept, resolved anew only if it no longer pins.
    RequestAgain(Index),
    /// Which of the ends.
    Respond(Index, usize),
    /// Worker.
    Http2(usize, Event),
    Error(usize, u16),
    Tick(usize),
    /// Milliseconds; without ticks, as when a worker is busy.
    Wait(u64),
    /// All workers tick and the service thread sweeps.
    Second,
    Sweep,
    Scrape,
    ScrapeUsed,
    ScrapeTcp,
    ScrapeBroken,
    /// A while of seconds, with a scrape every other one unless the scraper is away.
    Pass(u16, bool),
}

const LABELS: usize = 3;

fn event() -> impl Strategy<Value = Event> {
    let at = any::<Index>;
    prop_oneof![
        3 => (0..8usize, any::<bool>()).prop_map(|(a, again)| Event::Call(a, again)),
        4 => (at(), any::<bool>(), 0..4u8).prop_map(|(i, sent, n)| Event::Message(i, sent, n)),
        3 => at().prop_map(Event::HangUp),
        1 => any::<bool>().prop_map(Event::Connect),
        2 => at().prop_map(Event::OpenStream),
        2 => at().prop_map(Event::CloseStream),
        1 => at().prop_map(Event::Disconnect),
    ]
}

fn step(workers: usize) -> impl Strategy<Value = Step> {
    let at = any::<Index>;
    prop_oneof![
        3 => (0..workers, 0..LABELS).prop_map(|(w, l)| Step::Open(w, l)),
        2 => (at(), 0..5_000u64).prop_map(|(i, n)| Step::Read(i, n)),
        3 => (at(), any::<bool>()).prop_map(|(i, ok)| Step::Close(i, ok)),
        3 => (0..workers, 0..LABELS).prop_map(|(w, l)| Step::Request(w, l)),
        2 => at().prop_map(Step::RequestAgain),
        4 => (at(), 0..ENDS.len()).prop_map(|(i, end)| Step::Respond(i, end)),
        6 => (0..workers, event()).prop_map(|(w, event)| Step::Http2(w, event)),
        1 => (0..workers, 1..3u16).prop_map(|(w, port)| Step::Error(w, port)),
        1 => (0..workers).prop_map(Step::Tick),
        2 => prop_oneof![Just(500u64), Just(3_000), Just(7_000)].prop_map(Step::Wait),
        3 => Just(Step::Second),
        2 => Just(Step::Sweep),
        3 => Just(Step::Scrape),
        1 => Just(Step::ScrapeUsed),
        2 => Just(Step::ScrapeTcp),
        1 => Just(Step::ScrapeBroken),
        2 => (prop_oneof![Just(3), Just(9), Just(11), Just(14)], any::<bool>())
            .prop_map(|(seconds, scraped)| Step::Pass(seconds, scraped)),
    ]
}

fn interleavings() -> impl Strategy<Value = (usize, Vec<Step>)> {
    (1..=3usize)
        .prop_flat_map(|workers| (Just(workers), prop::collection::vec(step(workers), 1..120)))
}

fn apply(proxy: &mut Proxy, step: &Step) {
    match *step {
        Step::Open(worker, label) => proxy.open(worker, label),
        Step::Read(at, bytes) => proxy.read(at, bytes),
        Step::Close(at, success) => proxy.close(at, success),
        Step::Request(worker, label) => proxy.request(worker, label),
        Step::RequestAgain(at) => proxy.request_again(at),
        Step::Respond(at, end) => proxy.respond(at, ENDS[end]),
        Step::Http2(worker, event) => proxy.http2(worker, event),
        Step::Error(worker, port) => proxy.error(worker, port),
        Step::Tick(worker) => proxy.tick(worker),
        Step::Wait(millis) => proxy.wait(millis),
        Step::Second => proxy.second(),
        Step::Sweep => proxy.sweep(),
        Step::Scrape => proxy.scrape(),
        Step::ScrapeUsed => proxy.scrape_used(),
        Step::ScrapeTcp => proxy.scrape_filtered(),
        Step::ScrapeBroken => proxy.scrape_broken(),
        Step::Pass(seconds, scraped) => proxy.pass(seconds, scraped),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_scraper_gets_every_event_once((workers, steps) in interleavings()) {
        let mut proxy = Proxy::new(workers);
        for step in &steps {
            apply(&mut proxy, step);
        }
        proxy.scrape();
        proxy.come_to_rest();
        proxy.check_rest();
        proxy.pass(40, true);
        prop_assert_eq!(proxy.unbounded_sets(), 0, "everything at rest retires");
    }
}

/// One step of an interleaving with a small budget. Time goes by only with a scrape at its end.
#[derive(Clone, Debug)]
enum Tight {
    /// Worker, authority, and the destination if it is outbound.
    Request(usize, usize, Option<usize>),
    RequestAgain(Index),
    Respond(Index, usize),
    /// Worker.
    Http2(usize, Event),
    /// Worker, port, and the destination if it is outbound.
    Open(usize, u16, Option<usize>),
    Close(Index),
    Error(usize, u16),
    End(usize),
    Policy(usize),
    Tick(usize),
    Scrape,
    Seconds(u8),
}

fn tight_step(workers: usize) -> impl Strategy<Value = Tight> {
    let at = any::<Index>;
    let dst = || prop::option::of(0..3usize);
    prop_oneof![
        6 => (0..workers, 0..6usize, dst()).prop_map(|(w, a, d)| Tight::Request(w, a, d)),
        2 => at().prop_map(Tight::RequestAgain),
        6 => (at(), 0..ENDS.len()).prop_map(|(i, end)| Tight::Respond(i, end)),
        6 => (0..workers, event()).prop_map(|(w, event)| Tight::Http2(w, event)),
        3 => (0..workers, 1..4u16, dst()).prop_map(|(w, p, d)| Tight::Open(w, p, d)),
        3 => at().prop_map(Tight::Close),
        1 => (0..workers, 1..4u16).prop_map(|(w, p)| Tight::Error(w, p)),
        1 => (0..3usize).prop_map(Tight::End),
        2 => (0..spent::LEADING.len()).prop_map(Tight::Policy),
        2 => (0..workers).prop_map(Tight::Tick),
        2 => Just(Tight::Scrape),
        3 => prop_oneof![Just(1u8), Just(3), Just(14), Just(20)].prop_map(Tight::Seconds),
    ]
}

/// Workers, series, bytes, steps. Some thousand bytes are spent by a few label sets.
fn tight() -> impl Strategy<Value = (usize, (u64, usize), Vec<Tight>)> {
    let series = prop_oneof![Just(1u64), Just(2), Just(4), Just(100)];
    let bytes = prop_oneof![Just(12_000usize), Just(24_000), Just(48_000), Just(1 << 20)];
    (1..=3usize, series, bytes).prop_flat_map(|(workers, series, bytes)| {
        let steps = prop::collection::vec(tight_step(workers), 1..100);
        (Just(workers), Just((series, bytes)), steps)
    })
}

fn apply_tight(proxy: &mut spent::Proxy, step: &Tight) {
    match *step {
        Tight::Request(worker, authority, dst) => proxy.request(worker, authority, dst),
        Tight::RequestAgain(at) => proxy.request_again(at),
        Tight::Respond(at, end) => proxy.respond(at, ENDS[end]),
        Tight::Http2(worker, event) => proxy.http2(worker, event),
        Tight::Open(worker, port, dst) => proxy.open(worker, port, dst),
        Tight::Close(at) => proxy.close(at),
        Tight::Error(worker, port) => proxy.error(worker, port),
        Tight::End(dst) => proxy.end_destination(dst),
        Tight::Policy(at) => proxy.set_policy(at),
        Tight::Tick(worker) => proxy.tick(worker),
        Tight::Scrape => proxy.scrape(),
        Tight::Seconds(seconds) => (0..seconds).for_each(|_| proxy.second()),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_budget_and_no_policy_loses_an_event((workers, budget, steps) in tight()) {
        let mut proxy = spent::Proxy::new(workers, budget, spent::LEADING);
        for step in &steps {
            apply_tight(&mut proxy, step);
        }
        proxy.come_to_rest();
    }

    /// Policies that take labels away which follow those of a label set: there it stays, and only series come and go.
    #[test]
    fn no_label_that_comes_and_goes_loses_an_event((workers, budget, steps) in tight()) {
        let mut proxy = spent::Proxy::new(workers, budget, spent::TRAILING);
        for step in &steps {
            apply_tight(&mut proxy, step);
        }
        proxy.come_to_rest();
    }
}
