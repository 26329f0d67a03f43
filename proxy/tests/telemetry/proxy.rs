//! One worker with its telemetry, to which time and a policy are told. Used by the tests of policies and of budgets.

use std::time::{Duration, Instant};

use weir_proxy::telemetry::{
    self, Classification, Config, Direction, GrpcLabels, GrpcSeries, Recorder, ResponseEnd,
    Selection, Telemetry,
};

use crate::scrape::{Groups, Scrape, scrape, traffic};

pub(crate) struct Proxy {
    pub(crate) telemetry: Telemetry,
    pub(crate) recorder: Recorder,
    pub(crate) groups: Groups,
    now: Instant,
}

impl Proxy {
    pub(crate) fn new(policy: &str) -> Self {
        Self::with(Config::default(), policy)
    }

    pub(crate) fn with(config: Config, policy: &str) -> Self {
        let (telemetry, mut seats) = telemetry::new(config, 1);
        telemetry.set_policy(&telemetry::policy(policy).unwrap());
        Self {
            telemetry,
            recorder: seats.remove(0).take(),
            groups: Groups::new(),
            now: Instant::now(),
        }
    }

    /// Puts a policy in force and has the worker take it over.
    pub(crate) fn change(&mut self, policy: &str) {
        let policy = telemetry::policy(policy).unwrap();
        self.telemetry.set_policy(&policy);
        self.run(1);
    }

    /// Seconds of ticks and sweeps, with a scrape every 15.
    pub(crate) fn run(&mut self, seconds: u32) {
        for second in 0..seconds {
            self.now += Duration::from_secs(1);
            self.recorder.tick(self.now);
            self.telemetry.sweep(self.now);
            if second % 15 == 0 {
                self.all();
            }
        }
    }

    /// As [`run`](Self::run), with something that goes on all the time.
    pub(crate) fn run_with(&mut self, seconds: u32, mut traffic: impl FnMut(&Self)) {
        for _ in 0..seconds {
            traffic(self);
            self.now += Duration::from_secs(1);
            self.recorder.tick(self.now);
            self.telemetry.sweep(self.now);
            self.all();
        }
    }

    /// Seconds without a scrape.
    pub(crate) fn wait(&mut self, seconds: u32) {
        for _ in 0..seconds {
            self.now += Duration::from_secs(1);
            self.recorder.tick(self.now);
            self.telemetry.sweep(self.now);
        }
    }

    /// The series of calls to this authority.
    pub(crate) fn calls(&self, authority: &str) -> GrpcSeries {
        self.recorder.grpc(&GrpcLabels {
            direction: Direction::Inbound,
            authority,
            target_port: 8080,
        })
    }

    /// A call of so many messages in either direction.
    pub(crate) fn call(&self, authority: &str, (sent, received): (u64, u64)) {
        let series = self.calls(authority);
        series.sent(sent);
        series.received(received);
    }

    pub(crate) fn request(&self, authority: &str, took: u64) {
        self.answer(authority, 200, took);
    }

    /// A request that is answered so after so many milliseconds.
    pub(crate) fn answer(&self, authority: &str, status: u16, took: u64) {
        let series = self.recorder.http(&self.groups.inbound(authority));
        series.request();
        series.latency(Some(status), Duration::from_millis(took));
        series.response(&ResponseEnd {
            status: Some(status),
            classification: Classification::Success,
            grpc_status: "",
            error: "",
        });
    }

    pub(crate) fn all(&self) -> Scrape {
        scrape(&self.telemetry, &Selection::default())
    }

    /// Those of the families whose names are this expression.
    pub(crate) fn of(&self, family: &str) -> Scrape {
        scrape(&self.telemetry, &traffic(&format!("^{family}$")))
    }
}
