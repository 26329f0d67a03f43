//! The services of the control plane: how each call is answered with what the test has said.

use std::collections::BTreeMap;
use std::pin::Pin;

use futures::Stream;
use futures::stream::unfold;
use linkerd2_proxy_api::destination::destination_server::Destination;
use linkerd2_proxy_api::destination::{DestinationProfile, GetDestination, Update};
use linkerd2_proxy_api::meta::Metadata;
use tokio::sync::watch;
use tonic::{Response, Status};
use weir_crds::grpc::routes_v1;
use weir_crds::grpc::routes_v1::routes_server::Routes;
use weir_crds::grpc::v1::settings_server::Settings;
use weir_crds::grpc::v1::{Document, WatchRequest};

use super::messages::{changes, none, weighted};
use super::{Endpoints, Known, Open, Operator};

type Messages<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

#[tonic::async_trait]
impl Destination for Operator {
    type GetStream = Messages<Update>;
    type GetProfileStream = Messages<DestinationProfile>;

    async fn get(
        &self,
        request: tonic::Request<GetDestination>,
    ) -> Result<Response<Self::GetStream>, Status> {
        let open = self.begin(&request);
        let path = request.into_inner().path;
        let said = {
            let mut state = self.state();
            let said = state.services.entry(path);
            said.or_insert_with(|| watch::Sender::new(Endpoints::NoSuchService))
                .subscribe()
        };
        if let Endpoints::Refused(code) = &*said.borrow() {
            return Err(Status::new(*code, "as the test says"));
        }
        let stream = unfold((said, None, open), |(mut said, told, open)| async move {
            loop {
                let now = said.borrow_and_update().clone();
                let (messages, told) = match (now, &told) {
                    (Endpoints::Are(now), Some(before)) => (changes(before, &now), now),
                    (Endpoints::Are(now), None) if now.is_empty() => (vec![none(true)], now),
                    (Endpoints::Are(now), None) => (changes(&BTreeMap::new(), &now), now),
                    (Endpoints::NoSuchService, _) => (vec![none(false)], BTreeMap::new()),
                    (Endpoints::Refused(code), _) => {
                        let status = Status::new(code, "as the test says");
                        return Some((vec![Err(status)], (said, None, open)));
                    }
                };
                if messages.is_empty() {
                    said.changed().await.ok()?;
                    continue;
                }
                let messages = messages.into_iter().map(Ok).collect::<Vec<_>>();
                return Some((messages, (said, Some(told), open)));
            }
        });
        Ok(Response::new(Box::pin(once_each(stream))))
    }

    async fn get_profile(
        &self,
        request: tonic::Request<GetDestination>,
    ) -> Result<Response<Self::GetProfileStream>, Status> {
        let open = self.begin(&request);
        let path = request.into_inner().path;
        let port = path.rsplit(':').next().unwrap_or_default().to_owned();
        let said = {
            let mut state = self.state();
            let said = state.profiles.entry(path);
            said.or_insert_with(|| watch::Sender::new(Known::Outside))
                .subscribe()
        };
        if let Known::Refused(code) = &*said.borrow() {
            return Err(Status::new(*code, "as the test says"));
        }
        let stream = unfold(
            (said, true, open, port),
            |(mut said, is_first, open, port)| async move {
                if !is_first {
                    said.changed().await.ok()?;
                }
                loop {
                    let known = said.borrow_and_update().clone();
                    let message = match known {
                        Known::Outside => Ok(DestinationProfile::default()),
                        Known::Service { name, is_opaque } => Ok(DestinationProfile {
                            profile_ref: open.has_routes(&format!("{name}:{port}")),
                            fully_qualified_name: name.to_owned(),
                            opaque_protocol: is_opaque,
                            ..DestinationProfile::default()
                        }),
                        Known::Pod(addr, labels) => Ok(DestinationProfile {
                            endpoint: Some(weighted(addr, &labels)),
                            ..DestinationProfile::default()
                        }),
                        Known::Refused(code) => Err(Status::new(code, "as the test says")),
                        Known::Silence => {
                            said.changed().await.ok()?;
                            continue;
                        }
                    };
                    return Some((message, (said, false, open, port)));
                }
            },
        );
        Ok(Response::new(Box::pin(stream)))
    }
}

#[tonic::async_trait]
impl Settings for Operator {
    type WatchStream = Messages<Document>;

    async fn watch(
        &self,
        request: tonic::Request<WatchRequest>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        let version = request.get_ref().newest_version;
        self.state().watches += 1;
        self.refused()?;
        let said = self.state().settings.as_ref().map(watch::Sender::subscribe);
        let Some(said) = said else {
            return Err(Status::unimplemented("no settings in this test"));
        };
        let operator = self.clone();
        let next = move |(mut said, is_first): (watch::Receiver<String>, bool)| {
            let operator = operator.clone();
            async move {
                if !is_first {
                    said.changed().await.ok()?;
                }
                let json = said.borrow_and_update().clone();
                let answer = operator.refused().map(|()| Document { version, json });
                Some((answer, (said, false)))
            }
        };
        let stream = unfold((said, true), next);
        Ok(Response::new(Box::pin(stream)))
    }
}

impl Operator {
    /// Why settings are not told.
    fn refused(&self) -> Result<(), Status> {
        let refusal = self.state().refusal;
        refusal.map_or(Ok(()), |(code, words)| Err(Status::new(code, words)))
    }
}

impl Open {
    /// The mark of a service that has routes.
    fn has_routes(&self, service: &str) -> Option<Metadata> {
        let state = self.0.state();
        let table = state.tables.get(service)?;
        (!table.borrow().is_empty()).then(Metadata::default)
    }
}

#[tonic::async_trait]
impl Routes for Operator {
    type WatchStream = Messages<routes_v1::Document>;

    async fn watch(
        &self,
        request: tonic::Request<routes_v1::WatchRequest>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        let open = self.open();
        let request = request.into_inner();
        let version = request.newest_version;
        let said = self
            .state()
            .tables
            .entry(request.path)
            .or_default()
            .subscribe();
        let stream = unfold(
            (said, true, open),
            move |(mut said, is_first, open)| async move {
                if !is_first {
                    said.changed().await.ok()?;
                }
                let json = said.borrow_and_update().clone();
                Some((
                    Ok(routes_v1::Document { version, json }),
                    (said, false, open),
                ))
            },
        );
        Ok(Response::new(Box::pin(stream)))
    }
}

/// A stream of messages from one of lists of them.
fn once_each<T: Send + 'static>(
    lists: impl Stream<Item = Vec<T>> + Send,
) -> impl Stream<Item = T> + Send {
    use futures::StreamExt;
    lists.flat_map(futures::stream::iter)
}
