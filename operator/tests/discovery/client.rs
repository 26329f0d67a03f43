//! A client of the Destination service that is made of nothing but the published crate, over loopback, the operator's
//! gRPC server that it calls, and readers of what comes.

#![allow(clippy::unwrap_used, reason = "what fails here fails the test")]

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use linkerd2_proxy_api::destination::destination_client::DestinationClient;
use linkerd2_proxy_api::destination::tls_identity::Strategy;
use linkerd2_proxy_api::destination::update::Update as Change;
use linkerd2_proxy_api::destination::{
    DestinationProfile, GetDestination, Update, WeightedAddr, WeightedAddrSet,
};
use linkerd2_proxy_api::net::TcpAddress;
use serde_json::Value;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tonic::Streaming;
use tonic::service::Routes;
use tonic::transport::Channel;
use weir_crds::grpc::routes_v1::routes_client::RoutesClient;
use weir_operator::metrics::Metrics;
use weir_operator::serve::{self, Limits, Security, destination};

use crate::scene::{Scene, slice};

/// Longest wait for a message that must come.
pub(crate) const DEADLINE: Duration = Duration::from_secs(10);
/// Streams at once in these tests.
pub(crate) const STREAMS: usize = 8;

/// An operator's gRPC server on a cluster on paper, and a client.
pub(crate) struct Running {
    pub(crate) scene: Scene,
    pub(crate) address: SocketAddr,
    pub(crate) client: DestinationClient<Channel>,
    pub(crate) routes: RoutesClient<Channel>,
    pub(crate) stop: CancellationToken,
    pub(crate) task: JoinHandle<()>,
}

impl Running {
    pub(crate) async fn start() -> Self {
        let scene = Scene::default();
        let loopback = Some(([127, 0, 0, 1], 0).into());
        let bound = serve::Bound::new(loopback, Limits::default())
            .await
            .unwrap();
        let address = bound.address;
        let (destination, routes) = destination::services(scene.index.clone(), STREAMS);
        let routes = Routes::new(destination).add_service(routes);
        let stop = CancellationToken::new();
        let control = (Metrics::default().server.clone(), stop.clone());
        let task = tokio::spawn(async move {
            bound
                .run(routes, Security::Plaintext, control)
                .await
                .unwrap();
        });
        let channel = Channel::from_shared(format!("http://{address}")).unwrap();
        let channel = channel.connect().await.unwrap();
        Self {
            scene,
            address,
            client: DestinationClient::new(channel.clone()),
            routes: RoutesClient::new(channel),
            stop,
            task,
        }
    }

    /// One whose cluster is listed.
    pub(crate) async fn listed() -> Self {
        let mut running = Self::start().await;
        running.scene.list_nothing();
        running
    }

    pub(crate) async fn get(
        &mut self,
        path: &str,
        context: &str,
    ) -> Result<Streaming<Update>, tonic::Status> {
        let call = self.client.get(request(path, context));
        let called = tokio::time::timeout(DEADLINE, call).await.unwrap();
        called.map(tonic::Response::into_inner)
    }

    pub(crate) async fn profile(
        &mut self,
        path: &str,
    ) -> Result<Streaming<DestinationProfile>, tonic::Status> {
        let call = self.client.get_profile(request(path, ""));
        let called = tokio::time::timeout(DEADLINE, call).await.unwrap();
        called.map(tonic::Response::into_inner)
    }
}

pub(crate) fn request(path: &str, context: &str) -> GetDestination {
    GetDestination {
        scheme: "k8s".to_owned(),
        path: path.to_owned(),
        context_token: context.to_owned(),
    }
}

pub(crate) async fn next<T>(stream: &mut Streaming<T>) -> T {
    let message = tokio::time::timeout(DEADLINE, stream.message()).await;
    message
        .expect("in time")
        .unwrap()
        .expect("the stream goes on")
}

pub(crate) async fn change(stream: &mut Streaming<Update>) -> Change {
    next(stream).await.update.unwrap()
}

pub(crate) async fn added(stream: &mut Streaming<Update>) -> WeightedAddrSet {
    match change(stream).await {
        Change::Add(set) => set,
        other => panic!("not an addition: {other:?}"),
    }
}

pub(crate) fn text(address: Option<TcpAddress>) -> String {
    let address = address.unwrap();
    let ip: IpAddr = address.ip.unwrap().try_into().unwrap();
    SocketAddr::new(ip, u16::try_from(address.port).unwrap()).to_string()
}

pub(crate) fn addresses(set: &WeightedAddrSet) -> Vec<String> {
    set.addrs.iter().map(|one| text(one.addr)).collect()
}

pub(crate) async fn removed(stream: &mut Streaming<Update>) -> Vec<String> {
    match change(stream).await {
        Change::Remove(set) => set.addrs.into_iter().map(|one| text(Some(one))).collect(),
        other => panic!("not a removal: {other:?}"),
    }
}

pub(crate) async fn none(stream: &mut Streaming<Update>) -> bool {
    match change(stream).await {
        Change::NoEndpoints(none) => none.exists,
        other => panic!("there are some: {other:?}"),
    }
}

pub(crate) fn labels(pairs: &[(&str, &str)]) -> HashMap<String, String> {
    let owned = |(key, value): &(&str, &str)| ((*key).to_owned(), (*value).to_owned());
    pairs.iter().map(owned).collect()
}

pub(crate) fn identity(addr: &WeightedAddr) -> Option<(String, String)> {
    let identity = addr.tls_identity.clone()?;
    match identity.strategy.unwrap() {
        Strategy::DnsLikeIdentity(name) => Some((name.name, identity.server_name.unwrap().name)),
        Strategy::UriLikeIdentity(uri) => panic!("{uri:?}"),
    }
}

pub(crate) fn web(endpoints: Vec<Value>) -> Value {
    slice("web-1", "web", endpoints)
}
