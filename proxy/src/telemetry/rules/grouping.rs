//! Families that leave out the same labels share label sets: which those are, and what no recorded family tells apart.
//! Made by `rules` of a policy. Knows no series.

use std::collections::BTreeSet;

use crate::telemetry::family::Family;
use crate::telemetry::render;

/// Families of a kind that leave out the same labels: they share label sets.
#[derive(PartialEq, Eq)]
pub(in crate::telemetry) struct Grouping {
    dropped: BTreeSet<String>,
    /// What such a label set has from its beginning, with the labels that follow those of the set.
    base: Vec<(Family, &'static str)>,
}

/// Labels that no recorded family of a kind has: to tell their values apart would only fill tables.
#[derive(Clone, Copy)]
pub(in crate::telemetry) struct Blanks {
    pub(in crate::telemetry) authority: bool,
    pub(in crate::telemetry) name: bool,
}

/// The place of the grouping that leaves out exactly these labels, with the family in it.
pub(super) fn add(
    groupings: &mut Vec<Grouping>,
    family: Family,
    dropped: BTreeSet<String>,
) -> usize {
    let at = groupings.iter().position(|g| g.dropped == dropped);
    let at = at.unwrap_or_else(|| {
        groupings.push(Grouping {
            dropped,
            base: Vec::new(),
        });
        groupings.len() - 1
    });
    let grouping = &mut groupings[at];
    for suffix in family.base() {
        // Series without their only trailing label are one.
        let is_dropped = grouping.part(suffix).is_empty();
        let series = (family, if is_dropped { "" } else { suffix });
        if !grouping.base.contains(&series) {
            grouping.base.push(series);
        }
    }
    at
}

impl Grouping {
    /// The series that such a label set has from its beginning, with the labels that follow those of the set.
    pub(in crate::telemetry) fn base(&self) -> &[(Family, &'static str)] {
        &self.base
    }

    /// Rendered labels, or a part of them, without those that are left out.
    pub(in crate::telemetry) fn part(&self, labels: &str) -> String {
        if self.dropped.is_empty() {
            labels.to_owned()
        } else {
            render::without(labels, |label| self.drops(label))
        }
    }

    /// Whether a label is left out: by its name, or by how it begins.
    pub(in crate::telemetry) fn drops(&self, label: &str) -> bool {
        let begins = |dropped: &String| {
            let start = dropped.strip_suffix('*');
            start.is_some_and(|start| label.starts_with(start))
        };
        self.dropped.contains(label) || self.dropped.iter().any(begins)
    }

    /// Whether such a label set is still about one destination.
    pub(in crate::telemetry) fn keeps_destination(&self) -> bool {
        !self.dropped.iter().any(|label| label.starts_with("dst_"))
    }
}

impl Blanks {
    pub(super) fn of(groupings: Option<&Vec<Grouping>>) -> Self {
        let groupings = groupings.map_or(&[][..], Vec::as_slice);
        let nowhere = |label| groupings.iter().all(|grouping| grouping.drops(label));
        Self {
            authority: nowhere("authority"),
            name: ["client_id", "server_id", "sni"].into_iter().all(nowhere),
        }
    }
}
