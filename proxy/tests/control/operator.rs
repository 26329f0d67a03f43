//! A control plane of which a test says everything: Linkerd's destination API, served by the published crate's stubs in
//! plain text or TLS, on a port that outlives it. It counts what it was asked and keeps what it was told.

use std::collections::{BTreeMap, HashMap};
use std::convert::Infallible;
use std::io::ErrorKind;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use futures::Stream;
use futures::stream::unfold;
use hyper::body::Incoming;
use hyper::http::Request;
use hyper::server::conn::http2::Builder;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use linkerd2_proxy_api::destination::destination_server::{Destination, DestinationServer};
use linkerd2_proxy_api::destination::update;
use linkerd2_proxy_api::destination::{
    AddrSet, DestinationProfile, GetDestination, NoEndpoints, Update, WeightedAddr, WeightedAddrSet,
};
use linkerd2_proxy_api::net::TcpAddress;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tonic::{Code, Response, Status};
use tower_service::Service;
use weir_crds::grpc::v1::settings_server::{Settings, SettingsServer};
use weir_crds::grpc::v1::{Document, WatchRequest};

/// Longest time for its port to be free.
const DEADLINE: Duration = Duration::from_secs(20);

/// Labels of an endpoint, or of a set of them.
pub(crate) type Labels = BTreeMap<&'static str, &'static str>;

/// What is said of an address.
#[derive(Clone, Debug, Default)]
pub(crate) enum Known {
    /// It is not in the cluster.
    #[default]
    Outside,
    Service {
        name: &'static str,
        is_opaque: bool,
    },
    Pod(SocketAddr, Labels),
    Refused(Code),
    /// The question is never answered.
    Silence,
}

/// What is said of a service.
#[derive(Clone, Debug)]
pub(crate) enum Endpoints {
    Are(BTreeMap<SocketAddr, Labels>),
    NoSuchService,
    Refused(Code),
}

/// One question, as it arrived.
#[derive(Clone, Debug)]
pub(crate) struct Asked {
    pub(crate) path: String,
    pub(crate) context: String,
    pub(crate) authorization: Option<String>,
}

#[derive(Default)]
struct State {
    profiles: HashMap<String, watch::Sender<Known>>,
    services: HashMap<String, watch::Sender<Endpoints>>,
    asked: Vec<Asked>,
    streams: usize,
    most_streams: usize,
    /// The settings of whoever asks.
    settings: Option<watch::Sender<String>>,
}

/// The control plane; clones are the same one.
#[derive(Clone)]
pub(crate) struct Operator {
    state: Arc<Mutex<State>>,
    acceptor: Option<TlsAcceptor>,
}

/// Its server, for as long as it lives.
pub(crate) struct Serving {
    pub(crate) addr: SocketAddr,
    /// Connections end at once.
    killed: CancellationToken,
    /// Connections take no more calls.
    leaving: CancellationToken,
}

impl Drop for Serving {
    fn drop(&mut self) {
        self.killed.cancel();
    }
}

impl Serving {
    /// Says GOAWAY on every connection, and takes new ones.
    pub(crate) fn leave(&mut self) {
        self.leaving.cancel();
    }
}

