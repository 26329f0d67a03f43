//! Peers that mean harm: what they send passes, it is counted or no longer measured, and what the
//! session remembers of it is bounded.

use weir_proxy::exchange::End;
use weir_proxy::http2::{MAX_BLOCK, MAX_STREAMS, MAX_TABLE};

use crate::pair::Pair;
use crate::wire::{
    END_HEADERS, END_STREAM, acknowledgement, block, data, frame, get, message, post, reset,
    settings, status,
};

/// Most that a session may hold: its streams, two blocks, two tables.
const BOUND: usize = 1024 * 1024;
const UNPARSED: &str = "weir_http_unparsed_total";

fn assert_bounded(pair: &Pair) {
    let held = pair.session().held();
    assert!(held <= BOUND, "{held} bytes are held");
}

#[test]
fn rapid_reset_is_counted_stream_by_stream() {
    const STREAMS: u32 = 100_000;
    let mut pair = Pair::new();
    for n in 0..STREAMS {
        let stream = 2 * n + 1;
        pair.up(&[post(stream), reset(stream, 8)].concat());
    }
    assert_eq!(pair.total("request_total"), f64::from(STREAMS));
    assert_eq!(pair.responses()["-,failure,,canceled"], f64::from(STREAMS));
    assert_eq!(pair.total("http2_active_streams"), 0.0);
    assert!(
        pair.session().held() < 16 * 1024,
        "{}",
        pair.session().held()
    );
}

#[test]
fn more_streams_than_are_measured_are_counted_and_not_followed() {
    let (all, most) = (MAX_STREAMS as u32 + 1000, MAX_STREAMS as u32);
    let mut pair = Pair::new();
    (0..all).for_each(|n| pair.up(&get(2 * n + 1)));
    assert_bounded(&pair);
    assert_eq!(pair.total("request_total"), f64::from(all));
    assert_eq!(pair.total("http2_active_streams"), f64::from(2 * most));
    assert_eq!(pair.sum(UNPARSED, &["reason=\"h2 streams\""]), 1.0);
    (0..all).for_each(|n| pair.down(&status(2 * n + 1, END_STREAM, "200")));
    let responses = pair.responses();
    assert_eq!(responses["200,success,,"], f64::from(most));
    assert_eq!(responses["-,success,,"], 1000.0);
    assert!(
        pair.session().held() < 16 * 1024,
        "given back: {}",
        pair.session().held()
    );
}

#[test]
fn a_flood_of_continuations_ends_the_measuring() {
    let mut pair = Pair::new();
    pair.up(&get(1));
    pair.up(&frame(0x1, 0, 3, b""));
    // Empty ones cost nothing.
    (0..100_000).for_each(|_| pair.up(&frame(0x9, 0, 3, b"")));
    assert_eq!(pair.total(UNPARSED), 0.0);
    for _ in 0..1000 {
        pair.up(&frame(0x9, 0, 3, &[0; 1024]));
        assert!(pair.session().held() <= 2 * MAX_BLOCK);
    }
    assert_eq!(
        pair.sum(UNPARSED, &["reason=\"h2 header block size\""]),
        1.0
    );
    assert_eq!(pair.response().as_deref(), Some("-,success,,"));
    assert!(
        pair.session().held() < 16 * 1024,
        "{}",
        pair.session().held()
    );
}

#[test]
fn floods_of_settings_and_pings_change_nothing() {
    let mut pair = Pair::new();
    pair.up(&get(1));
    for n in 0..100_000 {
        pair.up(&settings(&[(0x1, n)]));
        pair.up(&frame(0x6, 0, 0, b"12345678"));
        pair.up(&frame(0xfa, 0xff, 7, b"grease"));
        pair.down(&frame(0x6, 0x1, 0, b"12345678"));
    }
    assert!(
        pair.session().held() < 16 * 1024,
        "{}",
        pair.session().held()
    );
    (0..200_000).for_each(|_| pair.down(&acknowledgement()));
    pair.down(&status(1, END_STREAM, "200"));
    assert_eq!(pair.response().as_deref(), Some("200,success,,"));
    assert_eq!(pair.total(UNPARSED), 0.0);
}

