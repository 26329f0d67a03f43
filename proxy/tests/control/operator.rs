//! A control plane of which a test says everything: Linkerd's destination API, served by the published crate's stubs in
//! plain text or TLS, on a port that outlives it. It counts what it was asked and keeps what it was told.

use std::collections::{BTreeMap, HashMap};
use std::convert::Infallible;
use std::io::ErrorKind;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use hyper::body::Incoming;
use hyper::http::Request;
use hyper::server::conn::http2::Builder;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use linkerd2_proxy_api::destination::GetDestination;
use linkerd2_proxy_api::destination::destination_server::DestinationServer;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tonic::Code;
use tower_service::Service;
use weir_crds::grpc::routes_v1::routes_server::RoutesServer;
use weir_crds::grpc::v1::settings_server::SettingsServer;

// Named by path, because another test has this file as a module of its own.
#[path = "operator/answers.rs"]
mod answers;
#[path = "operator/messages.rs"]
mod messages;

/// An endpoint with this label says that it is opaque.
pub(crate) const OPAQUE: &str = "opaque";

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
    /// The tables of services, by name and port; empty where there are none.
    tables: HashMap<String, watch::Sender<String>>,
    /// The settings of whoever asks.
    settings: Option<watch::Sender<String>>,
    /// Why nobody is told them.
    refusal: Option<(Code, &'static str)>,
    /// How often they were asked for.
    watches: usize,
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

    /// The routes of a service and port from now on, as JSON; nothing where it has none any more.
    pub(crate) fn routes(&self, service: &str, json: &str) {
        let mut state = self.state();
        let said = state.tables.entry(service.to_owned()).or_default();
        said.send_replace(json.to_owned());
        // Whether there are any is a part of a profile.
        state
            .profiles
            .values()
            .for_each(|said| said.send_modify(|_| {}));
    }

    /// Whoever asks for settings is refused from now on, and so are open streams.
    pub(crate) fn refuse_settings(&self, code: Code, words: &'static str) {
        let mut state = self.state();
        state.refusal = Some((code, words));
        state
            .settings
            .iter()
            .for_each(|said| said.send_modify(|_| {}));
    }

    /// The settings of whoever asks, from now on.
    pub(crate) fn settings(&self, json: &str) {
        let mut state = self.state();
        state.refusal = None;
        let said = state.settings.get_or_insert_with(watch::Sender::default);
        said.send_replace(json.to_owned());
    }

    /// Everything that was asked so far.
    pub(crate) fn asked(&self) -> Vec<Asked> {
        self.state().asked.clone()
    }

    /// How often settings were asked for.
    pub(crate) fn watches(&self) -> usize {
        self.state().watches
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
        let routes = RoutesServer::new(self.clone());
        let settings = SettingsServer::new(self);
        let service = service_fn(move |request: Request<Incoming>| {
            let (mut destination, mut settings) = (destination.clone(), settings.clone());
            let mut routes = routes.clone();
            async move {
                let path = request.uri().path();
                let answer = if path.starts_with("/weir.settings.v1.") {
                    settings.call(request).await
                } else if path.starts_with("/weir.routes.v1.") {
                    routes.call(request).await
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
    /// Counts an open stream for as long as the answer lives.
    fn open(&self) -> Open {
        let mut state = self.state();
        state.streams += 1;
        state.most_streams = state.most_streams.max(state.streams);
        Open(self.clone())
    }

    fn begin(&self, request: &tonic::Request<GetDestination>) -> Open {
        let mut state = self.state();
        let token = request.metadata().get("authorization");
        let asked = Asked {
            path: request.get_ref().path.clone(),
            context: request.get_ref().context_token.clone(),
            authorization: token.map(|t| t.to_str().expect("text").to_owned()),
        };
        state.asked.push(asked);
        drop(state);
        self.open()
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
