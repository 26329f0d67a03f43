//! Answers of the proxy's own to a client whose connection goes nowhere: to what it has asked, in its own protocol, and
//! long enough to be read. Used by the stages that find out that it goes nowhere.

use std::io;
use std::time::Instant;

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::Routed;
use crate::buffer::Flow;
use crate::detect::wait::Detected;
use crate::exchange::End;
use crate::forward::reset;
use crate::http1::reply::Reply;
use crate::session::Session;
use crate::worker::Worker;

/// Answers what the client has asked in the server's place, and ends its connection.
pub(super) async fn refuse(
    worker: &Worker,
    mut routed: Box<Routed>,
    mut session: Session,
    reply: Reply,
) {
    await_request(worker, &mut routed, &mut session).await;
    let answered = session.answer_at(reply, routed.hop);
    if let Some(label) = reply.label() {
        (0..answered.requests).for_each(|_| routed.book.http_error(label));
    }
    let end = End::Replied(reply.status(), reply.label().unwrap_or_default());
    session.end_all(Instant::now(), end);
    let ended = answer(worker, &mut routed, &answered.bytes).await;
    routed.accepted.close(ended.as_ref().err());
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
            match up.read(&mut routed.stream, &worker.pool).await {
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

/// Answers in the server's place, then lets the client read it before the socket closes.
/// The error is how the client ended.
pub(super) async fn answer(worker: &Worker, routed: &mut Routed, bytes: &[u8]) -> io::Result<()> {
    let drain = async {
        routed.stream.write_all(bytes).await?;
        routed.accepted.written(bytes.len());
        routed.stream.shutdown().await?;
        // Closing with unread bytes would reset the connection and lose the answer.
        let mut sink = [0; 1024];
        loop {
            match routed.stream.read(&mut sink).await? {
                0 => return Ok(()),
                n => routed.accepted.read(n),
            }
        }
    };
    let ended = tokio::time::timeout(worker.config.refusal_drain, drain).await;
    ended.unwrap_or(Ok(()))
}

/// Ends a connection whose client will never be forwarded, and that which was dialed for it
/// while it was silent.
pub(super) fn leave(routed: Box<Routed>, detected: Box<Detected>, error: Option<io::Error>) {
    if let (Some(Ok(unused)), Some(_)) = (&detected.server, &error) {
        reset(unused.stream.tcp());
    }
    routed.close(error.as_ref());
}
