//! What becomes of a terminated connection while its permission is away; the clock is paused.

use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use h2::client::SendRequest;
use h2::{Reason, RecvStream};
use hyper::http::{Request, Response};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use weir_crds::settings::{MtlsMode, Settings};

use super::GRACE;
use crate::activity::{Activity, Gauge};
use crate::forward::{self, Dialer};
use crate::mesh::Mesh;
use crate::permission::{Gate, Permissions};
use crate::record::{Book, Labels, Subject};
use crate::telemetry::{self, Selection, Telemetry};
use crate::terminate::{Config, Incoming, Links, Service, serve};

/// A client in plaintext, whose connection is terminated in front of an application.
struct Bench {
    gate: Rc<Gate>,
    telemetry: Telemetry,
    send: SendRequest<Bytes>,
    client: JoinHandle<Result<(), h2::Error>>,
    /// The client neither reads nor writes from then on, and is still there.
    frozen: Rc<Notify>,
    served: JoinHandle<()>,
}

/// Longer than all buffers between a server and a client.
const BULK: usize = 64 << 20;

/// Answers `/slow` with a body that does not end, `/bulk` with a long one, and others at once.
async fn application(listener: TcpListener) {
    let (stream, _) = listener.accept().await.expect("a connection");
    let mut connection = h2::server::handshake(stream).await.expect("HTTP/2");
    let mut slow = Vec::new();
    while let Some(Ok((request, mut respond))) = connection.accept().await {
        let path = request.uri().path().to_owned();
        let send = respond.send_response(Response::new(()), path == "/");
        let mut send: h2::SendStream<Bytes> = send.expect("sent");
        if path == "/slow" {
            send.send_data(Bytes::from_static(b"some"), false)
                .expect("sent");
            slow.push((request, send));
        } else if path == "/bulk" {
            send.send_data(vec![0; BULK].into(), true).expect("sent");
        }
    }
}

async fn start() -> Bench {
    start_with(|_| ()).await
}

/// Something happens to the service before its client has said anything.
async fn start_with(happens: impl FnOnce(&Service)) -> Bench {
    let (telemetry, mut seats) = telemetry::new(telemetry::Config::default(), 1);
    let labels = Rc::new(Labels::new("all-unauthenticated"));
    let book = Book {
        recorder: Rc::new(seats.remove(0).take()),
        subject: Subject::Inbound {
            server: labels.default_server(80),
        },
        labels,
        target_port: 80,
        standing: Default::default(),
    };
    let dialer = Dialer {
        config: forward::Config::default(),
        mesh: Rc::new(Mesh::new(Vec::new())),
        pool: Rc::default(),
    };
    let (tasks, draining) = (TaskTracker::new(), CancellationToken::new());
    let links = Links::new(Config::default(), dialer, tasks, draining);
    let gate = Rc::new(Gate::default());
    let mut permit = gate.permit(80);
    let _allowed = permit.judge(None);
    let [front, behind] = [listener().await, listener().await];
    let to = behind.local_addr().expect("an address");
    tokio::task::spawn_local(application(behind));
    let connecting = TcpStream::connect(front.local_addr().expect("an address"));
    let (client, accepted) = tokio::join!(connecting, front.accept());
    let incoming = Incoming {
        stream: accepted.expect("a connection").0.into(),
        first: Bytes::new(),
        accepted: book.accepted(std::time::Instant::now()),
        busy: Activity::new(Gauge::default()).begin(),
        permit: Some(permit),
        book: book.clone(),
    };
    let service = links.application((to, None), &book, &Rc::default());
    happens(&service);
    let served = tokio::task::spawn_local(serve(service, incoming));
    let handshake = h2::client::Builder::new()
        .initial_window_size(1 << 30)
        .initial_connection_window_size(1 << 30)
        .handshake(client.expect("connected"));
    let (send, mut connection) = handshake.await.expect("HTTP/2");
    let frozen = Rc::<Notify>::default();
    let freezes = Rc::clone(&frozen);
    let client = tokio::task::spawn_local(async move {
        tokio::select! {
            ended = &mut connection => ended,
            () = freezes.notified() => std::future::pending().await,
        }
    });
    Bench {
        gate,
        telemetry,
        send,
        client,
        frozen,
        served,
    }
}

async fn listener() -> TcpListener {
    TcpListener::bind("127.0.0.1:0").await.expect("a free port")
}

impl Bench {
    fn mode(&self, mode: MtlsMode) {
        let settings = Settings::without_metrics("default");
        self.gate.set(Permissions::of(&settings, mode));
    }

    /// The status of an answer, and its body.
    async fn call(&mut self, path: &str) -> (u16, RecvStream) {
        let request = Request::get(format!("http://web{path}")).body(());
        let request = request.expect("a request");
        let (answer, _) = self.send.send_request(request, true).expect("room");
        let answer = answer.await.expect("an answer");
        (answer.status().as_u16(), answer.into_body())
    }

