//! What is recorded, ready for use: a policy resolved against the table of families, and the known Services. Made by
//! the store whenever either changes; workers and expositions hold the one they work by. Knows no series.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use weir_crds::metrics_policy::{MetricsPolicy, Vocabulary};

use super::bounds::{Bounds, PAGE};
use super::budget::Claim;
use super::family::{Family, Kind, Value};
use super::known::Authorities;
use super::labels::{ANY_PORT, GrpcLabels, HttpLabels, Stand, TransportLabels};

mod grouping;

pub(super) use grouping::{Blanks, Grouping};

use grouping::add;

/// Labels that a policy may leave out: all but `le`.
const LABELS: [&str; 31] = [
    "direction",
    "authority",
    "target_port",
    "peer",
    "tls",
    "no_tls_reason",
    "client_id",
    "server_id",
    "sni",
    "srv_group",
    "srv_kind",
    "srv_name",
    "srv_port",
    "route_group",
    "route_kind",
    "route_name",
    "authz_group",
    "authz_kind",
    "authz_name",
    "dst_*",
    "status_code",
    "classification",
    "grpc_status_code",
    "error",
    "errno",
    "reason",
    "kind",
    "state",
    "dst",
    "rt_route",
    "addr",
];

/// The families that say nothing of traffic: what the proxy tells of itself. A policy may leave them out.
pub(super) const OWN: [&str; 18] = [
    "identity_cert_expiration_timestamp_seconds",
    "identity_cert_refresh_count",
    "control_identity_cert_expiration_timestamp_seconds",
    "control_identity_cert_refreshes_total",
    "weir_redirected",
    "weir_series",
    "weir_series_evicted_total",
    "weir_series_dropped_total",
    "weir_scrape_duration_seconds",
    "weir_scrape_worker_delay_seconds",
    "process_start_time_seconds",
    "process_cpu_seconds_total",
    "process_resident_memory_bytes",
    "process_virtual_memory_bytes",
    "process_threads",
    "process_open_fds",
    "process_max_fds",
    "proxy_build_info",
];

/// The families of traffic that a policy may name, and whether they are histograms.
pub(super) fn families() -> Vec<(&'static str, bool)> {
    let entry = |f: &Family| (f.name(), f.value() == Value::Histogram);
    Family::ALL.iter().map(entry).collect()
}

