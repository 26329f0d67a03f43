//! The Dataplane resource: a proxy outside Kubernetes, and the metrics override of one proxy.
//! Read by the proxy (its own file), the operator and `validate`. The views give addresses and ports with their
//! defaults resolved. It knows nothing of Kubernetes; see `kubernetes` for the object around the spec.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::conf::PrometheusConf;
use crate::identity;
use crate::merge::{MetricsOverride, OverrideSource};
use crate::names::SERVICE_TAG;
use crate::node::Node;
use crate::ports;
use crate::violation::Violation;

/// Where an outbound listener is bound when it names no address.
pub const OUTBOUND_ADDRESS: &str = "127.0.0.1";

/// Tags of an endpoint that become labels of its destination, and the labels' names without `dst_`.
pub const LABEL_TAGS: [(&str, &str); 3] = [
    (SERVICE_TAG, "service"),
    ("kuma.io/zone", "zone"),
    ("k8s.kuma.io/namespace", "namespace"),
];

/// The content of a Dataplane, kept as it was written.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct DataplaneSpec(pub Value);

/// `networking` with every default resolved.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Networking {
    /// Address of the proxy, an IP address or a DNS name.
    pub address: String,
    /// The address others reach it by, where it differs.
    pub advertised_address: Option<String>,
    /// Services behind the proxy.
    pub inbound: Vec<Inbound>,
    /// Services the application calls through the proxy.
    pub outbound: Vec<Outbound>,
    /// The tags of the `gateway` that the document has in place of inbounds.
    pub gateway: Option<BTreeMap<String, String>>,
}

/// One inbound listener: `address:port` forwards to `service_address:service_port`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Inbound {
    /// Where the proxy listens; the proxy's address by default.
    pub address: String,
    /// Port the proxy listens on.
    pub port: u16,
    /// Where the application listens; `address` by default.
    pub service_address: String,
    /// Port the application listens on; `port` by default.
    pub service_port: u16,
    /// Tags, among them `kuma.io/service`.
    pub tags: BTreeMap<String, String>,
}

/// One outbound listener.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outbound {
    /// Where the proxy listens; [`OUTBOUND_ADDRESS`] by default.
    pub address: String,
    /// Port the proxy listens on.
    pub port: u16,
    /// Tags of the destination, among them `kuma.io/service`.
    pub tags: BTreeMap<String, String>,
}

impl Networking {
    /// The DNS name of the proxy's certificate in a Mesh with mutual TLS: one certificate a proxy, so one name, of its
    /// first inbound's service, or its gateway's, whatever others there are.
    pub fn identity_name(&self) -> String {
        let service = self.tags().next().and_then(|tags| tags.get(SERVICE_TAG));
        identity::service_name(service.map_or("", String::as_str))
    }

    /// The tags of every inbound, and then of the gateway.
    pub fn tags(&self) -> impl Iterator<Item = &BTreeMap<String, String>> {
        let inbounds = self.inbound.iter().map(|inbound| &inbound.tags);
        inbounds.chain(&self.gateway)
    }

    /// The host at which other proxies reach an inbound: one with an address of its own there, others as the proxy is.
    pub fn host_of<'a>(&'a self, inbound: &'a Inbound) -> &'a str {
        match &self.advertised_address {
            Some(advertised) if inbound.address == self.address => advertised,
            _ => &inbound.address,
        }
    }
}

impl Inbound {
    /// What is known of it as an endpoint, keyed as the `dst_*` labels are, without `dst_`.
    pub fn labels(&self) -> BTreeMap<String, String> {
        let label =
            |(tag, label): (&str, &str)| Some((label.to_owned(), self.tags.get(tag)?.clone()));
        LABEL_TAGS.into_iter().filter_map(label).collect()
    }

    /// The service this inbound belongs to.
    pub fn service(&self) -> Option<&str> {
        self.tags.get(SERVICE_TAG).map(String::as_str)
    }
}

impl Outbound {
    /// The service this outbound leads to.
    pub fn service(&self) -> Option<&str> {
        self.tags.get(SERVICE_TAG).map(String::as_str)
    }
}

