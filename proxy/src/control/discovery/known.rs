//! What telemetry is told of discovered services: the names by which they may be called, which no budget refuses, and the
//! endpoints that are gone, whose series may retire. Written by the followers of destinations, read by `app`.

use std::collections::BTreeMap;
use std::sync::Arc;

use tokio::sync::{mpsc, watch};

use crate::telemetry::Dst;

/// Messages about endpoints that are gone that may wait; of further ones the series retire when they are idle.
pub const GONE: usize = 256;

/// The followed services by name, each with the number of destinations that lead to it.
type Services = BTreeMap<String, usize>;

/// The end that is told.
#[derive(Clone, Debug)]
pub struct Known {
    services: Arc<watch::Sender<Services>>,
    gone: mpsc::Sender<Vec<Dst>>,
}

/// The end that listens.
#[derive(Debug)]
pub struct Told {
    pub names: Names,
    /// Endpoints that are gone.
    pub gone: mpsc::Receiver<Vec<Dst>>,
}

/// The names of the services that are followed.
#[derive(Debug)]
pub struct Names(watch::Receiver<Services>);

/// Both ends.
pub fn told() -> (Known, Told) {
    let (services, followed) = watch::channel(Services::new());
    let (gone, goners) = mpsc::channel(GONE);
    let known = Known {
        services: Arc::new(services),
        gone,
    };
    let told = Told {
        names: Names(followed),
        gone: goners,
    };
    (known, told)
}

impl Names {
    /// Waits until there are other services; false once nobody follows any.
    pub async fn changed(&mut self) -> bool {
        self.0.changed().await.is_ok()
    }

    /// Every name by which a followed service may be called, in lower case.
    pub fn all(&mut self) -> Vec<String> {
        let services = self.0.borrow_and_update();
        services.keys().flat_map(|name| spoken(name)).collect()
    }
}

impl Known {
    pub(crate) fn enter(&self, service: &str) {
        self.services.send_if_modified(|services| {
            let destinations = services.entry(service.to_owned()).or_default();
            *destinations += 1;
            *destinations == 1
        });
    }

    pub(super) fn leave(&self, service: &str) {
        self.services.send_if_modified(|services| {
            let Some(destinations) = services.get_mut(service) else {
                return false;
            };
            *destinations -= 1;
            let is_last = *destinations == 0;
            if is_last {
                services.remove(service);
            }
            is_last
        });
    }

    pub(super) fn gone(&self, endpoints: Vec<Dst>) {
        if !endpoints.is_empty()
            && let Err(error) = self.gone.try_send(endpoints)
        {
            tracing::debug!(%error, "series of endpoints that are gone wait until they are idle");
        }
    }
}

/// The names that clients call a Service by (`name.namespace.svc.zone`): with each of the search domains of a pod.
fn spoken(name: &str) -> Vec<String> {
    let name = name.to_ascii_lowercase();
    let parts: Vec<&str> = name.splitn(4, '.').collect();
    let mut names = match parts[..] {
        [service, namespace, "svc", _] => vec![
            service.to_owned(),
            format!("{service}.{namespace}"),
            format!("{service}.{namespace}.svc"),
        ],
        _ => Vec::new(),
    };
    names.push(name);
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_service_is_known_by_all_its_names_for_as_long_as_a_destination_leads_to_it() {
        let (known, Told { mut names, gone: _ }) = told();
        let web = "Web.shop.svc.cluster.local";
        known.enter(web);
        assert!(names.changed().await);
        let all = [
            "web",
            "web.shop",
            "web.shop.svc",
            "web.shop.svc.cluster.local",
        ];
        assert_eq!(names.all(), all);
        known.enter(web);
        known.leave(web);
        assert_eq!(names.all(), all);
        known.enter("example.com");
        known.leave(web);
        assert!(names.changed().await);
        assert_eq!(names.all(), ["example.com"]);
    }
}
