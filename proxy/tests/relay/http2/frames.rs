//! Frames by hand: what goes in comes out, byte by byte, followed or not.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::wire::{
    END_HEADERS, END_STREAM, acknowledgement, block, data, frame, get, goaway, headers, hello,
    message, post, reset, settings, status,
};
use crate::proxy::{DEADLINE, Proxy, application, read_all, read_until};

/// Every type of frame, with padding, priority, extensions, reserved bits and empty ones.
fn request() -> Vec<u8> {
    let fields = block(&[
        (":method", "POST"),
        (":authority", "web"),
        ("content-type", "application/grpc"),
    ]);
    let padded = [&[3][..], &[0x80, 0, 0, 0, 200], &fields, &[0; 3]].concat();
    let (first, second) = fields.split_at(5);
    [
        hello(),
        acknowledgement(),
        frame(0x8, 0, 0, &[0, 1, 0, 0]),
        frame(0x1, 0x8 | 0x20 | END_HEADERS, 1, &padded),
        frame(0x0, 0x8, 1, &[&[255][..], &message(7), &[0; 255]].concat()),
        frame(0x2, 0, 1, &[0, 0, 0, 0, 9]),
        frame(0x6, 0, 0, b"\0\x01\x02\x03\x04\x05\x06\x07"),
        frame(0x1, 0, 3, first),
        frame(0x9, 0, 3, b""),
        frame(0x9, END_HEADERS, 3, second),
        frame(0xbe, 0xff, 0x8000_0003, b"an extension"),
        data(3, 0, b""),
        data(3, END_STREAM, &message(70_000)),
        data(1, END_STREAM, b""),
        post(5),
        reset(5, 8),
        get(7),
        // A client that begins no more streams is answered what it has asked.
        goaway(2, 0),
    ]
    .concat()
}

fn answer() -> Vec<u8> {
    let promise = [
        &2u32.to_be_bytes()[..],
        &block(&[(":method", "GET"), (":authority", "a")]),
    ]
    .concat();
    [
        settings(&[(0x1, 8192), (0x3, 100), (0x4, 70_000), (0xfa, 1)]),
        acknowledgement(),
        status(1, 0, "103"),
        frame(0x5, END_HEADERS, 1, &promise),
        status(2, 0, "200"),
        data(2, END_STREAM, b"pushed"),
        status(1, 0, "200"),
        data(1, 0, &[7; 100_000]),
        headers(1, END_STREAM, &[("grpc-status", "0")]),
        status(3, 0, "200"),
        reset(3, 2),
        status(7, END_STREAM, "204"),
        frame(0xc, 0, 0, b"an origin"),
        goaway(7, 0),
    ]
    .concat()
}

/// Answers all of it once all of the request is there, and sends that to the test.
async fn exact(mut stream: TcpStream, got: tokio::sync::mpsc::UnboundedSender<Vec<u8>>) {
    let mut bytes = vec![0; request().len()];
    if stream.read_exact(&mut bytes).await.is_ok() {
        let _taken = got.send(bytes);
        let _written = stream.write_all(&answer()).await;
    }
}

#[tokio::test]
async fn every_frame_passes_as_it_is() {
    let (sender, mut got) = tokio::sync::mpsc::unbounded_channel();
    let inbound = Proxy::inbound(application(move |s| exact(s, sender.clone())).await);
    let outbound = Proxy::outbound(&[inbound.addr]);
    let sent = request();
    for piece in [1, 7, 1000, sent.len()] {
        let mut client = outbound.connect().await;
        for (at, bytes) in sent.chunks(piece).enumerate() {
            client.write_all(bytes).await.expect("written");
            // The preface, above all, arrives in pieces.
            if at < 64 {
                tokio::time::sleep(Duration::from_micros(200)).await;
            }
        }
        let came = tokio::time::timeout(DEADLINE, got.recv())
            .await
            .expect("in time");
        assert!(
            came.as_deref() == Some(&*sent),
            "the request, in pieces of {piece}"
        );
        assert!(read_all(&mut client).await == answer(), "the answer");
    }
    for proxy in [&outbound, &inbound] {
        proxy
            .counts("request_total", &["authority=\"web\""], 16.0)
            .await;
        for (labels, n) in [
            (["grpc_status_code=\"0\"", "status_code=\"200\""], 4.0),
            (["error=\"h2(INTERNAL_ERROR)\"", "status_code=\"200\""], 4.0),
            (["error=\"canceled\"", "classification=\"failure\""], 4.0),
            (["error=\"\"", "status_code=\"204\""], 4.0),
        ] {
            proxy.counts("response_total", &labels, n).await;
        }
        proxy.counts("http2_active_connections", &[], 0.0).await;
        assert_eq!(proxy.sum("weir_http_unparsed_total", &[]), 0.0);
    }
    outbound
        .counts("grpc_messages_total", &["kind=\"sent\""], 8.0)
        .await;
}

