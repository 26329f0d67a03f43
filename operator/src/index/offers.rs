//! What the Dataplanes of Universal documents offer: the endpoints of each service, by its tag. Made by `documents`, as a
//! whole at every change, and read by `serve`. It knows no document and no protobuf.

use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;
use std::sync::Arc;

use weir_crds::names::SERVICE_TAG;
use weir_crds::traffic_permission::Selector;

/// One inbound of a Dataplane.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Offer {
    /// The Dataplane's name.
    pub dataplane: Arc<str>,
    /// Where others reach it.
    pub address: SocketAddr,
    /// Its tags, `kuma.io/service` among them.
    pub tags: Selector,
    /// Its metric labels, without `dst_`.
    pub labels: BTreeMap<String, String>,
    /// The name in its proxy's certificate, where the Mesh has mutual TLS.
    pub identity: Option<Arc<str>>,
}

/// A Mesh and a service in small letters.
type ServiceKey = (String, String);

/// All offers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OfferSet {
    services: BTreeMap<ServiceKey, Vec<Arc<Offer>>>,
    /// By Mesh and address; of two at one address the first.
    addresses: HashMap<(String, SocketAddr), Arc<Offer>>,
}

/// What readers see: `None` until the documents were read once.
pub type OfferView = Option<Arc<OfferSet>>;

/// Which offers are asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wanted {
    /// The Mesh.
    pub mesh: String,
    /// The value of `kuma.io/service`, in small letters.
    pub service: String,
    /// Further tags that an inbound must have.
    pub tags: Selector,
    /// The Dataplane that asks: its own inbounds are no endpoints for it.
    pub dataplane: String,
}

impl OfferSet {
    /// Adds an offer of a Dataplane in `mesh`.
    pub fn add(&mut self, mesh: &str, offer: Offer) {
        let service = offer.tags.get(SERVICE_TAG).map(String::as_str);
        let key = (
            mesh.to_owned(),
            service.unwrap_or_default().to_ascii_lowercase(),
        );
        let address = (mesh.to_owned(), offer.address);
        let offer = Arc::new(offer);
        self.addresses
            .entry(address)
            .or_insert_with(|| offer.clone());
        self.services.entry(key).or_default().push(offer);
    }

    /// Those that are asked for, in the order of their addresses.
    #[must_use]
    pub fn of(&self, wanted: &Wanted) -> Vec<Arc<Offer>> {
        let carries = |offer: &Offer| {
            let mut tags = wanted.tags.iter();
            tags.all(|(tag, value)| offer.tags.get(tag) == Some(value))
        };
        let all = self.all_of(wanted).iter();
        let mut found: Vec<_> = all
            .filter(|offer| *offer.dataplane != *wanted.dataplane && carries(offer))
            .cloned()
            .collect();
        found.sort_by_key(|offer| offer.address);
        found.dedup_by_key(|offer| offer.address);
        found
    }

    /// Whether any Dataplane offers the service.
    #[must_use]
    pub fn has(&self, wanted: &Wanted) -> bool {
        !self.all_of(wanted).is_empty()
    }

    fn all_of(&self, wanted: &Wanted) -> &[Arc<Offer>] {
        let key = (wanted.mesh.clone(), wanted.service.clone());
        self.services.get(&key).map_or(&[], Vec::as_slice)
    }

    /// The offer at an address.
    #[must_use]
    pub fn at(&self, mesh: &str, address: SocketAddr) -> Option<&Arc<Offer>> {
        self.addresses.get(&(mesh.to_owned(), address))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn offer(dataplane: &str, port: u16, version: &str) -> Offer {
        let tags = [(SERVICE_TAG, "Web"), ("version", version)];
        Offer {
            dataplane: dataplane.into(),
            address: ([10, 0, 0, 1], port).into(),
            tags: tags.map(|(k, v)| (k.to_owned(), v.to_owned())).into(),
            labels: BTreeMap::new(),
            identity: None,
        }
    }

    #[test]
    fn offers_are_found_by_service_tags_and_address_and_never_ones_own() {
        let mut set = OfferSet::default();
        set.add("default", offer("web-2", 82, "2"));
        set.add("default", offer("web-1", 81, "1"));
        set.add("other", offer("web-9", 89, "1"));
        let ports = |wanted: &Wanted| -> Vec<u16> {
            let found = set.of(wanted);
            found.iter().map(|offer| offer.address.port()).collect()
        };
        let mut wanted = Wanted {
            mesh: "default".to_owned(),
            service: "web".to_owned(),
            ..Wanted::default()
        };
        assert_eq!(ports(&wanted), [81, 82]);
        wanted.tags = [("version".to_owned(), "2".to_owned())].into();
        assert_eq!(ports(&wanted), [82]);
        wanted.dataplane = "web-2".to_owned();
        assert!(ports(&wanted).is_empty() && set.has(&wanted));
        wanted.mesh = "none".to_owned();
        assert!(!set.has(&wanted));
        let at = |mesh: &str| set.at(mesh, ([10, 0, 0, 1], 89).into());
        assert!(at("default").is_none());
        assert_eq!(&*at("other").unwrap().dataplane, "web-9");
    }
}
