//! Real peers: the h2 crate at both ends, the session between them, whatever they choose to index,
//! to compress and to split. What the server saw is what was counted.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use h2::{RecvStream, client, server};
use hyper::http::{HeaderMap, HeaderName, HeaderValue, Request, Response};
use proptest::prelude::*;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, DuplexStream, duplex};

use crate::pair::Pair;

/// One call: what is asked, and what is answered.
#[derive(Clone, Debug)]
struct Call {
    authority: String,
    fields: Vec<(String, String)>,
    body: Vec<u8>,
    status: u16,
    answer: Vec<u8>,
    answer_fields: Vec<(String, String)>,
    grpc_status: Option<u16>,
}

fn fields() -> impl Strategy<Value = Vec<(String, String)>> {
    let name = prop_oneof![
        Just("cookie".to_owned()),
        Just("authorization".to_owned()),
        Just("content-type".to_owned()),
        "x-[a-z]{1,8}",
    ];
    let value = prop_oneof![
        4 => Just("application/grpc".to_owned()),
        20 => "[!-~]{0,60}",
        1 => "[!-~]{4000,9000}",
    ];
    prop::collection::vec((name, value), 0..6)
}

prop_compose! {
    fn call()(
        authority in prop_oneof!["web", "[a-z]{1,20}\\.example"],
        fields in fields(),
        body in prop::collection::vec(any::<u8>(), 0..600),
        status in prop_oneof![Just(200u16), Just(201), Just(404), Just(500), Just(599)],
        answer in prop::collection::vec(any::<u8>(), 0..600),
        answer_fields in fields(),
        grpc_status in prop::option::of(0u16..17),
    ) -> Call {
        Call { authority, fields, body, status, answer, answer_fields, grpc_status }
    }
}

/// Moves bytes one way through the session, in pieces.
async fn pump(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    show: impl Fn(&[u8]),
    cut: usize,
) {
    let mut buffer = [0; 4096];
    while let Ok(n @ 1..) = from.read(&mut buffer).await {
        buffer[..n].chunks(cut).for_each(&show);
        if to.write_all(&buffer[..n]).await.is_err() {
            break;
        }
    }
    let _closed = to.shutdown().await;
}

fn map(fields: &[(String, String)]) -> HeaderMap {
    let pair = |(name, value): &(String, String)| {
        let name = HeaderName::try_from(name).unwrap();
        (name, HeaderValue::try_from(value).unwrap())
    };
    fields.iter().map(pair).collect()
}

async fn drain(mut body: RecvStream) -> Vec<u8> {
    let mut bytes = Vec::new();
    while let Some(chunk) = body.data().await {
        let chunk = chunk.unwrap();
        body.flow_control().release_capacity(chunk.len()).unwrap();
        bytes.extend(chunk);
    }
    body.trailers().await.unwrap();
    bytes
}

/// Answers every request with the call that its path names.
async fn serve(io: DuplexStream, calls: &[Call], window: u32) {
    let mut builder = server::Builder::new();
    builder
        .initial_window_size(window)
        .max_header_list_size(1 << 20);
    let mut connection = builder.handshake::<_, Bytes>(io).await.unwrap();
    let mut answers = futures::stream::FuturesUnordered::new();
    loop {
        tokio::select! {
            accepted = connection.accept() => {
                let Some(accepted) = accepted else { return };
                let (request, respond) = accepted.unwrap();
                answers.push(answer(request, respond, calls));
            }
            Some(()) = futures::StreamExt::next(&mut answers), if !answers.is_empty() => {}
        }
    }
}

async fn answer(
    request: Request<RecvStream>,
    mut respond: server::SendResponse<Bytes>,
    calls: &[Call],
) {
    let at: usize = request.uri().path()[1..].parse().unwrap();
    let call = &calls[at];
    assert_eq!(request.uri().authority().unwrap().as_str(), call.authority);
    assert!(drain(request.into_body()).await == call.body);
    let mut response = Response::builder().status(call.status).body(()).unwrap();
    *response.headers_mut() = map(&call.answer_fields);
    let mut send = respond.send_response(response, false).unwrap();
    let last = call.grpc_status.is_none();
    send.send_data(call.answer.clone().into(), last).unwrap();
    if let Some(code) = call.grpc_status {
        let trailers = map(&[("grpc-status".to_owned(), code.to_string())]);
        send.send_trailers(trailers).unwrap();
    }
}

