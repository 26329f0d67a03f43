//! The beat that keeps `init`'s fail-open redirection on: a UDP packet to loopback twice a second,
//! sent by the service thread for as long as every worker's accept loop moves.
//! Called by `app`. Must not know what a worker accepts, nor anything of nftables.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{self, MissedTickBehavior};
use tokio_util::sync::CancellationToken;

/// Loopback UDP port of the beat. Nothing listens there: the kernel's rules see the packet pass.
pub const PORT: u16 = weir_crds::ports::HEARTBEAT;
/// Time between beats. The rules hold for 2 s after one, so three may be missed.
pub const INTERVAL: Duration = Duration::from_millis(500);
/// How often a worker must call [`Pulse::bump`] at least, also when nothing is accepted.
pub const TICK: Duration = Duration::from_millis(250);
/// How often the workers are looked at until the first beat.
const START_POLL: Duration = Duration::from_millis(10);

/// What to beat for.
#[derive(Clone, Copy, Debug)]
pub struct Config {
    /// How many workers must move; one [`Pulse`] is made for each.
    pub workers: usize,
    /// Whether both listeners take IPv4 connections; without it IPv4 goes direct.
    pub ipv4: bool,
    /// Whether both listeners take IPv6 connections; without it, or without `::1`, IPv6 goes direct.
    pub ipv6: bool,
    /// Destination port, [`PORT`] unless a test listens elsewhere.
    pub port: u16,
}

/// What the beat does now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Not every worker has moved yet.
    Starting,
    /// Beats go out: new connections are redirected.
    Beating,
    /// This worker has not moved since the last beat.
    Stalled { worker: usize },
    /// Told to pause: new connections go direct.
    Paused,
    /// No packet could be sent for any family.
    Unsendable,
    /// Told to shut down.
    Stopped,
}

/// A worker's sign of life: bumped by its accept loop, in the loop itself and not in a task of its
/// own, on every accept and at least every [`TICK`].
///
/// A bump is a relaxed load and store of a counter with one writer on its own cache line, about a
/// nanosecond; the reader looks twice a second. The tick costs a worker four wake-ups a second.
#[derive(Debug)]
pub struct Pulse(Arc<Counter>);

/// One cache line, so that workers do not share one.
#[derive(Debug, Default)]
#[repr(align(64))]
struct Counter(AtomicU64);

/// The reading side of the pulses; [`beat`] consumes it.
#[derive(Debug)]
pub struct Heart {
    config: Config,
    counters: Vec<Arc<Counter>>,
    seen: Vec<u64>,
    state: watch::Sender<State>,
}

impl Pulse {
    /// Says that the accept loop of this worker is alive.
    pub fn bump(&self) {
        let moved = self.0.0.load(Ordering::Relaxed).wrapping_add(1);
        self.0.0.store(moved, Ordering::Relaxed);
    }
}

/// Makes the heart, a pulse for each worker and the state to watch: the proxy is in the path once
/// it is [`State::Beating`].
#[must_use]
pub fn new(config: Config) -> (Heart, Vec<Pulse>, watch::Receiver<State>) {
    let counters: Vec<_> = (0..config.workers).map(|_| Arc::default()).collect();
    let pulses = counters.iter().cloned().map(Pulse).collect();
    let (state, watching) = watch::channel(State::Starting);
    let heart = Heart {
        config,
        seen: vec![0; config.workers],
        counters,
        state,
    };
    (heart, pulses, watching)
}

/// Beats until `shutdown`, except while `paused` is true or a worker does not move.
///
/// Nothing ends it early: what cannot be sent is logged once and tried again.
pub async fn beat(mut heart: Heart, paused: watch::Receiver<bool>, shutdown: CancellationToken) {
    let mut sockets: Vec<Beater> = heart.config.destinations().map(Beater::new).collect();
    tokio::select! {
        () = shutdown.cancelled() => {}
        () = heart.run(&mut sockets, paused) => {}
    }
    heart.publish(State::Stopped);
}

impl Heart {
    async fn run(&mut self, sockets: &mut [Beater], paused: watch::Receiver<bool>) {
        while !self.has_started() {
            time::sleep(START_POLL).await;
        }
        let mut ticks = time::interval(INTERVAL);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            let stalled = self.stalled();
            let state = match stalled {
                _ if *paused.borrow() => State::Paused,
                Some(worker) => State::Stalled { worker },
                None => send(sockets),
            };
            self.publish(state);
        }
    }

    /// Whether every worker has moved once.
    fn has_started(&self) -> bool {
        let mut counters = self.counters.iter();
        counters.all(|counter| counter.0.load(Ordering::Relaxed) != 0)
    }

    /// The first worker that did not move since the last call.
    fn stalled(&mut self) -> Option<usize> {
        let mut stalled = None;
        for (worker, (counter, seen)) in self.counters.iter().zip(&mut self.seen).enumerate() {
            let moved = counter.0.load(Ordering::Relaxed);
            if moved == *seen {
                stalled = stalled.or(Some(worker));
            }
            *seen = moved;
        }
        stalled
    }

    /// Publishes and logs a change of state.
    fn publish(&self, state: State) {
        let changed = self.state.send_if_modified(|current| {
            let changed = *current != state;
            *current = state;
            changed
        });
        match state {
            _ if !changed => {}
            State::Stalled { worker } => {
                tracing::warn!(worker, "a worker does not move: new connections go direct");
            }
            State::Unsendable => {
                tracing::warn!("no heartbeat can be sent: new connections go direct");
            }
            state => tracing::info!(?state, "heartbeat"),
        }
    }
}

/// Sends one beat of every family.
fn send(sockets: &mut [Beater]) -> State {
    let mut sent = false;
    for socket in sockets {
        sent |= socket.send();
    }
    if sent {
        State::Beating
    } else {
        State::Unsendable
    }
}

impl Config {
    fn destinations(&self) -> impl Iterator<Item = SocketAddr> + use<> {
        let v4 = SocketAddr::from((Ipv4Addr::LOCALHOST, self.port));
        let v6 = SocketAddr::from((Ipv6Addr::LOCALHOST, self.port));
        let v4 = self.ipv4.then_some(v4);
        v4.into_iter().chain(self.ipv6.then_some(v6))
    }
}

/// Sends the beats of one address family.
#[derive(Debug)]
struct Beater {
    to: SocketAddr,
    /// Made at the first beat, and again after a failure: `::1` may appear later.
    socket: Option<UdpSocket>,
    failing: bool,
}

impl Beater {
    fn new(to: SocketAddr) -> Self {
        Self {
            to,
            socket: None,
            failing: false,
        }
    }

    /// Whether the packet went out. The first failure in a row is logged.
    fn send(&mut self) -> bool {
        let sent = self.try_send();
        if let (Err(error), false) = (&sent, self.failing) {
            let to = self.to;
            tracing::info!(%to, %error, "no heartbeat for this address family: it goes direct");
        }
        self.failing = sent.is_err();
        sent.is_ok()
    }

    fn try_send(&mut self) -> io::Result<()> {
        let socket = match self.socket.take() {
            Some(socket) => socket,
            None => {
                let socket = UdpSocket::bind(SocketAddr::new(self.to.ip(), 0))?;
                socket.set_nonblocking(true)?;
                socket
            }
        };
        socket.send_to(b"beat", self.to)?;
        self.socket = Some(socket);
        Ok(())
    }
}

#[cfg(test)]
mod tests;
