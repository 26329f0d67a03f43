//! Who may connect to whom: chooses the one TrafficPermission of a destination, and judges a peer by it.
//! Called by the operator, which puts the choice into the settings document, and by the proxy, which holds every
//! connection to it. The rules are Kuma's. It knows no certificate and no connection.

use std::cmp::Reverse;

use serde::{Deserialize, Serialize};

use crate::identity::Identity;
use crate::names::{PROTOCOL_TAG, SERVICE_NAME_TAG, SERVICE_PORT_TAG, SERVICE_TAG};
use crate::settings::{InboundSettings, Settings};
use crate::traffic_permission::Selector;

/// What stands for any value of a tag.
const ANY: &str = "*";

/// A TrafficPermission as selection sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// The resource's name.
    pub name: String,
    /// When it was created, in seconds since the epoch; 0 where nothing is known.
    pub created: i64,
    /// `sources[].match`.
    pub sources: Vec<Selector>,
    /// `destinations[].match`.
    pub destinations: Vec<Selector>,
}

/// The permission in force for one destination.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Permission {
    /// The TrafficPermission's name.
    pub name: String,
    /// Peers that match one of these may connect.
    pub sources: Vec<Selector>,
}

/// The permission in force for a destination with these tags: the one whose best matching selector has the most tags,
/// then the most exact values; of equals the latest, then the first by name. Exactly one is in force, so a more
/// specific permission hides a general one, whatever its sources. `None` where none matches: nobody may connect.
#[must_use]
pub fn select<'a>(
    candidates: impl IntoIterator<Item = &'a Candidate>,
    tags: &Selector,
) -> Option<Permission> {
    select_any(candidates, &[tags])
}

/// The same for one that has several sets of tags: the best of any of them is in force.
fn select_any<'a>(
    candidates: impl IntoIterator<Item = &'a Candidate>,
    tags: &[&Selector],
) -> Option<Permission> {
    let ranked = candidates.into_iter().filter_map(|candidate| {
        let is_matching = |one: &&Selector| tags.iter().any(|tags| selects(one, tags));
        let matching = candidate.destinations.iter().filter(is_matching);
        let rank = matching.map(rank).max()?;
        Some((
            (rank, candidate.created, Reverse(&candidate.name)),
            candidate,
        ))
    });
    let (_, best) = ranked.max_by(|(one, _), (other, _)| one.cmp(other))?;
    Some(Permission {
        name: best.name.clone(),
        sources: best.sources.clone(),
    })
}

/// Tags first, then exact values.
fn rank(selector: &Selector) -> (usize, usize) {
    let exact = selector.values().filter(|value| *value != ANY).count();
    (selector.len(), exact)
}

/// Whether a destination's tags have all that the selector asks for.
fn selects(selector: &Selector, tags: &Selector) -> bool {
    selector.iter().all(|(tag, wanted)| {
        let value = tags.get(tag);
        value.is_some_and(|value| wanted == ANY || wanted == value)
    })
}

/// Says in the settings of a workload who may connect to its inbounds, of a port and tags each, to its other ports, and
/// to its metrics endpoint, by the tags that the Mesh gives that. A port of several Services has one permission, as it has
/// one listener: the most specific that is there for any of them.
pub fn permit<'a>(
    settings: &mut Settings,
    inbounds: impl IntoIterator<Item = (u16, &'a Selector)>,
    candidates: &[Candidate],
) {
    if let Some(metrics) = &mut settings.metrics {
        metrics.permission = select(candidates, &metrics.tags);
    }
    let mut ports: Vec<(u16, Vec<&Selector>)> = Vec::new();
    for (port, tags) in inbounds {
        match ports.iter_mut().find(|(known, _)| *known == port) {
            Some((_, services)) => services.push(tags),
            None => ports.push((port, vec![tags])),
        }
    }
    let all: Vec<_> = ports.iter().flat_map(|(_, tags)| tags).copied().collect();
    settings.other_ports = select(candidates, &of_no_service(&all));
    let inbounds = ports.into_iter().map(|(port, tags)| InboundSettings {
        port,
        service: tags[0].get(SERVICE_TAG).cloned().unwrap_or_default(),
        permission: select_any(candidates, &tags),
        routes: None,
    });
    settings.inbounds = Some(inbounds.collect());
}

