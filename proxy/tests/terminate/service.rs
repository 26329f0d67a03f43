//! A service of several endpoints behind a proxy, and servers that do as a test says.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use h2::RecvStream;
use h2::server::{Connection, SendResponse};
use hyper::http::Request;
use tokio::net::TcpStream;
use weir_proxy::accept::Aim;
use weir_proxy::endpoints::{Listed, Service};
use weir_proxy::telemetry::Dst;
use weir_proxy::worker;

use crate::peer::{Setup, serving};
use crate::proxy::{Proxy, application};

pub(crate) type Named<'a> = (&'a str, SocketAddr);

fn listed(endpoints: &[Named<'_>]) -> Vec<Listed> {
    let listed = endpoints
        .iter()
        .map(|(pod, addr)| Listed::plain(*addr, Dst::new([("pod", *pod)])));
    listed.collect()
}

/// A proxy of the service `web`, each endpoint with a pod's name.
pub(crate) fn serve(endpoints: &[Named<'_>], config: worker::Config) -> Proxy {
    let aim = Aim::Service {
        name: "web".to_owned(),
        endpoints: listed(endpoints),
    };
    Proxy::start_with(aim, config)
}

/// A service of two servers, `a` and `b`, that do as `setup` says.
pub(crate) async fn two(setup: Setup, config: worker::Config) -> Proxy {
    serve(
        &[("a", serving(setup).await), ("b", serving(setup).await)],
        config,
    )
}

/// Gives the service other endpoints.
pub(crate) fn replace(proxy: &Proxy, endpoints: &[Named<'_>]) {
    let service = Service {
        name: "web".to_owned(),
        endpoints: listed(endpoints),
        ..Service::default()
    };
    let roster = [(proxy.addr, service)].into();
    proxy.roster.send_replace(Arc::new(roster));
}

/// Nothing but the number of streams decides.
pub(crate) fn by_streams() -> worker::Config {
    let mut config = worker::Config::default();
    config.endpoints.assumed = Duration::from_secs(60);
    config.endpoints.floor = Duration::from_secs(60);
    config
}

/// A request as a server has it.
pub(crate) type Asked = (Request<RecvStream>, SendResponse<Bytes>);

/// A server whose every connection `serve` runs.
pub(crate) async fn server<F, S>(serve: S) -> SocketAddr
where
    S: Fn(Connection<TcpStream, Bytes>) -> F + Clone + Send + 'static,
    F: Future<Output = ()> + Send + 'static,
{
    application(move |stream| {
        let serve = serve.clone();
        async move {
            let mut builder = h2::server::Builder::new();
            builder.enable_connect_protocol();
            if let Ok(connection) = builder.handshake(stream).await {
                serve(connection).await;
            }
        }
    })
    .await
}

/// A server whose every request `answer` answers, in a task of its own.
pub(crate) async fn answering<F, S>(answer: S) -> SocketAddr
where
    S: Fn(Asked) -> F + Clone + Send + 'static,
    F: Future<Output = ()> + Send + 'static,
{
    server(move |mut connection| {
        let answer = answer.clone();
        async move {
            while let Some(Ok(asked)) = connection.accept().await {
                tokio::spawn(answer(asked));
            }
        }
    })
    .await
}

/// The label of a pod.
pub(crate) fn pod(name: &str) -> String {
    format!("dst_pod=\"{name}\"")
}
