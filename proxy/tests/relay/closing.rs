//! An application whose port lets in only what there is a route for, or everything again. Used by the tests of the
//! terminating path and of the mesh as well.

use std::net::SocketAddr;
use std::sync::Arc;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::watch;
use weir_crds::routes::Condition;
use weir_crds::settings::{InboundSettings, Settings};
use weir_proxy::accept::Aim;
use weir_proxy::telemetry::Server;
use weir_proxy::worker;

use super::proxy::{DEADLINE, Proxy, bound, soon};

/// Everything below these paths.
pub(crate) fn below(paths: &[&str]) -> Option<Vec<Condition>> {
    let prefix = |path: &&str| Condition::PathPrefix((*path).to_owned());
    Some(paths.iter().map(prefix).collect())
}

fn letting_in(port: u16, routes: Option<Vec<Condition>>) -> Arc<Settings> {
    let inbound = InboundSettings {
        port,
        service: "web".into(),
        permission: None,
        routes,
    };
    Arc::new(Settings {
        inbounds: Some(vec![inbound]),
        ..Settings::without_metrics("default")
    })
}

/// A proxy in front of an application, in a mesh without TLS.
pub(crate) struct Closing {
    pub(crate) proxy: Proxy,
    settings: watch::Sender<Arc<Settings>>,
}

impl Closing {
    /// Lets in everything, or what is below these paths.
    pub(crate) fn start(application: SocketAddr, paths: Option<&[&str]>) -> Self {
        Self::start_with(application, paths, worker::Config::default())
    }

    pub(crate) fn start_with(
        application: SocketAddr,
        paths: Option<&[&str]>,
        served: worker::Config,
    ) -> Self {
        let server = Server::new("kuma.io", "dataplane", "web", 80);
        let aim = Aim::Application {
            addr: application,
            server,
        };
        let listener = bound();
        let port = listener.local_addr().expect("an address").port();
        let (settings, said) = watch::channel(letting_in(port, paths.and_then(below)));
        let proxy = Proxy::start_on(listener, (said, None), aim, served);
        Self { proxy, settings }
    }

    /// Waits until only these are let in; `None` is everything. Whoever asks meanwhile is called `probe`.
    pub(crate) async fn let_in(&self, routes: Option<Vec<Condition>>) {
        let expected = routes.is_some();
        let settings = letting_in(self.proxy.addr.port(), routes);
        self.settings.send_replace(settings);
        let start = std::time::Instant::now();
        while self.refuses("/probe").await != expected {
            assert!(start.elapsed() < DEADLINE, "it is never in force");
        }
    }

    async fn refuses(&self, path: &str) -> bool {
        let mut probe = self.proxy.connect().await;
        let request = format!("GET {path} HTTP/1.1\r\nHost: probe\r\n\r\n");
        probe.write_all(request.as_bytes()).await.expect("written");
        let mut status = [0; 12];
        let read = soon(probe.read_exact(&mut status)).await;
        read.is_ok() && status.ends_with(b" 404")
    }

    /// How many of these there are whose authority is that.
    pub(crate) fn of(&self, name: &str, authority: &str) -> f64 {
        let label = format!("authority=\"{authority}\"");
        self.proxy.sum(name, &[&label])
    }
}
