//! From successive scrapes of one proxy to what a dashboard shows: rates over the last seconds and
//! quantiles of a histogram, by Prometheus' rules. Fed by `demo` once a second and read by `table`;
//! knows neither clocks nor sockets.

use std::collections::{HashMap, VecDeque};
use std::time::{Duration, Instant};

use crate::exposition::{Scrape, Series};

/// How far back a rate looks.
pub(super) const WINDOW: Duration = Duration::from_secs(10);

/// What grew between two scrapes that follow each other.
#[derive(Debug)]
struct Step {
    length: Duration,
    /// The samples of the later scrape, each with its increase as the value.
    increases: Scrape,
}

/// The scrapes of one proxy, as far back as [`WINDOW`].
#[derive(Debug, Default)]
pub(super) struct History {
    last: Option<(Instant, Scrape)>,
    steps: VecDeque<Step>,
}

impl History {
    /// Adds a scrape that was taken then; it is later than all before.
    pub(super) fn push(&mut self, at: Instant, scrape: Scrape) {
        if let Some((before, earlier)) = self.last.take() {
            self.steps.push_back(Step {
                length: at - before,
                increases: increases(&earlier, &scrape),
            });
        }
        while self.steps.len() > 1 && self.length() > WINDOW {
            self.steps.pop_front();
        }
        self.last = Some((at, scrape));
    }

    /// The newest scrape.
    pub(super) fn latest(&self) -> Option<&Scrape> {
        self.last.as_ref().map(|(_, scrape)| scrape)
    }

    /// `sum(rate(name{labels}[window]))`, a second; none before the second scrape.
    ///
    /// The window begins and ends at a scrape, so that nothing is extrapolated.
    pub(super) fn rate(&self, name: &str, labels: &[(&str, &str)]) -> Option<f64> {
        let seconds = self.length().as_secs_f64();
        let increases = self.steps.iter().map(|step| &step.increases);
        (seconds > 0.0).then(|| increases.map(|i| i.sum(name, labels)).sum::<f64>() / seconds)
    }

    /// `histogram_quantile(q, sum by (le) (rate(<name>_bucket{labels}[window])))`; none where
    /// nothing was observed in the window.
    pub(super) fn quantile(&self, q: f64, name: &str, labels: &[(&str, &str)]) -> Option<f64> {
        let name = format!("{name}_bucket");
        let mut buckets: Vec<(f64, f64)> = Vec::new();
        for step in &self.steps {
            for series in step.increases.select(&name, labels) {
                let bound: f64 = series.labels.get("le")?.parse().ok()?;
                match buckets.iter_mut().find(|(b, _)| *b == bound) {
                    Some((_, count)) => *count += series.value,
                    None => buckets.push((bound, series.value)),
                }
            }
        }
        quantile(q, &mut buckets)
    }

    fn length(&self) -> Duration {
        self.steps.iter().map(|step| step.length).sum()
    }
}

/// What each sample of `later` grew by. One that became smaller was reset, and one that is new began
/// at 0: both grew by all they have.
fn increases(earlier: &Scrape, later: &Scrape) -> Scrape {
    let key = |series: &Series| (series.name.clone(), series.labels.clone());
    let earlier: HashMap<_, _> = earlier.0.iter().map(|s| (key(s), s.value)).collect();
    let grown = later.0.iter().map(|series| {
        let before = earlier.get(&key(series)).copied().unwrap_or_default();
        let increase = if series.value < before {
            series.value
        } else {
            series.value - before
        };
        Series {
            value: increase,
            ..series.clone()
        }
    });
    Scrape(grown.collect())
}

