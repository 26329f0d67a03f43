//! Requests that may go to another server than the one before on their connection: those of routes that have backends of
//! their own, and those that are sent again. The session says when its server is to be left, and what the next one is
//! given first; `forward::relay` leaves it, and `connection` finds another. It must not know endpoints.
//!
//! From the first request on that a route has something to say about, one is under way at a time: what a client sends
//! ahead waits.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use super::{MAX_PIPELINE, MAX_REFUSALS, Session, State};
use crate::exchange::{Exchange, grpc_code};
use crate::http1::Framing;
use crate::http1::fields::HeadFields;
use crate::http1::request::RequestHead;
use crate::http1::response::ResponseHead;
use crate::record::{Account, Book};
use crate::routes::{Branch, Choice, Fields, MAX_ATTEMPTS, MAX_KEPT};

/// Why the server of a connection is left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Leave {
    /// The next request goes elsewhere. The server owes nothing.
    Elsewhere,
    /// The request that is under way has failed, and is sent again.
    Again,
}

/// Where the requests of a connection go.
#[derive(Debug, Default)]
pub(super) struct Steering {
    /// One request is under way at a time.
    is_strict: bool,
    /// Of which backends the server is.
    here: Option<Branch>,
    /// Of which the next one is to be.
    bound: Option<Branch>,
    leave: Option<Leave>,
    /// When the request began that the next server is for.
    since: Option<Instant>,
    /// When the request that is under way was sent again, for the last time.
    again: Option<Instant>,
    /// The request that is under way, for as long as it is to be sent again or is being.
    kept: Option<Kept>,
}

/// A request that may be sent again.
#[derive(Debug, Default)]
struct Kept {
    /// All that was received of it.
    bytes: Vec<u8>,
    /// Attempts that have failed.
    failed: u32,
    /// What the server of this attempt is given of them before anything else: of the first attempt nothing.
    replay: std::ops::Range<usize>,
    /// Its route says that it may be sent again.
    is_retryable: bool,
    /// The servers that have not seen it.
    refused: Vec<SocketAddr>,
    /// It is not sent any more: its response has begun, or it is too large.
    is_final: bool,
}

impl Steering {
    /// What the server is still to be given of a request that is sent again.
    fn replay(&self) -> &[u8] {
        let kept = self.kept.as_ref();
        kept.map_or(&[], |kept| &kept.bytes[kept.replay.clone()])
    }

    /// How long the server of now has taken, of a latency that may be of several.
    pub(super) fn latest(&self, whole: Duration, now: Instant) -> Duration {
        let again = self.again;
        again.map_or(whole, |began| now.saturating_duration_since(began))
    }
}

impl Session {
    /// Why the server is to be left, once what was approved is written.
    pub fn leave(&self) -> Option<Leave> {
        self.steering.as_ref()?.leave
    }

    /// Another server is looked for: answers of which backends it is to be. What comes next is for that one.
    pub fn set_out(&mut self, now: Instant) -> Option<Branch> {
        let steering = self.steering.as_mut()?;
        let leave = steering.leave.take();
        if leave.is_some() {
            self.responses = State::Head;
            self.response_attempt.succeeded();
            self.completed = 0;
        }
        steering.again = leave.filter(|why| *why == Leave::Again).map(|_| now);
        steering.here = steering.bound.clone();
        steering.here.clone()
    }

    /// The server that was found has answered before: a close of it is what clients expect and retry.
    pub fn met_before(&mut self) {
        self.completed = 1;
    }

    /// What requests are counted under now.
    pub fn book(&self) -> &Book {
        self.ledger.book()
    }

    /// Of which backends the server is.
    pub fn here(&self) -> Option<&Branch> {
        self.steering.as_ref()?.here.as_ref()
    }

    /// When the request began that another server is looked for.
    pub fn since(&self) -> Option<Instant> {
        self.steering.as_ref()?.since
    }

    /// What the server is to be given before anything else of the client.
    pub fn replay(&self) -> &[u8] {
        self.steering.as_ref().map_or(&[], |s| s.replay())
    }

    /// It was given that much.
    pub fn replayed(&mut self, n: usize) {
        let Some(steering) = &mut self.steering else {
            return;
        };
        if let Some(kept) = &mut steering.kept {
            kept.replay.start = (kept.replay.start + n).min(kept.replay.end);
        }
        if steering.replay().is_empty() {
            steering.kept.take_if(|kept| kept.is_final);
            self.resumed = true;
        }
    }

