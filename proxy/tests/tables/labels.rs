//! The labels that the rows abbreviate, as the proxy of a bench prints them. Called by `bench`.
//!
//! `{HTTP}` are those of a request, `{NOWHERE}` of one that was to go to no endpoint, `{ROUTE}` of a route but for its name;
//! `{LET_IN}` of what let a request in, `{OPENED}` a connection without HTTP; `{SRC}` and `{DST}` of the two connections, `{SRV}` of the server after others; `{DIR}`, `{PORT}`, `{ASKED}`, `{ANSWERED}`
//! are the values of `direction`, `target_port`, and `kind` for either side's messages.

use super::bench::Way;

const DST: &str = "dst_deployment=\"web\",dst_namespace=\"emojivoto\",dst_service=\"web\"";
const NAME: &str = "web.emojivoto.svc.cluster.local";

/// Writes them out, of an application and a listener with these ports.
pub(super) fn fill(line: &str, way: Way, (application, listener): (u16, u16)) -> String {
    let server = format!(
        "srv_group=\"kuma.io\",srv_kind=\"dataplane\",srv_name=\"web\",srv_port=\"{application}\""
    );
    let (http, nowhere, src, dst) = match way {
        Way::Inbound => inbound(&server, listener),
        Way::Outbound | Way::Balanced => outbound(listener),
    };
    let (asked, answered, server) = match way {
        Way::Inbound => ("received", "sent", format!(",{server}")),
        Way::Outbound | Way::Balanced => ("sent", "received", String::new()),
    };
    let route = format!("direction=\"outbound\",dst=\"{NAME}:{listener}\"");
    let (let_in, opened) = let_in(&server);
    line.replace("{ASKED}", asked)
        .replace("{LET_IN}", &let_in)
        .replace("{OPENED}", &opened)
        .replace("{ANSWERED}", answered)
        .replace("{HTTP}", &http)
        .replace("{NOWHERE}", &nowhere)
        .replace("{ROUTE}", &route)
        .replace("{SRC}", &src)
        .replace("{DST}", &dst)
        .replace("{SRV}", &server)
        .replace("{DIR}", way.name())
        .replace("{PORT}", &listener.to_string())
}

fn plain(reason: &str) -> String {
    format!("tls=\"no_identity\",no_tls_reason=\"{reason}\"")
}

const AUTHZ: &str = "authz_group=\"\",authz_kind=\"default\",authz_name=\"all-unauthenticated\"";
const UNROUTED: &str = "route_group=\"\",route_kind=\"default\",route_name=\"default\"";

/// `{LET_IN}`, `{OPENED}`, after the labels of a server, or of none.
fn let_in(server: &str) -> (String, String) {
    let remote = plain("no_tls_from_remote");
    (
        format!(
            "direction=\"inbound\",authority=\"web.example\"{server},{UNROUTED},{AUTHZ},{remote}"
        ),
        format!("direction=\"inbound\",peer=\"src\"{server},{AUTHZ},{remote}"),
    )
}

/// `{HTTP}`, `{NOWHERE}`, `{SRC}`, `{DST}`.
type Four = (String, String, String, String);

fn inbound(server: &str, port: u16) -> Four {
    let (remote, loopback) = (plain("no_tls_from_remote"), plain("loopback"));
    let http = format!(
        "direction=\"inbound\",authority=\"web.example\",target_port=\"{port}\",{remote},{server},{UNROUTED},{AUTHZ}"
    );
    (
        http.clone(),
        http,
        format!("direction=\"inbound\",peer=\"src\",{remote},{server},target_port=\"{port}\""),
        format!("direction=\"inbound\",peer=\"dst\",{loopback},target_port=\"{port}\""),
    )
}

fn outbound(port: u16) -> Four {
    let (undiscovered, loopback) = (
        plain("not_provided_by_service_discovery"),
        plain("loopback"),
    );
    let nowhere = format!(
        "direction=\"outbound\",authority=\"web.example\",target_port=\"{port}\",{undiscovered}"
    );
    (
        format!("{nowhere},{DST}"),
        nowhere,
        format!("direction=\"outbound\",peer=\"src\",{loopback},target_port=\"{port}\""),
        format!(
            "direction=\"outbound\",peer=\"dst\",{undiscovered},authority=\"{NAME}\",{DST},target_port=\"{port}\""
        ),
    )
}
