//! The two services of the demo: `voting` counts votes and is not quite reliable, `web` shows the
//! result and passes votes on to it. Served by `demo`; they know nothing of a proxy.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::net::{TcpListener, TcpStream};

use super::client::Client;
use super::crew::Crew;

/// What can be voted for.
pub(super) const CHOICES: [&str; 3] = ["tea", "coffee", "water"];
/// Every so many votes the ballot box jams: the answer is 500.
pub(super) const JAM: u64 = 12;
/// Every so many votes one is counted by hand, which takes [`BY_HAND`].
pub(super) const HAND: u64 = 25;
/// How long a vote takes that is counted by hand.
pub(super) const BY_HAND: Duration = Duration::from_millis(150);

/// A status and a text.
pub(super) type Reply = (StatusCode, String);

/// What answers requests.
pub(super) trait Service: Send + Sync + 'static {
    fn answer(&self, method: &Method, path: &str) -> impl Future<Output = Reply> + Send;
}

/// Accepts connections until the crew ends.
pub(super) async fn serve(listener: TcpListener, service: Arc<impl Service>, crew: Crew) {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => crew.spawn(converse(stream, Arc::clone(&service))),
            // No descriptor is left, or the client has gone: others may fare better.
            Err(_) => tokio::time::sleep(Duration::from_millis(10)).await,
        }
    }
}

async fn converse(stream: TcpStream, service: Arc<impl Service>) {
    if stream.set_nodelay(true).is_err() {
        return; // the peer is gone already
    }
    let service = &*service;
    let answer = service_fn(|request: Request<Incoming>| async move {
        let (status, text) = service.answer(request.method(), request.uri().path()).await;
        let mut response = Response::new(Full::new(Bytes::from(text)));
        *response.status_mut() = status;
        Ok::<_, Infallible>(response)
    });
    let connection = http1::Builder::new().serve_connection(TokioIo::new(stream), answer);
    // A connection that breaks concerns its client only.
    drop(connection.await);
}

fn not_found(hint: &str) -> Reply {
    (StatusCode::NOT_FOUND, format!("no such path: {hint}\n"))
}

/// Counts votes: `POST /vote/<choice>` and `GET /result`.
#[derive(Debug, Default)]
pub(super) struct Voting {
    asked: AtomicU64,
    votes: Mutex<BTreeMap<String, u64>>,
}

impl Voting {
    async fn vote(&self, choice: &str) -> Reply {
        let turn = self.asked.fetch_add(1, Ordering::Relaxed) + 1;
        if turn.is_multiple_of(JAM) {
            let text = "the ballot box is jammed\n".to_owned();
            return (StatusCode::INTERNAL_SERVER_ERROR, text);
        }
        let pause = match turn.is_multiple_of(HAND) {
            true => BY_HAND,
            false => Duration::from_millis(turn % 5),
        };
        tokio::time::sleep(pause).await;
        let mut votes = self.votes.lock().expect("no holder of the lock can panic");
        let count = votes.entry(choice.to_owned()).or_default();
        *count += 1;
        (StatusCode::OK, format!("{choice}: {count}\n"))
    }

    fn result(&self) -> Reply {
        let votes = self.votes.lock().expect("no holder of the lock can panic");
        let lines = votes.iter().map(|(choice, n)| format!("{choice}: {n}\n"));
        (StatusCode::OK, lines.collect())
    }
}

impl Service for Voting {
    async fn answer(&self, method: &Method, path: &str) -> Reply {
        match (method.as_str(), path, path.strip_prefix("/vote/")) {
            ("GET", "/result", _) => self.result(),
            ("POST", _, Some(choice)) if CHOICES.contains(&choice) => self.vote(choice).await,
            _ => not_found("GET /result, or POST /vote/ and one of tea, coffee, water"),
        }
    }
}

/// The page: `GET /` shows the result, `POST /vote/<choice>` votes. Calls `voting` for both.
#[derive(Debug)]
pub(super) struct Web {
    pub voting: Client,
}

impl Web {
    async fn page(&self) -> Reply {
        match self.voting.send(Method::GET, "/result").await {
            Ok(answer) if answer.status.is_success() => {
                let result = String::from_utf8_lossy(&answer.body);
                (StatusCode::OK, format!("{PAGE}{result}"))
            }
            Ok(answer) => bad_gateway(&answer.status.to_string()),
            Err(error) => bad_gateway(&format!("{error:#}")),
        }
    }

    async fn vote(&self, path: &str) -> Reply {
        match self.voting.send(Method::POST, path).await {
            Ok(answer) => {
                let text = String::from_utf8_lossy(&answer.body).into_owned();
                (answer.status, text)
            }
            Err(error) => bad_gateway(&format!("{error:#}")),
        }
    }
}

const PAGE: &str = "What do you drink? Vote by POST /vote/tea, /vote/coffee or /vote/water.\n\n";

fn bad_gateway(why: &str) -> Reply {
    (StatusCode::BAD_GATEWAY, format!("voting: {why}\n"))
}

impl Service for Web {
    async fn answer(&self, method: &Method, path: &str) -> Reply {
        match (method.as_str(), path) {
            ("GET", "/") => self.page().await,
            ("POST", path) if path.starts_with("/vote/") => self.vote(path).await,
            _ => not_found("GET /, or POST /vote/ and one of tea, coffee, water"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn votes_are_counted_except_when_the_box_jams() {
        let voting = Voting::default();
        let mut statuses = Vec::new();
        for _ in 0..u64::max(JAM, HAND) {
            let (status, _) = voting.answer(&Method::POST, "/vote/tea").await;
            statuses.push(status);
        }
        let jammed = |status: &&StatusCode| **status == StatusCode::INTERNAL_SERVER_ERROR;
        assert_eq!(statuses.iter().filter(jammed).count(), 2);
        assert_eq!(
            voting.answer(&Method::GET, "/result").await,
            (StatusCode::OK, "tea: 23\n".to_owned())
        );
    }

    #[tokio::test(start_paused = true)]
    async fn some_votes_are_slow() {
        let voting = Voting::default();
        let mut slow = 0;
        for _ in 0..HAND {
            let began = tokio::time::Instant::now();
            voting.answer(&Method::POST, "/vote/water").await;
            slow += u32::from(began.elapsed() >= BY_HAND);
        }
        assert_eq!(slow, 1);
    }

    #[tokio::test]
    async fn other_paths_are_explained() {
        let (status, text) = Voting::default().answer(&Method::GET, "/vote/tea").await;
        assert_eq!(status, StatusCode::NOT_FOUND);
        assert!(text.contains("POST /vote/"), "{text}");
    }
}
