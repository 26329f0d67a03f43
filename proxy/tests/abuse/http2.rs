//! HTTP/2 to a service of several endpoints, whose every frame the proxy takes apart, and to an application that
//! frames pass on to: clients that send what costs them little. Others are served meanwhile, and memory stays bounded.

use std::future::poll_fn;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use bytes::Bytes;
use h2::client::{ResponseFuture, SendRequest};
use h2::server::SendResponse;
use h2::{RecvStream, SendStream};
use hyper::http::{Request, Response};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use weir_proxy::terminate::Config;

use super::child::{DEADLINE, Proxy};
use super::wire::{END_HEADERS, END_STREAM, PREFACE, block, data, frame, headers, reset, settings};

/// Most resident memory that an attack may cost, in KiB. What the windows of streams hold is looked at by itself.
const BOUND: f64 = 24.0 * 1024.0;
/// The same where clients open all the streams that they may: their connections, and the streams with their heads, at both
/// ends.
const OPEN: f64 = CLIENTS as f64 * (CONNECTION + 256.0 * 16.0);
/// Most that a stream may cost whose window is full, in KiB: its own, and what its window waits in, which is up to twice
/// as large.
const STREAM: f64 = 8.0 + 2.0 * 64.0;
/// Most that a connection may cost besides, in KiB: its buffers, and the frames of one turn.
const CONNECTION: f64 = 1024.0;
/// Clients of an attack at a time.
const CLIENTS: usize = 8;
/// Longest that another client may wait meanwhile. The attackers and the endpoints share a thread.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long an attack goes on, unless it is ended.
const ATTACK: Duration = Duration::from_secs(2);

/// An endpoint that answers each request: `/read` once its body has ended, `/hang` never, `/early` with a body of its own
/// and without reading on.
pub(crate) async fn endpoint() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let addr = listener.local_addr().expect("an address");
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut builder = h2::server::Builder::new();
                // What many clients send in small pieces comes on one connection.
                builder.data_frame_budget(usize::MAX);
                // A stream that nobody reads takes little, and holds up no other one.
                builder
                    .initial_window_size(2 * 1024)
                    .initial_connection_window_size(16 * 1024 * 1024);
                let Ok(mut connection) = builder.handshake(stream).await else {
                    return;
                };
                let mut held = Vec::new();
                while let Some(Ok((request, mut respond))) = connection.accept().await {
                    match request.uri().path() {
                        "/hang" => held.push((request, respond)),
                        "/early" => {
                            let answered = respond.send_response(Response::new(()), false);
                            let _gone = answered.map(|mut body| {
                                body.send_data(Bytes::from_static(b"enough"), true)
                            });
                        }
                        "/read" => drop(tokio::spawn(read(request, respond))),
                        _ => drop(respond.send_response(Response::new(()), true)),
                    }
                }
            });
        }
    });
    addr
}

async fn read(request: Request<RecvStream>, mut respond: SendResponse<Bytes>) {
    let mut body = request.into_body();
    while let Some(Ok(bytes)) = body.data().await {
        let _over = body.flow_control().release_capacity(bytes.len());
    }
    let _gone = respond.send_response(Response::new(()), true);
}