    /// The servers that have not seen the request that is under way.
    pub fn refused(&self) -> &[SocketAddr] {
        let kept = self.steering.as_ref().and_then(|s| s.kept.as_ref());
        kept.map_or(&[], |kept| &kept.refused)
    }

    /// Whether what the client has sent ahead is needed although the server takes no more.
    pub fn is_kept(&self) -> bool {
        let steering = self.steering.as_ref();
        steering.is_some_and(|s| s.leave.is_some() || s.kept.is_some())
    }

    /// Requests that may be under way.
    pub(super) fn most(&self) -> usize {
        match &self.steering {
            Some(steering) if steering.is_strict => 1,
            _ => MAX_PIPELINE,
        }
    }

    /// Remembers where the first request goes, before there is a server.
    pub(super) fn head_for(&mut self, choice: &Choice) {
        let branch = choice.route().and_then(|route| route.branch());
        if let Some(branch) = branch.filter(|_| self.ledger.is_steered()) {
            self.strictly().bound = Some(branch.clone());
        }
    }

    fn strictly(&mut self) -> &mut Steering {
        let steering = self.steering.get_or_insert_default();
        steering.is_strict = true;
        steering
    }

    /// Whether the server of now is the one for a request. If not, it waits: for the response before it, or for another
    /// server.
    pub(super) fn is_here(
        &mut self,
        head: &RequestHead<'_>,
        choice: &Choice,
        now: Instant,
    ) -> bool {
        let is_led = self.ledger.is_steered() && !self.is_led_nowhere;
        if !is_led || choice.is_nowhere() {
            return true;
        }
        let route = choice.route();
        let branch = route.and_then(|route| route.branch());
        let is_plain = branch.is_none() && !may_retry(head, choice);
        if is_plain && self.most() > 1 {
            // It would come into the middle of another.
            return self.replay().is_empty();
        }
        let is_idle = self.exchanges.is_empty();
        let has_closed = !matches!(self.responses, State::Head);
        let steering = self.strictly();
        if !(is_idle && steering.replay().is_empty()) {
            return false;
        }
        // A server that has closed is not left: its close is the client's.
        if steering.here.as_ref() == branch || has_closed {
            return true;
        }
        steering.bound = branch.cloned();
        steering.leave = Some(Leave::Elsewhere);
        steering.since = Some(now);
        self.patience = route.and_then(|route| route.timeout());
        false
    }

    /// A request begins: its bytes are kept where it may be sent again, because its route says so or because it may turn
    /// out that nobody has seen it.
    pub(super) fn begin_keeping(&mut self, is_retryable: bool, choice: &Choice, now: Instant) {
        if !self.ledger.is_steered() {
            return;
        }
        if choice.route().is_some_and(|route| route.is_retryable()) {
            self.ledger.note_request(now);
        }
        let may_be_unseen = self.may_be_unseen();
        if may_be_unseen {
            self.steering.get_or_insert_default();
        }
        if let Some(steering) = &mut self.steering {
            steering.again = None;
            steering.kept = (is_retryable || may_be_unseen).then(|| Kept {
                is_retryable,
                ..Kept::default()
            });
        }
    }

    /// These bytes of a request go on.
    pub(super) fn keep(&mut self, bytes: &[u8]) {
        let Some(steering) = &mut self.steering else {
            return;
        };
        let kept = steering.kept.as_mut();
        let Some(kept) = kept.filter(|kept| !kept.is_final) else {
            return;
        };
        if kept.bytes.len() + bytes.len() <= MAX_KEPT {
            return kept.bytes.extend_from_slice(bytes);
        }
        kept.is_final = true;
        if kept.replay.is_empty() {
            steering.kept = None;
        }
    }

    /// Whether a request that is under way is kept: then its bytes have to be seen.
    pub(super) fn is_keeping(&self) -> bool {
        self.steering.as_ref().is_some_and(|s| s.kept.is_some())
    }

    /// The server has ended. Answers whether the request that is under way is sent again.
    pub fn server_lost(&mut self, now: Instant) -> bool {
        let is_left = self.leave().is_some() || self.retry(now, (502, "reset"), |_| true);
        if !is_left && let Some(steering) = &mut self.steering {
            steering.kept.take_if(|kept| !kept.is_final);
        }
        is_left
    }