    /// The sum of the series that begin so and have this label.
    fn sum(&self, family: &str, label: &str) -> f64 {
        let mut text = Vec::new();
        let shown = self.telemetry.expose(&Selection::default(), &mut text);
        shown.expect("a vector takes all");
        let text = String::from_utf8(text).expect("text");
        let samples = text
            .lines()
            .filter(|line| line.starts_with(family) && line.contains(label));
        let values = samples.filter_map(|line| line.rsplit_once(' ')?.1.parse::<f64>().ok());
        values.sum()
    }
}

async fn in_a_set(test: impl Future<Output = ()>) {
    tokio::task::LocalSet::new().run_until(test).await;
}

#[tokio::test(start_paused = true)]
async fn what_is_under_way_has_its_time_and_no_more() {
    in_a_set(async {
        let mut bench = start().await;
        let (status, mut slow) = bench.call("/slow").await;
        assert_eq!(status, 200);
        assert_eq!(slow.data().await.expect("data").expect("no error"), "some");
        let start = Instant::now();
        bench.mode(MtlsMode::Strict);
        assert_eq!(bench.call("/").await.0, 403);
        sleep(GRACE / 2).await;
        assert!(!bench.client.is_finished() && !slow.is_end_stream());
        assert_eq!(bench.call("/").await.0, 403, "also later on");
        let cut = timeout(GRACE, slow.data()).await.expect("it is cut");
        assert!(start.elapsed() >= GRACE);
        cut.expect("an end").expect_err("it breaks off");
        let ended = (&mut bench.client).await.expect("it runs");
        let told = ended.expect_err("a GOAWAY").reason();
        assert_eq!(told, Some(Reason::CANCEL));
        (&mut bench.served).await.expect("it runs");
        let end = |class| bench.sum("tcp_close_total{direction=\"inbound\",peer=\"src\"", class);
        assert_eq!(end("classification=\"failure\""), 1.0);
        assert_eq!(bench.sum("inbound_http_authz_deny_total{", "web"), 2.0);
        assert_eq!(bench.sum("response_total{", "error=\"canceled\""), 1.0);
        assert_eq!(bench.sum("response_total{", "status_code=\"403\""), 2.0);
        assert_eq!(bench.sum("http2_active_", ""), 0.0);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_permission_that_comes_back_in_time_was_never_away() {
    in_a_set(async {
        let mut bench = start().await;
        let (_, slow) = bench.call("/slow").await;
        bench.mode(MtlsMode::Strict);
        sleep(GRACE - Duration::from_millis(100)).await;
        assert_eq!(bench.call("/").await.0, 403);
        bench.mode(MtlsMode::Permissive);
        sleep(2 * GRACE).await;
        assert!(!slow.is_end_stream() && !bench.client.is_finished());
        assert_eq!(bench.call("/").await.0, 200);
        assert_eq!(bench.sum("inbound_http_authz_allow_total{", "web"), 2.0);
        // Its time begins anew.
        bench.mode(MtlsMode::Strict);
        sleep(GRACE / 2).await;
        assert!(!bench.client.is_finished());
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn one_without_a_stream_is_told_to_go_and_closed() {
    in_a_set(async {
        let mut bench = start().await;
        assert_eq!(bench.call("/").await.0, 200);
        let start = Instant::now();
        bench.mode(MtlsMode::Strict);
        let ended = timeout(2 * GRACE, &mut bench.client).await;
        ended.expect("it ends").expect("it runs").expect("in peace");
        assert!(start.elapsed() >= GRACE);
        (&mut bench.served).await.expect("it runs");
        let end = |class| bench.sum("tcp_close_total{", class);
        assert_eq!((end("failure"), end("peer=\"src\"")), (0.0, 1.0));
        assert_eq!(bench.sum("inbound_http_authz_deny_total{", ""), 0.0);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn who_does_not_read_that_it_is_over_goes_all_the_same() {
    in_a_set(async {
        let mut bench = start().await;
        let (status, bulk) = bench.call("/bulk").await;
        bench.frozen.notify_one();
        sleep(GRACE).await;
        assert_eq!(status, 200);
        let written = bench.sum("tcp_write_bytes_total{", "peer=\"src\"");
        assert!(written < BULK as f64, "{written} bytes fit into buffers");
        bench.mode(MtlsMode::Strict);
        let limit = GRACE + 3 * Config::default().linger;
        let ended = timeout(limit, &mut bench.served).await;
        ended.expect("it ends").expect("it runs");
        drop(bulk);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_client_whose_application_has_left_before_it_spoke_is_asked_to_leave() {
    in_a_set(async {
        let bench = start_with(|service| service.setup.draining.cancel()).await;
        let ended = timeout(Duration::from_secs(60), bench.client).await;
        let ended = ended.expect("it is asked").expect("it runs");
        ended.expect("without an error");
        bench.served.await.expect("it runs");
    })
    .await;
}
