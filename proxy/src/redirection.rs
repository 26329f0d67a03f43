//! Whether this pod is redirected, as the proxy finds out by itself: it connects to a port of loopback from which the rules
//! of `init` lead to its own outbound listener, and reads who answers. `app` starts the check on the service thread;
//! `accept` has the connections of it answered here. It tells of the rules for connections to the pod as well, because they
//! are installed with those. Must not know how the rules are made, nor what else they redirect.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use socket2::SockRef;
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::time;

use crate::heartbeat;
use crate::telemetry::Redirection;

/// TCP port of loopback to which the proxy connects; without the rules nobody of ours listens there.
pub const PORT: u16 = weir_crds::ports::HEARTBEAT;
/// What the proxy answers itself. Whoever answers otherwise is an application that has the port.
pub const WORD: &[u8] = b"weir";
/// How often the first verdict may fail to come: the rules are older than the proxy, so only a busy machine delays it.
pub const FIRST_LOOKS: u32 = 5;
/// Time between the looks for the first verdict. Default: 200 ms.
pub const FIRST_PAUSE: Duration = Duration::from_millis(200);
/// How many looks in a row must fail before a pod that was redirected is not: a single one may be load.
pub const LOOKS: u32 = 2;

/// How the pod is looked at.
#[derive(Clone, Copy, Debug)]
pub struct Config {
    /// Time between two looks. Default: 10 s.
    pub interval: Duration,
    /// How long an answer may take. Default: 1 s.
    pub timeout: Duration,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            interval: Duration::from_secs(10),
            timeout: Duration::from_secs(1),
        }
    }
}

/// What is known of the redirection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum State {
    /// Nothing yet.
    #[default]
    Unknown,
    /// The rules are there: new connections come to the proxy while it beats, in a STRICT Mesh at any time.
    Redirected,
    /// No rules are there: connections go direct, and nobody measures or secures them.
    Direct,
}

/// Where the state is published.
#[derive(Debug)]
pub struct Told {
    pub state: watch::Sender<State>,
    pub gauge: Redirection,
}

/// Whether a redirected connection of the pod is one of the check: so it must be answered and never forwarded, which would
/// lead it here again. All of loopback is meant, though only its two host addresses are redirected.
pub fn is_check(original: SocketAddr) -> bool {
    original.ip().is_loopback() && original.port() == PORT
}

/// Answers a connection of the check, which the caller then closes. Never blocks: a new socket has room for a word.
pub fn answer(stream: &TcpStream) {
    if let Err(error) = SockRef::from(stream).send(WORD) {
        tracing::debug!(%error, "a check of the redirection is not answered");
    }
}

/// Where to look, by the families that the outbound listeners take.
///
/// The rules of both families are installed at once, so either tells of all. IPv4 is asked first, because a kernel without
/// IPv6 NAT, and a pod that wants it so, has the rules of IPv4 alone; a pod without IPv4 addresses has 127.0.0.1 as well.
pub fn addresses(ipv4: bool, ipv6: bool) -> Vec<SocketAddr> {
    let v4 = ipv4.then_some((Ipv4Addr::LOCALHOST, PORT).into());
    let v6 = ipv6.then_some((Ipv6Addr::LOCALHOST, PORT).into());
    v4.into_iter().chain(v6).collect()
}

/// Looks soon after the first beat and then every [`Config::interval`], for as long as anybody beats.
pub async fn check(
    config: Config,
    addresses: Vec<SocketAddr>,
    beat: watch::Receiver<heartbeat::State>,
    told: Told,
) {
    let look = || look_at(&addresses, config.timeout);
    keep(config.interval, beat, look, &told).await;
}

