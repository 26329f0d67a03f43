//! Stands in for the running proxy: `init` with its flags as written, and the heartbeat.
//! Used by the tests of redirection alone; those of the data path run the real binary.

use std::net::UdpSocket;
use std::os::fd::AsFd;
use std::thread::JoinHandle;

use clap::Parser;
use rustix::thread::move_into_link_name_space;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use weir_proxy::heartbeat::{self, Pulse};
use weir_proxy::init;

use crate::namespace::{Namespace, become_user};

pub(crate) const PROXY_UID: u32 = 5678;

#[derive(Parser)]
struct Cli {
    #[command(flatten)]
    init: init::Args,
}

/// The flags of `weir-proxy init` as they are written.
pub(crate) fn flags(line: &str) -> init::Args {
    let words = ["init"].into_iter().chain(line.split_whitespace());
    Cli::parse_from(words).init
}

/// What `weir-proxy init` does, in `namespace`.
pub(crate) fn redirect(namespace: &Namespace, line: &str) {
    namespace.enter(|| init::run(&flags(line))).unwrap();
}

/// The real heartbeat, as `uid`, with a worker that moves.
pub(crate) struct Beating {
    shutdown: CancellationToken,
    thread: Option<JoinHandle<()>>,
}

impl Beating {
    pub(crate) fn start(namespace: &Namespace, uid: u32) -> Self {
        let shutdown = CancellationToken::new();
        let stop = shutdown.clone();
        let path = std::fs::File::open(namespace.path()).unwrap();
        let thread = std::thread::spawn(move || {
            move_into_link_name_space(path.as_fd(), None).unwrap();
            become_user(uid);
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .unwrap();
            runtime.block_on(beat(stop));
        });
        Self {
            shutdown,
            thread: Some(thread),
        }
    }

    pub(crate) fn stop(&mut self) {
        self.shutdown.cancel();
        if let Some(thread) = self.thread.take() {
            thread.join().unwrap();
        }
    }
}

impl Drop for Beating {
    fn drop(&mut self) {
        self.stop();
    }
}

async fn beat(stop: CancellationToken) {
    let (heart, pulses, _state) = heartbeat::new(heartbeat::Config {
        workers: 1,
        ipv4: true,
        ipv6: true,
        port: heartbeat::PORT,
    });
    let (_resume, paused) = watch::channel(false);
    let moving = async {
        loop {
            pulses.iter().for_each(Pulse::bump);
            tokio::time::sleep(heartbeat::TICK).await;
        }
    };
    tokio::select! {
        () = heartbeat::beat(heart, paused, stop) => {}
        () = moving => {}
    }
}

/// One beat of each family, sent before this returns.
pub(crate) fn beat_once(namespace: &Namespace, uid: u32) {
    namespace.enter_as(uid, || {
        for loopback in ["127.0.0.1", "::1"] {
            let socket = UdpSocket::bind((loopback, 0)).unwrap();
            socket
                .send_to(b"beat", (loopback, heartbeat::PORT))
                .unwrap();
        }
    });
}
