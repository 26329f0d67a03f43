//! Following one destination: first what it is, then, where it is a service, the service's endpoints and, where it has
//! any, its routes (`resolved`), all for as long as it is followed. What was last said stands until something else is. A task for each; started by `discovery`.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use linkerd2_proxy_api::destination::{DestinationProfile, GetDestination, Update};
use tokio::sync::{mpsc, watch};
use tonic::{Status, Streaming};
use weir_crds::grpc::destination::destination_client::DestinationClient;
use weir_crds::grpc::routes_v1::routes_client::RoutesClient;

use super::known::Known;
use super::resolved::Resolved;
use super::wire::Profile;
use super::{Config, Retry};
use crate::control::operator::Client;
use crate::control::stream::{Event, Watch, watch};
use crate::destinations::{Answer, Inside};
use crate::endpoints::{Listed, Service};
use crate::telemetry::Dst;

/// Largest message that is taken, in bytes: ten thousand endpoints with their labels.
const MAX_MESSAGE: usize = 16 * 1024 * 1024;

/// How destinations are looked up.
#[derive(Clone)]
pub(super) struct Lookup {
    client: Client,
    stub: DestinationClient<Client>,
    routes: RoutesClient<Client>,
    retry: Retry,
    absence: Retry,
    context: Arc<str>,
}

impl Lookup {
    pub(super) fn new(client: Client, config: &Config) -> Self {
        let stub = DestinationClient::with_origin(client.clone(), client.origin());
        let routes = RoutesClient::with_origin(client.clone(), client.origin());
        Self {
            stub: stub.max_decoding_message_size(MAX_MESSAGE),
            routes: routes.max_decoding_message_size(MAX_MESSAGE),
            client,
            retry: config.retry,
            absence: config.absence,
            context: config.context.as_str().into(),
        }
    }

    /// The same for somebody else.
    pub(super) fn of(&self, context: String) -> Self {
        Self {
            context: context.into(),
            ..self.clone()
        }
    }

    /// Who asks.
    pub(super) fn context(&self) -> &str {
        &self.context
    }

    /// Asks for the endpoints of `name:port`.
    pub(super) async fn get(&self, path: String) -> Result<Streaming<Update>, Status> {
        let answer = self.stub.clone().get(self.request(path)).await;
        Ok(answer?.into_inner())
    }

    /// What routes are asked by.
    pub(super) fn routes(&self) -> RoutesClient<Client> {
        self.routes.clone()
    }

    /// What streams are opened again by.
    pub(super) fn source(&self) -> (Client, Retry) {
        (self.client.clone(), self.retry)
    }

    /// What a service that is not there is asked for again by.
    pub(super) fn absence(&self) -> Retry {
        self.absence
    }

    fn request(&self, path: String) -> GetDestination {
        GetDestination {
            path,
            context_token: (*self.context).to_owned(),
            ..GetDestination::default()
        }
    }
}

/// `GetProfile`: what an address is.
struct Profiles(Lookup, SocketAddr);

impl Watch for Profiles {
    type Message = DestinationProfile;

    async fn open(&self) -> Result<Streaming<DestinationProfile>, Status> {
        let request = self.0.request(self.1.to_string());
        let answer = self.0.stub.clone().get_profile(request).await;
        Ok(answer?.into_inner())
    }
}

/// Where answers go.
pub(super) struct Publisher {
    changes: Arc<watch::Sender<()>>,
    known: Known,
}

impl Publisher {
    pub(super) fn new(changes: watch::Sender<()>, known: Known) -> Self {
        let changes = Arc::new(changes);
        Self { changes, known }
    }

    /// The answers about one destination, and whether the operator tells of it at the moment.
    pub(super) fn to(&self, answers: watch::Sender<Answer>, is_told: Arc<AtomicBool>) -> Answers {
        Answers {
            answers: Some(answers),
            is_told,
            changes: Arc::clone(&self.changes),
            known: self.known.clone(),
            name: String::new(),
        }
    }
}

/// The answers about one destination; dropping them tells workers that it is forgotten.
pub(super) struct Answers {
    answers: Option<watch::Sender<Answer>>,
    /// Written here alone.
    is_told: Arc<AtomicBool>,
    changes: Arc<watch::Sender<()>>,
    known: Known,
    /// The service that is known because of it.
    name: String,
}