impl DataplaneSpec {
    /// The listeners; `None` where the document only overrides metrics.
    pub fn networking(&self) -> Result<Option<Networking>, Violation> {
        let networking = Node::root(&self.0).get("networking");
        if networking.object()?.is_absent() {
            return Ok(None);
        }
        let address = networking.get("address").text_or_empty()?;
        let inbound = networking.get("inbound").items()?;
        let outbound = networking.get("outbound").items()?;
        let gateway = networking.get("gateway");
        let gateway = match gateway.object()?.is_absent() {
            true => None,
            false => Some(gateway.get("tags").text_map()?),
        };
        Ok(Some(Networking {
            address: address.to_owned(),
            advertised_address: said(&networking.get("advertisedAddress"))?.map(str::to_owned),
            inbound: inbound
                .iter()
                .map(|node| read_inbound(node, address))
                .collect::<Result<_, _>>()?,
            outbound: outbound
                .iter()
                .map(read_outbound)
                .collect::<Result<_, _>>()?,
            gateway,
        }))
    }

    /// What this proxy changes of its Mesh's metrics; `None` where it says nothing.
    pub fn metrics_override(&self) -> Result<Option<MetricsOverride>, Violation> {
        let metrics = Node::root(&self.0).get("metrics");
        if metrics.object()?.is_absent() {
            return Ok(None);
        }
        let conf = metrics.get("conf");
        let conf = PrometheusConf::read(&conf).map_err(|cause| unparsed(&conf, cause))?;
        Ok(Some(MetricsOverride {
            conf,
            source: OverrideSource::Dataplane,
        }))
    }
}

/// How a `conf` that cannot be typed is reported: at the conf, with the place inside it in the message.
pub(crate) fn unparsed(conf: &Node<'_>, cause: Violation) -> Violation {
    let below = cause
        .field
        .strip_prefix(conf.path())
        .unwrap_or(&cause.field);
    let message = match below.trim_start_matches('.') {
        "" => format!("could not parse config: {}", cause.message),
        below => format!("could not parse config: {below}: {}", cause.message),
    };
    cause.reported_at(conf.path(), message)
}

/// A text that says something: neither absent nor empty.
fn said<'a>(node: &Node<'a>) -> Result<Option<&'a str>, Violation> {
    Ok(node.text()?.filter(|text| !text.is_empty()))
}

fn read_port(node: &Node<'_>) -> Result<Option<u16>, Violation> {
    let Some(number) = node.number()? else {
        return Ok(None);
    };
    let port = ports::checked(number).ok_or_else(|| node.violation(ports::RANGE_MESSAGE))?;
    Ok(Some(port))
}

fn required_port(node: &Node<'_>) -> Result<u16, Violation> {
    read_port(node)?.ok_or_else(|| node.violation(ports::RANGE_MESSAGE))
}

fn read_inbound(inbound: &Node<'_>, proxy: &str) -> Result<Inbound, Violation> {
    inbound.object()?;
    let port = required_port(&inbound.get("port"))?;
    let address = said(&inbound.get("address"))?.unwrap_or(proxy);
    Ok(Inbound {
        address: address.to_owned(),
        port,
        service_address: said(&inbound.get("serviceAddress"))?
            .unwrap_or(address)
            .to_owned(),
        service_port: read_port(&inbound.get("servicePort"))?.unwrap_or(port),
        tags: inbound.get("tags").text_map()?,
    })
}