/// The tags of a port that no Service has: those that all inbounds of its workload share, and a service that only `*`
/// means.
fn of_no_service(inbounds: &[&Selector]) -> Selector {
    const OF_ONE: [&str; 4] = [
        SERVICE_TAG,
        PROTOCOL_TAG,
        SERVICE_NAME_TAG,
        SERVICE_PORT_TAG,
    ];
    let of_all = |(tag, value): &(&String, &String)| {
        !OF_ONE.contains(&tag.as_str())
            && inbounds.iter().all(|tags| tags.get(*tag) == Some(*value))
    };
    let first = inbounds.first().into_iter().flat_map(|tags| tags.iter());
    let shared = first.filter(of_all);
    let shared = shared.map(|(tag, value)| (tag.clone(), value.clone()));
    let mut tags: Selector = shared.collect();
    tags.insert(SERVICE_TAG.to_owned(), String::new());
    tags
}

impl Permission {
    /// Whether a peer with this certificate may connect to a destination in `mesh`.
    #[must_use]
    pub fn allows(&self, peer: &Identity, mesh: &str) -> bool {
        self.sources
            .iter()
            .any(|source| matches(source, peer, mesh))
    }
}

/// All tags of a source must be in the certificate. A `*` asks for nothing, not even for the tag: that is how Kuma
/// has Envoy check it.
fn matches(source: &Selector, peer: &Identity, mesh: &str) -> bool {
    source
        .iter()
        .filter(|(_, wanted)| *wanted != ANY)
        .all(|(tag, wanted)| {
            let of_this_mesh = tag != SERVICE_TAG || peer.mesh == mesh;
            let values = peer.tags.get(tag);
            of_this_mesh && values.is_some_and(|values| values.contains(wanted))
        })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::Tags;

    fn selector(text: &str) -> Selector {
        let pairs = text
            .split_whitespace()
            .map(|pair| pair.split_once('=').unwrap());
        pairs
            .map(|(tag, value)| (long(tag), value.to_owned()))
            .collect()
    }

    fn long(tag: &str) -> String {
        if tag == "service" {
            SERVICE_TAG.to_owned()
        } else {
            tag.to_owned()
        }
    }

    fn candidate(name: &str, created: i64, destinations: &[&str]) -> Candidate {
        Candidate {
            name: name.to_owned(),
            created,
            sources: vec![selector("service=*")],
            destinations: destinations.iter().map(|text| selector(text)).collect(),
        }
    }

    fn peer(text: &str) -> Identity {
        let mut tags = Tags::new();
        for (tag, value) in selector(text) {
            tags.entry(tag).or_default().insert(value);
        }
        Identity {
            name: "peer".into(),
            mesh: "default".into(),
            tags,
        }
    }

    #[test]
    fn the_most_specific_permission_is_in_force() {
        let tags = selector("service=web version=v1 zone=a");
        let case = |candidates: &[Candidate]| select(candidates, &tags).map(|found| found.name);
        let all = candidate("all", 9, &["service=*"]);
        let exact = candidate("exact", 0, &["service=web"]);
        let two_stars = candidate("two-stars", 0, &["version=* zone=*"]);
        let two = candidate("two", 0, &["service=web version=*"]);
        // Exact before any value, however late that came.
        assert_eq!(case(&[all.clone(), exact.clone()]), Some("exact".into()));
        // The number of tags comes first: two of any value beat one exact.
        assert_eq!(
            case(&[exact.clone(), two_stars.clone()]),
            Some("two-stars".into())
        );
        assert_eq!(case(&[two_stars, two, all.clone()]), Some("two".into()));
        // Its best selector counts; one that does not match does not.
        let mixed = candidate("mixed", 0, &["service=web version=v2", "service=*"]);
        assert_eq!(case(&[exact, mixed.clone()]), Some("exact".into()));
        assert_eq!(case(&[mixed]), Some("mixed".into()));
    }

    #[test]
    fn of_equals_the_latest_then_the_first_by_name() {
        let tags = selector("service=web");
        let of = |name: &str, created| candidate(name, created, &["service=web"]);
        let found = select(&[of("a", 1), of("b", 2), of("c", 2)], &tags);
        assert_eq!(found.unwrap().name, "b");
    }

    #[test]
    fn nothing_is_in_force_where_nothing_matches() {
        let tags = selector("service=web");
        let missing = candidate("tag-is-missing", 0, &["version=*"]);
        let other = candidate("other-service", 0, &["service=api"]);
        assert_eq!(select(&[missing, other], &tags), None);
        assert_eq!(select(&[], &tags), None);
    }

    #[test]
    fn a_peer_needs_every_tag_of_one_source() {
        let permission = Permission {
            name: "p".into(),
            sources: vec![selector("service=web version=v1"), selector("team=ops")],
        };
        let may = |tags: &str| permission.allows(&peer(tags), "default");
        assert!(may("service=web version=v1 zone=a"));
        assert!(may("team=ops service=other"));
        assert!(!may("service=web version=v2"));
        assert!(!may("service=web"));
        assert!(!may(""));
    }

    #[test]
    fn any_value_asks_for_nothing() {
        let everyone = Permission {
            name: "p".into(),
            sources: vec![selector("service=*")],
        };
        assert!(everyone.allows(&peer(""), "default"));
        let nobody = Permission {
            name: "p".into(),
            sources: Vec::new(),
        };
        assert!(!nobody.allows(&peer("service=web"), "default"));
    }

    #[test]
    fn a_service_of_another_mesh_is_another_service() {
        let permission = Permission {
            name: "p".into(),
            sources: vec![selector("service=web")],
        };
        let mut stranger = peer("service=web");
        stranger.mesh = "other".into();
        assert!(!permission.allows(&stranger, "default"));
        assert!(permission.allows(&peer("service=web"), "default"));
    }

    #[test]
    fn every_value_of_a_peer_counts() {
        let mut both = peer("service=web");
        both.tags
            .get_mut(SERVICE_TAG)
            .unwrap()
            .insert("admin".into());
        let permission = Permission {
            name: "p".into(),
            sources: vec![selector("service=admin")],
        };
        assert!(permission.allows(&both, "default"));
    }

    fn named(permission: Option<&Permission>) -> Option<&str> {
        permission.map(|found| found.name.as_str())
    }

    #[test]
    fn a_port_of_two_services_has_the_most_specific_permission_of_either() {
        let (db, headless) = (selector("service=db"), selector("service=db-headless"));
        let all = candidate("all", 9, &["service=*"]);
        for one in ["service=db", "service=db-headless"] {
            let candidates = [all.clone(), candidate("strict", 0, &[one])];
            let mut settings = Settings::without_metrics("default");
            permit(&mut settings, [(5432, &db), (5432, &headless)], &candidates);
            let inbounds = settings.inbounds.unwrap();
            let [inbound] = &*inbounds else {
                panic!("{inbounds:?}");
            };
            assert_eq!((inbound.port, &*inbound.service), (5432, "db"));
            assert_eq!(named(inbound.permission.as_ref()), Some("strict"), "{one}");
        }
    }

    #[test]
    fn a_port_of_no_service_is_what_permissions_for_every_service_are_for() {
        let of = |inbounds: &[&str], candidates: &[Candidate]| {
            let inbounds: Vec<_> = inbounds.iter().map(|text| selector(text)).collect();
            let mut settings = Settings::without_metrics("default");
            permit(&mut settings, (80..).zip(&inbounds), candidates);
            named(settings.other_ports.as_ref()).map(str::to_owned)
        };
        let web = "service=web kuma.io/protocol=http app=web zone=a";
        let api = "service=api kuma.io/protocol=http app=api zone=a";
        let all = candidate("all", 0, &["service=*"]);
        assert_eq!(
            of(&[web], std::slice::from_ref(&all)).as_deref(),
            Some("all")
        );
        assert_eq!(of(&[], &[all]).as_deref(), Some("all"));
        let one = [candidate("one", 0, &["service=web"])];
        assert_eq!(of(&[web], &one), None);
        let protocol = [candidate("protocol", 0, &["kuma.io/protocol=http"])];
        assert_eq!(of(&[web], &protocol), None);
        let zone = [candidate("zone", 0, &["service=* zone=a"])];
        assert_eq!(of(&[web, api], &zone).as_deref(), Some("zone"));
        let app = [candidate("app", 0, &["app=web"])];
        assert_eq!(of(&[web], &app).as_deref(), Some("app"));
        assert_eq!(of(&[web, api], &app), None, "the pod's own tags only");
    }
}