impl Answers {
    fn publish(&mut self, answer: Answer) {
        let name = match &answer {
            Answer::Inside(inside) => inside.service.name.as_str(),
            Answer::Outside | Answer::Pending => "",
        };
        self.rename(name.to_owned());
        let Some(answers) = &self.answers else {
            return;
        };
        let mut gone = Vec::new();
        let is_new = answers.send_if_modified(|current| {
            let is_new = *current != answer;
            if is_new {
                gone = left_out(current, &answer);
                *current = answer;
            }
            is_new
        });
        if is_new {
            self.known.gone(gone);
            self.changes.send_replace(());
        }
    }

    fn rename(&mut self, name: String) {
        if self.name == name {
            return;
        }
        if !name.is_empty() {
            self.known.enter(&name);
        }
        let before = std::mem::replace(&mut self.name, name);
        if !before.is_empty() {
            self.known.leave(&before);
        }
    }
}

impl Drop for Answers {
    fn drop(&mut self) {
        self.rename(String::new());
        self.answers.take();
        self.changes.send_replace(());
    }
}

/// The labels of endpoints that were there before and are not now.
fn left_out(before: &Answer, now: &Answer) -> Vec<Dst> {
    let mut known: HashMap<_, Vec<&Dst>> = HashMap::new();
    for listed in listed(now) {
        known.entry(listed.addr).or_default().push(&listed.dst);
    }
    let is_known = |listed: &&Listed| {
        let known = known.get(&listed.addr);
        known.is_some_and(|known| known.contains(&&listed.dst))
    };
    let gone = listed(before).filter(|listed| !is_known(listed));
    gone.map(|listed| listed.dst.clone()).collect()
}

/// All endpoints that requests may go to.
fn listed(answer: &Answer) -> impl Iterator<Item = &Listed> {
    let service = match answer {
        Answer::Inside(inside) => Some(&inside.service),
        Answer::Outside | Answer::Pending => None,
    };
    service.into_iter().flat_map(|service| {
        let branches = service.branches.iter();
        let branches = branches.flat_map(|branch| &branch.endpoints);
        service.endpoints.iter().chain(branches)
    })
}

/// Follows a destination until it turns out to be outside; answers which it was.
pub(super) async fn follow(to: SocketAddr, lookup: Lookup, mut answers: Answers) -> SocketAddr {
    let (events, mut profiles) = mpsc::channel(1);
    let of = Profiles(lookup.clone(), to);
    let mut following = pin!(watch(of, lookup.source(), events));
    let mut resolved: Option<Resolved> = None;
    let mut is_known = false;
    let mut is_opaque = false;
    loop {
        tokio::select! {
            () = &mut following => return to,
            Some(event) = profiles.recv() => {
                let is_told = !matches!(event, Event::Broken);
                answers.is_told.store(is_told, Ordering::Relaxed);
                let profile = match event {
                    Event::Message { message, .. } => Profile::from(message),
                    Event::Broken => continue,
                    Event::Refused => {
                        answers.publish(Answer::Outside);
                        return to;
                    }
                };
                is_opaque = profile.is_opaque;
                if let Some(endpoint) = profile.endpoint {
                    resolved = None;
                    let service = Service {
                        name: String::new(),
                        endpoints: vec![endpoint],
                        ..Service::default()
                    };
                    answers.publish(inside(service, is_opaque, false));
                } else if profile.name.is_empty() {
                    answers.publish(Answer::Outside);
                    return to;
                } else if resolved.as_ref().is_none_or(|r| r.name() != profile.name) {
                    resolved = Some(Resolved::new(&lookup, profile.name, to.port()));
                    is_known = false;
                }
                if let Some(resolved) = &mut resolved {
                    resolved.follow_routes(profile.has_routes);
                }
            }
            () = next(&mut resolved) => {}
        }
        // Once it is known, routes that are waited for hold up nothing: those of before stand. Destinations do, because
        // without their endpoints its requests would go elsewhere.
        if let Some(resolved) = &resolved
            && (resolved.is_said() || is_known && resolved.are_parts_said())
        {
            is_known = true;
            let service = resolved.service(to);
            let is_opaque = is_opaque || resolved.is_opaque();
            answers.publish(inside(service, is_opaque, resolved.is_stale()));
        }
    }
}

async fn next(resolved: &mut Option<Resolved>) {
    match resolved {
        Some(resolved) => resolved.next().await,
        None => std::future::pending().await,
    }
}

fn inside(service: Service, is_opaque: bool, is_stale: bool) -> Answer {
    Answer::Inside(Arc::new(Inside {
        service,
        is_opaque,
        is_stale,
    }))
}
