//! What is started for a proxy that has an operator: the connection to it, and who follows settings and destinations by
//! it.
//!
//! Called by `App::serve` on the service thread. Without an operator nothing is started.

use std::time::Duration;

use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::control::discovery::{self, Desk, Discovery, Told};
use crate::control::{Operator, operator, settings};
use crate::destinations::Link;
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
}

/// Starts everything, until `stop`.
pub(super) fn start(
    operator: Option<Operator>,
    telemetry: &Telemetry,
    tasks: &TaskTracker,
    stop: &CancellationToken,
) -> Operated {
    let Some(Operator {
        connection,
        discovery,
        settings,
    }) = operator
    else {
        return Operated::default();
    };
    let target = &connection.target;
    let (log, calls) = CallSource::new(target.addr(), target.labels());
    let (client, connection) = operator::open(connection, log);
    if let Some(settings) = settings {
        let following = settings::follow(client.clone(), discovery.retry, settings);
        tasks.spawn(stop.clone().run_until_cancelled_owned(following));
    }
    let (link, questions, changes) = Link::new();
    let desk = Desk {
        questions,
        changes,
        epoch: link.epoch(),
    };
    let (known, told) = discovery::told();
    let discovery = Discovery::new(discovery, client, desk, known);
    tasks.spawn(connection.keep(stop.child_token()));
    tasks.spawn(discovery.run(stop.child_token()));
    let telling = tell(told, telemetry.clone());
    tasks.spawn(stop.clone().run_until_cancelled_owned(telling));
    Operated {
        link: Some(link),
        calls: Some(calls),
    }
}

/// Tells telemetry which services there are, and which endpoints are gone.
async fn tell(told: Told, telemetry: Telemetry) {
    let Told {
        mut names,
        mut gone,
    } = told;
    loop {
        tokio::select! {
            Some(gone) = gone.recv() => telemetry.end(&gone),
            is_followed = names.changed() => {
                if !is_followed {
                    return;
                }
                telemetry.set_known(names.all());
                tokio::time::sleep(TELL).await;
            }
        }
    }
}
