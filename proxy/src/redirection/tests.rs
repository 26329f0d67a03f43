//! What the looks make of the state, under a paused clock; and one look, at real sockets that answer or do not.

use std::cell::Cell;
use std::rc::Rc;

use tokio::io::AsyncWriteExt;
use tokio::net::TcpListener;
use tokio::task::LocalSet;
use tokio::time::Instant;

use super::*;
use crate::telemetry::{self, Selection, Telemetry};

const INTERVAL: Duration = Duration::from_secs(10);
/// Longer than any answer on loopback takes.
const PATIENT: Duration = Duration::from_secs(20);

/// A check whose looks find what they are told to, and count.
struct Checked {
    finds: Rc<Cell<Found>>,
    looks: Rc<Cell<u32>>,
    state: watch::Receiver<State>,
    beat: watch::Sender<heartbeat::State>,
    telemetry: Telemetry,
}

impl Checked {
    fn start(finds: Found, beat: heartbeat::State) -> Self {
        let (telemetry, _seats) = telemetry::new(telemetry::Config::default(), 1);
        let (tell, state) = watch::channel(State::Unknown);
        let told = Told {
            state: tell,
            gauge: telemetry.redirection(),
        };
        let (beat, beating) = watch::channel(beat);
        let (finds, looks) = (Rc::new(Cell::new(finds)), Rc::new(Cell::new(0)));
        let (found, looked) = (Rc::clone(&finds), Rc::clone(&looks));
        tokio::task::spawn_local(async move {
            let look = || {
                looked.set(looked.get() + 1);
                std::future::ready(found.get())
            };
            keep(INTERVAL, beating, look, &told).await;
        });
        Self {
            finds,
            looks,
            state,
            beat,
            telemetry,
        }
    }

    /// The state that the next so many looks end in.
    async fn after(&self, looks: u32) -> State {
        let until = self.looks.get() + looks;
        while self.looks.get() < until {
            time::sleep(Duration::from_millis(50)).await;
        }
        *self.state.borrow()
    }

    /// The lines of the gauge.
    fn gauge(&self) -> String {
        let mut text = Vec::new();
        let selection = Selection {
            used_only: true,
            filters: vec![regex::Regex::new("^weir_redirected$").unwrap()],
            ..Selection::default()
        };
        self.telemetry.expose(&selection, &mut text).unwrap();
        let text = String::from_utf8(text).unwrap();
        let lines = text.lines().filter(|line| !line.starts_with('#'));
        lines.collect()
    }
}

async fn local<T>(test: impl Future<Output = T>) -> T {
    LocalSet::new().run_until(test).await
}

