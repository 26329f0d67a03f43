//! Who a proxy is: the names in its certificate, written by the operator and read back from a peer's by the proxy.
//! A certificate carries, in this order, a DNS name as Linkerd's, the DNS name of the Mesh's metrics endpoints, and
//! Kuma's URIs for the tags. It knows no certificate format and judges nobody; see [`crate::permission`].

use std::collections::{BTreeMap, BTreeSet};

use crate::names::{SERVICE_TAG, SYSTEM_NAMESPACE};

/// The trust domain of an installation that names none (Linkerd's default).
pub const TRUST_DOMAIN: &str = "cluster.local";

/// What a workload is tagged with; a workload with several inbounds has every value of each.
pub type Tags = BTreeMap<String, BTreeSet<String>>;

/// A workload of a Mesh.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Identity {
    /// The DNS name: `<service account>.<namespace>.serviceaccount.identity.<control plane namespace>.<trust domain>`.
    pub name: String,
    /// The Mesh; empty for a peer of which no URI names one.
    pub mesh: String,
    /// Its tags.
    pub tags: Tags,
}

/// The DNS name of a service account's workloads, as Linkerd spells it.
#[must_use]
pub fn workload_name(service_account: &str, namespace: &str, trust_domain: &str) -> String {
    format!(
        "{service_account}.{namespace}.serviceaccount.identity.{SYSTEM_NAMESPACE}.{trust_domain}"
    )
}

/// Whether a name has the form of those that [`workload_name`] makes, whoever's it is.
#[must_use]
pub fn is_workload_name(name: &str) -> bool {
    let below = format!(".serviceaccount.identity.{SYSTEM_NAMESPACE}.");
    name.contains(&below)
}

/// The DNS name by which a scraper verifies any metrics endpoint of a Mesh.
#[must_use]
pub fn metrics_name(mesh: &str) -> String {
    format!("metrics.{mesh}.mesh")
}

/// The DNS name by which proxies on files verify those of a service, and have certificates for.
#[must_use]
pub fn service_name(service: &str) -> String {
    format!("{}.mesh", service.to_ascii_lowercase())
}

impl Identity {
    /// The DNS names of its certificate, in order.
    #[must_use]
    pub fn dns_names(&self) -> [String; 2] {
        [self.name.clone(), metrics_name(&self.mesh)]
    }

    /// The URIs of its certificate: its services first, then every tag, `kuma.io/service` among them.
    #[must_use]
    pub fn uris(&self) -> Vec<String> {
        let services = self.tags.get(SERVICE_TAG).into_iter().flatten();
        let services = services.map(|service| format!("spiffe://{}/{service}", self.mesh));
        let tags = self.tags.iter();
        let tags = tags.flat_map(|(tag, values)| values.iter().map(move |value| (tag, value)));
        services
            .chain(tags.map(|(tag, value)| format!("kuma://{tag}/{value}")))
            .collect()
    }

    /// Reads the names of a verified certificate. Names that are none of ours are passed over: a certificate without
    /// any belongs to a peer without name, Mesh and tags.
    pub fn read<'a>(
        dns_names: impl IntoIterator<Item = &'a str>,
        uris: impl IntoIterator<Item = &'a str>,
    ) -> Self {
        let name = dns_names.into_iter().next().unwrap_or_default();
        let mut identity = Self {
            name: name.to_owned(),
            ..Self::default()
        };
        for uri in uris {
            identity.take(uri);
        }
        identity
    }

    fn take(&mut self, uri: &str) {
        if let Some((mesh, service)) = uri
            .strip_prefix("spiffe://")
            .and_then(|id| id.split_once('/'))
        {
            // A certificate is of one Mesh; a second one it names is not believed.
            if self.mesh.is_empty() || self.mesh == mesh {
                mesh.clone_into(&mut self.mesh);
                self.tag(SERVICE_TAG, service);
            }
        } else if let Some((tag, value)) = uri
            .strip_prefix("kuma://")
            .and_then(|id| id.rsplit_once('/'))
            && tag != SERVICE_TAG
        {
            self.tag(tag, value);
        }
    }

    fn tag(&mut self, tag: &str, value: &str) {
        if !tag.is_empty() && !value.is_empty() {
            let values = self.tags.entry(tag.to_owned()).or_default();
            values.insert(value.to_owned());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn web() -> Identity {
        let tags = [
            (SERVICE_TAG, vec!["web_shop_svc_80", "admin_shop_svc_81"]),
            ("k8s.kuma.io/namespace", vec!["shop"]),
            ("version", vec!["v1:2"]),
        ];
        let set = |values: Vec<&str>| values.into_iter().map(str::to_owned).collect();
        Identity {
            name: workload_name("web", "shop", TRUST_DOMAIN),
            mesh: "default".into(),
            tags: tags
                .map(|(tag, values)| (tag.to_owned(), set(values)))
                .into(),
        }
    }

    #[test]
    fn names_are_linkerds_and_uris_are_kumas() {
        assert_eq!(
            web().dns_names(),
            [
                "web.shop.serviceaccount.identity.kuma-system.cluster.local",
                "metrics.default.mesh"
            ]
        );
        assert_eq!(
            web().uris(),
            [
                "spiffe://default/admin_shop_svc_81",
                "spiffe://default/web_shop_svc_80",
                "kuma://k8s.kuma.io/namespace/shop",
                "kuma://kuma.io/service/admin_shop_svc_81",
                "kuma://kuma.io/service/web_shop_svc_80",
                "kuma://version/v1:2"
            ]
        );
    }

    #[test]
    fn what_is_written_is_read_back() {
        let (names, uris) = (web().dns_names(), web().uris());
        let read = Identity::read(
            names.iter().map(String::as_str),
            uris.iter().map(String::as_str),
        );
        assert_eq!(read, web());
    }

    #[test]
    fn a_service_is_only_what_its_mesh_says() {
        let uris = [
            "spiffe://default/web",
            "spiffe://other/admin",
            "kuma://kuma.io/service/admin",
        ];
        let peer = Identity::read([], uris);
        assert_eq!(peer.mesh, "default");
        assert_eq!(
            peer.tags,
            Tags::from([(SERVICE_TAG.into(), ["web".into()].into())])
        );
    }

    #[test]
    fn foreign_and_broken_names_say_nothing() {
        let uris = [
            "https://x/y",
            "kuma://",
            "kuma://tag",
            "kuma:///v",
            "kuma://t/",
            "spiffe://m",
        ];
        assert_eq!(Identity::read([], uris), Identity::default());
        let named = Identity::read(["a.example"], []);
        assert_eq!(
            (named.name.as_str(), named.mesh.as_str()),
            ("a.example", "")
        );
    }
}
