//! The beat under a paused clock, with real packets counted on loopback.

use super::*;

/// Counts what arrives at both loopback addresses on one port.
struct Listener {
    sockets: Vec<UdpSocket>,
    port: u16,
}

impl Listener {
    fn new() -> Self {
        let v4 = UdpSocket::bind("127.0.0.1:0").unwrap();
        let port = v4.local_addr().unwrap().port();
        let mut sockets = vec![v4];
        sockets.extend(UdpSocket::bind(("::1", port)));
        for socket in &sockets {
            socket.set_nonblocking(true).unwrap();
        }
        Self { sockets, port }
    }

    /// Beats since the last call, of each family.
    fn beats(&self) -> Vec<usize> {
        let mut buffer = [0; 16];
        let count =
            |socket: &UdpSocket| std::iter::from_fn(|| socket.recv_from(&mut buffer).ok()).count();
        self.sockets.iter().map(count).collect()
    }

    fn config(&self, workers: usize) -> Config {
        Config {
            workers,
            ipv4: true,
            ipv6: self.sockets.len() == 2,
            port: self.port,
        }
    }
}

struct Running {
    listener: Listener,
    pulses: Vec<Pulse>,
    state: watch::Receiver<State>,
    paused: watch::Sender<bool>,
    shutdown: CancellationToken,
    task: tokio::task::JoinHandle<()>,
}

fn start(workers: usize) -> Running {
    let listener = Listener::new();
    let (heart, pulses, state) = new(listener.config(workers));
    let (paused, pausing) = watch::channel(false);
    let shutdown = CancellationToken::new();
    let task = tokio::spawn(beat(heart, pausing, shutdown.clone()));
    Running {
        listener,
        pulses,
        state,
        paused,
        shutdown,
        task,
    }
}

impl Running {
    /// Two seconds in which the workers in `moving` bump as they should.
    async fn pass(&self, moving: std::ops::Range<usize>) -> Vec<usize> {
        for _ in 0..8 {
            self.pulses[moving.clone()].iter().for_each(Pulse::bump);
            time::sleep(TICK).await;
        }
        self.listener.beats()
    }

    fn all(&self, beats: usize) -> Vec<usize> {
        vec![beats; self.listener.sockets.len()]
    }
}

#[tokio::test(start_paused = true)]
async fn beats_in_every_family_while_all_workers_move() {
    let running = start(3);
    assert_eq!(running.pass(0..2).await, running.all(0));
    assert_eq!(*running.state.borrow(), State::Starting);
    assert_eq!(running.pass(0..3).await, running.all(4));
    assert_eq!(*running.state.borrow(), State::Beating);
}

#[tokio::test(start_paused = true)]
async fn one_stuck_worker_stops_the_beat_until_it_moves() {
    let running = start(2);
    running.pass(0..2).await;
    running.pass(0..1).await;
    assert_eq!(*running.state.borrow(), State::Stalled { worker: 1 });
    assert_eq!(running.pass(0..1).await, running.all(0));
    running.pass(0..2).await;
    assert_eq!(running.pass(0..2).await, running.all(4));
    assert_eq!(*running.state.borrow(), State::Beating);
}

#[tokio::test(start_paused = true)]
async fn pause_and_shutdown_stop_the_beat() {
    let running = start(1);
    running.pass(0..1).await;
    running.paused.send(true).unwrap();
    assert_eq!(running.pass(0..1).await, running.all(0));
    assert_eq!(*running.state.borrow(), State::Paused);
    running.paused.send(false).unwrap();
    assert_eq!(running.pass(0..1).await, running.all(4));
    running.shutdown.cancel();
    running.task.await.unwrap();
    assert_eq!(*running.state.borrow(), State::Stopped);
}

#[tokio::test(start_paused = true)]
async fn a_family_that_cannot_be_sent_does_not_end_the_other() {
    let listener = Listener::new();
    // Port 0 is refused by the kernel.
    let unreachable = "[::1]:0".parse().unwrap();
    let good = SocketAddr::from((Ipv4Addr::LOCALHOST, listener.port));
    let mut sockets = [Beater::new(unreachable), Beater::new(good)];
    assert_eq!(send(&mut sockets), State::Beating);
    assert_eq!(listener.beats()[0], 1);
    assert_eq!(send(&mut sockets[..1]), State::Unsendable);
    assert!(sockets[0].failing);
}