impl Operator {
    pub(crate) fn new(acceptor: Option<TlsAcceptor>) -> Self {
        Self {
            state: Arc::default(),
            acceptor,
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no test panics with it")
    }

    /// What is said of an address from now on, on streams that are open, too.
    pub(crate) fn profile(&self, addr: &str, known: Known) {
        let mut state = self.state();
        let said = state.profiles.entry(addr.to_owned());
        said.or_insert_with(|| watch::Sender::new(Known::Outside))
            .send_replace(known);
    }

    /// What is said of a service and port from now on.
    pub(crate) fn endpoints(&self, service: &str, endpoints: Endpoints) {
        let mut state = self.state();
        let said = state.services.entry(service.to_owned());
        said.or_insert_with(|| watch::Sender::new(Endpoints::NoSuchService))
            .send_replace(endpoints);
    }

    /// The settings of whoever asks, from now on.
    pub(crate) fn settings(&self, json: &str) {
        let mut state = self.state();
        let said = state.settings.get_or_insert_with(watch::Sender::default);
        said.send_replace(json.to_owned());
    }

    /// Everything that was asked so far.
    pub(crate) fn asked(&self) -> Vec<Asked> {
        self.state().asked.clone()
    }

    /// How often it was asked about this.
    pub(crate) fn times(&self, path: &str) -> usize {
        let state = self.state();
        state.asked.iter().filter(|a| a.path == path).count()
    }

    /// Streams that are open, and the most that ever were.
    pub(crate) fn streams(&self) -> (usize, usize) {
        let state = self.state();
        (state.streams, state.most_streams)
    }

    /// Serves on this address, whose port may be 0.
    pub(crate) async fn serve(&self, addr: SocketAddr) -> Serving {
        let listener = tokio::time::timeout(DEADLINE, listen(addr));
        let listener = listener.await.expect("the one before ends in time");
        let serving = Serving {
            addr: listener.local_addr().expect("it is bound"),
            killed: CancellationToken::new(),
            leaving: CancellationToken::new(),
        };
        let accepting =
            self.clone()
                .accept(listener, serving.leaving.clone(), serving.killed.clone());
        let killed = serving.killed.clone();
        tokio::spawn(killed.run_until_cancelled_owned(accepting));
        serving
    }

    async fn accept(
        self,
        listener: TcpListener,
        leaving: CancellationToken,
        killed: CancellationToken,
    ) {
        while let Ok((stream, _)) = listener.accept().await {
            // Who comes after the others were asked to leave may stay.
            let leaving = if leaving.is_cancelled() {
                CancellationToken::new()
            } else {
                leaving.clone()
            };
            let (operator, killed) = (self.clone(), killed.clone());
            tokio::spawn(killed.run_until_cancelled_owned(async move {
                match operator.acceptor.clone() {
                    None => operator.talk(stream, leaving).await,
                    Some(acceptor) => {
                        if let Ok(stream) = acceptor.accept(stream).await {
                            operator.talk(stream, leaving).await;
                        }
                    }
                }
            }));
        }
    }

    async fn talk(
        self,
        stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
        leaving: CancellationToken,
    ) {
        let destination = DestinationServer::new(self.clone());
        let settings = SettingsServer::new(self);
        let service = service_fn(move |request: Request<Incoming>| {
            let (mut destination, mut settings) = (destination.clone(), settings.clone());
            async move {
                let answer = if request.uri().path().starts_with("/weir.settings.v1.") {
                    settings.call(request).await
                } else {
                    destination.call(request).await
                };
                Ok::<_, Infallible>(answer.expect("it cannot fail"))
            }
        });
        let mut builder = Builder::new(TokioExecutor::new());
        builder.max_concurrent_streams(4096);
        let connection = builder.serve_connection(TokioIo::new(stream), service);
        let mut connection = std::pin::pin!(connection);
        tokio::select! {
            _ended = &mut connection => return,
            () = leaving.cancelled() => connection.as_mut().graceful_shutdown(),
        }
        let _ended = connection.await;
    }

    /// Notes a question, and an open stream for as long as the answer lives.
    fn begin(&self, request: &tonic::Request<GetDestination>) -> Open {
        let mut state = self.state();
        let token = request.metadata().get("authorization");
        let asked = Asked {
            path: request.get_ref().path.clone(),
            context: request.get_ref().context_token.clone(),
            authorization: token.map(|t| t.to_str().expect("text").to_owned()),
        };
        state.asked.push(asked);
        state.streams += 1;
        state.most_streams = state.most_streams.max(state.streams);
        Open(self.clone())
    }
}

async fn listen(addr: SocketAddr) -> TcpListener {
    loop {
        match TcpListener::bind(addr).await {
            Ok(listener) => return listener,
            // The one before is on its way out.
            Err(error) if error.kind() == ErrorKind::AddrInUse => {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            Err(error) => panic!("cannot listen on {addr}: {error}"),
        }
    }
}

/// An open stream.
struct Open(Operator);

impl Drop for Open {
    fn drop(&mut self) {
        self.0.state().streams -= 1;
    }
}

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
            (said, true, open),
            |(mut said, is_first, open)| async move {
                if !is_first {
                    said.changed().await.ok()?;
                }
                loop {
                    let known = said.borrow_and_update().clone();
                    let message = match known {
                        Known::Outside => Ok(DestinationProfile::default()),
                        Known::Service { name, is_opaque } => Ok(DestinationProfile {
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
                    return Some((message, (said, false, open)));
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
        let said = self.state().settings.as_ref().map(watch::Sender::subscribe);
        let Some(said) = said else {
            return Err(Status::unimplemented("no settings in this test"));
        };
        let stream = unfold((said, true), move |(mut said, is_first)| async move {
            if !is_first {
                said.changed().await.ok()?;
            }
            let json = said.borrow_and_update().clone();
            Some((Ok(Document { version, json }), (said, false)))
        });
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

/// What has changed; of what is the same, nothing.
fn changes(
    before: &BTreeMap<SocketAddr, Labels>,
    now: &BTreeMap<SocketAddr, Labels>,
) -> Vec<Update> {
    let added: BTreeMap<_, _> = now
        .iter()
        .filter(|(addr, labels)| before.get(addr) != Some(labels))
        .collect();
    let removed: Vec<_> = before
        .keys()
        .filter(|addr| !now.contains_key(addr))
        .collect();
    let mut changes = Vec::new();
    if !added.is_empty() {
        let set = WeightedAddrSet {
            addrs: added
                .into_iter()
                .map(|(addr, labels)| weighted(*addr, labels))
                .collect(),
            metric_labels: [("namespace".to_owned(), "shop".to_owned())].into(),
        };
        changes.push(update::Update::Add(set));
    }
    if !removed.is_empty() {
        let addrs = removed.into_iter().map(|addr| tcp(*addr)).collect();
        changes.push(update::Update::Remove(AddrSet { addrs }));
    }
    let update = |update| Update {
        update: Some(update),
    };
    changes.into_iter().map(update).collect()
}

fn none(exists: bool) -> Update {
    Update {
        update: Some(update::Update::NoEndpoints(NoEndpoints { exists })),
    }
}

fn weighted(addr: SocketAddr, labels: &Labels) -> WeightedAddr {
    let labels = labels
        .iter()
        .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()));
    WeightedAddr {
        addr: Some(tcp(addr)),
        weight: 10_000,
        metric_labels: labels.collect(),
        ..WeightedAddr::default()
    }
}

fn tcp(addr: SocketAddr) -> TcpAddress {
    let ip: IpAddr = addr.ip();
    TcpAddress {
        ip: Some(ip.into()),
        port: addr.port().into(),
    }
}