async fn ask(calls: &[Call], io: DuplexStream, window: u32) {
    let mut builder = client::Builder::new();
    builder
        .initial_window_size(window)
        .max_header_list_size(1 << 20)
        .header_table_size(window);
    let (sender, connection) = builder.handshake::<_, Bytes>(io).await.unwrap();
    let asking = async {
        let one = |(at, call): (usize, &Call)| one(sender.clone(), at, call.clone());
        futures::future::join_all(calls.iter().enumerate().map(one)).await;
        drop(sender);
    };
    let connection = async { connection.await.unwrap() };
    tokio::join!(asking, connection);
}

async fn one(sender: client::SendRequest<Bytes>, at: usize, call: Call) {
    let uri = format!("http://{}/{at}", call.authority);
    let mut request = Request::post(uri).body(()).unwrap();
    *request.headers_mut() = map(&call.fields);
    let mut sender = sender.ready().await.unwrap();
    let (response, mut send) = sender.send_request(request, false).unwrap();
    drop(sender);
    send.send_data(call.body.into(), true).unwrap();
    let response = response.await.unwrap();
    assert_eq!(response.status(), call.status);
    assert!(drain(response.into_body()).await == call.answer);
}

fn is_failure(call: &Call) -> bool {
    match call.grpc_status {
        Some(code) => [2, 4, 7, 13, 14, 15].contains(&code),
        None => call.status >= 500,
    }
}

fn run(calls: &[Call], cut: usize, window: u32) -> Pair {
    let pair = RefCell::new(Pair::silent(true));
    let (client_io, near) = duplex(16 * 1024);
    let (far, server_io) = duplex(16 * 1024);
    let ((near_read, near_write), (far_read, far_write)) =
        (tokio::io::split(near), tokio::io::split(far));
    let all = async {
        tokio::join!(
            ask(calls, client_io, window),
            serve(server_io, calls, window),
            pump(
                near_read,
                far_write,
                |bytes| pair.borrow_mut().up(bytes),
                cut
            ),
            pump(
                far_read,
                near_write,
                |bytes| pair.borrow_mut().down(bytes),
                cut
            ),
        )
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let deadline = async { tokio::time::timeout(Duration::from_secs(60), all).await };
    runtime.block_on(deadline).expect("in time");
    pair.into_inner()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn what_real_peers_say_is_what_is_counted(
        calls in prop::collection::vec(call(), 1..20),
        cut in prop_oneof![Just(1usize), 2usize..100, Just(4096)],
        window in prop_oneof![Just(100u32), Just(4096), Just(65_535)],
    ) {
        let pair = run(&calls, cut, window);
        prop_assert_eq!(pair.total("weir_http_unparsed_total"), 0.0);
        let mut authorities: BTreeMap<String, f64> = BTreeMap::new();
        let mut rows: BTreeMap<String, f64> = BTreeMap::new();
        for call in &calls {
            *authorities.entry(call.authority.clone()).or_default() += 1.0;
            let class = if is_failure(call) { "failure" } else { "success" };
            let code = call.grpc_status.map_or(String::new(), |code| code.to_string());
            *rows.entry(format!("{},{class},{code},", call.status)).or_default() += 1.0;
        }
        for (authority, n) in authorities {
            let label = format!("authority=\"{authority}\"");
            prop_assert_eq!(pair.sum("request_total", &[&label]), n);
        }
        prop_assert_eq!(pair.responses(), rows);
        prop_assert_eq!(pair.total("response_latency_ms_count"), calls.len() as f64);
        prop_assert_eq!(pair.total("http2_active_streams"), 0.0);
        prop_assert!(!pair.session().is_busy());
    }
}
