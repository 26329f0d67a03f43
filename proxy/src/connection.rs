//! The life of one accepted connection, stage by stage: route, detect, forward, record.
//!
//! `accept` spawns one per connection on its worker. Each stage takes a plain struct and
//! hands on a richer one; this file is only their order.

use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Instant;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::accept::Target;
use crate::activity::Busy;
use crate::buffer::Flow;
use crate::detect::Verdict;
use crate::detect::wait::{Detected, wait};
use crate::endpoints::Chosen;
use crate::exchange::End;
use crate::forward::relay::{Pair, relay};
use crate::forward::{DialError, dial, reset, tune};
use crate::http1::reply::Reply;
use crate::record::{Book, HttpLedger, Side, Subject};
use crate::session::Session;
use crate::telemetry::{Direction, Peer};
use crate::worker::Worker;

/// A connection as `accept` hands it over: accepted, allowed, its target known.
#[derive(Debug)]
pub struct Accepted {
    pub stream: TcpStream,
    pub target: Target,
}

/// A connection that knows where it goes and what it is counted under.
struct Routed {
    stream: TcpStream,
    to: SocketAddr,
    book: Book,
    accepted: Side,
    busy: Busy,
    /// The claim on the endpoint, held as long as the connection lives.
    _endpoint: Option<Chosen>,
}

/// Serves one connection to its end.
pub async fn serve(worker: Rc<Worker>, accepted: Accepted) {
    let Some(mut routed) = route(&worker, accepted) else {
        return;
    };
    let dial_now = worker.server_first.borrow().contains(routed.to);
    let limits = (&worker.config.detect, &worker.config.forward);
    let waited = wait(
        &mut routed.stream,
        routed.to,
        dial_now,
        limits,
        &worker.pool,
    )
    .await;
    let mut detected = match waited {
        Ok(detected) => detected,
        Err(error) => return routed.accepted.close(Some(&error)),
    };
    // Until here nobody has said anything that its end could break.
    routed.busy.set(true);
    routed.accepted.read(detected.up.pending().len());
    learn(&worker, &routed, &detected, dial_now);
    let ledger = || HttpLedger::new(routed.book.clone());
    let session = match detected.verdict {
        Verdict::Http1 => Some(Session::http1(ledger())),
        Verdict::Http2 => Some(Session::http2(ledger())),
        Verdict::Opaque | Verdict::NeedMore => None,
    };
    match session {
        None => open_opaque(&worker, routed, detected).await,
        Some(mut session) => {
            if first_head(&worker, &mut routed, &mut detected.up, &mut session).await {
                open_http(&worker, routed, detected, session).await;
            }
        }
    }
}

/// Route: from the target to an endpoint and the labels of the connection.
fn route(worker: &Worker, accepted: Accepted) -> Option<Routed> {
    let now = Instant::now();
    let Accepted { stream, target } = accepted;
    tune(&stream, &worker.config.forward);
    let labels = &worker.labels;
    let (to, port, endpoint, subject) = match target {
        Target::Application { addr, port, server } => {
            let server = server.unwrap_or_else(|| labels.default_server(port));
            (Some(addr), port, None, Subject::Inbound { server })
        }
        Target::Address(addr) => {
            let dst = labels.unknown_destination();
            (
                Some(addr),
                addr.port(),
                None,
                Subject::Outbound {
                    service: "".into(),
                    dst,
                },
            )
        }
        Target::Service { set, port } => {
            let chosen = set.choose();
            let dst = chosen
                .as_ref()
                .map_or_else(|| labels.unknown_destination(), |e| e.dst.clone());
            let subject = Subject::Outbound {
                service: set.name.clone(),
                dst,
            };
            (chosen.as_ref().map(|e| e.addr), port, chosen, subject)
        }
    };
    let recorder = Rc::clone(&worker.recorder);
    let book = Book {
        recorder,
        labels: Rc::clone(labels),
        subject,
        target_port: port,
    };
    let accepted = book.accepted(now);
    let Some(to) = to else {
        book.tcp_error(Peer::Dst, "connect");
        reset(&stream);
        return None;
    };
    let busy = worker.activity.begin();
    Some(Routed {
        stream,
        to,
        book,
        accepted,
        busy,
        _endpoint: endpoint,
    })
}

fn learn(worker: &Worker, routed: &Routed, detected: &Detected, dialed_at_once: bool) {
    if detected.server_first {
        worker.server_first.borrow_mut().learn(routed.to);
    } else if dialed_at_once && !detected.up.is_empty() {
        worker.server_first.borrow_mut().forget(routed.to);
    }
    if detected.timed_out {
        worker
            .recorder
            .detect_timeout(routed.book.subject.direction());
    }
}

