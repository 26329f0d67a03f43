//! What the route of a request says about its stream: how long it may wait, and that it may be sent again. What its endpoint
//! has not seen is sent to another, whatever its route says. Here are the attempts after the first.
//!
//! `stream` begins them; each is a `pump` of its own. What a client sees is one request and one response.

use std::future::{Future, poll_fn};
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Instant;

use bytes::Bytes;
use h2::server::SendResponse;
use hyper::http::{HeaderMap, Request};
use tokio::time::Sleep;

use super::super::intake::Intake;
use super::super::lane::{Passing, Replay};
use super::super::message;
use super::super::pool::Service;
use super::super::slot::Refused;
use super::pump::{Pump, Step, Unseen};
use crate::endpoints::Beside;
use crate::exchange::End;
use crate::forward::Failed;
use crate::http1::reply::Reply;
use crate::http1::session::MAX_REFUSALS;
use crate::http2::call::Call;
use crate::routes::{Choice, MAX_ATTEMPTS, MAX_KEPT};
use crate::telemetry::Peer;

/// The terms of one request.
#[derive(Default)]
pub(super) struct Terms {
    pub(super) choice: Choice,
    /// Rings when its response has to have begun.
    alarm: Option<Pin<Box<Sleep>>>,
    /// What was seen of it, for as long as it may be sent again.
    kept: Option<Box<Kept>>,
}

#[derive(Default)]
struct Kept {
    body: Vec<u8>,
    trailers: Option<HeaderMap>,
    retries: u32,
    /// Its route says that it may be sent again.
    is_retryable: bool,
    /// The endpoints that have not seen it.
    refused: Vec<SocketAddr>,
}

impl Terms {
    /// Of a request that begins now, and may turn out to be one that its endpoint has not seen where the service `has_several`.
    pub(super) fn new(choice: Choice, has_several: bool) -> Self {
        let route = choice.route();
        let timeout = route.and_then(|route| route.timeout());
        let is_retryable = route.is_some_and(|route| route.is_retryable());
        Self {
            alarm: timeout.map(|timeout| Box::pin(tokio::time::sleep(timeout))),
            kept: (is_retryable || has_several).then(|| {
                Box::new(Kept {
                    is_retryable,
                    ..Kept::default()
                })
            }),
            choice,
        }
    }

    /// Ready once the response should have begun.
    pub(super) fn poll_late(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        match &mut self.alarm {
            Some(alarm) => alarm.as_mut().poll(cx),
            None => Poll::Pending,
        }
    }

    /// A part of the request has gone on.
    pub(super) fn keep(&mut self, passing: &Passing<'_>) {
        let Some(kept) = &mut self.kept else {
            return;
        };
        match passing {
            Passing::Data(bytes) if kept.body.len() + bytes.len() > MAX_KEPT => self.kept = None,
            Passing::Data(bytes) => kept.body.extend_from_slice(bytes),
            Passing::Trailers(fields) => kept.trailers = Some((*fields).clone()),
        }
    }

    /// Whether a request that has failed may be sent again, and all that has come of it is here.
    pub(super) fn may_retry(&self) -> bool {
        let kept = self.kept.as_ref();
        kept.is_some_and(|kept| kept.is_retryable && kept.retries + 1 < MAX_ATTEMPTS)
    }

    /// The endpoints that have not seen it.
    pub(super) fn refused(&self) -> &[SocketAddr] {
        self.kept.as_ref().map_or(&[], |kept| &kept.refused)
    }

    /// This endpoint has not seen it. Answers whether another one may: all that has come of it is here, and it was not
    /// refused too often.
    pub(super) fn note_refusal(&mut self, by: SocketAddr) -> bool {
        let kept = self.kept.as_mut();
        let kept = kept.filter(|kept| kept.refused.len() < MAX_REFUSALS);
        kept.map(|kept| kept.refused.push(by)).is_some()
    }

    /// Its response has begun: it is not sent any more.
    pub(super) fn answered(&mut self) {
        self.kept = None;
    }

    /// It is sent once more: what has come of its body, and its trailers. Whoever saw it come says whether it is whole.
    pub(super) fn replay(&mut self, is_whole: bool) -> Replay {
        let kept = self.kept.as_mut().map(|kept| {
            kept.retries += 1;
            let body = Bytes::copy_from_slice(&kept.body);
            (body, kept.trailers.clone())
        });
        let (body, trailers) = kept.unwrap_or_default();
        Replay {
            body,
            trailers,
            is_whole,
        }
    }
}

/// What became of a wait.
pub(super) enum Waited<T> {
    Done(T),
    /// The client has left the stream before.
    Gone,
    /// The response should have begun before.
    Late,
}

/// Waits for what `finding` answers, for as long as somebody wants to know, and gathers what comes of the request.
pub(super) async fn wait<T>(
    finding: impl Future<Output = T>,
    body: &mut Intake,
    respond: &mut SendResponse<Bytes>,
    terms: &mut Terms,
) -> Waited<T> {
    let mut finding = pin!(finding);
    poll_fn(|cx| {
        if respond.poll_reset(cx).is_ready() {
            return Poll::Ready(Waited::Gone);
        }
        if terms.poll_late(cx).is_ready() {
            return Poll::Ready(Waited::Late);
        }
        body.gather(cx);
        finding.as_mut().poll(cx).map(Waited::Done)
    })
    .await
}

