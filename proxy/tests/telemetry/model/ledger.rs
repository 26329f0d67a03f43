//! A scraper's books. What a family has counted is what its series show now, what those showed last that are gone, and
//! what those lives had counted that ended before a series of the same name began anew. Whether one that returns went on
//! or began anew cannot be seen; but the books must balance one way or the other.

use std::collections::BTreeMap;

use crate::scrape::Scrape;

/// Of each family, and what its series are told apart by that nothing takes away.
#[derive(Default)]
pub(crate) struct Ledger {
    accounts: BTreeMap<String, Account>,
    /// Every counter as last seen in the exposition before.
    last: Scrape,
}

#[derive(Default)]
struct Account {
    /// Series that are not shown now, with their last values.
    gone: BTreeMap<String, f64>,
    shown: BTreeMap<String, f64>,
    /// What lives had counted that are over.
    over: f64,
}

impl Ledger {
    /// Checks a complete exposition against the truth.
    pub(crate) fn observe(&mut self, got: &Scrape, truth: &BTreeMap<String, f64>) {
        for (series, value) in got.iter().filter(|(s, _)| is_counter(s)) {
            if let Some(was) = self.last.get(series) {
                assert!(value >= was, "{series} went from {was} to {value}");
            }
        }
        self.last = got.clone();
        for (key, truth) in truth {
            let (name, labels) = key.split_once('|').unwrap();
            let prefix = format!("{name}{{");
            let of = got
                .iter()
                .filter(|(s, _)| s.starts_with(&prefix) && s.contains(labels));
            let shown = of.map(|(s, value)| (s.clone(), *value)).collect();
            self.accounts
                .entry(key.clone())
                .or_default()
                .observe(key, shown, *truth);
        }
    }
}

fn is_counter(series: &str) -> bool {
    let name = series.split('{').next().unwrap_or_default();
    let suffixes = ["_total", "_count", "_sum", "_bucket"];
    series.contains('{') && suffixes.iter().any(|suffix| name.ends_with(suffix))
}

impl Account {
    fn observe(&mut self, key: &str, shown: BTreeMap<String, f64>, truth: f64) {
        for (series, value) in std::mem::take(&mut self.shown) {
            if !shown.contains_key(&series) {
                self.gone.insert(series, value);
            }
        }
        let back = shown.keys().filter_map(|s| self.gone.remove(s));
        let back: Vec<f64> = back.collect();
        let now: f64 = shown.values().sum();
        let missing = truth - now - self.gone.values().sum::<f64>() - self.over;
        assert!(
            can_be_sum(&back, missing),
            "{key}: {missing} of {truth} is not accounted for; {back:?} came back, of {shown:?}"
        );
        self.over += missing;
        self.shown = shown;
    }
}

/// Whether some of the values add up to the sum.
fn can_be_sum(values: &[f64], sum: f64) -> bool {
    match values {
        [] => sum == 0.0,
        [value, rest @ ..] => can_be_sum(rest, sum) || can_be_sum(rest, sum - value),
    }
}
