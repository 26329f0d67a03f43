//! A scraper for the tests: takes an exposition and reads it into a map from series, as printed, to value. Also the
//! labels that the tests count under.

use std::collections::BTreeMap;

use weir_proxy::telemetry::{
    Authz, AuthzLabels, Dst, HttpLabels, HttpSide, NoTlsReason, Route, Selection, Server,
    Telemetry, Tls, TransportEnd, TransportLabels,
};

/// Series as printed, with labels, to value.
pub(crate) type Scrape = BTreeMap<String, f64>;

pub(crate) fn text(telemetry: &Telemetry, selection: &Selection) -> String {
    let mut out = Vec::new();
    telemetry.expose(selection, &mut out).unwrap();
    String::from_utf8(out).unwrap()
}

/// Everything but what differs from run to run.
pub(crate) fn traffic(filter: &str) -> Selection {
    Selection {
        filters: vec![regex::Regex::new(filter).unwrap()],
        ..Selection::default()
    }
}

pub(crate) fn scrape(telemetry: &Telemetry, selection: &Selection) -> Scrape {
    parse(&text(telemetry, selection))
}

pub(crate) fn parse(text: &str) -> Scrape {
    let samples = text.lines().filter(|line| !line.starts_with('#'));
    let pairs = samples.map(|line| {
        let (series, value) = line.rsplit_once(' ').unwrap();
        (series.to_owned(), value.parse().unwrap())
    });
    let mut scrape = Scrape::new();
    for (series, value) in pairs {
        let before = scrape.insert(series.clone(), value);
        assert_eq!(before, None, "{series} is printed twice");
    }
    scrape
}

/// The sum of all series of a family that contain `labels`.
pub(crate) fn sum(scrape: &Scrape, family: &str, labels: &str) -> f64 {
    let prefix = format!("{family}{{");
    let of = scrape
        .iter()
        .filter(|(s, _)| s.starts_with(&prefix) && s.contains(labels));
    of.map(|(_, value)| value).sum()
}

/// Groups as the pipeline would keep them.
pub(crate) struct Groups {
    pub(crate) server: Server,
    pub(crate) route: Route,
    pub(crate) authz: Authz,
    pub(crate) dst: Dst,
    pub(crate) plain: Tls,
    pub(crate) mutual: Tls,
}

impl Groups {
    pub(crate) fn new() -> Self {
        Self {
            server: Server::new("kuma.io", "dataplane", "web", 8080),
            route: Route::new("", "default", "default"),
            authz: Authz::new("", "default", "all-unauthenticated"),
            dst: Dst::new([
                ("service", "web"),
                ("deployment", "web"),
                ("namespace", "a"),
            ]),
            plain: Tls::NoIdentity(NoTlsReason::NoTlsFromRemote),
            mutual: Tls::Mutual {
                id: "default.a.serviceaccount.identity.kuma-system.cluster.local".into(),
            },
        }
    }

    pub(crate) fn inbound<'a>(&'a self, authority: &'a str) -> HttpLabels<'a> {
        HttpLabels {
            authority,
            target_port: 8080,
            tls: &self.plain,
            side: HttpSide::Inbound {
                server: &self.server,
                route: &self.route,
                authz: &self.authz,
            },
        }
    }

    /// The decision to let such a request in.
    pub(crate) fn let_in<'a>(&'a self, authority: &'a str) -> AuthzLabels<'a> {
        AuthzLabels {
            authority: Some(authority),
            target_port: 8080,
            server: &self.server,
            route: &self.route,
            authz: Some(&self.authz),
            tls: &self.plain,
        }
    }

    pub(crate) fn outbound<'a>(&'a self, authority: &'a str) -> HttpLabels<'a> {
        HttpLabels {
            authority,
            target_port: 80,
            tls: &self.mutual,
            side: HttpSide::Outbound { dst: &self.dst },
        }
    }

    pub(crate) fn accepted(&self, target_port: u16) -> TransportLabels<'_> {
        TransportLabels {
            target_port,
            tls: &self.plain,
            end: TransportEnd::InboundSrc {
                server: &self.server,
            },
        }
    }
}