/// Reads until the first request may be forwarded. Answers false when it never may: the
/// client was refused, or is gone, and every account is closed. Where the head takes as long
/// as a request line may, the application is dialed without it: from there on it is the one
/// that decides how long it waits for its clients.
async fn first_head(
    worker: &Worker,
    routed: &mut Routed,
    up: &mut Flow,
    session: &mut Session,
) -> bool {
    let deadline = tokio::time::Instant::now() + worker.config.detect.timeout;
    loop {
        let n = session.request_bytes(up.pending(), Instant::now());
        up.approve(n);
        if let Some(reply) = session.refusal() {
            answer(worker, routed, reply.bytes()).await;
            return false;
        }
        if n > 0 {
            return true;
        }
        let (mut from, _) = routed.stream.split();
        let read = std::future::poll_fn(|cx| up.poll_read(cx, &mut from, &worker.pool));
        match tokio::time::timeout_at(deadline, read).await {
            Err(_slow) => return true,
            Ok(Ok(0)) => session.client_eof(),
            Ok(Ok(n)) => routed.accepted.read(n),
            Ok(Err(_gone)) => return false,
        }
        if up.pending().is_empty() {
            return false;
        }
    }
}

async fn open_opaque(worker: &Worker, routed: Routed, mut detected: Detected) {
    let pending = detected.up.pending().len();
    detected.up.approve(pending);
    let pending = detected.down.pending().len();
    detected.down.approve(pending);
    match connect(worker, &routed, detected.server.take()).await {
        Ok(server) => forward(worker, routed, server, detected, None).await,
        Err(error) => {
            routed.book.tcp_error(Peer::Dst, error.class());
            reset(&routed.stream);
            routed.accepted.close(Some(&error.into()));
        }
    }
}

async fn open_http(
    worker: &Worker,
    mut routed: Routed,
    mut detected: Detected,
    mut session: Session,
) {
    match connect(worker, &routed, detected.server.take()).await {
        Ok(server) => {
            session.dialed();
            forward(worker, routed, server, detected, Some(session)).await;
        }
        Err(error) => {
            await_request(worker, &mut routed, &mut session).await;
            let reply = if error.is_timeout() {
                Reply::Timeout
            } else {
                Reply::Connect
            };
            let label = reply.label().unwrap_or_default();
            routed.book.tcp_error(Peer::Dst, error.class());
            let answered = session.answer(reply);
            (0..answered.requests).for_each(|_| routed.book.http_error(label));
            session.finish(Instant::now(), End::Replied(reply.status(), label));
            answer(worker, &mut routed, &answered.bytes).await;
        }
    }
}

/// Gives a client that has sent its HTTP/2 preface, and no request yet, the time to send one:
/// an answer has to have something to answer.
async fn await_request(worker: &Worker, routed: &mut Routed, session: &mut Session) {
    if !matches!(session, Session::Http2(_)) {
        return;
    }
    let mut up = Flow::default();
    let first = async {
        while !session.is_busy() && !session.is_opaque() {
            let (mut from, _) = routed.stream.split();
            let read = std::future::poll_fn(|cx| up.poll_read(cx, &mut from, &worker.pool));
            match read.await {
                Ok(0) | Err(_) => return,
                Ok(n) => routed.accepted.read(n),
            }
            session.request_bytes(up.pending(), Instant::now());
            up.clear();
        }
    };
    let _late = tokio::time::timeout(worker.config.detect.refused_grace, first).await;
    up.release(&worker.pool);
}

async fn connect(
    worker: &Worker,
    routed: &Routed,
    dialed: Option<Result<TcpStream, DialError>>,
) -> Result<TcpStream, DialError> {
    let outcome = match dialed {
        Some(outcome) => outcome,
        None => dial(routed.to, &worker.config.forward).await,
    };
    outcome.inspect_err(|error| tracing::debug!(%error, "dial"))
}

/// Forward: hands both sockets and what was read so far to the relay.
async fn forward(
    worker: &Worker,
    routed: Routed,
    server: TcpStream,
    detected: Detected,
    session: Option<Session>,
) {
    let dialed = routed.book.dialed(Instant::now());
    dialed.read(detected.down.pending().len() + detected.down.approved().len());
    let direction: Direction = routed.book.subject.direction();
    let pair = Pair {
        client: routed.stream,
        server,
        accepted: routed.accepted,
        dialed,
        up: detected.up,
        down: detected.down,
        session,
        direction,
    };
    relay(pair, &worker.pool, routed.busy).await;
}

/// Answers in the server's place, then lets the client read it before the socket closes.
async fn answer(worker: &Worker, routed: &mut Routed, bytes: &[u8]) {
    if routed.stream.write_all(bytes).await.is_ok() {
        routed.accepted.written(bytes.len());
    }
    // Closing with unread bytes would reset the connection and lose the answer.
    let drain = async {
        routed.stream.shutdown().await?;
        let mut sink = [0; 1024];
        while routed.stream.read(&mut sink).await? > 0 {}
        Ok::<(), std::io::Error>(())
    };
    let _ended_or_not = tokio::time::timeout(worker.config.refusal_drain, drain).await;
}