    /// A response begins like this. Answers whether its request is sent again instead.
    pub(super) fn has_failed(&mut self, head: &ResponseHead<'_>, now: Instant) -> bool {
        if self.steering.is_none() {
            return false;
        }
        let status = head.status;
        let ends = head.framing == Framing::None;
        let grpc = head.grpc_status.filter(|_| ends).map(grpc_code);
        if self.retry(now, (status, ""), |e| e.would_fail(status, grpc)) {
            return true;
        }
        if let Some(steering) = &mut self.steering {
            if steering.replay().is_empty() {
                steering.kept = None;
            }
            if let Some(kept) = &mut steering.kept {
                kept.is_final = true;
            }
        }
        false
    }

    /// Takes the front request back, if it may be sent again and `fails`. The attempt counts as this.
    fn retry(
        &mut self,
        now: Instant,
        (status, error): (u16, &str),
        fails: impl FnOnce(&Exchange<Account>) -> bool,
    ) -> bool {
        let is_whole = matches!(self.requests, State::Head | State::UntilClose);
        let Some(steering) = self.steering.as_mut().filter(|_| is_whole) else {
            return false;
        };
        let (Some(kept), Some(front)) = (&mut steering.kept, self.exchanges.front_mut()) else {
            return false;
        };
        let may_retry = kept.is_retryable && !kept.is_final && kept.failed + 1 < MAX_ATTEMPTS;
        let may_retry = may_retry && !front.has_head();
        if !(may_retry && fails(front) && self.ledger.may_retry(now)) {
            return false;
        }
        if error.is_empty() {
            // Who has said nothing has not been fast.
            let began = steering.again.unwrap_or_else(|| front.started());
            self.latency = Some(now.saturating_duration_since(began));
        }
        self.take_back(status, error);
        true
    }

    /// The front request is sent again, all that is kept of it first. The attempt counts as this.
    pub(super) fn take_back(&mut self, status: u16, error: &str) {
        let (Some(steering), Some(front)) = (&mut self.steering, self.exchanges.front_mut()) else {
            return;
        };
        let Some(kept) = &mut steering.kept else {
            return;
        };
        front.retry(Some(status), error);
        self.patience = front.tally().timeout();
        kept.failed += 1;
        kept.replay = 0..kept.bytes.len();
        steering.since = Some(front.started());
        steering.bound = steering.here.clone();
        steering.leave = Some(Leave::Again);
    }

    /// A server has not seen the request that is under way. Answers whether another one may.
    pub(super) fn note_refusal(&mut self, by: SocketAddr) -> bool {
        let kept = self.steering.as_mut().and_then(|s| s.kept.as_mut());
        let may_go = |kept: &&mut Kept| !kept.is_final && kept.refused.len() < MAX_REFUSALS;
        let kept = kept.filter(may_go);
        kept.map(|kept| kept.refused.push(by)).is_some()
    }

    /// A response has ended. What was needed only in case that nobody has seen its request is not any more.
    pub(super) fn forget_steering(&mut self) {
        self.steering
            .take_if(|steering| !steering.is_strict && steering.kept.is_none());
    }

    /// No server is found: what the client has asked is answered in its place, also where it would go elsewhere by now.
    pub fn lead_nowhere(&mut self) {
        self.is_led_nowhere = true;
    }

    /// The server is not left: the wait has ended otherwise.
    pub(super) fn stay(&mut self) {
        if let Some(steering) = &mut self.steering {
            steering.leave = None;
            steering.kept = None;
        }
    }
}

/// Whether a request that has failed may be sent again, as long as it is small enough: its route says so, and nothing but
/// its response is waited for.
pub(super) fn is_retryable(head: &RequestHead<'_>, bytes: &[u8], choice: &Choice) -> bool {
    // One whose client waits for leave to send its body is not whole before it is answered.
    may_retry(head, choice) && HeadFields(&bytes[..head.len]).first("expect").is_none()
}

fn may_retry(head: &RequestHead<'_>, choice: &Choice) -> bool {
    let is_retryable = choice.route().is_some_and(|route| route.is_retryable());
    is_retryable && !head.is_connect && !head.upgrade
}
