//! How many endpoints the services of a worker have, and how many of them are set aside. Kept by `worker`, which counts
//! about once a second; here are only the labels.

use std::rc::Rc;

use crate::telemetry::{EndpointLabels, EndpointSeries, Recorder};

/// The series of the services, in the order in which they are counted.
pub struct Census {
    recorder: Rc<Recorder>,
    services: Vec<(Rc<str>, u16)>,
    series: Vec<EndpointSeries>,
}

impl Census {
    /// Of services by name and port of their listener.
    pub fn new(recorder: Rc<Recorder>, services: Vec<(Rc<str>, u16)>) -> Self {
        let mut census = Self {
            recorder,
            services,
            series: Vec::new(),
        };
        census.resolve();
        census
    }

    /// Tells of each service how many endpoints are available, and how many are set aside; call after the recorder's
    /// tick.
    pub fn publish(&mut self, counts: impl Iterator<Item = (usize, usize)>) {
        if !self.series.iter().all(EndpointSeries::is_current) {
            self.series.iter().for_each(|series| series.set(0, 0));
            self.resolve();
        }
        for (series, (available, set_aside)) in self.series.iter().zip(counts) {
            series.set(available, set_aside);
        }
    }

    fn resolve(&mut self) {
        let services = self.services.iter();
        let series = services.map(|(name, port)| {
            self.recorder.endpoints(&EndpointLabels {
                authority: name,
                target_port: *port,
            })
        });
        self.series = series.collect();
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::*;
    use crate::telemetry::{self, Selection};

    #[test]
    fn endpoints_are_told_by_state_whatever_the_policy() {
        let (telemetry, mut seats) = telemetry::new(telemetry::Config::default(), 1);
        let recorder = Rc::new(seats.remove(0).take());
        let services = vec![("web".into(), 8080), ("db".into(), 5432)];
        let mut census = Census::new(Rc::clone(&recorder), services);
        let mut now = Instant::now();
        let web = "authority=\"web\",target_port=\"8080\"";
        let db = "authority=\"db\",target_port=\"5432\"";
        for (policy, expected) in [
            (
                "",
                vec![
                    format!("{{{web},state=\"available\"}} 2"),
                    format!("{{{web},state=\"set_aside\"}} 1"),
                    format!("{{{db},state=\"available\"}} 0"),
                    format!("{{{db},state=\"set_aside\"}} 0"),
                ],
            ),
            (
                "families: {weir_endpoints: {dropLabels: [state]}}",
                vec![format!("{{{web}}} 3"), format!("{{{db}}} 0")],
            ),
            ("families: {weir_endpoints: {drop: true}}", vec![]),
        ] {
            telemetry.set_policy(&telemetry::policy(policy).expect("a policy"));
            let mut lines = Vec::new();
            // As long as a series that is no longer asked for is waited for.
            for _ in 0..90 {
                now += Duration::from_secs(1);
                recorder.tick(now);
                census.publish([(2, 1), (0, 0)].into_iter());
                telemetry.sweep(now);
                let mut text = Vec::new();
                let printed = telemetry.expose(&Selection::default(), &mut text);
                printed.expect("a Vec takes any bytes");
                let text = String::from_utf8(text).expect("text");
                let ours = text
                    .lines()
                    .filter_map(|l| l.strip_prefix("weir_endpoints"));
                lines = ours.map(str::to_owned).collect();
            }
            assert_eq!(lines, expected, "{policy}");
        }
    }
}