fn read_outbound(outbound: &Node<'_>) -> Result<Outbound, Violation> {
    outbound.object()?;
    Ok(Outbound {
        address: said(&outbound.get("address"))?
            .unwrap_or(OUTBOUND_ADDRESS)
            .to_owned(),
        port: required_port(&outbound.get("port"))?,
        tags: outbound.get("tags").text_map()?,
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn listeners_have_their_defaults() {
        let spec = DataplaneSpec(json!({"networking": {
            "address": "10.0.0.1",
            "inbound": [
                {"port": 80, "tags": {"kuma.io/service": "web"}},
                {"address": "10.0.0.2", "port": 81, "servicePort": 8081, "serviceAddress": "127.0.0.1"}
            ],
            "outbound": [{"port": 5000, "tags": {"kuma.io/service": "db"}}]
        }}));
        let networking = spec.networking().unwrap().unwrap();
        let first = &networking.inbound[0];
        assert_eq!((first.address.as_str(), first.port), ("10.0.0.1", 80));
        assert_eq!(
            (first.service_address.as_str(), first.service_port),
            ("10.0.0.1", 80)
        );
        assert_eq!(first.service(), Some("web"));
        let second = &networking.inbound[1];
        assert_eq!((second.address.as_str(), second.port), ("10.0.0.2", 81));
        assert_eq!(
            (second.service_address.as_str(), second.service_port),
            ("127.0.0.1", 8081)
        );
        let outbound = &networking.outbound[0];
        assert_eq!(
            (outbound.address.as_str(), outbound.port, outbound.service()),
            ("127.0.0.1", 5000, Some("db"))
        );
        assert!(networking.gateway.is_none() && networking.advertised_address.is_none());
        assert_eq!(networking.identity_name(), "web.mesh");
        assert_eq!(networking.host_of(first), "10.0.0.1");
    }

    #[test]
    fn a_gateway_is_named_by_its_own_tags_and_others_are_reached_where_they_say() {
        let gateway = json!({"type": "DELEGATED", "tags": {"kuma.io/service": "Edge"}});
        let spec =
            DataplaneSpec(json!({"networking": {"address": "10.0.0.1", "gateway": gateway}}));
        let networking = spec.networking().unwrap().unwrap();
        assert_eq!(networking.identity_name(), "edge.mesh");
        let inbounds = json!([{"port": 80, "tags": {"kuma.io/zone": "east", "version": "1"}}, {"port": 81, "address": "10.0.0.2"}]);
        let networking =
            json!({"address": "10.0.0.1", "advertisedAddress": "192.0.2.1", "inbound": inbounds});
        let spec = DataplaneSpec(json!({ "networking": networking }));
        let networking = spec.networking().unwrap().unwrap();
        let hosts = networking.inbound.iter().map(|one| networking.host_of(one));
        assert_eq!(hosts.collect::<Vec<_>>(), ["192.0.2.1", "10.0.0.2"]);
        let labels = networking.inbound[0].labels();
        assert_eq!(labels, [("zone".to_owned(), "east".to_owned())].into());
    }

    #[test]
    fn a_wrong_listener_is_named() {
        for (networking, error) in [
            (
                json!({"inbound": [{"port": 0}]}),
                "networking.inbound[0].port: port must be in the range [1, 65535]",
            ),
            (
                json!({"outbound": [{}]}),
                "networking.outbound[0].port: port must be in the range [1, 65535]",
            ),
            (
                json!({"inbound": [{"port": 1, "servicePort": 70000}]}),
                "networking.inbound[0].servicePort: port must be in the range [1, 65535]",
            ),
            (json!([]), "networking: expected an object, found []"),
        ] {
            let spec = DataplaneSpec(json!({ "networking": networking }));
            assert_eq!(spec.networking().unwrap_err().to_string(), error);
        }
    }

    #[test]
    fn a_document_may_only_override_metrics() {
        let spec =
            DataplaneSpec(json!({"metrics": {"type": "prometheus", "conf": {"port": 1234}}}));
        assert_eq!(spec.networking(), Ok(None));
        assert_eq!(
            spec.metrics_override().unwrap().unwrap().conf.port,
            Some(1234)
        );
        assert_eq!(DataplaneSpec(json!({})).metrics_override(), Ok(None));
        let spec = DataplaneSpec(json!({"metrics": {"conf": {"aggregate": [{"port": "80`"}]}}}));
        let violation = spec.metrics_override().unwrap_err();
        assert_eq!(
            violation.to_string(),
            "metrics.conf: could not parse config: aggregate[0].port: \
             expected a whole number from 0 to 4294967295, found \"80`\""
        );
        assert_eq!(violation.culprit(), "metrics.conf.aggregate[0].port");
    }
}