/// The vocabulary of a policy over these families.
pub(super) fn vocabulary<'a>(families: &'a [(&'static str, bool)]) -> Vocabulary<'a> {
    Vocabulary {
        families,
        whole: &OWN,
        labels: &LABELS,
    }
}

/// Everything a worker and an exposition go by.
pub(super) struct Rules {
    /// Counts up with every change.
    pub(super) generation: u64,
    /// The generation since when everything is laid out like this: in these label sets, with these buckets.
    pub(super) layout: u64,
    families: Vec<Rule>,
    /// Those of its own that are left out.
    left_out: HashSet<&'static str>,
    groupings: HashMap<Kind, Vec<Grouping>>,
    http: Blanks,
    transport: Blanks,
    grpc: Blanks,
    stand: Stand,
    known: Authorities,
}

struct Rule {
    /// Which of its kind's groupings it is in; `None` if it is left out.
    grouping: Option<usize>,
    bounds: Arc<Bounds>,
    /// Whether the policy says what they are.
    own_bounds: bool,
    most: u64,
    /// What it leaves out of the labels that follow those of a set, and the generation since when.
    trailing: Vec<&'static str>,
    since: u64,
}

impl Rules {
    /// `most` is the number of series for each family of which the policy says nothing.
    pub(super) fn new(
        generation: u64,
        policy: &MetricsPolicy,
        known: Authorities,
        most: u64,
    ) -> Self {
        let page = Bounds::new(&PAGE);
        let mut groupings: HashMap<Kind, Vec<Grouping>> = HashMap::new();
        let families = Family::ALL.iter().map(|family| {
            let own = policy.families.get(family.name());
            let bounds = own.and_then(|own| own.buckets.as_deref());
            let series = own.and_then(|own| own.max_series);
            let dropped = own.map(|own| own.drop_labels.clone()).unwrap_or_default();
            let dropped = &dropped | &policy.drop_labels;
            let trailing = family.trailing().iter().copied();
            let trailing = trailing.filter(|l| dropped.contains(*l)).collect();
            let is_recorded = !own.is_some_and(|own| own.drop);
            let groupings = groupings.entry(family.kind()).or_default();
            let grouping = is_recorded.then(|| add(groupings, *family, dropped));
            Rule {
                own_bounds: bounds.is_some(),
                bounds: bounds.map_or_else(|| Arc::clone(&page), Bounds::new),
                most: match grouping {
                    Some(_) => series.map_or(most, u64::from),
                    None => u64::MAX,
                },
                grouping,
                trailing,
                since: generation,
            }
        });
        let families = families.collect();
        let is_left_out = |name: &&str| policy.families.get(*name).is_some_and(|own| own.drop);
        Self {
            left_out: OWN.into_iter().filter(is_left_out).collect(),
            generation,
            layout: generation,
            families,
            http: Blanks::of(groupings.get(&Kind::Http)),
            transport: Blanks::of(groupings.get(&Kind::Transport)),
            grpc: Blanks::of(groupings.get(&Kind::Grpc)),
            stand: Stand::default(),
            groupings,
            known,
        }
    }

    /// The same, in the place of others that were in force before.
    pub(super) fn after(mut self, former: &Self) -> Self {
        for (rule, was) in self.families.iter_mut().zip(&former.families) {
            if rule.grouping.is_none() {
                // What is not recorded stays as it is until it is again.
                rule.trailing.clone_from(&was.trailing);
            }
            if rule.trailing == was.trailing {
                rule.since = was.since;
            }
        }
        if self.is_laid_out_as(former) {
            self.layout = former.layout;
        }
        self
    }

    fn is_laid_out_as(&self, other: &Self) -> bool {
        let same = |(one, other): (&Rule, &Rule)| {
            one.grouping == other.grouping && one.bounds == other.bounds
        };
        let mut rules = self.families.iter().zip(&other.families);
        rules.all(same) && self.groupings == other.groupings
    }

    /// Whether series of the family have other labels by now than under the rules of that generation: those that follow
    /// the labels of the set, which is still the same.
    pub(super) fn has_reshaped(&self, family: Family, generation: u64) -> bool {
        self.records(family) && generation < self.families[family as usize].since
    }

    /// How many series of the family a label set begins with; 1 where it has none from its beginning.
    pub(super) fn each(&self, family: Family) -> u64 {
        let grouping = self.grouping(family);
        let base = grouping.map_or(0, |at| {
            let base = self.groupings(family.kind())[at].base();
            base.iter().filter(|(f, _)| *f == family).count()
        });
        base.max(1) as u64
    }

    /// Whether a family of the proxy's own is left out.
    pub(super) fn leaves_out(&self, name: &str) -> bool {
        self.left_out.contains(name)
    }

    /// Whether the family is recorded.
    pub(super) fn records(&self, family: Family) -> bool {
        self.grouping(family).is_some()
    }

    /// Which of its kind's groupings a family is in; `None` if it is left out.
    pub(super) fn grouping(&self, family: Family) -> Option<usize> {
        self.families[family as usize].grouping
    }

    /// The label sets that a kind has, as groups of families; empty if all of them are left out.
    pub(super) fn groupings(&self, kind: Kind) -> &[Grouping] {
        self.groupings.get(&kind).map_or(&[], Vec::as_slice)
    }

    /// The bounds of a family's buckets; of no meaning where it is no histogram.
    pub(super) fn bounds(&self, family: Family) -> &Arc<Bounds> {
        &self.families[family as usize].bounds
    }

    /// Whether the policy changes the bounds of a family.
    pub(super) fn changes_bounds(&self, family: Family) -> bool {
        self.families[family as usize].own_bounds
    }

    /// The most series of a family.
    pub(super) fn most(&self, family: Family) -> u64 {
        self.families[family as usize].most
    }

    /// Whether an authority is that of a known Service: its name alone, or with the port that the traffic is for.
    pub(super) fn knows(&self, authority: &str, port: u16) -> bool {
        if authority.is_empty() || self.known.is_empty() {
            return false;
        }
        let with_port = || {
            let (name, digits) = authority.rsplit_once(':')?;
            (digits.parse() == Ok(port) && port != ANY_PORT).then_some(name)
        };
        self.known.contains(authority) || with_port().is_some_and(|name| self.known.contains(name))
    }

    /// The claim of labels with this authority and port, of which `is_open` says whether anybody can make them up.
    pub(super) fn claim(&self, is_open: bool, authority: &str, port: u16) -> Claim {
        if !is_open {
            Claim::Overflow
        } else if self.knows(authority, port) {
            Claim::Known
        } else {
            Claim::Open
        }
    }

    /// What the family does not tell apart, nor any other of its kind.
    pub(super) fn blanks(&self, family: Family) -> Blanks {
        Blanks::of(self.groupings.get(&family.kind()))
    }

    /// What stands for names that are not told apart.
    pub(super) fn stand(&self) -> &Stand {
        &self.stand
    }

    /// The labels without values that nothing is recorded under.
    pub(super) fn project_http<'a>(&'a self, mut labels: HttpLabels<'a>) -> HttpLabels<'a> {
        if self.http.authority {
            labels.authority = "";
        }
        if self.http.name {
            labels.tls = self.stand.for_tls(labels.tls);
        }
        labels
    }

    /// As [`project_http`](Self::project_http).
    pub(super) fn project_grpc<'a>(&'a self, mut labels: GrpcLabels<'a>) -> GrpcLabels<'a> {
        if self.grpc.authority {
            labels.authority = "";
        }
        labels
    }

    /// As [`project_http`](Self::project_http).
    pub(super) fn project_transport<'a>(
        &'a self,
        mut labels: TransportLabels<'a>,
    ) -> TransportLabels<'a> {
        if self.transport.authority {
            labels = labels.without_authority();
        }
        if self.transport.name {
            labels.tls = self.stand.for_tls(labels.tls);
        }
        labels
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules(policy: &str, known: &[&str]) -> Rules {
        let families = families();
        let policy = weir_crds::metrics_policy::parse(policy, vocabulary(&families)).unwrap();
        let mut authorities = Authorities::default();
        for name in known {
            let place = authorities.add();
            authorities.set(place, [(*name).into()].into());
        }
        Rules::new(1, &policy, authorities, 100)
    }

    #[test]
    fn families_that_leave_out_the_same_labels_share_label_sets() {
        let whole = rules("", &[]);
        assert_eq!(whole.groupings(Kind::Http).len(), 1);
        let split = rules(
            "families: {response_latency_ms: {dropLabels: [authority], maxSeries: 5}}",
            &[],
        );
        assert_eq!(split.groupings(Kind::Http).len(), 2);
        assert_eq!(
            split.grouping(Family::RequestTotal),
            split.grouping(Family::ResponseTotal)
        );
        assert_ne!(
            split.grouping(Family::RequestTotal),
            split.grouping(Family::ResponseLatency)
        );
        assert_eq!(
            (
                split.most(Family::ResponseLatency),
                split.most(Family::RequestTotal)
            ),
            (5, 100)
        );
        let none = rules("families: {inbound_tcp_errors_total: {drop: true}}", &[]);
        assert!(
            none.groupings(Kind::Single(Family::InboundTcpErrors))
                .is_empty()
        );
        assert!(!none.records(Family::InboundTcpErrors) && none.records(Family::OutboundTcpErrors));
    }

    #[test]
    fn a_service_is_known_by_its_name_and_by_its_port() {
        let rules = rules("", &["web", "db:5432"]);
        for (authority, port, known) in [
            ("web", 80, true),
            ("web:8080", 8080, true),
            ("web:8081", 8080, false),
            ("db:5432", 1, true),
            ("db", 5432, false),
            ("", 80, false),
            ("web:0", 0, false),
        ] {
            assert_eq!(rules.knows(authority, port), known, "{authority} {port}");
        }
    }

    #[test]
    fn series_are_reshaped_by_what_their_own_labels_lose() {
        let first = rules("", &[]);
        let after = |policy: &str, generation, former: &Rules| {
            let policy = super::super::policy(policy).unwrap();
            Rules::new(generation, &policy, Authorities::default(), 100).after(former)
        };
        let (responses, requests) = (Family::ResponseTotal, Family::RequestTotal);
        let dropped = after("dropLabels: [status_code, authority]", 2, &first);
        assert!(dropped.has_reshaped(responses, 1) && !dropped.has_reshaped(responses, 2));
        assert!(!dropped.has_reshaped(requests, 1), "its set is another");
        let gone = after("families: {response_total: {drop: true}}", 3, &dropped);
        assert!(!gone.has_reshaped(responses, 1), "it is not recorded");
        let same = after("dropLabels: [status_code]", 4, &gone);
        assert!(same.has_reshaped(responses, 1) && !same.has_reshaped(responses, 2));
        let back = after("", 5, &same);
        assert!(back.has_reshaped(responses, 4));
    }

    #[test]
    fn what_a_label_set_begins_with_is_counted_as_it_is_recorded() {
        let each = |policy| rules(policy, &[]).each(Family::GrpcMessages);
        assert_eq!([each(""), each("dropLabels: [kind]")], [2, 1]);
        assert_eq!(each("families: {grpc_messages_total: {drop: true}}"), 1);
    }

    #[test]
    fn every_label_of_the_page_can_be_left_out() {
        let all: Vec<_> = LABELS.iter().map(|l| l.replace('*', "pod")).collect();
        let rules = rules(&format!("dropLabels: [{}]", all.join(",")), &[]);
        let grouping = &rules.groupings(Kind::Transport)[0];
        assert!(all.iter().all(|label| grouping.drops(label)));
        assert!(!grouping.keeps_destination());
    }

    #[test]
    fn labels_can_be_left_out_by_how_they_begin() {
        for policy in ["dropLabels: ['dst_*']", "dropLabels: [dst_p*]"] {
            let rules = rules(policy, &[]);
            let grouping = &rules.groupings(Kind::Http)[0];
            let labels = "authority=\"a\",dst_pod=\"x\",dst_pod_template_hash=\"y\",tls=\"true\"";
            assert_eq!(grouping.part(labels), "authority=\"a\",tls=\"true\"");
            assert_eq!(grouping.drops("dst_zone"), policy.contains("dst_*"));
            assert!(!grouping.drops("dst"), "it is another label");
            assert!(!grouping.keeps_destination());
        }
    }
}
