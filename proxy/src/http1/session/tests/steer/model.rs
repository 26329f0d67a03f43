//! Whatever a client sends ahead, and whatever its servers do: each request comes whole to a server of its own backends,
//! in its order, and is answered once.

use proptest::collection::vec;
use proptest::prelude::*;

use super::{Bench, Route, leading, retryable, route, steered};
use crate::http1::session::Leave;

/// What a server does with a request.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Act {
    Answer,
    Fail,
    /// It has nobody to give it to.
    Refuse,
    /// It is gone, after so much of a response.
    Lose(usize),
}

#[derive(Clone, Debug)]
struct Sent {
    path: &'static str,
    bytes: Vec<u8>,
}

fn sent() -> impl Strategy<Value = Sent> {
    let paths = prop::sample::select(vec!["/a", "/b", "/r", "/br"]);
    (paths, 0usize..40, any::<bool>()).prop_map(|(path, len, is_chunked)| {
        let body = "x".repeat(len);
        let text = match (is_chunked, len) {
            (_, 0) => format!("GET {path} HTTP/1.1\r\nHost: web\r\n\r\n"),
            (true, _) => format!(
                "POST {path} HTTP/1.1\r\nHost: web\r\nTransfer-Encoding: chunked\r\n\r\n{len:x}\r\n{body}\r\n0\r\n\r\n"
            ),
            (false, _) => super::post(path, &body),
        };
        let bytes = text.into_bytes();
        Sent { path, bytes }
    })
}

fn act() -> impl Strategy<Value = Act> {
    prop_oneof![
        3 => Just(Act::Answer),
        2 => Just(Act::Fail),
        2 => Just(Act::Refuse),
        1 => (0usize..30).prop_map(Act::Lose),
    ]
}

/// A client, the relay, and one server after the other.
struct World {
    bench: Bench,
    requests: Vec<Sent>,
    acts: std::vec::IntoIter<Act>,
    /// Of the client, and not with a server yet.
    up: Vec<u8>,
    /// Of the server of now: whose it is, and what it was given since its last answer.
    branch: Option<String>,
    server: u8,
    got: Vec<u8>,
    /// What the client has got.
    answers: Vec<u8>,
    answered: usize,
    attempts: usize,
}

impl World {
    fn expects(&self) -> Option<&Sent> {
        self.requests.get(self.answered)
    }

    /// Finds the next server.
    fn set_out(&mut self) {
        self.branch = self.bench.set_out();
        self.server += 1;
        self.bench.meets(self.server, true);
    }

    /// Lets everything move that can. Answers whether the connection goes on.
    fn turn(&mut self, step: usize) -> Result<bool, TestCaseError> {
        let replay = self.bench.session.replay();
        let n = replay.len().min(step);
        self.got.extend(&replay[..n]);
        self.bench.session.replayed(n);
        let is_replayed = self.bench.session.replay().is_empty();
        let n = self.bench.session.request_bytes(&self.up, self.bench.now);
        prop_assert!(
            n == 0 || is_replayed,
            "one request in the middle of another"
        );
        self.got.extend(self.up.drain(..n));
        match self.bench.session.leave() {
            Some(Leave::Elsewhere) => {
                prop_assert!(self.got.is_empty(), "something is owed");
                self.set_out();
            }
            Some(Leave::Again) => unreachable!("a failure is dealt with at once"),
            None => {}
        }
        let Some(request) = self.expects().cloned() else {
            return Ok(true);
        };
        let n = self.got.len().min(request.bytes.len());
        prop_assert!(self.got[..n] == request.bytes[..n], "not what was sent");
        if n < request.bytes.len() {
            return Ok(true);
        }
        let branch = request.path.starts_with("/b").then_some("b");
        prop_assert_eq!(self.branch.as_deref(), branch);
        // What comes behind it came before any route asked for more.
        self.got.drain(..n);
        self.attempts += 1;
        self.act(&request)
    }

    /// The server acts on a request that is whole.
    fn act(&mut self, request: &Sent) -> Result<bool, TestCaseError> {
        let act = self.acts.next().unwrap_or(Act::Answer);
        let (status, most) = match act {
            Act::Answer => (200, usize::MAX),
            Act::Fail => (503, usize::MAX),
            Act::Refuse => (502, usize::MAX),
            Act::Lose(most) => (200, most),
        };
        let n = self.answered;
        let at = match act {
            Act::Refuse => format!(
                "proxy-status: weir; error=connection_refused; next-hop=\"10.0.0.{}:8080\"\r\n",
                self.server
            ),
            _ => String::new(),
        };
        let answer = format!("HTTP/1.1 {status} X\r\n{at}Content-Length: 6\r\n\r\n{n:06}");
        let part = &answer.as_bytes()[..most.min(answer.len())];
        let passed = self.bench.session.response_bytes(part, self.bench.now);
        self.answers.extend(&part[..passed]);
        let session = &mut self.bench.session;
        let is_lost = matches!(act, Act::Lose(_));
        if session.leave().is_some() || is_lost && session.server_lost(self.bench.now) {
            prop_assert_eq!(passed, 0, "of what the client is not to see");
            prop_assert!(self.got.is_empty(), "what is behind it would be lost");
            let may_be = request.path.ends_with('r') || act == Act::Refuse;
            prop_assert!(may_be, "only what nobody has seen, and routes that say so");
            self.set_out();
            return Ok(true);
        }
        self.answered += 1;
        Ok(!is_lost)
    }
}

proptest! {
    #[test]
    fn every_request_comes_whole_and_once_to_where_it_belongs(
        requests in vec(sent(), 1..8),
        acts in vec(act(), 0..30),
        steps in vec(1usize..300, 1..20),
    ) {
        let again = Route { retryable: true, ..leading("/br", "b") };
        let routes = vec![route("/a"), leading("/b", "b"), retryable("/r"), again];
        let bytes: Vec<u8> = requests.iter().flat_map(|one| one.bytes.clone()).collect();
        let mut world = World {
            bench: steered(routes, 1000),
            requests,
            acts: acts.into_iter(),
            up: Vec::new(),
            branch: None,
            server: 1,
            got: Vec::new(),
            answers: Vec::new(),
            answered: 0,
            attempts: 0,
        };
        world.bench.meets(1, true);
        let (mut at, mut goes_on) = (0, true);
        let mut steps = steps.iter().cycle();
        for _ in 0..10_000 {
            let step = *steps.next().expect("it has no end");
            let end = (at + step).min(bytes.len());
            world.up.extend(&bytes[at..end]);
            at = end;
            goes_on = world.turn(step)?;
            if !goes_on || world.answered == world.requests.len() {
                break;
            }
        }
        prop_assert!(!goes_on || world.answered == world.requests.len(), "it stands still");
        let answers = String::from_utf8(world.answers).expect("text");
        let numbers: Vec<_> = answers.split("\r\n\r\n").skip(1).map(|rest| rest.get(..6)).collect();
        let whole = numbers.iter().flatten().enumerate();
        for (n, number) in whole {
            prop_assert_eq!(*number, format!("{n:06}"), "each once, in order");
        }
        let asked = world.bench.total("request_total");
        prop_assert!(asked >= world.answered as f64);
        let tried = world.bench.total("route_actual_request_total");
        prop_assert!(tried >= asked.max(world.attempts as f64), "{tried} attempts");
        if goes_on {
            prop_assert_eq!((asked, tried), (world.answered as f64, world.attempts as f64));
        }
    }
}
