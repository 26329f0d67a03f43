//! What is started for a proxy that has an operator: the connection to it, and who follows settings and destinations by
//! it.
//!
//! Called by `App::serve` on the service thread. Without an operator nothing is started.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use weir_crds::settings::Settings;

use crate::control::discovery::{self, Desk, Discovery, Told};
use crate::control::{Certify, Operator, authorities, operator, settings};
use crate::destinations::Link;
use crate::identity::{self, Identity};
use crate::record::CallSource;
use crate::telemetry::Telemetry;

/// Time between two changes of what telemetry knows of discovered services: each is a pass over its tables.
const TELL: Duration = Duration::from_secs(1);

/// What workers have of it.
#[derive(Default)]
pub(super) struct Operated {
    pub(super) link: Option<Link>,
    /// For the one worker that counts calls.
    pub(super) calls: Option<CallSource>,
    /// The proxy's identity, where the operator certifies it.
    pub(super) identity: Option<watch::Receiver<Option<Arc<Identity>>>>,
}

/// The operator, and what is in force until it says something.
type Given<'a> = (Option<Operator>, &'a watch::Receiver<Arc<Settings>>);

/// Starts everything, until `stop`.
pub(super) fn start(
    (operator, settings): Given<'_>,
    telemetry: &Telemetry,
    tasks: &TaskTracker,
    stop: &CancellationToken,
) -> Operated {
    let Some(Operator {
        connection,
        discovery,
        settings: followed,
        services,
    }) = operator
    else {
        return Operated::default();
    };
    let target = &connection.target;
    let token = connection.token.clone();
    let (log, calls) = CallSource::new(target.addr(), target.labels());
    let (client, connection) = operator::open(connection, log);
    if let Some(followed) = followed {
        let following = settings::follow(client.clone(), discovery.retry, followed);
        tasks.spawn(stop.clone().run_until_cancelled_owned(following));
    }
    let (link, questions, changes) = Link::new();
    let desk = Desk {
        questions,
        changes,
        epoch: link.epoch(),
    };
    let (known, told) = discovery::told();
    let identity = token.map(|token| {
        let operator = (client.clone(), client.origin());
        let (force, identity) = watch::channel(None);
        let figures = telemetry.certificates();
        figures.known();
        let config = identity::Config::default();
        let keeper = (config, Certify::new(operator, token));
        let kept = identity::keep(
            keeper,
            settings.clone(),
            (force, figures),
            stop.child_token(),
        );
        tasks.spawn(kept);
        identity
    });
    if let Some(services) = services {
        let following = discovery::follow_services(services, client.clone(), discovery.clone());
        tasks.spawn(stop.clone().run_until_cancelled_owned(following));
    }
    let discovery = Discovery::new(discovery, client, desk, known);
    tasks.spawn(connection.keep(stop.child_token()));
    tasks.spawn(discovery.run(stop.child_token()));
    let telling = tell(told, telemetry.clone(), settings.clone());
    tasks.spawn(stop.clone().run_until_cancelled_owned(telling));
    Operated {
        link: Some(link),
        calls: Some(calls),
        identity,
    }
}

/// Tells telemetry which services there are, and which endpoints are gone. Those that its pod is of are in its settings.
async fn tell(told: Told, telemetry: Telemetry, mut settings: watch::Receiver<Arc<Settings>>) {
    let known = telemetry.known();
    let Told {
        mut names,
        mut gone,
    } = told;
    settings.mark_changed();
    loop {
        tokio::select! {
            Some(gone) = gone.recv() => {
                telemetry.end(&gone);
                continue;
            }
            is_followed = names.changed() => {
                if !is_followed {
                    return;
                }
            }
            Ok(()) = settings.changed() => {}
        }
        let own = offered(&settings.borrow_and_update());
        known.set(names.all().into_iter().chain(own));
        tokio::time::sleep(TELL).await;
    }
}

