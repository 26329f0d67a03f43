//! Differential tests: where the session calls a boundary, the application, or the client, sees the same one.

use proptest::test_runner::{Config, TestRunner};

use super::ours::{self, Rest};
use super::theirs::{self, Content};
use super::{corpus, generate};

/// Mutated framings that are tried in one run, at least; `PROPTEST_CASES` may ask for more.
const CASES: u32 = 1000;

fn on_one_thread<F: Future>(future: F) -> F::Output {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .expect("a runtime");
    tokio::task::LocalSet::new().block_on(&runtime, future)
}

/// How the two readers of a stream of messages disagree, if they do.
fn disagreement(ours: &ours::Seen, theirs: &theirs::Seen, is_request: bool) -> Option<String> {
    let common = ours.messages.iter().zip(&theirs.messages);
    for (at, (mine, other)) in common.enumerate() {
        if !is_same_start(&mine.head, other, is_request) {
            return Some(format!("message {at} is another one"));
        }
        // What we refuse in the middle never gets to its end.
        let is_cut = at + 1 == ours.messages.len() && ours.rest != Rest::None;
        let is_same = match (mine.content(), &other.content) {
            (_, Content::Malformed) => true,
            (Some(content), Content::Whole(theirs)) => content == *theirs,
            (None, Content::Broken) => true,
            (None, Content::Whole(_)) => is_cut,
            (Some(_), Content::Broken) => false,
        };
        if !is_same {
            return Some(format!("message {at} ends elsewhere"));
        }
    }
    let has_refused = theirs.refused
        || theirs
            .messages
            .iter()
            .any(|m| m.content == Content::Malformed);
    if ours.messages.len() > theirs.messages.len() && !has_refused {
        return Some("we see a message where there is none".to_owned());
    }
    if ours.messages.len() < theirs.messages.len() && ours.rest == Rest::None {
        return Some("we miss a message".to_owned());
    }
    None
}

fn is_same_start(head: &[u8], other: &theirs::Message, is_request: bool) -> bool {
    let line = head.trim_ascii_start().split(|b| *b == b'\n').next();
    let line = String::from_utf8_lossy(line.unwrap_or_default()).into_owned();
    let mut words = line.split([' ', '\r']);
    if !is_request {
        return words.nth(1) == Some(&other.kind);
    }
    let (method, target) = (words.next(), words.next().unwrap_or_default());
    let target = target.parse::<hyper::Uri>().map(|uri| uri.to_string());
    method == Some(&other.kind) && target.is_ok_and(|target| target == other.target)
}

fn show(bytes: &[u8]) -> String {
    bytes.escape_ascii().to_string()
}

#[test]
fn the_corpus_of_requests_is_split_as_the_application_splits_it() {
    for entry in corpus::requests() {
        let mine = ours::requests(&entry.bytes);
        let verdict = match &mine.rest {
            Rest::None => "",
            Rest::Refused(reply) => match reply.map(|r| r.status()) {
                Some(400) => "400",
                Some(431) => "431",
                _ => "refused",
            },
            Rest::Unread if entry.verdict == "last" => "last",
            Rest::Unread => "unparsed",
        };
        // What detection does not take for HTTP has no session.
        if entry.verdict != "opaque" {
            let is = (mine.messages.len(), verdict);
            let expected = (entry.messages, entry.verdict);
            assert!(
                is == expected || (entry.verdict == "last" && is.0 == expected.0),
                "{}: {is:?}",
                entry.name
            );
        }
        let theirs = on_one_thread(theirs::requests(&entry.bytes));
        let why = disagreement(&mine, &theirs, true);
        assert_eq!(why, None, "{}: {mine:#?} {theirs:#?}", entry.name);
    }
}

#[test]
fn the_corpus_of_responses_is_split_as_the_client_splits_it() {
    for entry in corpus::responses() {
        let mine = ours::responses(&entry.bytes);
        let is_open = mine
            .messages
            .last()
            .is_some_and(ours::Message::is_until_close);
        let verdict = match &mine.rest {
            _ if is_open => "until-close",
            Rest::Unread => "unparsed",
            _ => "",
        };
        let ended = mine.messages.len() - usize::from(is_open);
        assert_eq!(
            (ended, verdict),
            (entry.messages, entry.verdict),
            "{}",
            entry.name
        );
        let theirs = on_one_thread(theirs::responses(&entry.bytes, &mine.starts()));
        let why = disagreement(&mine, &theirs, false);
        assert_eq!(why, None, "{}: {mine:#?} {theirs:#?}", entry.name);
    }
}

#[test]
fn mutated_framings_are_split_as_the_application_splits_them() {
    let mut runner = TestRunner::new(Config {
        cases: Config::default().cases.max(CASES),
        failure_persistence: None,
        ..Config::default()
    });
    let judged = runner.run(&generate::requests(), |bytes| {
        let mine = ours::requests(&bytes);
        let theirs = on_one_thread(theirs::requests(&bytes));
        match disagreement(&mine, &theirs, true) {
            None => Ok(()),
            Some(why) => Err(proptest::test_runner::TestCaseError::fail(format!(
                "{why}: {}\n{mine:?}\n{theirs:?}",
                show(&bytes)
            ))),
        }
    });
    judged.unwrap_or_else(|error| panic!("{error}"));
}

#[test]
fn mutated_answers_are_split_as_the_client_splits_them() {
    let mut runner = TestRunner::new(Config {
        cases: Config::default().cases.max(CASES),
        failure_persistence: None,
        ..Config::default()
    });
    let judged = runner.run(&generate::responses(), |bytes| {
        let mine = ours::responses(&bytes);
        let theirs = on_one_thread(theirs::responses(&bytes, &mine.starts()));
        match disagreement(&mine, &theirs, false) {
            None => Ok(()),
            Some(why) => Err(proptest::test_runner::TestCaseError::fail(format!(
                "{why}: {}\n{mine:?}\n{theirs:?}",
                show(&bytes)
            ))),
        }
    });
    judged.unwrap_or_else(|error| panic!("{error}"));
}