#[test]
fn a_list_that_a_small_block_repeats_costs_what_the_block_does() {
    let mut pair = Pair::new();
    // One large entry, named 10,000 times: 40 MB of fields for whoever writes them out.
    let mut bomb = vec![0x40];
    bomb.extend(&block(&[("x", &"b".repeat(4000))])[1..]);
    bomb.resize(bomb.len() + 10_000, 0xbe);
    bomb.extend(block(&[(":method", "GET"), (":authority", "web")]));
    for n in 0..100 {
        pair.up(&frame(0x1, END_STREAM | END_HEADERS, 2 * n + 1, &bomb));
    }
    assert_eq!(pair.sum("request_total", &["authority=\"web\""]), 100.0);
    assert_bounded(&pair);
}

#[test]
fn tables_and_authorities_are_bounded() {
    let mut pair = Pair::new();
    pair.down(&settings(&[(0x1, u32::MAX)]));
    pair.up(&acknowledgement());
    // The largest table that is followed, full of the smallest entries and of texts.
    let mut update = vec![0x3f];
    let mut rest = MAX_TABLE - 31;
    while rest >= 128 {
        update.push(0x80 | (rest & 0x7f) as u8);
        rest >>= 7;
    }
    update.push(rest as u8);
    let entries = vec![[0x40, 0, 0]; 3000].concat();
    pair.up(&frame(
        0x1,
        END_STREAM | END_HEADERS,
        1,
        &[update, entries].concat(),
    ));
    assert_bounded(&pair);
    for n in 0..2000 {
        let mut named = vec![0x41];
        named.extend(&block(&[("", &format!("{n:0>100}"))])[2..]);
        pair.up(&frame(0x1, END_STREAM | END_HEADERS, 2 * n + 3, &named));
        pair.down(&status(2 * n + 3, END_STREAM, "200"));
    }
    assert_bounded(&pair);
    assert_eq!(pair.total(UNPARSED), 0.0);
    assert_eq!(pair.total("request_total"), 2001.0);
}

#[test]
fn streams_that_are_reset_in_their_data_are_forgotten() {
    let mut pair = Pair::new();
    let call = [
        (":method", "POST"),
        (":authority", "web"),
        ("content-type", "application/grpc"),
    ];
    pair.up(&crate::wire::headers(1, 0, &call));
    let bytes = data(1, 0, &message(1000));
    pair.up(&bytes[..500]);
    pair.down(&reset(1, 2));
    // The place is another stream's now.
    pair.down(&settings(&[]));
    pair.up(&bytes[500..]);
    pair.up(&crate::wire::headers(3, 0, &call));
    pair.up(&data(3, END_STREAM, &message(1)));
    assert_eq!(pair.total("grpc_messages_total"), 1.0);
    pair.finish(End::Reset);
    assert_eq!(pair.responses()["502,failure,,reset"], 2.0);
}

#[test]
fn a_quiet_connection_holds_little() {
    let mut pair = Pair::new();
    let fields = |n: u32| {
        let indexed =
            |name: &str, value: &str| [&[0x40][..], &block(&[(name, value)])[1..]].concat();
        let all = [
            indexed(":authority", "web.shop"),
            indexed("x-request", &n.to_string()),
            indexed("user-agent", "a client/1.2.3"),
        ];
        all.concat()
    };
    for n in 0..200 {
        pair.up(&frame(0x1, END_STREAM | END_HEADERS, 2 * n + 1, &fields(n)));
        pair.down(&status(2 * n + 1, END_STREAM, "200"));
    }
    let all = pair.session().held() + size_of::<weir_proxy::http2::session::Session>();
    assert!(all <= 4 * 1024, "{all} bytes are held");
}

proptest::proptest! {
    #[test]
    fn anything_passes_and_every_account_closes(
        frames in proptest::collection::vec(
            (proptest::bool::ANY, 0u8..11, 0u8..64, 0u32..9, proptest::collection::vec(0u8..255, 0..40)),
            0..40,
        ),
    ) {
        let mut pair = Pair::new();
        for (is_up, kind, flags, stream, payload) in frames {
            let bytes = frame(kind, flags, stream, &payload);
            if is_up { pair.up(&bytes) } else { pair.down(&bytes) }
        }
        assert_bounded(&pair);
        pair.finish(End::Canceled);
        let responses: f64 = pair.responses().values().sum();
        proptest::prop_assert_eq!(pair.total("request_total"), responses);
        proptest::prop_assert_eq!(pair.total("http2_active_streams"), 0.0);
    }
}
