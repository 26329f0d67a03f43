//! The relay of one connection pair: bytes in, the same bytes out, both ways in one task.
//!
//! `connection` runs it once both sockets are open. With a session it asks how many
//! bytes may go on; without one everything does. It must not know HTTP.
//!
//! A direction reads only when what it read before is written, so the buffer of each
//! direction bounds its memory, and a slow reader slows its writer.

use std::future::{Future, poll_fn};
use std::io;
use std::pin::{Pin, pin};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use tokio::time::Sleep;

use crate::activity::Busy;
use crate::buffer::{Flow, LARGE, Pool};
use crate::endpoints::Claim;
use crate::exchange::End;
use crate::forward::reset;
use crate::http1::reply::Reply;
use crate::record::Side;
use crate::session::Session;
use crate::stream::Stream;
use crate::telemetry::Direction;

mod half;
mod held;
mod leave;
mod timers;

use half::{Half, Took};
pub use held::{GRACE, Held};
pub use leave::{Idle, Left};

/// How long an HTTP client may keep a connection open that its server has closed, before
/// the proxy closes it too. Nothing can be answered on it any more.
pub const LINGER: Duration = Duration::from_secs(10);

/// Reads of a connection in each direction before the others of its worker have their turn: a
/// busy one delays them by what it takes to copy half a MiB. What goes by unread counts as the
/// reads that it would have been.
pub const TURNS: usize = 8;

/// How often a client that is not read from, because its server does not read, is looked at:
/// one that was reset must not pin its server.
pub const VIGIL: Duration = Duration::from_secs(1);

/// A connection pair, ready to be relayed.
pub struct Pair {
    pub client: Stream,
    pub server: Stream,
    /// The claim on the server's endpoint, held as long as the connection lives.
    pub claim: Option<Claim>,
    /// The accounts of the two sockets.
    pub accepted: Side,
    pub dialed: Side,
    /// Bytes that detection has read already.
    pub up: Flow,
    pub down: Flow,
    /// The HTTP session; none for an opaque connection.
    pub session: Option<Session>,
    /// Tells which socket is the application's.
    pub direction: Direction,
    /// What the client is held to for as long as the connection lives; none where nobody asks.
    pub held: Option<Box<Held>>,
    /// How the server was lost before there was a relay to see it.
    pub lost: Option<io::Error>,
}

/// Relays until both sides have ended, and closes every account; or until another server is needed, and answers what is
/// to be relayed to that one.
pub async fn relay(mut pair: Pair, pool: &Pool, busy: Busy) -> Option<Box<Left>> {
    let can_pipe = pair.client.plain().is_some() && pair.server.plain().is_some();
    let mut relay = Relay {
        can_pipe,
        client: Half::new(&mut pair.client, &pair.accepted),
        server: Half::new(&mut pair.server, &pair.dialed).after(pair.lost),
        up: pair.up,
        down: pair.down,
        session: pair.session,
        claim: pair.claim,
        direction: pair.direction,
        held: pair.held,
        first_eof: None,
        replied: false,
        linger: None,
        vigil: None,
        alarm: None,
        turns: 0,
        pool,
        busy,
    };
    poll_fn(|cx| relay.poll(cx)).await;
    if relay.may_leave() {
        let left = relay.part();
        return left.map(|left| left.of((pair.client, pair.accepted), (pair.server, pair.dialed)));
    }
    let passes_reset = relay.passes_reset();
    let is_cut = relay.held.as_ref().is_some_and(|held| held.is_cut);
    let (client_error, server_error) = relay.finish();
    // A side that is reset because of the other one closes with the other's error.
    let (of_client, of_server) = (client_error.as_ref(), server_error.as_ref());
    if of_client.is_some() {
        if is_cut {
            reset(pair.client.tcp());
        }
        reset(pair.server.tcp());
        pair.accepted.close(of_client);
        pair.dialed.close(of_server.or(of_client));
    } else {
        if passes_reset {
            reset(pair.client.tcp());
        }
        pair.accepted.close(of_server.filter(|_| passes_reset));
        pair.dialed.close(of_server);
    }
    None
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Which {
    Client,
    Server,
}

struct Relay<'a> {
    client: Half<'a>,
    server: Half<'a>,
    /// Whether the bytes of both sockets are those of the application.
    can_pipe: bool,
    up: Flow,
    down: Flow,
    session: Option<Session>,
    claim: Option<Claim>,
    direction: Direction,
    held: Option<Box<Held>>,
    first_eof: Option<Which>,
    /// The proxy has answered in the server's place: the connection ends.
    replied: bool,
    linger: Option<Pin<Box<Sleep>>>,
    /// Runs while the client is not read from, and a little longer.
    vigil: Option<Pin<Box<Sleep>>>,
    /// Runs while a response has to begin by a time, and may run out before that.
    alarm: Option<Pin<Box<Sleep>>>,
    /// Turns taken since the others had theirs.
    turns: usize,
    pool: &'a Pool,
    busy: Busy,
}

