//! The scraper's knowledge. A family of a label set is a life: it shows the truth less what earlier lives had shown.
//! A new life may begin only where the old one was seen to be gone, and with it nothing may be lost: unless the
//! scraper was away for as long as an idle label set is kept.

use std::collections::BTreeMap;
use std::time::Instant;

use super::events::RETAIN_IDLE;
use crate::scrape::Scrape;

/// Family and label set to what is known of it.
#[derive(Default)]
pub(crate) struct Observer {
    lives: BTreeMap<String, Life>,
    /// What each series showed when last seen, for those shown in the last exposition of their family.
    series: BTreeMap<String, (f64, Instant)>,
}

#[derive(Default)]
struct Life {
    /// What earlier lives had shown.
    earlier: f64,
    /// The truth when it was last shown.
    shown: f64,
    /// False after an exposition without it.
    present: bool,
    /// True after it was found gone by a scraper that had been away: which life returns cannot be told.
    missed: bool,
    last_seen: Option<Instant>,
}

impl Observer {
    /// Checks one exposition against the truth, of which the caller gives the families that were selected.
    pub(crate) fn observe<'a>(
        &mut self,
        got: &Scrape,
        truth: impl Iterator<Item = (&'a String, &'a f64)>,
        now: Instant,
    ) {
        for (key, truth) in truth {
            let (name, labels) = key.split_once('|').unwrap();
            let prefix = format!("{name}{{");
            let found = got
                .iter()
                .filter(|(s, _)| s.starts_with(&prefix) && s.contains(labels));
            let values: Vec<_> = found.map(|(_, value)| *value).collect();
            let value = (!values.is_empty()).then(|| values.iter().sum());
            let life = self.lives.entry(key.clone()).or_default();
            life.observe(key, value, *truth, now);
            self.check_series(got, &prefix, labels, now);
        }
    }

    /// No single series goes back from one exposition to the next.
    fn check_series(&mut self, got: &Scrape, prefix: &str, labels: &str, now: Instant) {
        let of = |s: &str| s.starts_with(prefix) && s.contains(labels);
        for (series, value) in got.iter().filter(|(s, _)| of(s)) {
            if let Some((was, at)) = self.series.get(series) {
                let away = now - *at >= RETAIN_IDLE;
                assert!(away || value >= was, "{series} went from {was} to {value}");
            }
        }
        self.series.retain(|s, _| !of(s));
        let seen = got.iter().filter(|(s, _)| of(s));
        self.series
            .extend(seen.map(|(s, value)| (s.clone(), (*value, now))));
    }
}

impl Life {
    fn observe(&mut self, key: &str, value: Option<f64>, truth: f64, now: Instant) {
        let away = self.last_seen.is_none_or(|at| now - at >= RETAIN_IDLE);
        match value {
            None => assert!(
                away || truth == self.shown,
                "{key}: {} of {truth} shown and gone",
                self.shown
            ),
            Some(value) if value == truth - self.earlier => {}
            Some(value) if away => self.earlier = truth - value,
            Some(value) if self.missed => {
                assert!(
                    value >= truth - self.shown,
                    "{key}: {value} misses what came since"
                );
                self.earlier = truth - value;
            }
            Some(value) => {
                assert!(
                    !self.present,
                    "{key}: {value}, but {truth} less {}",
                    self.earlier
                );
                assert_eq!(
                    value,
                    truth - self.shown,
                    "{key}: a life that begins with what was not shown"
                );
                self.earlier = self.shown;
            }
        }
        self.present = value.is_some();
        self.missed = !self.present && (away || self.missed);
        self.last_seen = Some(now);
        if self.present || away {
            self.shown = truth;
        }
    }
}
