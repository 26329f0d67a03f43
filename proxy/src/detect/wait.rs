//! Waiting for the first bytes of a connection without delaying whoever speaks first.
//!
//! The first client byte decides. After a short silence the target is dialed and both
//! sides are awaited; a port that is known to speak first is dialed at once. Called by
//! `connection`; it must not know HTTP beyond the verdict, nor what is counted.

use std::future::poll_fn;
use std::io;
use std::task::Poll;
use std::time::Duration;

use tokio::time::{Instant, timeout, timeout_at};

use super::{Verdict, detect};
use crate::buffer::{Flow, Pool};
use crate::forward::{self, Connected, Destination, Dialer, Failed};
use crate::http2::frame::HEAD;
use crate::http2::frame::types::SETTINGS;
use crate::stream::Stream;

/// How long detection waits.
#[derive(Clone, Copy, Debug)]
pub struct Config {
    /// Silence of the client after which the target is dialed. Default: 2 ms.
    pub silence: Duration,
    /// Longest wait for the rest of a request line, after which the bytes pass as
    /// opaque. Default: 10 s.
    pub timeout: Duration,
    /// How long a client that has not spoken yet may still begin an HTTP request, and so
    /// earn an answer instead of a reset, when the target refused. Default: 50 ms.
    pub refused_grace: Duration,
    /// In a PERMISSIVE mesh, silence of a client after which it is believed to wait for its server rather than to begin
    /// TLS, if three round trips have passed as well: of one that nothing is known of. Default: 250 ms.
    pub stranger_silence: Duration,
    /// The same for a client that has waited for its server at this port before. Default: 10 ms.
    pub plain_silence: Duration,
    /// The same for a client that has spoken the mesh's TLS at this port before: it is slow, more likely. Default: 1 s.
    pub tls_patience: Duration,
    /// The round trip where the system does not say how long it is. Default: 50 ms.
    pub assumed_rtt: Duration,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            silence: Duration::from_millis(2),
            timeout: Duration::from_secs(10),
            refused_grace: Duration::from_millis(50),
            stranger_silence: Duration::from_millis(250),
            plain_silence: Duration::from_millis(10),
            tls_patience: Duration::from_secs(1),
            assumed_rtt: Duration::from_millis(50),
        }
    }
}

/// What the first bytes showed.
#[derive(Debug)]
pub struct Detected {
    pub verdict: Verdict,
    /// The connection to the target, where it was opened while waiting.
    pub server: Option<Result<Connected, Failed>>,
    /// Bytes read from each side, in order, none of them approved.
    pub up: Flow,
    pub down: Flow,
    /// How the server was lost meanwhile.
    pub lost: Option<io::Error>,
    /// The server spoke before the client.
    pub server_first: bool,
    /// A request line did not end in time.
    pub timed_out: bool,
}

impl Detected {
    /// Of a connection whose bytes nobody is to look at; `first` was read of it.
    pub fn unread(first: Flow) -> Self {
        Self::of(Verdict::Opaque, first)
    }

    fn of(verdict: Verdict, first: Flow) -> Self {
        Self {
            verdict,
            server: None,
            up: first,
            down: Flow::default(),
            lost: None,
            server_first: false,
            timed_out: false,
        }
    }
}

/// What is dialed while a client is silent.
pub struct Dialing<'a> {
    pub target: &'a Destination,
    pub dialer: &'a Dialer,
    /// Its servers are known to speak first: it is dialed at once.
    pub at_once: bool,
    /// Told of the connection as soon as it is open, long before anybody may say anything.
    pub opened: &'a mut dyn FnMut(&Connected),
}

/// Waits for the first bytes of `client`, unless some were read of it already.
///
/// # Errors
/// How the client ended; a connection to the server was then reset.
pub async fn wait(
    (client, first): (&mut Stream, Flow),
    dialing: Dialing<'_>,
    config: &Config,
    pool: &Pool,
) -> io::Result<Detected> {
    let mut detected = Detected::of(Verdict::NeedMore, first);
    let waited = listen(client, dialing, &mut detected, (config, pool)).await;
    if let (Err(_), Some(Ok(connected))) = (&waited, &detected.server) {
        forward::reset(connected.stream.tcp());
    }
    waited.map(|()| detected)
}

