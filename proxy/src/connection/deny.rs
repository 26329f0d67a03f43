//! The end of a connection whose peer is known and may not connect: who speaks HTTP is told so, 403 or PERMISSION_DENIED,
//! anybody else is closed on. Nothing is dialed.

use std::future::poll_fn;
use std::rc::Rc;
use std::time::Instant;

use tokio::time::timeout;

use super::{Routed, answer, await_request, first_head};
use crate::buffer::Flow;
use crate::detect::{Verdict, detect};
use crate::exchange::End;
use crate::forward::reset;
use crate::http1::reply::Reply;
use crate::record::HttpLedger;
use crate::session::Session;
use crate::worker::Worker;

/// Refuses a connection, in its own protocol where that has words for it.
pub(super) async fn deny(worker: &Rc<Worker>, mut routed: Box<Routed>) {
    let mut up = Flow::default();
    let session = match protocol(worker, &mut routed, &mut up).await {
        Verdict::Http1 => Some(Session::http1(HttpLedger::new(routed.book.clone()))),
        Verdict::Http2 => Some(Session::http2(HttpLedger::new(routed.book.clone()))),
        Verdict::Opaque | Verdict::NeedMore => None,
    };
    let Some(mut session) = session else {
        routed.book.tcp_judged();
        up.clear();
        up.release(&worker.pool);
        reset(routed.stream.tcp());
        let denied = std::io::Error::from(std::io::ErrorKind::PermissionDenied);
        return routed.accepted.close(Some(&denied));
    };
    let begun = match first_head(worker, &mut routed, &mut up, &mut session).await {
        Ok(Some(begun)) => begun,
        Ok(None) => return routed.close(None),
        Err(error) => return routed.close(Some(&error)),
    };
    session.request_bytes(up.pending(), begun);
    up.clear();
    up.release(&worker.pool);
    await_request(worker, &mut routed, &mut session).await;
    let answered = session.answer(Reply::Denied);
    session.finish(Instant::now(), End::Replied(Reply::Denied.status(), ""));
    let ended = answer(worker, &mut routed, &answered.bytes).await;
    routed.accepted.close(ended.as_ref().err());
}

/// What the client speaks, as far as it says so in time.
async fn protocol(worker: &Worker, routed: &mut Routed, up: &mut Flow) -> Verdict {
    let limit = worker.config.detect.refused_grace;
    let mut first = timeout(limit, read(worker, routed, up)).await;
    loop {
        match first {
            Ok(Ok(n)) if n > 0 => routed.accepted.read(n),
            _ => return Verdict::Opaque,
        }
        match detect(up.pending()) {
            Verdict::NeedMore if !up.is_full() => {}
            verdict => return verdict,
        }
        let limit = worker.config.detect.timeout;
        first = timeout(limit, read(worker, routed, up)).await;
    }
}

async fn read(worker: &Worker, routed: &mut Routed, up: &mut Flow) -> std::io::Result<usize> {
    let from = &mut routed.stream;
    poll_fn(|cx| up.poll_read(cx, from, &worker.pool)).await
}
