//! What is recorded: telemetry, fed with the policy, the known authorities and the endpoints that are gone.
//!
//! Called by `App::serve` on the service thread. Knows where such things come from, and nothing of what counts.

use std::sync::Arc;

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use weir_crds::metrics_policy::MetricsPolicy;

use super::Config;
use crate::accept::Aim;
use crate::control::authorities;
use crate::endpoints::Roster;
use crate::telemetry::{self, Dst, Seat, Telemetry};

/// Makes the telemetry of so many workers, and keeps it informed until `stop`.
pub(super) fn start(
    config: &Config,
    workers: usize,
    tasks: &TaskTracker,
    stop: &CancellationToken,
) -> (Telemetry, Vec<Seat>) {
    let (telemetry, seats) = telemetry::new(config.telemetry.clone(), workers);
    // What the proxy begins with stays known: its listeners are there as long as it is.
    telemetry
        .known()
        .set(config.known_authorities.iter().cloned());
    if let Some(policy) = config.metrics_policy.clone() {
        telemetry.set_policy(&policy.borrow());
        let following = follow_policy(telemetry.clone(), policy);
        tasks.spawn(stop.clone().run_until_cancelled_owned(following));
    }
    if let Some(roster) = config.roster.clone() {
        let following = follow_roster(telemetry.clone(), roster, described(config));
        tasks.spawn(stop.clone().run_until_cancelled_owned(following));
    }
    (telemetry, seats)
}

/// Puts every policy in force that comes.
async fn follow_policy(telemetry: Telemetry, mut policy: watch::Receiver<Arc<MetricsPolicy>>) {
    while policy.changed().await.is_ok() {
        let now = Arc::clone(&policy.borrow_and_update());
        telemetry.set_policy(&now);
    }
}

/// Lets the series of endpoints retire that are gone from every service, and knows the services by the names that they
/// may be called.
async fn follow_roster(
    telemetry: Telemetry,
    mut roster: watch::Receiver<Arc<Roster>>,
    mut before: Vec<Dst>,
) {
    let known = telemetry.known();
    while roster.changed().await.is_ok() {
        let services = Arc::clone(&roster.borrow_and_update());
        let names = services.values().flat_map(|s| authorities(&s.name));
        known.set(names);
        let endpoints = services.values().flat_map(|service| &service.endpoints);
        let now: Vec<Dst> = endpoints.map(|listed| listed.dst.clone()).collect();
        before.retain(|dst| !now.contains(dst));
        telemetry.end(&before);
        before = now;
    }
}

