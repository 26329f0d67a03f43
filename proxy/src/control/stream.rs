//! A stream of the operator that is opened again whenever it breaks, until the operator says that there is nothing to
//! follow, and where that may change, from time to time after it has. Used by `discovery` and `settings`; knows no message.

use std::error::Error;
use std::future::Future;

use tokio::sync::mpsc;
use tokio::time::sleep;
use tonic::{Code, Status, Streaming};

use super::operator::{Client, Pause, Retry};

/// What is streamed.
pub(super) trait Watch {
    type Message;

    /// Opens the stream.
    fn open(&self) -> impl Future<Output = Result<Streaming<Self::Message>, Status>> + Send;

    /// Pauses before it is opened again where the operator has not found what is streamed: it may be there later. None
    /// where whoever follows it asks again, or needs not know.
    fn again(&self) -> Option<Retry> {
        None
    }
}

/// What comes of it.
#[derive(Debug)]
pub(super) enum Event<M> {
    /// A message; the first of a stream begins the story anew.
    Message { message: M, is_first: bool },
    /// It has broken and is opened again: until the next message what was said last may be out of date.
    Broken,
    /// There is nothing to follow, and no use in asking again soon.
    Refused,
}

/// Whether an answer is for good: what was asked is wrong, or unknown to the operator. All else may pass.
fn is_for_good(code: Code) -> bool {
    matches!(
        code,
        Code::InvalidArgument | Code::FailedPrecondition | Code::NotFound | Code::Unimplemented
    )
}

/// What was told of why the operator says nothing.
#[derive(Debug, Default)]
struct Refusals {
    /// What it said last, since its last message.
    reason: Option<(Code, String)>,
    is_told: bool,
}

impl Refusals {
    /// Whether this is to be told: each reason once, until there is a message again.
    fn hear(&mut self, status: &Status) -> bool {
        // With a source it is no word of the operator: whoever keeps the connection, or the token, tells of that.
        if status.source().is_some() {
            return false;
        }
        let reason = (status.code(), status.message().to_owned());
        let is_same = self.reason.as_ref() == Some(&reason);
        if !is_same {
            (self.reason, self.is_told) = (Some(reason), false);
        }
        let is_refusal = match status.code() {
            Code::Unauthenticated | Code::PermissionDenied => true,
            // An operator that ends says so, too, but once.
            Code::Unavailable => is_same,
            _ => false,
        };
        is_refusal && !std::mem::replace(&mut self.is_told, true)
    }
}

/// Where a stream is.
struct Progress {
    pause: Pause,
    /// The pauses while there is nothing to follow; none where it is not asked again.
    absence: Option<Pause>,
    is_broken: bool,
    refusals: Refusals,
}

impl Progress {
    /// A message is there.
    fn work(&mut self) {
        self.pause.reset();
        self.absence.iter_mut().for_each(Pause::reset);
        self.is_broken = false;
        self.refusals = Refusals::default();
    }
}

/// Streams until it is refused for good; then it waits to be dropped, or asks again after long pauses.
pub(super) async fn watch<W: Watch>(
    watch: W,
    (client, retry): (Client, Retry),
    events: mpsc::Sender<Event<W::Message>>,
) {
    let mut progress = Progress {
        pause: Pause::new(retry),
        absence: watch.again().map(Pause::new),
        is_broken: false,
        refusals: Refusals::default(),
    };
    while client.connected().await {
        let status = match watch.open().await {
            Ok(stream) => pass_on(stream, &events, &mut progress).await,
            Err(status) => status,
        };
        if is_for_good(status.code()) {
            tracing::debug!(%status, "the operator has nothing to say");
            let _dropped = events.send(Event::Refused).await;
            let absence = progress.absence.as_mut();
            let Some(absence) = absence.filter(|_| status.code() == Code::NotFound) else {
                break;
            };
            sleep(absence.take()).await;
            continue;
        }
        tracing::debug!(%status, "a stream of the operator is opened again");
        if progress.refusals.hear(&status) {
            tracing::warn!(%status, "the operator refuses this proxy, and is asked again");
        }
        let was_broken = std::mem::replace(&mut progress.is_broken, true);
        if !was_broken && events.send(Event::Broken).await.is_err() {
            break;
        }
        sleep(progress.pause.take()).await;
    }
    std::future::pending().await
}

/// Passes on every message; answers how the stream ended.
async fn pass_on<M>(
    mut stream: Streaming<M>,
    events: &mpsc::Sender<Event<M>>,
    progress: &mut Progress,
) -> Status {
    let mut is_first = true;
    loop {
        match stream.message().await {
            Ok(Some(message)) => {
                progress.work();
                let event = Event::Message { message, is_first };
                if events.send(event).await.is_err() {
                    return Status::cancelled("nobody listens");
                }
                is_first = false;
            }
            Ok(None) => return Status::ok("the operator has ended the stream"),
            Err(status) => return status,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_reason_is_told_once_until_the_operator_answers_again() {
        let mut refusals = Refusals::default();
        let expired = Status::unauthenticated("it has expired");
        assert!(refusals.hear(&expired) && !refusals.hear(&expired));
        // A connection that breaks in between is no other reason.
        let broken = Status::from_error(Box::new(std::io::Error::other("reset")));
        assert!(!refusals.hear(&broken) && !refusals.hear(&expired));
        let other = Status::permission_denied("the token does not allow it");
        assert!(refusals.hear(&other) && !refusals.hear(&other));
        assert!(!Refusals::default().hear(&Status::ok("")));
        let mut refusals = Refusals::default();
        assert!(refusals.hear(&expired), "there was a message");
    }

    #[test]
    fn what_may_pass_is_told_once_it_stays() {
        let mut refusals = Refusals::default();
        let unknown = Status::unavailable("no document of it");
        assert_eq!(
            [0; 3].map(|_| refusals.hear(&unknown)),
            [false, true, false]
        );
        let ends = Status::unavailable("it ends");
        assert!(!refusals.hear(&ends) && !refusals.hear(&unknown));
    }
}
