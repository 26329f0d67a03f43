//! Clients that send anything: whatever it is, every account closes, and others are served.

use bytes::Bytes;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::peer::{Client, Setup, serving};
use super::proxy::soon;
use super::service::{by_streams, serve};
use super::wire::{self, END_STREAM, data, settings};

/// Some frame of a client, good or bad, of one of a few streams.
fn any_frame(random: &mut fastrand::Rng, next: &mut u32) -> Vec<u8> {
    let known = 2 * random.u32(0..=*next / 2) + 1;
    match random.u8(0..40) {
        _ if *next == 1 => any_request(random, next),
        0..16 => any_request(random, next),
        16..30 => {
            let flags = if random.u8(..) < 20 { END_STREAM } else { 0 };
            data(known.min(*next - 2), flags, &vec![7; random.usize(0..3000)])
        }
        30..36 => wire::reset(known.min(*next - 2), random.u32(0..14)),
        36..39 => settings(&[(0x4, random.u32(0..100_000))]),
        _ => {
            let payload: Vec<u8> = (0..random.usize(0..20)).map(|_| random.u8(..)).collect();
            wire::frame(random.u8(0..12), random.u8(..), known, &payload)
        }
    }
}

fn any_request(random: &mut fastrand::Rng, next: &mut u32) -> Vec<u8> {
    let stream = *next;
    *next += 2;
    let path = [
        "/plain",
        "/trailers",
        "/stream",
        "/hang",
        "/break",
        "/reset",
    ];
    let path = path[random.usize(..path.len())];
    let flags = if random.bool() { END_STREAM } else { 0 };
    let fields = [
        (":method", "POST"),
        (":scheme", "http"),
        (":path", path),
        (":authority", "web"),
    ];
    wire::headers(stream, flags, &fields)
}

#[tokio::test]
async fn whatever_clients_send_every_account_closes() {
    let endpoints = [
        ("a", serving(Setup::default()).await),
        ("b", serving(Setup::default()).await),
    ];
    let proxy = serve(&endpoints, by_streams());
    let mut random = fastrand::Rng::with_seed(9113);
    for round in 0..300 {
        let mut client = proxy.connect().await;
        let (mut bytes, mut next) = (wire::hello(), 1);
        for _ in 0..random.usize(1..30) {
            bytes.extend(any_frame(&mut random, &mut next));
        }
        let _cut = client.write_all(&bytes).await;
        // Some stay until they have read something, and some are reset.
        if round % 3 > 0 {
            let _some = soon(client.read(&mut [0; 4096])).await;
        }
        if round % 5 == 0 {
            client.set_zero_linger().expect("a socket option");
        }
    }
    proxy
        .counts("tcp_open_connections", &["peer=\"src\""], 0.0)
        .await;
    proxy.counts("http2_active_streams", &[], 0.0).await;
    let asked = proxy.sum("request_total", &[]);
    assert!(asked > 100.0, "{asked}");
    proxy.counts("response_total", &[], asked).await;
    // And everything still works.
    let mut client = Client::connect(&proxy, Setup::default()).await;
    let answer = client.call("/echo", Bytes::from_static(b"body")).await;
    assert_eq!(answer.expect("an answer").body, b"body");
}
