//! Telemetry of one worker that stays in the test's hands, served by a real admin server on a thread of its own.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio_util::sync::{CancellationToken, DropGuard};
use weir_crds::settings::Settings;
use weir_proxy::admin;
use weir_proxy::telemetry::{
    self, Authz, Classification, HttpLabels, HttpSide, NoTlsReason, Recorder, ResponseEnd, Route,
    Server, Telemetry, Tls, TransportEnd, TransportLabels,
};

pub(crate) struct Served {
    pub(crate) addr: SocketAddr,
    pub(crate) recorder: Recorder,
    pub(crate) telemetry: Telemetry,
    _stop: DropGuard,
}

impl Served {
    pub(crate) fn start() -> Self {
        let (telemetry, mut seats) = telemetry::new(telemetry::Config::default(), 1);
        let exposition = Arc::new(telemetry.clone());
        let stop = CancellationToken::new();
        let (tell, told) = std::sync::mpsc::channel();
        let stopped = stop.clone();
        std::thread::spawn(move || {
            let mut runtime = tokio::runtime::Builder::new_current_thread();
            let runtime = runtime.enable_all().build().unwrap();
            runtime.block_on(async {
                let config = admin::Config {
                    addr: (Ipv4Addr::LOCALHOST, 0).into(),
                    ..admin::Config::default()
                };
                let bound = admin::bind(config).unwrap();
                tell.send(bound.addr).unwrap();
                let settings = Settings::without_metrics("default");
                let deps = admin::Deps {
                    identity: None,
                    exposition,
                    settings: watch::channel(Arc::new(settings)).1,
                    handoffs: mpsc::channel(1).1,
                    service: watch::channel(weir_proxy::admin::Service::Running).1,
                    redirection: None,
                    draining: watch::channel(false).1,
                    drain: CancellationToken::new(),
                    levels: None,
                };
                admin::serve(bound, deps, stopped).await;
            });
        });
        Self {
            addr: told.recv().unwrap(),
            recorder: seats.remove(0).take(),
            telemetry,
            _stop: stop.drop_guard(),
        }
    }

    /// One request to this authority with these answers, and a connection.
    pub(crate) fn record(&self, authority: &str, statuses: &[u16]) {
        let server = Server::new("kuma.io", "dataplane", "web", 8080);
        let tls = Tls::NoIdentity(NoTlsReason::NoTlsFromRemote);
        let series = self.recorder.http(&HttpLabels {
            authority,
            target_port: 8080,
            tls: &tls,
            side: HttpSide::Inbound {
                server: &server,
                route: &Route::new("", "default", "default"),
                authz: &Authz::new("", "default", "all-unauthenticated"),
            },
        });
        for status in statuses {
            series.request();
            series.latency(Some(*status), Duration::from_micros(1_500));
            series.response(&ResponseEnd {
                status: Some(*status),
                classification: Classification::Success,
                grpc_status: "",
                error: "",
            });
        }
        let end = TransportEnd::InboundSrc { server: &server };
        let connection = self.recorder.transport(&TransportLabels {
            target_port: 8080,
            tls: &tls,
            end,
        });
        connection.opened();
        connection.read(100);
        connection.closed(Classification::Success, "", Duration::from_millis(7));
    }
}