/// Both ways that HTTP/2 takes, and how long others may wait. What is relayed reaches the endpoint, which shares its
/// thread with all clients here: their waiting is its own.
async fn proxies() -> [(&'static str, Proxy, Duration); 2] {
    let balancing = Proxy::balancing(&[endpoint().await, endpoint().await]).await;
    let relaying = Proxy::relaying(endpoint().await).await;
    [
        ("taken apart", balancing, PATIENCE),
        ("relayed", relaying, DEADLINE),
    ]
}

pub(crate) const METHOD: (&str, &str) = (":method", "POST");
pub(crate) const SCHEME: (&str, &str) = (":scheme", "http");
const HANG: (&str, &str) = (":path", "/hang");
pub(crate) const AUTHORITY: (&str, &str) = (":authority", "web");

fn open(stream: u32) -> Vec<u8> {
    headers(stream, 0, &[METHOD, SCHEME, HANG, AUTHORITY])
}

/// One request on a connection of its own.
pub(crate) async fn ask(proxy: &Proxy) {
    let asking = async {
        let stream = proxy.connect().await;
        let (mut sender, connection) = h2::client::handshake(stream).await.expect("HTTP/2");
        let running = tokio::spawn(connection);
        let request = Request::get("http://web/").body(()).expect("a request");
        let (response, _): (_, SendStream<Bytes>) =
            sender.send_request(request, true).expect("sent");
        assert_eq!(response.await.expect("an answer").status(), 200);
        running.abort();
    };
    tokio::time::timeout(DEADLINE, asking)
        .await
        .expect("in time");
}

/// One client: sends what `next` makes of a number, until it is cut off or has had its time.
/// Answers how many rounds it had.
async fn attack(mut stream: TcpStream, reads: bool, next: impl Fn(u32) -> Vec<u8>) -> u32 {
    let hello = [PREFACE, &settings(&[])].concat();
    stream.write_all(&hello).await.expect("written");
    let (mut read, mut write) = stream.split();
    let mut rounds = 0;
    let writing = async {
        loop {
            let mut bytes = Vec::new();
            while bytes.len() < 16 * 1024 {
                bytes.extend(next(rounds));
                rounds += 1;
            }
            if write.write_all(&bytes).await.is_err() {
                return;
            }
            // The endpoints, and who asks meanwhile, share this thread.
            tokio::task::yield_now().await;
        }
    };
    let reading = async {
        let mut sink = vec![0; 64 * 1024];
        while reads && read.read(&mut sink).await.is_ok_and(|n| n > 0) {}
        if !reads {
            std::future::pending::<()>().await;
        }
    };
    let both = async {
        tokio::select! {
            () = writing => {}
            () = reading => {}
        }
    };
    let _had_its_time = tokio::time::timeout(ATTACK, both).await;
    rounds
}

/// Runs an attack beside clients that mean well.
async fn withstands(
    name: &str,
    reads: bool,
    next: impl Fn(u32) -> Vec<u8> + Clone + Send + Sync + 'static,
) {
    withstands_within(BOUND, name, reads, next).await;
}

/// The same, where it may cost so much.
async fn withstands_within(
    bound: f64,
    name: &str,
    reads: bool,
    next: impl Fn(u32) -> Vec<u8> + Clone + Send + Sync + 'static,
) {
    for (path, proxy, patience) in proxies().await {
        let name = format!("{name}, {path}");
        let (slowest, grown) = withstood(&name, &proxy, reads, &next).await;
        assert!(grown <= bound, "{name}: {grown} KiB");
        assert!(slowest < patience, "{name}: {slowest:?}");
    }
}

/// Runs it before this proxy. Answers the longest that others have waited, and the memory that it took, in KiB.
async fn withstood(
    name: &str,
    proxy: &Proxy,
    reads: bool,
    next: &(impl Fn(u32) -> Vec<u8> + Clone + Send + Sync + 'static),
) -> (Duration, f64) {
    for _ in 0..20 {
        ask(proxy).await;
    }
    let before = proxy.resident();
    let mut attacks = Vec::new();
    for _ in 0..CLIENTS {
        let stream = proxy.connect().await;
        attacks.push(tokio::spawn(attack(stream, reads, next.clone())));
    }
    let (mut most, mut slowest) = (before, Duration::ZERO);
    while !attacks.iter().all(tokio::task::JoinHandle::is_finished) {
        let start = Instant::now();
        ask(proxy).await;
        slowest = slowest.max(start.elapsed());
        most = most.max(proxy.resident());
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let mut rounds = 0;
    for attack in attacks {
        rounds += attack.await.expect("it ends");
    }
    ask(proxy).await;
    let grown = most.max(proxy.resident()) - before;
    println!("{name}: {rounds} rounds, {grown:.0} KiB; others wait at most {slowest:?}");
    (slowest, grown)
}

#[tokio::test]
async fn rapid_reset() {
    let next = |n: u32| [open(2 * n + 1), reset(2 * n + 1, 8)].concat();
    withstands("rapid reset", true, next).await;
    withstands("rapid reset, unread", false, next).await;
}

#[tokio::test]
async fn continuations_without_an_end() {
    let next = |n: u32| match n {
        0 => frame(0x1, 0, 1, &block(&[METHOD, SCHEME, HANG, AUTHORITY])),
        _ => frame(0x9, 0, 1, &block(&[("x", &"c".repeat(1000))])),
    };
    withstands("CONTINUATION", true, next).await;
    let empty = move |n: u32| match n {
        0 => next(0),
        _ => frame(0x9, 0, 1, b""),
    };
    withstands("empty CONTINUATION", true, empty).await;
}

#[tokio::test]
async fn control_frames_without_an_end() {
    for (name, one) in [
        ("SETTINGS", settings(&[(0x4, 65_535)])),
        ("PING", frame(0x6, 0, 0, b"12345678")),
        ("WINDOW_UPDATE", frame(0x8, 0, 0, &[0, 0, 0, 1])),
        ("PRIORITY", frame(0x2, 0, 1, &[0, 0, 0, 0, 9])),
    ] {
        for reads in [true, false] {
            let one = one.clone();
            withstands(name, reads, move |_| one.clone()).await;
        }
    }
}

#[tokio::test]
async fn lists_of_fields_that_are_larger_than_their_blocks() {
    // One large entry, named 4,000 times: 16 MB of fields a block.
    let mut bomb = vec![0x40];
    bomb.extend(&block(&[("x", &"b".repeat(4000))])[1..]);
    bomb.resize(bomb.len() + 4000, 0xbe);
    let fields = block(&[METHOD, SCHEME, HANG, AUTHORITY]);
    let bomb = [fields, bomb].concat();
    let next = move |n: u32| frame(0x1, END_STREAM | END_HEADERS, 2 * n + 1, &bomb);
    withstands("header lists", true, next).await;
}

#[tokio::test]
async fn streams_that_are_opened_and_left() {
    withstands_within(OPEN, "open streams", true, |n| open(2 * n + 1)).await;
}

/// What a client can have the proxy hold is what its windows are, and no more.
#[tokio::test]
async fn windows_that_are_filled_and_left() {
    let config = Config::default();
    let full = Bytes::from(vec![0; config.window as usize]);
    let mut filling = Filling::begin(config.max_streams, "/hang").await;
    for (_, body) in &mut filling.held {
        body.send_data(full.clone(), false).expect("queued");
    }
    filling.ends("whole", 0).await;
}

/// Small pieces are read into buffers together with what passes: they must not keep those. Where an endpoint has answered
/// and reads no more, its client still has to read that answer.
#[tokio::test]
async fn windows_that_are_filled_piece_by_piece() {
    const PIECE: usize = 256;
    let (large, small) = (Bytes::from(vec![0; 16_000]), Bytes::from(vec![0; PIECE]));
    for path in ["/hang", "/early"] {
        let mut filling = Filling::begin(16, path).await;
        let (_answer, mut passing) = filling.open("/read").await;
        let mut passed = 0;
        for _ in 0..Config::default().window as usize / PIECE {
            for (_, body) in &mut filling.held {
                body.send_data(small.clone(), false).expect("queued");
                passing.reserve_capacity(large.len());
                while passing.capacity() < large.len() {
                    let more = poll_fn(|cx| passing.poll_capacity(cx)).await;
                    more.expect("it is open").expect("its window opens");
                }
                passing.send_data(large.clone(), false).expect("queued");
                passed += large.len();
            }
        }
        filling.ends(path, passed).await;
    }
}

/// A client whose streams wait for an endpoint that takes nothing, and which takes nothing of theirs.
struct Filling {
    proxy: Proxy,
    sender: SendRequest<Bytes>,
    running: JoinHandle<Result<(), h2::Error>>,
    held: Vec<(ResponseFuture, SendStream<Bytes>)>,
    /// Before it came: resident memory, in KiB, and bytes that were read of clients.
    before: (f64, f64),
}

impl Filling {
    const READ: &str = "tcp_read_bytes_total{direction=\"outbound\",peer=\"src\"";

    async fn begin(streams: u32, path: &str) -> Self {
        let proxy = Proxy::balancing(&[endpoint().await, endpoint().await]).await;
        for _ in 0..20 {
            ask(&proxy).await;
        }
        let before = (proxy.resident(), proxy.sum(Self::READ).await);
        let stream = proxy.connect().await;
        stream.set_nodelay(true).expect("a socket");
        let mut builder = h2::client::Builder::new();
        let client = builder.initial_window_size(0).handshake(stream);
        let (sender, connection) = client.await.expect("HTTP/2");
        let mut filling = Self {
            proxy,
            sender,
            running: tokio::spawn(connection),
            held: Vec::new(),
            before,
        };
        for _ in 0..streams {
            let stream = filling.open(path).await;
            filling.held.push(stream);
        }
        filling
    }

    async fn open(&mut self, path: &str) -> (ResponseFuture, SendStream<Bytes>) {
        let ready = self.sender.clone().ready().await;
        self.sender = ready.expect("one more stream");
        let request = Request::post(format!("http://web{path}")).body(());
        let request = request.expect("a request");
        self.sender.send_request(request, false).expect("sent")
    }

    /// Once the windows are full, and so much has passed beside them: what that costs.
    async fn ends(self, how: &str, passed: usize) {
        let Self { proxy, held, .. } = self;
        let (resident, read) = self.before;
        let streams = held.len() as f64;
        let full = streams * f64::from(Config::default().window) + passed as f64;
        proxy.until(Self::READ, |sum| sum >= read + full).await;
        ask(&proxy).await;
        let grown = proxy.resident() - resident;
        println!("{grown:.0} KiB with {streams} streams whose windows were filled, {how}");
        assert!(grown <= CONNECTION + streams * STREAM, "{grown} KiB");
        assert!(!self.running.is_finished(), "its streams are still there");
        self.running.abort();
        drop((self.sender, held));
        proxy.counts("http2_active_streams{", 0.0).await;
    }
}

#[tokio::test]
async fn data_in_the_smallest_pieces() {
    let next = |n: u32| match n {
        0..16 => open(2 * n + 1),
        _ => data(2 * (n % 16) + 1, 0, b"x"),
    };
    withstands("small DATA", true, next).await;
    let empty = |n: u32| match n {
        0 => open(1),
        _ => data(1, 0, b""),
    };
    withstands("empty DATA", true, empty).await;
}

#[tokio::test]
async fn requests_that_make_the_proxy_reset_them() {
    let next = |n: u32| {
        let more = [METHOD, SCHEME, HANG, AUTHORITY, ("content-length", "1")];
        let head = headers(2 * n + 1, 0, &more);
        [head, data(2 * n + 1, END_STREAM, b"xx")].concat()
    };
    withstands("made to reset", true, next).await;
}