/// The endpoints that the proxy begins with.
fn described(config: &Config) -> Vec<Dst> {
    let aims = config.listeners.iter().map(|(_, aim)| aim);
    let endpoints = aims.filter_map(|aim| match aim {
        Aim::Service { endpoints, .. } => Some(endpoints),
        _ => None,
    });
    endpoints
        .flatten()
        .map(|listed| listed.dst.clone())
        .collect()
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::*;
    use crate::endpoints::{Listed, Service};
    use crate::telemetry::{
        Direction, GrpcLabels, NoTlsReason, Tls, TransportEnd, TransportLabels,
    };

    /// Longer than anything here takes, however busy the machine is.
    const DEADLINE: Duration = Duration::from_secs(10);

    #[tokio::test]
    async fn the_series_of_an_endpoint_retire_once_it_is_gone() {
        let [old, new] = ["old", "new"].map(|pod| Dst::new([("pod", pod)]));
        let addr = ([10, 0, 0, 1], 80).into();
        let (rosters, roster) = watch::channel(Arc::default());
        let config = Config {
            listeners: vec![(
                addr,
                Aim::Service {
                    name: "web".to_owned(),
                    endpoints: vec![Listed::plain(addr, old.clone())],
                },
            )],
            roster: Some(roster),
            telemetry: telemetry::Config {
                // Only what is gone retires within this test.
                retain_idle: Duration::from_secs(3600),
                hidden_for: Duration::ZERO,
                ..telemetry::Config::default()
            },
            ..Config::default()
        };
        let (tasks, stop) = (TaskTracker::new(), CancellationToken::new());
        let (telemetry, mut seats) = start(&config, 1, &tasks, &stop);
        let recorder = seats.remove(0).take();
        let before = telemetry.label_sets();
        for dst in [&old, &new] {
            recorder.transport(&TransportLabels {
                target_port: 80,
                tls: &Tls::NoIdentity(NoTlsReason::NotProvidedByServiceDiscovery),
                end: TransportEnd::OutboundDst {
                    authority: "web",
                    dst,
                },
            });
        }
        assert_eq!(telemetry.label_sets(), before + 2);
        let service = Service {
            name: "web".to_owned(),
            endpoints: vec![Listed::plain(addr, new)],
            ..Service::default()
        };
        rosters.send_replace(Arc::new([(addr, service)].into()));
        let deadline = Instant::now() + DEADLINE;
        let mut now = Instant::now();
        while telemetry.label_sets() > before + 1 {
            assert!(Instant::now() < deadline, "it is kept");
            tokio::task::yield_now().await;
            now += Duration::from_secs(1);
            recorder.tick(now);
            let shown = telemetry.expose(&telemetry::Selection::default(), &mut std::io::sink());
            shown.expect("a sink takes all");
            telemetry.sweep(now);
        }
        assert_eq!(telemetry.label_sets(), before + 1, "the other one stays");
        stop.cancel();
        tasks.close();
        tasks.wait().await;
    }

    #[tokio::test]
    async fn the_services_of_a_new_roster_are_known_with_those_of_the_start() {
        let (rosters, roster) = watch::channel(Arc::default());
        let config = Config {
            roster: Some(roster),
            known_authorities: vec!["web".to_owned()],
            telemetry: telemetry::Config {
                // Whoever is not known is refused.
                most_series: 0,
                ..telemetry::Config::default()
            },
            ..Config::default()
        };
        let (tasks, stop) = (TaskTracker::new(), CancellationToken::new());
        let (telemetry, mut seats) = start(&config, 1, &tasks, &stop);
        let recorder = seats.remove(0).take();
        let known = |names: &[&'static str]| {
            recorder.tick(Instant::now());
            for authority in names.iter().copied() {
                recorder.grpc(&GrpcLabels {
                    direction: Direction::Outbound,
                    authority,
                    target_port: 80,
                });
            }
            let mut text = Vec::new();
            let shown = telemetry.expose(&telemetry::Selection::default(), &mut text);
            shown.expect("a Vec takes all");
            let text = String::from_utf8(text).expect("text");
            let label = |name: &str| format!("authority=\"{name}\",kind=\"sent\"");
            let mut names = names.to_vec();
            names.retain(|name| text.contains(&label(name)));
            names
        };
        assert_eq!(known(&["web", "cache"]), ["web"]);
        for (services, asked, expected) in [
            (
                &["db_shop_svc_5432", "cache"][..],
                &["db", "cache.mesh"][..],
                &["db", "cache.mesh"][..],
            ),
            // By names that nobody has asked for: a series that is there stays until it is idle.
            (&["mail"], &["mail", "db.shop.svc.cluster.local"], &["mail"]),
        ] {
            let service = |(port, name): (u16, &&str)| {
                let name = (*name).to_owned();
                let service = Service {
                    name,
                    ..Service::default()
                };
                (([10, 0, 0, 1], port).into(), service)
            };
            rosters.send_replace(Arc::new((1..).zip(services).map(service).collect()));
            let deadline = Instant::now() + DEADLINE;
            while known(&asked[..1]).is_empty() {
                assert!(Instant::now() < deadline, "{} is not known", asked[0]);
                tokio::task::yield_now().await;
            }
            assert_eq!(known(asked), expected);
            assert_eq!(known(&["web"]), ["web"], "the proxy listens for it");
        }
        stop.cancel();
        tasks.close();
        tasks.wait().await;
    }
}