/// Looks while every worker moves. One that does not cannot answer, and a proxy that is paused or drains says no more of
/// its pod than it did.
async fn keep<F: Future<Output = Found>>(
    interval: Duration,
    mut beat: watch::Receiver<heartbeat::State>,
    look: impl Fn() -> F,
    told: &Told,
) {
    let mut looks = Looks::default();
    while beat.wait_for(moves).await.is_ok() {
        let found = look().await;
        if found == Found::Itself || moves(&beat.borrow()) {
            told.publish(looks.enter(found));
        }
        time::sleep(looks.pause(interval)).await;
    }
}

fn moves(state: &heartbeat::State) -> bool {
    matches!(
        state,
        heartbeat::State::Beating | heartbeat::State::Unsendable
    )
}

/// What one look says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Found {
    /// The proxy met itself.
    Itself,
    /// Nobody is there, or somebody else.
    Other,
    /// It could not be told: the machine has no room for the look, or no time.
    Nothing,
}

/// What the looks so far say.
#[derive(Debug, Default)]
struct Looks {
    state: State,
    /// How many have failed in a row.
    failed: u32,
}

impl Looks {
    fn enter(&mut self, found: Found) -> State {
        // Load takes no pod that was redirected out of its Services.
        if found == Found::Nothing && self.state == State::Redirected {
            return self.state;
        }
        let found = found == Found::Itself;
        self.failed = if found { 0 } else { self.failed + 1 };
        let patience = match self.state {
            State::Unknown => FIRST_LOOKS,
            State::Redirected | State::Direct => LOOKS,
        };
        if found {
            self.state = State::Redirected;
        } else if self.failed >= patience {
            self.state = State::Direct;
        }
        self.state
    }

    fn pause(&self, interval: Duration) -> Duration {
        match self.state {
            State::Unknown => FIRST_PAUSE.min(interval),
            State::Redirected | State::Direct => interval,
        }
    }
}

impl Told {
    /// Publishes and logs a change of state.
    fn publish(&self, state: State) {
        let changed = self.state.send_if_modified(|current| {
            let changed = *current != state;
            *current = state;
            changed
        });
        if !changed {
            return;
        }
        match state {
            State::Unknown => {}
            State::Redirected => {
                self.gauge.set(true);
                tracing::info!("this pod is redirected");
            }
            State::Direct => {
                self.gauge.set(false);
                tracing::warn!(
                    "this pod is not redirected: its connections go direct, unmeasured and unsecured. Why is in the log of its \
                     init container kuma-init, or in that of the CNI plugin of its node; restart the pod once that is mended"
                );
            }
        }
    }
}

/// Whether the proxy meets itself at one of the addresses.
async fn look_at(addresses: &[SocketAddr], timeout: Duration) -> Found {
    let mut all = Found::Other;
    for address in addresses {
        match time::timeout(timeout, is_answered(*address)).await {
            Ok(Ok(true)) => return Found::Itself,
            Ok(Ok(false)) => tracing::debug!(%address, "somebody else answers: not redirected"),
            Ok(Err(error)) if is_refused(&error) => {
                tracing::debug!(%address, %error, "nobody of ours listens: not redirected");
            }
            Ok(Err(error)) => {
                tracing::debug!(%address, %error, "cannot tell whether it is redirected");
                all = Found::Nothing;
            }
            Err(_) => {
                tracing::debug!(%address, ?timeout, "no answer tells whether it is redirected");
                all = Found::Nothing;
            }
        }
    }
    all
}

fn is_refused(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionRefused, ConnectionReset};
    [ConnectionRefused, ConnectionReset].contains(&error.kind())
}

async fn is_answered(address: SocketAddr) -> io::Result<bool> {
    let mut stream = TcpStream::connect(address).await?;
    let mut answer = Vec::with_capacity(WORD.len() + 1);
    let most = WORD.len() as u64 + 1;
    (&mut stream).take(most).read_to_end(&mut answer).await?;
    // Both sides are done, so a reset takes nothing from either, and leaves no socket behind that waits for a minute.
    SockRef::from(&stream).set_linger(Some(Duration::ZERO))?;
    Ok(answer == WORD)
}

#[cfg(test)]
mod tests;
