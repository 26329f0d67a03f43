//! As many destinations as are followed at most, and one more.

use crate::desk::{connection, following, service, start};
use crate::discovery::LOOPBACK;
use crate::operator::{Known, Labels, Operator};
use crate::settings::Log;

#[tokio::test]
async fn where_connections_are_open_to_all_further_ones_are_warned_of_once() {
    let (told, _guard) = Log::begin();
    let operator = Operator::new(None);
    let serving = operator.serve(LOOPBACK).await;
    let mut config = following();
    config.most = 2;
    let running = start(connection(serving.addr), config);
    let at = |n: usize| format!("10.1.0.{n}:80");
    let mut held = Vec::new();
    for n in 1..=5 {
        let pod = at(n).parse().expect("an address");
        operator.profile(&at(n), Known::Pod(pod, Labels::new()));
    }
    for n in 1..=2 {
        let (watched, _) = running.learn(&at(n)).await;
        held.push((running.connect(&watched), watched));
    }
    assert_eq!(told.lines("--max-destinations"), 0);
    for n in 3..=5 {
        assert!(running.ask(&at(n)).await.is_none(), "{n}");
        assert_eq!(told.lines("--max-destinations"), 1);
    }
    // Those that are followed are followed on.
    for (_, watched) in &held {
        assert!(watched.answers.has_changed().is_ok());
    }
    held.truncate(1);
    let (_, answer) = running.learn(&at(3)).await;
    assert_eq!(service(&answer).1, [at(3)]);
    assert!(held[0].1.answers.has_changed().is_ok());
}