/// What clients may call the services by that the pod is of.
fn offered(settings: &Settings) -> Vec<String> {
    let inbounds = settings.inbounds.iter().flatten();
    inbounds
        .flat_map(|inbound| authorities(&inbound.service))
        .collect()
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use weir_crds::settings::InboundSettings;

    use super::*;
    use crate::app::{Config, record};
    use crate::endpoints::Service;
    use crate::telemetry::{self, Direction, GrpcLabels, Recorder};

    /// A telemetry that refuses whoever is not known.
    fn strict() -> (Telemetry, Recorder) {
        let config = telemetry::Config {
            most_series: 0,
            ..telemetry::Config::default()
        };
        let (telemetry, mut seats) = telemetry::new(config, 1);
        (telemetry, seats.remove(0).take())
    }

    fn of(service: &str) -> Arc<Settings> {
        let settings = Settings::parse(r#"{"version":1,"mesh":"default"}"#);
        let inbound = InboundSettings {
            port: 8080,
            service: service.to_owned(),
            permission: None,
            routes: None,
        };
        Arc::new(Settings {
            inbounds: Some(vec![inbound]),
            ..settings.expect("settings")
        })
    }

    /// Those of these authorities that are told apart.
    fn told_apart<'a>(
        telemetry: &Telemetry,
        recorder: &Recorder,
        names: &[&'a str],
    ) -> Vec<&'a str> {
        recorder.tick(Instant::now());
        for authority in names {
            recorder.grpc(&GrpcLabels {
                direction: Direction::Inbound,
                authority,
                target_port: 80,
            });
        }
        let mut text = Vec::new();
        let shown = telemetry.expose(&telemetry::Selection::default(), &mut text);
        shown.expect("a Vec takes all");
        let text = String::from_utf8(text).expect("text");
        let is_shown = |name: &str| text.contains(&format!("authority=\"{name}\",kind=\"sent\""));
        names.iter().copied().filter(|n| is_shown(n)).collect()
    }

    #[tokio::test(start_paused = true)]
    async fn services_that_are_followed_are_known_beside_those_of_the_start() {
        let (telemetry, recorder) = strict();
        let (known, told) = discovery::told();
        let (_keep, settings) = watch::channel(of("api"));
        telemetry.known().set(["web".to_owned()]);
        let telling = tokio::spawn(tell(told, telemetry.clone(), settings));
        tokio::task::yield_now().await;
        known.enter("db.mesh");
        tokio::time::sleep(2 * TELL).await;
        let shown = told_apart(&telemetry, &recorder, &["web", "db.mesh", "cache"]);
        assert_eq!(shown, ["web", "db.mesh"]);
        telling.abort();
    }

    #[tokio::test(start_paused = true)]
    async fn what_one_source_tells_takes_nothing_from_what_another_does() {
        let (rosters, roster) = watch::channel(Arc::default());
        let config = Config {
            known_authorities: vec!["web".to_owned()],
            roster: Some(roster),
            telemetry: telemetry::Config {
                most_series: 0,
                ..telemetry::Config::default()
            },
            ..Config::default()
        };
        let (tasks, stop) = (TaskTracker::new(), CancellationToken::new());
        let (telemetry, mut seats) = record::start(&config, 1, &tasks, &stop);
        let recorder = seats.remove(0).take();
        let (known, told) = discovery::told();
        let (_keep, settings) = watch::channel(of("api"));
        tasks.spawn(tell(told, telemetry.clone(), settings));
        let call = |name: &str| {
            let name = name.to_owned();
            let service = Service {
                name,
                ..Service::default()
            };
            let service = (([10, 0, 0, 1], 80).into(), service);
            rosters.send_replace(Arc::new([service].into()));
        };
        known.enter("db.mesh");
        tokio::time::sleep(2 * TELL).await;
        call("mail");
        tokio::time::sleep(2 * TELL).await;
        let names = ["web", "api", "db.mesh", "mail", "cache"];
        let shown = told_apart(&telemetry, &recorder, &names);
        assert_eq!(shown, names[..4], "after the roster");
        known.enter("cache.mesh");
        tokio::time::sleep(2 * TELL).await;
        let names = ["mail.mesh", "cache.mesh", "other"];
        let shown = told_apart(&telemetry, &recorder, &names);
        assert_eq!(shown, names[..2], "after the operator");
        drop((known, rosters));
        stop.cancel();
    }

    #[tokio::test(start_paused = true)]
    async fn the_services_of_the_pod_are_known_by_its_settings() {
        let (telemetry, recorder) = strict();
        let (_known, told) = discovery::told();
        let (settings, followed) = watch::channel(of("old"));
        let telling = tokio::spawn(tell(told, telemetry.clone(), followed));
        tokio::time::sleep(2 * TELL).await;
        let shown = told_apart(&telemetry, &recorder, &["old", "web.shop"]);
        assert_eq!(shown, ["old"], "those in force from the start");
        settings.send_replace(of("web_shop_svc_8080"));
        tokio::time::sleep(2 * TELL).await;
        let names = ["web", "web.shop", "web.shop.svc.cluster.local", "cache"];
        let shown = told_apart(&telemetry, &recorder, &names);
        assert_eq!(shown, names[..3]);
        telling.abort();
    }
}
