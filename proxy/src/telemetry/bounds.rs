//! The upper bounds of a histogram's buckets, and how they are printed. Made from the table of families or from a
//! policy; shared by every series of the family. Knows no cells.

use std::sync::Arc;

use super::Format;

/// The bounds of every histogram that no policy changes, in milliseconds, as Linkerd has them.
pub(super) const PAGE: [u32; 25] = [
    1, 2, 3, 4, 5, 10, 20, 30, 40, 50, 100, 200, 300, 400, 500, 1_000, 2_000, 3_000, 4_000, 5_000,
    10_000, 20_000, 30_000, 40_000, 50_000,
];

const NANOS_PER_MILLI: u64 = 1_000_000;

/// Ascending bounds, after which a bucket without bound follows.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Bounds {
    nanos: Box<[u64]>,
    /// `le="1"} `: the end of a bucket's labels, one for each bucket, the last included.
    in_text: Box<[Box<str>]>,
    /// The same as `le="1.0"} `.
    in_open_metrics: Box<[Box<str>]>,
}

impl Bounds {
    /// Of ascending milliseconds.
    pub(super) fn new(millis: &[u32]) -> Arc<Self> {
        let les = |decimals: &str| {
            let le = |ms: &u32| format!("le=\"{ms}{decimals}\"}} ").into();
            let infinite = std::iter::once("le=\"+Inf\"} ".into());
            millis.iter().map(le).chain(infinite).collect()
        };
        Arc::new(Self {
            nanos: millis
                .iter()
                .map(|ms| u64::from(*ms) * NANOS_PER_MILLI)
                .collect(),
            in_text: les(""),
            in_open_metrics: les(".0"),
        })
    }

    /// How many buckets there are, the one without bound included.
    pub(super) fn buckets(&self) -> usize {
        self.nanos.len() + 1
    }

    /// The first bucket whose bound these nanoseconds do not exceed.
    pub(super) fn bucket(&self, nanos: u64) -> usize {
        self.nanos.partition_point(|bound| *bound < nanos)
    }

    /// Where another histogram's bucket is counted here: in the first bucket whose bound is not below its own. So
    /// cumulative counts at bounds that both have are equal, and those at others never run ahead.
    pub(super) fn place_of(&self, other: &Self, bucket: usize) -> usize {
        let bound = other.nanos.get(bucket);
        bound.map_or(self.nanos.len(), |bound| self.bucket(*bound))
    }

    /// The ends of the labels of the buckets: integers in the text format, as Linkerd prints them, and with a decimal
    /// in OpenMetrics.
    pub(super) fn les(&self, format: Format) -> &[Box<str>] {
        match format {
            Format::Text => &self.in_text,
            Format::OpenMetrics => &self.in_open_metrics,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounds_are_printed_as_they_are_compared() {
        let bounds = Bounds::new(&PAGE);
        for (at, ms) in PAGE.iter().enumerate() {
            assert_eq!(&*bounds.les(Format::Text)[at], format!("le=\"{ms}\"}} "));
            assert_eq!(
                &*bounds.les(Format::OpenMetrics)[at],
                format!("le=\"{ms}.0\"}} ")
            );
            assert_eq!(bounds.bucket(u64::from(*ms) * NANOS_PER_MILLI), at);
            assert_eq!(bounds.bucket(u64::from(*ms) * NANOS_PER_MILLI + 1), at + 1);
        }
        assert_eq!(
            &*bounds.les(Format::OpenMetrics)[PAGE.len()],
            "le=\"+Inf\"} "
        );
    }

    #[test]
    fn counts_of_other_bounds_are_equal_at_those_that_both_have() {
        let (old, new) = (Bounds::new(&[1, 5, 10]), Bounds::new(&[5, 7, 20]));
        let places: Vec<_> = (0..4).map(|bucket| new.place_of(&old, bucket)).collect();
        // Up to 1 and up to 5 are both up to 5; up to 10 is first certain at 20.
        assert_eq!(places, [0, 0, 2, 3]);
    }
}