impl Relay<'_> {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.turns = 0;
        self.client.awake();
        self.server.awake();
        if self.obey(cx) {
            return Poll::Ready(());
        }
        while self.turns < TURNS {
            let mut moved = self.up_once(cx);
            moved |= self.down_once(cx);
            if self.may_leave() {
                return Poll::Ready(());
            }
            moved |= self.close_once(cx);
            if self.is_over(cx) {
                return Poll::Ready(());
            }
            if !moved && !self.keep_vigil(cx) && !self.keep_time(cx) {
                self.up.release(self.pool);
                self.down.release(self.pool);
                self.busy.set(self.is_busy());
                return Poll::Pending;
            }
            self.turns += 1;
        }
        self.busy.set(self.is_busy());
        // The worker looks for what else has arrived before this connection goes on.
        let _pending = pin!(tokio::task::yield_now()).poll(cx);
        Poll::Pending
    }

    /// Client to server.
    fn up_once(&mut self, cx: &mut Context<'_>) -> bool {
        let mut moved = false;
        if self.session.as_mut().is_some_and(Session::take_resumed) {
            moved |= self.approve_up();
        }
        if self.up.is_written() && self.client.can_read() && !self.up.is_full() {
            let unread = self.unread(Session::unread_request);
            let took = self.client.read_into(&mut self.up, unread, self.pool, cx);
            moved |= took != Took::Nothing;
            if let Took::Unread(n) = took {
                self.turns += n / LARGE;
                if let Some(session) = &mut self.session {
                    session.pass_request(n);
                }
            }
            if self.client.has_ended() {
                self.first_eof.get_or_insert(Which::Client);
                if let Some(session) = &mut self.session {
                    session.client_eof();
                }
            }
            if moved {
                self.approve_up();
            }
        }
        moved | self.give(cx)
    }

    /// Server to client.
    fn down_once(&mut self, cx: &mut Context<'_>) -> bool {
        let mut moved = false;
        // Once the answer is the proxy's, what the server says late would be in the middle of it.
        let is_refused = |session: &Session| session.refusal().is_some();
        let has_answer =
            self.replied || self.is_leaving() || self.session.as_ref().is_some_and(is_refused);
        if self.down.is_written() && self.server.can_read() && !has_answer {
            let unread = self.unread(Session::unread_response);
            let took = self.server.read_into(&mut self.down, unread, self.pool, cx);
            moved = took != Took::Nothing;
            if let Took::Unread(n) = took {
                self.turns += n / LARGE;
                if let Some(session) = &mut self.session {
                    session.pass_response(n, Instant::now());
                }
            }
            if moved {
                self.approve_down();
            }
        }
        moved |= self.reply_once();
        moved | self.client.write_from(&mut self.down, cx)
    }

    /// How many bytes of a direction may go by unread in this turn.
    fn unread(&self, of: impl FnOnce(&Session) -> u64) -> usize {
        let unread = match &self.session {
            _ if self.replied || !self.can_pipe => 0,
            None => u64::MAX,
            Some(session) => of(session),
        };
        let turns = TURNS.saturating_sub(self.turns) * LARGE;
        usize::try_from(unread).map_or(turns, |n| n.min(turns))
    }

    fn approve_up(&mut self) -> bool {
        let pending = self.up.pending();
        if pending.is_empty() {
            return false;
        }
        let n = match &mut self.session {
            _ if self.replied => 0,
            Some(session) => session.request_bytes(pending, Instant::now()),
            None => pending.len(),
        };
        self.up.approve(n);
        if self.replied || self.session.as_ref().is_some_and(Session::takes_nothing) {
            self.up.drop_pending();
        }
        n > 0
    }

    fn approve_down(&mut self) {
        let pending = self.down.pending();
        let n = match &mut self.session {
            Some(session) => session.response_bytes(pending, Instant::now()),
            None => pending.len(),
        };
        self.down.approve(n);
        self.weigh();
        if self.server.has_ended() {
            let lost = |session: &mut Session| session.server_lost(Instant::now());
            if self.session.as_mut().is_some_and(lost) {
                return;
            }
            self.first_eof.get_or_insert(Which::Server);
            if self.owes_answer() {
                // Half a head and an answer of the proxy's own would make neither.
                self.down.drop_pending();
            }
            let pending = self.down.pending().len();
            self.down.approve(pending);
        }
    }

    /// Tells the endpoint's claim how long an answer took to begin, and where there was nobody to give one.
    fn weigh(&mut self) {
        let (Some(claim), Some(session)) = (&self.claim, &mut self.session) else {
            return;
        };
        let latency = session.take_latency();
        if session.take_refusal() {
            claim.refused(Instant::now());
        } else if let Some(latency) = latency {
            claim.observe(latency, Instant::now());
        }
    }

    /// Whether the server has gone without the answer that the client still waits for.
    fn owes_answer(&self) -> bool {
        let owes = self
            .session
            .as_ref()
            .is_some_and(Session::owes_first_answer);
        owes && self.server.has_ended() && !self.client.has_ended()
    }

    /// Answers in the server's place where the session says so.
    fn reply_once(&mut self) -> bool {
        let Some(session) = &self.session else {
            return false;
        };
        // One who has sent all may still read. An answer that does not fit would be none.
        let needs_none = self.replied || self.is_leaving();
        if needs_none || !self.down.is_written() {
            return false;
        }
        let reply = match session.refusal() {
            Some(reply) => reply,
            None if self.owes_answer() => Reply::Reset,
            None => return false,
        };
        let answer = session.answer(reply);
        self.down.drop_pending();
        self.down.append(self.pool, &answer.bytes);
        self.replied = true;
        true
    }

    /// Passes an end on, once everything before it is written.
    fn close_once(&mut self, cx: &mut Context<'_>) -> bool {
        if self.is_leaving() {
            return false;
        }
        let mut moved = false;
        if self.server.has_ended()
            && !self.server.broken
            && let Some(session) = &mut self.session
        {
            session.server_eof(Instant::now());
        }
        let is_cut = self.session.as_ref().is_some_and(Session::is_cut);
        // A client that was reset has not closed: what it sent is not whole.
        let has_closed = self.client.has_ended() && self.client.error.is_none();
        if self.is_given() && (has_closed || self.replied || is_cut) {
            moved |= self.server.shut(cx);
        }
        let answered = self.replied || (self.server.has_ended() && !self.server.broken);
        if self.down.is_empty() && answered {
            moved |= self.client.shut(cx);
        }
        moved
    }

    fn is_over(&mut self, cx: &mut Context<'_>) -> bool {
        if self.client.error.is_some() || self.is_leaving() {
            return self.client.error.is_some();
        }
        if self.passes_reset() && (self.server.broken || self.is_opaque()) {
            return true;
        }
        let answered = self.server.has_ended() || self.replied;
        if !(answered && self.down.is_empty() && self.client.is_shut()) {
            return false;
        }
        if self.client.has_ended() && self.up.is_empty() {
            return true;
        }
        if self.is_opaque() && !self.replied {
            return false;
        }
        if self.linger.is_none() {
            // Nothing more is answered, however long the client stays.
            self.end_all();
        }
        let linger = self
            .linger
            .get_or_insert_with(|| Box::pin(tokio::time::sleep(LINGER)));
        linger.as_mut().poll(cx).is_ready()
    }

    /// Whether the client must learn that the server is gone: it was reset, or it has closed
    /// and takes nothing of what the client still sends.
    fn passes_reset(&self) -> bool {
        let takes_nothing = self.server.has_ended() && self.server.error.is_some();
        let is_unheard = takes_nothing && !self.client.has_ended();
        (self.server.broken || is_unheard) && !self.replied && self.down.is_empty()
    }

    fn is_opaque(&self) -> bool {
        self.session.as_ref().is_none_or(Session::is_opaque)
    }

    fn is_busy(&self) -> bool {
        let is_unwritten = !self.down.is_written() || self.client.is_unsent();
        if is_unwritten || !self.up.is_written() || self.server.is_unsent() {
            // Who reads slowly may still have to get the end of what is over for whoever wrote it.
            return true;
        }
        match &self.session {
            Some(session) if !session.is_opaque() => session.is_busy(),
            _ => match self.direction {
                Direction::Inbound => !self.server.has_ended(),
                Direction::Outbound => !self.client.has_ended(),
            },
        }
    }

    /// Closes the HTTP accounts.
    fn end_all(&mut self) {
        let Some(session) = &mut self.session else {
            return;
        };
        let (client, server) = (&self.client.error, &self.server.error);
        let is_clean = client.is_none() && server.is_none();
        let end = match self.first_eof {
            _ if self.replied => End::Reset,
            _ if session.is_tunnel() && is_clean => End::Complete,
            _ if client.is_some() => End::Canceled,
            // Who has sent all may still read; its server has failed it.
            Some(Which::Client) if server.is_none() => End::Canceled,
            _ => End::Reset,
        };
        session.end_all(Instant::now(), end);
    }

    /// Closes the HTTP accounts; answers the error of each socket.
    fn finish(mut self) -> (Option<io::Error>, Option<io::Error>) {
        self.end_all();
        (self.client.error, self.server.error)
    }
}

#[cfg(test)]
mod tests;