/// Sends back what it reads.
async fn echo(mut stream: TcpStream) {
    let (mut read, mut write) = stream.split();
    let _ended = tokio::io::copy(&mut read, &mut write).await;
    let _closed = write.shutdown().await;
}

#[tokio::test]
async fn what_is_no_frame_passes_unmeasured() {
    let proxy = Proxy::inbound(application(echo).await);
    // The echo of a preface is none of a server.
    let sent = [
        hello(),
        get(1),
        b"\0\0\x04\x03\0\0\0\0\0and no frame".to_vec(),
    ]
    .concat();
    let mut client = proxy.connect().await;
    client.write_all(&sent).await.expect("written");
    client.shutdown().await.expect("a half-close");
    assert!(read_all(&mut client).await == sent);
    let unparsed = ["direction=\"inbound\""];
    proxy
        .counts("weir_http_unparsed_total", &unparsed, 1.0)
        .await;
    proxy.counts("response_total", &["error=\"\""], 1.0).await;
    proxy.counts("http2_active_connections", &[], 0.0).await;
}

/// Answers stream 1 once something has come, and reads on for as long as something comes.
async fn answer_first(mut stream: TcpStream) {
    let mut bytes = [0; 64 * 1024];
    let answer = [settings(&[]), status(1, END_STREAM, "200")].concat();
    let begun = stream.read(&mut bytes).await.is_ok();
    if begun && stream.write_all(&answer).await.is_ok() {
        while let Ok(1..) = stream.read(&mut bytes).await {}
    }
}

/// Asks once on a connection of its own.
async fn ask_first(proxy: &Proxy) -> TcpStream {
    let mut client = proxy.connect().await;
    let request = [hello(), get(1)].concat();
    client.write_all(&request).await.expect("written");
    let answer = [settings(&[]), status(1, END_STREAM, "200")].concat();
    assert_eq!(read_until(&mut client, &answer).await, answer);
    client
}

#[tokio::test]
async fn floods_pass_and_others_are_served() {
    const FLOOD: u32 = 50_000;
    const OTHERS: usize = 50;
    let proxy = Proxy::inbound(application(answer_first).await);
    let flood = async {
        let mut client = ask_first(&proxy).await;
        for n in 1..=FLOOD {
            let stream = 2 * n + 1;
            let ping = frame(0x6, 0, 0, b"12345678");
            let bytes = [post(stream), reset(stream, 8), settings(&[(1, n)]), ping].concat();
            client.write_all(&bytes).await.expect("written");
        }
    };
    let others = async {
        for _ in 0..OTHERS {
            ask_first(&proxy).await;
        }
    };
    let both = async { tokio::join!(flood, others) };
    tokio::time::timeout(DEADLINE, both).await.expect("in time");
    proxy.counts("tcp_open_connections", &[], 0.0).await;
    let canceled = ["error=\"canceled\"", "classification=\"failure\""];
    proxy
        .counts("response_total", &canceled, f64::from(FLOOD))
        .await;
    let answered = OTHERS as f64 + 1.0;
    proxy
        .counts("response_total", &["status_code=\"200\""], answered)
        .await;
    assert_eq!(proxy.sum("weir_http_unparsed_total", &[]), 0.0);
}
