//! The requests that ports of the application have routes for. A port that says so is closed: what is none of these is
//! answered 404 and never comes to the application.
//!
//! `control` compiles them once for all workers ([`Closed`]); each worker has them as [`Ports`], which `record` and
//! `terminate` ask for every request.

use std::cell::RefCell;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use weir_crds::routes::{Condition, Route, RouteTable};
use weir_crds::settings::{InboundSettings, Settings};

use super::{Bad, Choice, Compiled, Request, Table, compile};

/// The ports that are closed and what they let in, in the form that moves between threads.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Closed(BTreeMap<u16, Arc<Compiled>>);

/// Why a port is not closed as its settings say.
#[derive(Debug, thiserror::Error)]
#[error("inbounds: port {port}: routes: {error}")]
pub struct BadPort {
    port: u16,
    #[source]
    error: Bad,
}

impl Closed {
    /// Those of a settings document. What is as it was before is not compiled again; what cannot be used leaves its port
    /// as it was, and is told.
    pub fn of(settings: &Settings, before: &Self) -> (Self, Vec<BadPort>) {
        let (mut closed, mut bad) = (BTreeMap::new(), Vec::new());
        for inbound in settings.inbounds.iter().flatten() {
            let port = inbound.port;
            let Some(table) = table(inbound) else {
                continue;
            };
            let known = before.0.get(&port);
            match known.filter(|known| known.source == table) {
                Some(same) => {
                    closed.insert(port, Arc::clone(same));
                }
                None => match compile(&table) {
                    Ok(compiled) => {
                        closed.insert(port, Arc::new(compiled));
                    }
                    Err(error) => {
                        closed.extend(known.map(|known| (port, Arc::clone(known))));
                        bad.push(BadPort { port, error });
                    }
                },
            }
        }
        (Self(closed), bad)
    }
}

/// A table that is one route; none where the port lets every request in.
fn table(inbound: &InboundSettings) -> Option<RouteTable> {
    let route = Route {
        name: inbound.service.clone(),
        condition: Condition::Any(inbound.routes.clone()?),
        classes: Vec::new(),
        timeout_ms: None,
        retryable: false,
        backends: Vec::new(),
        missing: 0,
    };
    Some(RouteTable {
        routes: vec![route],
        closed: true,
        ..RouteTable::default()
    })
}

/// The ports of the application, as one worker asks them.
#[derive(Debug, Default)]
pub struct Ports {
    closed: RefCell<Closed>,
    tables: RefCell<HashMap<u16, Table>>,
}

impl Ports {
    /// Closes these instead. Answers whether they are others.
    pub fn replace(&self, closed: &Closed) -> bool {
        if *self.closed.borrow() == *closed {
            return false;
        }
        let tables = closed.0.iter();
        let tables = tables.map(|(port, compiled)| (*port, Table::new(compiled)));
        self.tables.replace(tables.collect());
        self.closed.replace(closed.clone());
        true
    }

    /// Whether a port lets in only what there is a route for.
    pub fn is_closed(&self, port: u16) -> bool {
        self.tables.borrow().contains_key(&port)
    }

    /// What is said about a request to a port. A route of a port has no name and no terms: whatever is let in is like a
    /// request to a service without routes.
    pub fn choose(&self, port: u16, request: &Request<'_>) -> Choice {
        match self.tables.borrow().get(&port) {
            Some(table) if table.find(request).is_none() => Choice::Refused,
            Some(_) | None => Choice::Unrouted,
        }
    }
}

#[cfg(test)]
mod tests {
    use weir_crds::routes::Text;

    use super::*;
    use crate::routes::Fields;

    struct Nothing;

    impl Fields for Nothing {
        fn first(&self, _name: &str) -> Option<&[u8]> {
            None
        }
    }

    /// Settings whose ports have these conditions.
    fn settings(ports: &[(u16, Option<&[Condition]>)]) -> Settings {
        let inbounds = ports.iter().map(|(port, routes)| InboundSettings {
            port: *port,
            service: "web".to_owned(),
            permission: None,
            routes: routes.map(<[_]>::to_vec),
        });
        Settings {
            inbounds: Some(inbounds.collect()),
            ..Settings::without_metrics("default")
        }
    }

    fn closed(settings: &Settings, before: &Closed) -> Closed {
        let (closed, bad) = Closed::of(settings, before);
        assert!(bad.is_empty(), "{bad:?}");
        closed
    }

    fn lets_in(ports: &Ports, port: u16, path: &str) -> bool {
        let request = Request::new(b"GET", path.as_bytes(), &Nothing);
        match ports.choose(port, &request) {
            Choice::Unrouted => true,
            Choice::Refused => false,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_port_lets_in_what_it_has_a_route_for_and_an_open_one_everything() {
        let prefix = |path: &str| Condition::PathPrefix(path.to_owned());
        let some = [prefix("/a"), prefix("/b")];
        let (ports, none) = (Ports::default(), Closed::default());
        assert!(lets_in(&ports, 80, "/c"));
        let said = settings(&[(80, Some(&some)), (81, Some(&[])), (82, None)]);
        assert!(ports.replace(&closed(&said, &none)));
        for (port, path, is_let_in) in [
            (80, "/a/x?y", true),
            (80, "/b", true),
            (80, "/c", false),
            (80, "/ab", false),
            (81, "/a", false),
            (82, "/c", true),
            (83, "/c", true),
        ] {
            assert_eq!(lets_in(&ports, port, path), is_let_in, "{port} {path}");
        }
        assert!(ports.is_closed(81) && !ports.is_closed(82));
        assert!(!ports.replace(&closed(&said, &none)), "it is the same");
        let unknown = Settings::without_metrics("default");
        assert!(ports.replace(&closed(&unknown, &none)));
        assert!(lets_in(&ports, 80, "/c") && !ports.is_closed(80));
    }

    #[test]
    fn what_stays_is_compiled_once_and_what_cannot_be_used_changes_nothing() {
        let regex = |text: &str| Condition::Path(Text::Regex(text.to_owned()));
        let (one, other, wrong) = ([regex("/a+")], [regex("/b+")], [regex("(")]);
        let said = settings(&[(80, Some(&one)), (81, Some(&one))]);
        let before = closed(&said, &Closed::default());
        let next = closed(&settings(&[(80, Some(&one)), (81, Some(&other))]), &before);
        assert!(Arc::ptr_eq(&before.0[&80], &next.0[&80]));
        assert_ne!(before.0[&81], next.0[&81]);
        let said = settings(&[(80, Some(&wrong)), (82, Some(&wrong))]);
        let (after, bad) = Closed::of(&said, &next);
        assert!(Arc::ptr_eq(&after.0[&80], &next.0[&80]));
        assert_eq!(after.0.len(), 1, "one that was open stays open");
        let told: Vec<_> = bad.iter().map(ToString::to_string).collect();
        assert!(
            told[0].starts_with("inbounds: port 80: routes: route \"web\": \"(\" cannot be used"),
            "{told:?}"
        );
        assert!(told[1].starts_with("inbounds: port 82: "), "{told:?}");
    }
}