async fn listen(
    client: &mut Stream,
    dialing: Dialing<'_>,
    detected: &mut Detected,
    (config, pool): (&Config, &Pool),
) -> io::Result<()> {
    if !detected.up.is_empty() {
        return rest(client, detected, First::Client, (config, pool)).await;
    }
    if !dialing.at_once {
        let first = first_bytes(client, detected, pool);
        match timeout(config.silence, first).await {
            Ok(read) => return rest(client, detected, read?, (config, pool)).await,
            Err(_silence) => {}
        }
    }
    // Whose requests may go elsewhere waits for no endpoint, nor is lost with one: what it says decides.
    let is_steered = dialing.target.is_steered();
    let dialed = tokio::select! {
        biased;
        read = first_bytes(client, detected, pool), if is_steered => {
            return rest(client, detected, read?, (config, pool)).await;
        }
        dialed = forward::connect(dialing.target, None, dialing.dialer) => dialed,
    };
    if is_steered && dialed.is_err() {
        let read = first_bytes(client, detected, pool).await?;
        return rest(client, detected, read, (config, pool)).await;
    }
    let grace = dialed.is_err().then_some(config.refused_grace);
    if let Ok(connected) = &dialed {
        (dialing.opened)(connected);
    }
    detected.server = Some(dialed);
    let read = match grace {
        None => first_bytes(client, detected, pool).await?,
        Some(grace) => first_within(grace, client, detected, pool).await?,
    };
    rest(client, detected, read, (config, pool)).await
}

/// Waits for the first bytes of a client for which nothing is dialed: it is to be told something in its own protocol.
/// One that says nothing within `refused_grace` is opaque.
///
/// # Errors
/// How the client ended.
pub async fn hear(
    (client, first): (&mut Stream, Flow),
    config: &Config,
    pool: &Pool,
) -> io::Result<Detected> {
    let mut detected = Detected::of(Verdict::NeedMore, first);
    let read = if detected.up.is_empty() {
        first_within(config.refused_grace, client, &mut detected, pool).await?
    } else {
        First::Client
    };
    rest(client, &mut detected, read, (config, pool)).await?;
    Ok(detected)
}

/// [`First::Silence`] where nobody speaks in time.
async fn first_within(
    limit: Duration,
    client: &mut Stream,
    detected: &mut Detected,
    pool: &Pool,
) -> io::Result<First> {
    let first = timeout(limit, first_bytes(client, detected, pool)).await;
    first.unwrap_or(Ok(First::Silence))
}

/// Who spoke first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum First {
    Client,
    /// The client has closed its side without a word.
    ClientEnd,
    Server,
    Silence,
}

/// Reads once from whichever side speaks first.
async fn first_bytes(client: &mut Stream, d: &mut Detected, pool: &Pool) -> io::Result<First> {
    let mut server = match &mut d.server {
        Some(Ok(connected)) => Some(&mut connected.stream),
        _ => None,
    };
    let (up, down, lost) = (&mut d.up, &mut d.down, &mut d.lost);
    poll_fn(|cx| {
        if let Poll::Ready(read) = up.poll_read(cx, client, pool) {
            return Poll::Ready(read.map(|n| {
                if n == 0 {
                    First::ClientEnd
                } else {
                    First::Client
                }
            }));
        }
        if let Some(server) = &mut server
            && let Poll::Ready(read) = down.poll_read(cx, *server, pool)
        {
            return Poll::Ready(Ok(match read {
                Ok(n) if n > 0 => First::Server,
                // The relay sees it: it reads the end again.
                Ok(_) => First::Silence,
                // An error is told once.
                Err(error) => {
                    *lost = Some(error);
                    First::Silence
                }
            }));
        }
        up.release(pool);
        down.release(pool);
        Poll::Pending
    })
    .await
}

/// Judges what was read, and waits for the rest of a request line. The time for it runs from
/// its first byte: a client may be silent for as long as it likes, also where its server has
/// greeted it in HTTP/2.
async fn rest(
    client: &mut Stream,
    detected: &mut Detected,
    mut first: First,
    (config, pool): (&Config, &Pool),
) -> io::Result<()> {
    let mut deadline = None;
    loop {
        detected.verdict = match first {
            First::Client => detect(detected.up.pending()),
            First::Server if has_greeted(&detected.down) => detect(detected.up.pending()),
            First::ClientEnd | First::Server | First::Silence => Verdict::Opaque,
        };
        if detected.verdict != Verdict::NeedMore {
            detected.server_first |= first == First::Server && detected.up.is_empty();
            return Ok(());
        }
        let is_silent = detected.up.is_empty();
        let more = first_bytes(client, detected, pool);
        if is_silent {
            first = more.await?;
            continue;
        }
        let deadline = *deadline.get_or_insert_with(|| Instant::now() + config.timeout);
        match timeout_at(deadline, more).await {
            Ok(read) => first = read?,
            Err(_) => {
                detected.timed_out = true;
                detected.verdict = Verdict::Opaque;
                return Ok(());
            }
        }
    }
}

/// Whether a server's first bytes are SETTINGS of HTTP/2, which many send as soon as they are
/// connected (RFC 9113 section 3.4): the client is still the one that decides.
fn has_greeted(down: &Flow) -> bool {
    let head = down.pending().first_chunk::<HEAD>();
    let is_settings = head.is_some_and(|[a, b, len, kind, rest @ ..]| {
        (*a, *b, *kind) == (0, 0, SETTINGS) && len.is_multiple_of(6) && *rest == [0; 5]
    });
    is_settings && !down.is_full()
}

#[cfg(test)]
mod tests;
