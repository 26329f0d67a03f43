//! A stream of the operator that is opened again whenever it breaks, until the operator says that there is nothing to
//! follow. Used by `discovery` and `settings`; knows no message.

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
}

/// What comes of it.
#[derive(Debug)]
pub(super) enum Event<M> {
    /// A message; the first of a stream begins the story anew.
    Message { message: M, is_first: bool },
    /// It has broken and is opened again: until the next message what was said last may be out of date.
    Broken,
    /// There is nothing to follow, and no use in asking again.
    Refused,
}

/// Whether an answer is for good: what was asked is wrong, or unknown to the operator. All else may pass.
fn is_for_good(code: Code) -> bool {
    matches!(
        code,
        Code::InvalidArgument | Code::FailedPrecondition | Code::NotFound | Code::Unimplemented
    )
}

/// Streams until it is refused for good; then it waits to be dropped.
pub(super) async fn watch<W: Watch>(
    watch: W,
    (client, retry): (Client, Retry),
    events: mpsc::Sender<Event<W::Message>>,
) {
    let mut pause = Pause::new(retry);
    let mut is_broken = false;
    while client.connected().await {
        let status = match watch.open().await {
            Ok(stream) => pass_on(stream, &events, (&mut pause, &mut is_broken)).await,
            Err(status) => status,
        };
        if is_for_good(status.code()) {
            tracing::debug!(%status, "the operator has nothing to say");
            let _dropped = events.send(Event::Refused).await;
            break;
        }
        tracing::debug!(%status, "a stream of the operator is opened again");
        if !std::mem::replace(&mut is_broken, true) {
            if matches!(
                status.code(),
                Code::Unauthenticated | Code::PermissionDenied
            ) {
                tracing::warn!(%status, "the operator refuses this proxy, and is asked again");
            }
            if events.send(Event::Broken).await.is_err() {
                break;
            }
        }
        sleep(pause.take()).await;
    }
    std::future::pending().await
}

/// Passes on every message; answers how the stream ended.
async fn pass_on<M>(
    mut stream: Streaming<M>,
    events: &mpsc::Sender<Event<M>>,
    (pause, is_broken): (&mut Pause, &mut bool),
) -> Status {
    let mut is_first = true;
    loop {
        match stream.message().await {
            Ok(Some(message)) => {
                pause.reset();
                *is_broken = false;
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