/// Sends a request again until its response is no failure, or it may not be retried any more.
pub(super) async fn run(service: Rc<Service>, head: Request<()>, failed: Unseen) {
    let mut failed = failed;
    loop {
        let Unseen {
            found,
            mut body,
            is_whole,
            mut call,
            mut respond,
            started,
            mut terms,
        } = failed;
        // What this attempt had open must not count when the next one chooses.
        let beside = Beside {
            failed: Some(found.claim.addr),
            refused: terms.refused().to_vec(),
        };
        drop(found);
        let found = match wait(
            service.find(Some(beside)),
            &mut body,
            &mut respond,
            &mut terms,
        )
        .await
        {
            Waited::Done(Ok(found)) => found,
            Waited::Done(Err(unreached)) => {
                service.note_unreached(&unreached);
                let reply = unreached.error.reply();
                return service.answer(&mut respond, reply, &mut call);
            }
            Waited::Gone => return call.cut(Instant::now(), End::Canceled),
            Waited::Late => return service.answer(&mut respond, Reply::Late, &mut call),
        };
        found.claim.start(Instant::now());
        let again = Unseen {
            found,
            body,
            is_whole,
            call,
            respond,
            started,
            terms,
        };
        let mut pump = match Pump::replay(head.clone(), again) {
            Ok(pump) => pump,
            Err(mut unsent) => {
                let reply = Reply::Reset;
                return service.answer(&mut unsent.respond, reply, &mut unsent.call);
            }
        };
        let Step::Failed = pump.run().await else {
            return;
        };
        let Some(next) = pump.give_back() else {
            return;
        };
        failed = next;
    }
}

impl Service {
    /// Counts that no endpoint took a request that was to go on.
    pub(super) fn note_unreached(&self, unreached: &Failed<Refused>) {
        let Failed { error, .. } = unreached;
        tracing::debug!(%error, "dial");
        self.book().tcp_error(Peer::Dst, error.class());
    }

    /// Answers a request whose account is open.
    pub(super) fn answer(&self, respond: &mut SendResponse<Bytes>, reply: Reply, call: &mut Call) {
        let label = reply.label().unwrap_or_default();
        if !label.is_empty() {
            self.book().http_error(label);
        }
        let end = match reply {
            Reply::Reset => End::Reset,
            reply => End::Replied(reply.status(), label),
        };
        call.end(Instant::now(), end);
        message::answer(respond, reply, None);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use weir_crds::routes::{Condition, Route, RouteTable};

    use super::*;
    use crate::routes::{Table, compile};

    fn terms(timeout_ms: Option<u64>, retryable: bool) -> Terms {
        let route = Route {
            name: "r".to_owned(),
            condition: Condition::always(),
            classes: Vec::new(),
            timeout_ms,
            retryable,
            backends: Vec::new(),
            missing: 0,
        };
        let table = RouteTable {
            routes: vec![route],
            ..RouteTable::default()
        };
        let table = Table::new(&compile(&table).expect("a table"));
        let head = Request::new(());
        let route = table.find(&message::HeadFields(&head).request());
        Terms::new(
            Choice::Matched(route.expect("a route of everything")),
            false,
        )
    }

    #[tokio::test(start_paused = true)]
    async fn the_alarm_rings_when_the_time_is_up_and_never_without_one() {
        let hour = Duration::from_secs(3600);
        let (mut timed, mut patient) = (terms(Some(3_600_000), false), terms(None, false));
        let begun = tokio::time::Instant::now();
        poll_fn(|cx| timed.poll_late(cx)).await;
        assert!(begun.elapsed() >= hour && begun.elapsed() < hour + Duration::from_secs(1));
        let waited = tokio::time::timeout(24 * hour, poll_fn(|cx| patient.poll_late(cx))).await;
        assert!(waited.is_err());
    }

    #[test]
    fn a_request_is_kept_as_long_as_it_is_small_and_seldom_sent() {
        let mut once = terms(None, false);
        once.keep(&Passing::Data(b"body"));
        assert!(!once.may_retry(), "its route does not say so");
        let mut terms = terms(None, true);
        terms.keep(&Passing::Data(&[1; MAX_KEPT - 1]));
        terms.keep(&Passing::Data(&[2; 1]));
        for _ in 1..MAX_ATTEMPTS {
            assert!(terms.may_retry());
            let Replay { body, trailers, .. } = terms.replay(true);
            assert_eq!(
                (body.len(), body[MAX_KEPT - 1], trailers),
                (MAX_KEPT, 2, None)
            );
        }
        assert!(!terms.may_retry());
        let mut large = self::terms(None, true);
        large.keep(&Passing::Data(&[0; MAX_KEPT]));
        large.keep(&Passing::Data(&[0; 1]));
        large.keep(&Passing::Data(&[0; 1]));
        assert!(!large.may_retry());
    }

    #[test]
    fn what_nobody_has_seen_may_go_on_whatever_its_route_says_but_not_for_ever() {
        let by =
            |port: usize| SocketAddr::from(([127, 0, 0, 1], u16::try_from(port).expect("a port")));
        let mut terms = Terms::new(Choice::Unrouted, true);
        terms.keep(&Passing::Data(b"body"));
        assert!(!terms.may_retry(), "no route says so");
        for n in 1..=MAX_REFUSALS {
            assert!(terms.note_refusal(by(n)));
            assert_eq!(&*terms.replay(false).body, b"body");
        }
        assert!(!terms.note_refusal(by(9)));
        assert_eq!(terms.refused(), [by(1), by(2), by(3), by(4)]);
        let mut large = Terms::new(Choice::Unrouted, true);
        large.keep(&Passing::Data(&[0; MAX_KEPT + 1]));
        assert!(!large.note_refusal(by(1)));
        assert!(!Terms::new(Choice::Unrouted, false).note_refusal(by(1)));
    }
}
