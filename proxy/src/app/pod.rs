//! What is started for a proxy whose traffic is redirected, in a pod: the beat that keeps it so, and the check whether it
//! is.
//!
//! Called by `App::serve` on the service thread. Knows of a listener its family and its purpose alone.

use std::net::SocketAddr;

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::{Bound, Config};
use crate::accept::Aim;
use crate::admin::Service;
use crate::heartbeat;
use crate::redirection::{self, State, Told, addresses};
use crate::telemetry::Telemetry;

/// Which families the listeners of a purpose take.
struct Taken {
    ipv4: bool,
    ipv6: bool,
}

impl Taken {
    fn of(config: &Config, bound: &Bound, is_meant: fn(&Aim) -> bool) -> Self {
        let listeners = config.listeners.iter().zip(&bound.listeners);
        let taken = |is_v4: bool| {
            let takes = |addr: &SocketAddr| {
                addr.is_ipv4() == is_v4 || addr.ip().is_unspecified() && addr.is_ipv6()
            };
            let mut meant = listeners.clone().filter(|((_, aim), _)| is_meant(aim));
            meant.any(|(_, addr)| takes(addr))
        };
        Self {
            ipv4: taken(true),
            ipv6: taken(false),
        }
    }

    fn outbound(config: &Config, bound: &Bound) -> Self {
        Self::of(config, bound, |aim| matches!(aim, Aim::Outbound))
    }
}

/// Beats for the families that are taken in both directions.
pub(super) fn heartbeat(config: &Config, bound: &Bound, workers: usize) -> heartbeat::Config {
    let inbound = Taken::of(config, bound, |aim| matches!(aim, Aim::Inbound));
    let outbound = Taken::outbound(config, bound);
    heartbeat::Config {
        workers,
        ipv4: inbound.ipv4 && outbound.ipv4,
        ipv6: inbound.ipv6 && outbound.ipv6,
        port: heartbeat::PORT,
    }
}

/// Whether traffic is really served: with a heartbeat, from its first beat.
pub(super) fn service(
    beats: bool,
    mut state: watch::Receiver<heartbeat::State>,
    tasks: &TaskTracker,
) -> watch::Receiver<Service> {
    if !beats {
        return watch::channel(Service::Running).1;
    }
    let (tell, service) = watch::channel(Service::Starting);
    tasks.spawn(async move {
        while state.changed().await.is_ok() {
            tell.send_replace(match *state.borrow_and_update() {
                heartbeat::State::Starting => Service::Starting,
                heartbeat::State::Stalled { .. } => Service::Stuck,
                _ => Service::Running,
            });
        }
    });
    service
}

/// What the beat and the telemetry are, for who looks at the pod.
type Given<'a> = (&'a watch::Receiver<heartbeat::State>, &'a Telemetry);

/// Whether the pod is redirected, looked at until `stop`; `None` where there is no pod.
pub(super) fn redirection(
    config: &Config,
    bound: &Bound,
    (beat, telemetry): Given<'_>,
    (tasks, stop): (&TaskTracker, &CancellationToken),
) -> Option<watch::Receiver<State>> {
    if !config.beats {
        return None;
    }
    let outbound = Taken::outbound(config, bound);
    let addresses = addresses(outbound.ipv4, outbound.ipv6);
    let (tell, state) = watch::channel(State::default());
    let told = Told {
        state: tell,
        gauge: telemetry.redirection(),
    };
    if !addresses.is_empty() {
        let checking = redirection::check(config.redirection, addresses, beat.clone(), told);
        tasks.spawn(stop.clone().run_until_cancelled_owned(checking));
    }
    Some(state)
}