/// Prometheus' `histogram_quantile` for a `q` above 0 and up to 1, of cumulative buckets given by their
/// upper bounds: linear within a bucket whose lower bound is the one before (the first one's is 0),
/// and the highest finite bound for what lies above it. None where nothing was observed or no
/// bucket is infinite.
pub(super) fn quantile(q: f64, buckets: &mut [(f64, f64)]) -> Option<f64> {
    buckets.sort_by(|a, b| a.0.total_cmp(&b.0));
    let (&(highest, observed), finite) = buckets.split_last()?;
    if highest != f64::INFINITY || finite.is_empty() || observed <= 0.0 {
        return None;
    }
    let rank = q * observed;
    let (mut lower, mut below) = (0.0, 0.0);
    for &(bound, count) in finite {
        if count >= rank {
            return Some(lower + (bound - lower) * (rank - below) / (count - below));
        }
        (lower, below) = (bound, count);
    }
    Some(lower)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn history(scrapes: &[&str]) -> History {
        let mut history = History::default();
        let start = Instant::now();
        for (second, text) in (0u32..).zip(scrapes) {
            history.push(start + second * SECOND, Scrape::parse(text).unwrap());
        }
        history
    }

    #[test]
    fn a_rate_is_the_growth_of_all_matching_series_a_second() {
        let history = history(&[
            "r{d=\"in\",c=\"200\"} 100\nr{d=\"in\",c=\"500\"} 7\nr{d=\"out\"} 1\n",
            "r{d=\"in\",c=\"200\"} 110\nr{d=\"in\",c=\"500\"} 7\nr{d=\"out\"} 50\n",
            "r{d=\"in\",c=\"200\"} 118\nr{d=\"in\",c=\"500\"} 9\nr{d=\"out\"} 50\n",
        ]);
        assert_eq!(history.rate("r", &[("d", "in")]), Some(10.0));
        assert_eq!(history.rate("r", &[("d", "in"), ("c", "500")]), Some(1.0));
        assert_eq!(history.rate("s", &[]), Some(0.0));
    }

    #[test]
    fn one_scrape_has_no_rate() {
        let history = history(&["r 5\n"]);
        assert_eq!(history.rate("r", &[]), None);
        assert_eq!(history.quantile(0.5, "r", &[]), None);
        assert_eq!(history.latest().unwrap().sum("r", &[]), 5.0);
    }

    #[test]
    fn a_restart_and_a_new_series_count_from_zero() {
        let history = history(&["r 100\n", "r 104\n", "r 3\nr{new=\"1\"} 2\n"]);
        assert_eq!(history.rate("r", &[]), Some((4.0 + 3.0 + 2.0) / 2.0));
    }

    #[test]
    fn what_left_the_window_is_forgotten() {
        let scrapes: Vec<String> = (0..30)
            .map(|second| {
                format!(
                    "r {}\n",
                    if second < 15 {
                        second * 100
                    } else {
                        1400 + second
                    }
                )
            })
            .collect();
        let scrapes: Vec<&str> = scrapes.iter().map(String::as_str).collect();
        assert_eq!(history(&scrapes).rate("r", &[]), Some(1.0));
    }

    #[test]
    fn quantiles_are_those_of_the_window_summed_over_series() {
        let history = history(&[
            "l_bucket{c=\"1\",le=\"10\"} 90\nl_bucket{c=\"1\",le=\"20\"} 90\nl_bucket{c=\"1\",le=\"+Inf\"} 90\n",
            "l_bucket{c=\"1\",le=\"10\"} 90\nl_bucket{c=\"1\",le=\"20\"} 92\nl_bucket{c=\"1\",le=\"+Inf\"} 92\n\
             l_bucket{c=\"2\",le=\"10\"} 2\nl_bucket{c=\"2\",le=\"20\"} 2\nl_bucket{c=\"2\",le=\"+Inf\"} 2\n",
        ]);
        assert_eq!(history.quantile(0.5, "l", &[]), Some(10.0));
        assert_eq!(history.quantile(0.75, "l", &[]), Some(15.0));
        assert_eq!(history.quantile(0.5, "l", &[("c", "2")]), Some(5.0));
    }

    /// The expected values are what Prometheus 2.42 answers for the same buckets.
    #[test]
    fn quantiles_agree_with_prometheus() {
        let inf = f64::INFINITY;
        type Case<'a> = (&'a [(f64, f64)], f64, Option<f64>);
        let cases: [Case; 8] = [
            (&[(1.0, 10.0), (2.0, 30.0), (inf, 40.0)], 0.5, Some(1.5)),
            (&[(1.0, 10.0), (2.0, 30.0), (inf, 40.0)], 0.1, Some(0.4)),
            (&[(1.0, 10.0), (2.0, 30.0), (inf, 40.0)], 0.99, Some(2.0)),
            (
                &[(1.0, 0.0), (2.0, 0.0), (5.0, 8.0), (inf, 8.0)],
                0.5,
                Some(3.5),
            ),
            (
                &[(5.0, 8.0), (2.0, 0.0), (inf, 8.0), (1.0, 0.0)],
                1.0,
                Some(5.0),
            ),
            (&[(1.0, 0.0), (inf, 0.0)], 0.5, None),
            (&[(1.0, 3.0), (2.0, 3.0)], 0.5, None),
            (&[(inf, 3.0)], 0.5, None),
        ];
        for (buckets, q, expected) in cases {
            assert_eq!(
                quantile(q, &mut buckets.to_vec()),
                expected,
                "{q} {buckets:?}"
            );
        }
    }
}
