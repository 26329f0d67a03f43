//! The questions for names. Each takes a thread until the system gives it up, and has a number by which its answer is told
//! from those to earlier ones. Asked by `hosts`. It knows no address that is in use, and no document.

use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

/// Most names that are asked for at a time, but for urgent ones, which wait for no place. Default: 16.
pub(super) const AT_ONCE: usize = 16;

/// What answers for a name; the ports mean nothing.
pub(in super::super) type Resolver = fn(&str) -> io::Result<Vec<SocketAddr>>;

#[derive(Debug)]
pub(super) struct Question {
    pub(super) host: String,
    pub(super) number: u64,
    /// It goes before the others.
    pub(super) is_urgent: bool,
}

#[derive(Debug)]
pub(super) struct Answer {
    pub(super) host: String,
    /// That of the question.
    pub(super) number: u64,
    pub(super) found: io::Result<Vec<SocketAddr>>,
}

/// Who asks.
#[derive(Debug)]
pub(super) struct Asking {
    resolver: Resolver,
    queue: Arc<Mutex<Queue>>,
    tell: Sender<Answer>,
    answers: Receiver<Answer>,
}

/// The questions that wait for a thread.
#[derive(Debug, Default)]
struct Queue {
    waiting: VecDeque<Question>,
    threads: usize,
}

impl Asking {
    pub(super) fn new(resolver: Resolver) -> Self {
        let (tell, answers) = mpsc::channel();
        Self {
            resolver,
            queue: Arc::default(),
            tell,
            answers,
        }
    }

    /// Takes back what no thread has begun with, but for these hosts.
    pub(super) fn take_back(&self, but: impl Fn(&str) -> bool) {
        let mut queue = locked(&self.queue);
        queue.waiting.retain(|question| but(&question.host));
    }

    pub(super) fn ask(&self, questions: impl Iterator<Item = Question>) {
        let mut queue = locked(&self.queue);
        for question in questions {
            match question.is_urgent {
                true => queue.waiting.push_front(question),
                false => queue.waiting.push_back(question),
            }
        }
        let urgent = queue.waiting.iter().filter(|question| question.is_urgent);
        let places = AT_ONCE.saturating_sub(queue.threads).max(urgent.count());
        let more = queue.waiting.len().min(places);
        queue.threads += more;
        drop(queue);
        for _ in 0..more {
            self.start();
        }
    }

    /// The next answer, however long it takes.
    pub(super) fn answer(&self) -> Option<Answer> {
        self.answers.recv().ok()
    }

    /// The next answer, where one comes in time.
    pub(super) fn answer_within(&self, left: Duration) -> Option<Answer> {
        self.answers.recv_timeout(left).ok()
    }

    /// Starts a thread that asks for what waits, and ends with it.
    fn start(&self) {
        let (queue, tell, resolver) = (Arc::clone(&self.queue), self.tell.clone(), self.resolver);
        let asking = move || {
            while let Some(Question { host, number, .. }) = next(&queue) {
                let found = resolver(&host);
                // Nobody may wait for it any more.
                let _told = tell.send(Answer {
                    host,
                    number,
                    found,
                });
            }
        };
        let thread = thread::Builder::new().name("resolver".to_owned());
        if let Err(error) = thread.spawn(asking) {
            self.give_up(&error);
        }
    }

    /// Answers what waits itself, where no thread is left that would.
    fn give_up(&self, error: &io::Error) {
        let mut queue = locked(&self.queue);
        queue.threads -= 1;
        if queue.threads > 0 {
            return;
        }
        for Question { host, number, .. } in queue.waiting.drain(..) {
            let why = io::Error::new(error.kind(), format!("no thread to ask by: {error}"));
            let _told = self.tell.send(Answer {
                host,
                number,
                found: Err(why),
            });
        }
    }
}

fn locked(queue: &Mutex<Queue>) -> MutexGuard<'_, Queue> {
    queue.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The next question of a thread, which ends where there is none. One thread too many takes none but urgent ones.
fn next(queue: &Mutex<Queue>) -> Option<Question> {
    let mut queue = locked(queue);
    let is_extra = queue.threads > AT_ONCE;
    let front = queue.waiting.front();
    if front.is_some_and(|question| question.is_urgent || !is_extra) {
        return queue.waiting.pop_front();
    }
    queue.threads -= 1;
    None
}