#[tokio::test(start_paused = true)]
async fn the_first_look_that_finds_itself_decides() {
    local(async {
        let checked = Checked::start(Found::Itself, heartbeat::State::Starting);
        time::sleep(INTERVAL * 3).await;
        assert_eq!(checked.looks.get(), 0, "nobody beats yet");
        assert_eq!(checked.gauge(), "", "nothing is known");
        let began = Instant::now();
        checked.beat.send_replace(heartbeat::State::Beating);
        assert_eq!(checked.after(1).await, State::Redirected);
        assert!(began.elapsed() < FIRST_PAUSE);
        assert_eq!(checked.gauge(), "weir_redirected 1");
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn the_first_verdict_is_soon_there_also_where_there_are_no_rules() {
    local(async {
        let checked = Checked::start(Found::Other, heartbeat::State::Beating);
        let began = Instant::now();
        assert_eq!(checked.after(FIRST_LOOKS - 1).await, State::Unknown);
        assert_eq!(checked.gauge(), "");
        assert_eq!(checked.after(1).await, State::Direct);
        assert!(began.elapsed() <= FIRST_PAUSE * FIRST_LOOKS);
        assert_eq!(checked.gauge(), "weir_redirected 0");
        checked.finds.set(Found::Itself);
        assert_eq!(checked.after(1).await, State::Redirected, "back at once");
        assert!(began.elapsed() >= INTERVAL, "looked at as often as ever");
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_pod_that_was_redirected_is_direct_after_two_looks_in_a_row() {
    local(async {
        let checked = Checked::start(Found::Itself, heartbeat::State::Beating);
        assert_eq!(checked.after(1).await, State::Redirected);
        let began = Instant::now();
        for found in [Found::Other, Found::Itself, Found::Other] {
            checked.finds.set(found);
            assert_eq!(checked.after(1).await, State::Redirected);
        }
        assert_eq!(checked.after(1).await, State::Direct);
        assert_eq!(checked.gauge(), "weir_redirected 0");
        let took = began.elapsed();
        assert!(took > INTERVAL * 3 && took <= INTERVAL * 4, "{took:?}");
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_told_changes_nothing_but_is_no_redirection() {
    local(async {
        let checked = Checked::start(Found::Itself, heartbeat::State::Beating);
        assert_eq!(checked.after(1).await, State::Redirected);
        checked.finds.set(Found::Nothing);
        assert_eq!(checked.after(LOOKS * 3).await, State::Redirected);
        let checked = Checked::start(Found::Nothing, heartbeat::State::Beating);
        assert_eq!(checked.after(FIRST_LOOKS).await, State::Direct);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn while_nobody_beats_nothing_changes() {
    local(async {
        let checked = Checked::start(Found::Itself, heartbeat::State::Beating);
        assert_eq!(checked.after(1).await, State::Redirected);
        checked.finds.set(Found::Other);
        for beat in [
            heartbeat::State::Paused,
            heartbeat::State::Stalled { worker: 0 },
        ] {
            checked.beat.send_replace(beat);
            let looks = checked.looks.get();
            time::sleep(INTERVAL * 5).await;
            assert_eq!(checked.looks.get(), looks, "{beat:?}");
            assert_eq!(*checked.state.borrow(), State::Redirected, "{beat:?}");
        }
        checked.beat.send_replace(heartbeat::State::Beating);
        assert_eq!(checked.after(2).await, State::Direct);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_look_that_fails_because_the_workers_stand_still_does_not_count() {
    let (tell, state) = watch::channel(State::Unknown);
    let told = Told {
        state: tell,
        gauge: Redirection::default(),
    };
    let (beat, beating) = watch::channel(heartbeat::State::Beating);
    let look = || async {
        beat.send_replace(heartbeat::State::Stalled { worker: 0 });
        time::sleep(Duration::from_secs(1)).await;
        // They move again before the next look.
        let beat = beat.clone();
        tokio::spawn(async move {
            time::sleep(FIRST_PAUSE / 2).await;
            beat.send_replace(heartbeat::State::Beating);
        });
        Found::Other
    };
    let kept = time::timeout(INTERVAL * 10, keep(INTERVAL, beating, look, &told));
    assert!(kept.await.is_err(), "it looks on");
    assert_eq!(*state.borrow(), State::Unknown);
}

/// Whoever answers with these words, and where.
async fn answering(words: &'static [&'static [u8]]) -> SocketAddr {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        for word in words {
            let (mut stream, _) = listener.accept().await.unwrap();
            stream.write_all(word).await.unwrap();
        }
    });
    address
}

/// Where nobody listens.
async fn closed() -> SocketAddr {
    answering(&[]).await
}

#[tokio::test]
async fn only_the_word_is_the_proxy() {
    let words: &[&[u8]] = &[WORD, b"weird", b"wei", b"", b"HTTP/1.1 400 Bad Request\r\n"];
    let address = answering(words).await;
    for word in words {
        let found = look_at(&[address], PATIENT).await;
        let wanted = match *word == WORD {
            true => Found::Itself,
            false => Found::Other,
        };
        assert_eq!(found, wanted, "{:?}", word.escape_ascii());
    }
}

#[tokio::test]
async fn what_is_answered_here_is_the_word() {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        let (stream, _) = listener.accept().await.unwrap();
        answer(&stream);
    });
    assert_eq!(look_at(&[address], PATIENT).await, Found::Itself);
}

#[tokio::test]
async fn where_the_first_address_refuses_the_second_is_asked() {
    let (none, other) = (closed().await, answering(&[WORD]).await);
    assert_eq!(look_at(&[none], PATIENT).await, Found::Other);
    assert_eq!(look_at(&[none, other], PATIENT).await, Found::Itself);
    assert_eq!(look_at(&[], PATIENT).await, Found::Other);
}

#[tokio::test]
async fn who_accepts_and_says_nothing_is_not_waited_for() {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    let addresses = [address];
    let looked = look_at(&addresses, Duration::from_millis(50));
    let looked = time::timeout(PATIENT, looked).await;
    assert_eq!(looked, Ok(Found::Nothing));
}

#[test]
fn only_the_port_on_loopback_is_the_check() {
    for (address, is_one) in [
        ("127.0.0.1:4189", true),
        ("127.0.0.7:4189", true),
        ("[::1]:4189", true),
        ("127.0.0.1:4140", false),
        ("10.1.2.3:4189", false),
        ("[fd00::1]:4189", false),
    ] {
        assert_eq!(is_check(address.parse().unwrap()), is_one, "{address}");
    }
}

#[test]
fn ipv4_is_asked_first_wherever_it_is_taken() {
    let asked = |ipv4, ipv6| -> Vec<_> {
        let addresses = addresses(ipv4, ipv6);
        addresses.iter().map(SocketAddr::to_string).collect()
    };
    assert_eq!(asked(true, true), ["127.0.0.1:4189", "[::1]:4189"]);
    assert_eq!(asked(false, true), ["[::1]:4189"]);
    assert_eq!(asked(false, false), [""; 0]);
}
