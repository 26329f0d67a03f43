//! The ports that a pod keeps out of redirection, read from Kuma's and Linkerd's annotations.
//! Called by `inject` for the arguments of kuma-init. It checks the lists, so that a slip of the pen is told to its
//! author at once and not by an init container that fails.

use weir_crds::{Violation, names};

use crate::{decide::application_containers, namespace::Namespace, pod::Pod};

/// Lists as the init container takes them: `4567,8000-8010`, empty for none.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Exclusions {
    /// Destination ports of connections to the pod.
    pub(super) inbound: String,
    /// Destination ports of connections from the pod.
    pub(super) outbound: String,
}

/// Reads the four annotations, each from the pod, else from its namespace. Kuma's and Linkerd's lists add up.
pub(super) fn read(pod: &Pod, namespace: &Namespace) -> Result<Exclusions, Vec<Violation>> {
    let mut violations = Vec::new();
    let mut list = |keys: [&str; 2]| {
        let mut items = Vec::new();
        for key in keys {
            let text = pod.annotation(key).or_else(|| namespace.annotation(key));
            for item in text.unwrap_or_default().split(',') {
                let item = item.trim();
                if item.is_empty() {
                    continue;
                }
                match is_port_or_range(item) {
                    true => items.push(item.to_owned()),
                    false => violations.push(Violation::new(
                        key,
                        format!("{item:?} is no port: use numbers from 1 to 65535 and ranges such as 8000-8010, separated by commas"),
                    )),
                }
            }
        }
        items.join(",")
    };
    let exclusions = Exclusions {
        inbound: list([names::EXCLUDE_INBOUND_PORTS, names::SKIP_INBOUND_PORTS]),
        outbound: list([names::EXCLUDE_OUTBOUND_PORTS, names::SKIP_OUTBOUND_PORTS]),
    };
    match violations.is_empty() {
        true => Ok(exclusions),
        false => Err(violations),
    }
}

/// What of the list of opaque ports, told as `field`, is neither a port nor the name of one that a container declares.
pub(super) fn unreadable_opaque_ports(pod: &Pod, field: &str) -> Vec<String> {
    let list = pod.annotation(names::OPAQUE_PORTS).unwrap_or_default();
    let names: Vec<&str> = application_containers(pod)
        .flat_map(|container| container["ports"].as_array().into_iter().flatten())
        .filter_map(|port| port["name"].as_str())
        .collect();
    let items = list.split(',').map(str::trim);
    let unreadable =
        items.filter(|item| !item.is_empty() && !is_port_or_range(item) && !names.contains(item));
    unreadable
        .map(|item| format!("{field}: {item:?} is no port, and no container's port has that name: it is passed over"))
        .collect()
}

fn is_port_or_range(item: &str) -> bool {
    let port = |text: &str| text.parse::<u16>().ok().filter(|port| *port != 0);
    match item.split_once('-') {
        None => port(item).is_some(),
        Some((first, last)) => match (port(first), port(last)) {
            (Some(first), Some(last)) => first <= last,
            _ => false,
        },
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn pod(annotations: serde_json::Value) -> Pod {
        Pod::parse(json!({"metadata": {"annotations": annotations}, "spec": {"containers": []}}))
            .unwrap()
    }

    #[test]
    fn lists_of_both_peers_add_up_and_the_pod_wins_over_its_namespace() {
        let pod = pod(json!({
            "traffic.kuma.io/exclude-inbound-ports": "80, 443",
            "config.linkerd.io/skip-inbound-ports": "4567-4568",
        }));
        let mut namespace = Namespace::default();
        for (key, value) in [
            (names::EXCLUDE_INBOUND_PORTS, "1"),
            (names::SKIP_OUTBOUND_PORTS, "3306"),
        ] {
            namespace
                .annotations
                .insert(key.to_owned(), value.to_owned());
        }
        let exclusions = read(&pod, &namespace).unwrap();
        assert_eq!(
            (exclusions.inbound.as_str(), exclusions.outbound.as_str()),
            ("80,443,4567-4568", "3306")
        );
    }

    #[test]
    fn opaque_ports_are_numbers_ranges_or_names_of_ports() {
        let mut pod = pod(json!({names::OPAQUE_PORTS: "25, 3306;5432,8000-8010,db,cache"}));
        pod.containers_mut()
            .push(json!({"name": "app", "ports": [{"name": "db", "containerPort": 1}]}));
        let rule = "is no port, and no container's port has that name: it is passed over";
        assert_eq!(
            unreadable_opaque_ports(&pod, names::OPAQUE_PORTS),
            [
                format!("config.linkerd.io/opaque-ports: \"3306;5432\" {rule}"),
                format!("config.linkerd.io/opaque-ports: \"cache\" {rule}"),
            ]
        );
    }

    #[test]
    fn every_slip_names_its_annotation() {
        let pod = pod(json!({
            "traffic.kuma.io/exclude-inbound-ports": "http",
            "config.linkerd.io/skip-outbound-ports": "9-3,0,70000",
        }));
        let texts: Vec<String> = read(&pod, &Namespace::default())
            .unwrap_err()
            .iter()
            .map(ToString::to_string)
            .collect();
        let rule = "is no port: use numbers from 1 to 65535 and ranges such as 8000-8010, separated by commas";
        assert_eq!(
            texts,
            [
                format!("traffic.kuma.io/exclude-inbound-ports: \"http\" {rule}"),
                format!("config.linkerd.io/skip-outbound-ports: \"9-3\" {rule}"),
                format!("config.linkerd.io/skip-outbound-ports: \"0\" {rule}"),
                format!("config.linkerd.io/skip-outbound-ports: \"70000\" {rule}"),
            ]
        );
    }
}
