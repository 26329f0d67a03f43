//! The Universal documents of the demo: a Mesh and a Dataplane for each application, as a user would
//! write them. Called by `demo`; every proxy reads the same text and finds its own by `--name`.

use super::ports::Place;

/// An application, where it is, and the service that it calls.
#[derive(Clone, Copy, Debug)]
pub(super) struct Member {
    /// Of the application, its Dataplane and its service.
    pub name: &'static str,
    pub place: Place,
    pub calls: Option<&'static str>,
}

const MESH: &str = "type: Mesh
name: default
metrics:
  enabledBackend: prometheus-1
  backends:
  - name: prometheus-1
    type: prometheus
    conf:
      port: 5670
      path: /metrics
";

/// The documents of all members as one text.
pub(super) fn documents(members: &[Member]) -> String {
    let dataplanes = members.iter().map(dataplane);
    std::iter::once(MESH.to_owned())
        .chain(dataplanes)
        .collect::<Vec<_>>()
        .join("---\n")
}

fn dataplane(member: &Member) -> String {
    let Member { name, place, calls } = member;
    let outbound = calls.map(|service| {
        format!(
            "  outbound:
  - port: {}
    tags:
      kuma.io/service: {service}
",
            place.outbound.port()
        )
    });
    format!(
        "type: Dataplane
mesh: default
name: {name}
networking:
  address: {ip}
  inbound:
  - port: {inbound}
    servicePort: {application}
    tags:
      kuma.io/service: {name}
      kuma.io/protocol: http
{outbound}metrics:
  type: prometheus
  conf:
    port: {metrics} # in place of the Mesh's, for all three share one address
",
        ip = place.inbound.ip(),
        inbound = place.inbound.port(),
        application = place.application.port(),
        outbound = outbound.unwrap_or_default(),
        metrics = place.metrics.port(),
    )
}

#[cfg(test)]
mod tests {
    use weir_crds::universal::{Document, parse};

    use super::*;
    use crate::demo::ports::places;

    #[test]
    fn they_are_valid_and_say_who_calls_whom() {
        let [web, voting] = places(["web", "voting"], None, 0).unwrap();
        let member = |name, place, calls| Member { name, place, calls };
        let text = documents(&[
            member("web", web, Some("voting")),
            member("voting", voting, None),
        ]);
        let documents = parse(&text).unwrap();
        let [
            Document::Mesh(_),
            Document::Dataplane(first),
            Document::Dataplane(second),
        ] = documents.as_slice()
        else {
            panic!("a Mesh and two Dataplanes: {documents:?}")
        };
        let networking = first.spec.networking().unwrap().unwrap();
        assert_eq!(networking.inbound[0].port, web.inbound.port());
        assert_eq!(networking.inbound[0].service_port, web.application.port());
        assert_eq!(networking.outbound[0].service(), Some("voting"));
        assert_eq!(networking.outbound[0].port, web.outbound.port());
        let metrics = second.spec.metrics_override().unwrap().unwrap();
        assert_eq!(metrics.conf.port, Some(voting.metrics.port().into()));
        assert_eq!(second.spec.networking().unwrap().unwrap().outbound, []);
    }
}
