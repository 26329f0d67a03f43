//! What is started for a proxy that has an operator: the connection to it, and who follows settings and destinations by
//! it.
//!
//! Called by `App::serve` on the service thread. Without an operator nothing is started.

use std::sync::Arc;
use std::time::Duration;

use linkerd2_proxy_api::identity::identity_client::IdentityClient;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use weir_crds::settings::Settings;

use crate::control::discovery::{self, Desk, Discovery, Told};
use crate::control::{Certify, Operator, operator, settings};
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

/// Starts everything, until `stop`.
pub(super) fn start(
    (operator, settings): (Option<Operator>, &watch::Receiver<Arc<Settings>>),
    telemetry: &Telemetry,
    tasks: &TaskTracker,
    stop: &CancellationToken,
) -> Operated {
    let Some(Operator {
        connection,
        discovery,
        settings: followed,
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
        let client = IdentityClient::with_origin(client.clone(), client.origin());
        let (force, identity) = watch::channel(None);
        let figures = telemetry.certificates();
        figures.known();
        let config = identity::Config::default();
        let keeper = (config, Certify::new(client, token));
        let kept = identity::keep(
            keeper,
            settings.clone(),
            (force, figures),
            stop.child_token(),
        );
        tasks.spawn(kept);
        identity
    });
    let discovery = Discovery::new(discovery, client, desk, known);
    tasks.spawn(connection.keep(stop.child_token()));
    tasks.spawn(discovery.run(stop.child_token()));
    let telling = tell(told, telemetry.clone());
    tasks.spawn(stop.clone().run_until_cancelled_owned(telling));
    Operated {
        link: Some(link),
        calls: Some(calls),
        identity,
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
