//! Rewrites probes and httpGet hooks so that the kubelet asks the proxy's admin port, which performs the original
//! against the application: the check passes through no metric and means what it meant. Called by `inject`.
//! Pure: it knows the shape of containers and nothing of who asked.

use serde_json::{Value, json};
use weir_crds::{
    ports,
    probe::{Probe, ProbeAction},
};

/// What the kubelet takes when `timeoutSeconds` is unset.
const DEFAULT_TIMEOUT_SECONDS: u32 = 1;
/// The kubelet gives a postStart hook no limit of its own; an hour is beyond any hook that is of use.
const POST_START_TIMEOUT_SECONDS: u32 = 3600;
const PROBES: [&str; 3] = ["startupProbe", "livenessProbe", "readinessProbe"];

/// Rewrites the checks of one container. The originals are appended to `probes`, the n-th of which the admin port
/// serves at `/probe/<n>`. `grace_seconds` bounds a preStop hook as it does in the kubelet. Returns a warning for each
/// probe left as it is because its port has no meaning.
///
/// Left as they are: exec, sleep; a probe that names a `host` (the kubelet calls that host, not the pod); and a
/// probe of one of the proxy's own ports, among them those rewritten by an earlier review.
pub(super) fn rewrite(
    container: &mut Value,
    grace_seconds: u32,
    probes: &mut Vec<Probe>,
) -> Vec<String> {
    let mut warnings = Vec::new();
    let named_ports = container["ports"].clone();
    let name = container["name"].as_str().unwrap_or_default().to_owned();
    for kind in PROBES {
        let Some(check) = container.get_mut(kind).filter(|check| check.is_object()) else {
            continue;
        };
        let timeout = seconds(&check["timeoutSeconds"]).unwrap_or(DEFAULT_TIMEOUT_SECONDS);
        match action(check, &named_ports) {
            Ok(Some(action)) => replace(check, action, timeout, probes),
            Ok(None) => {}
            Err(port) => warnings.push(unresolved(&name, kind, &port)),
        }
    }
    for (hook, timeout) in [
        ("postStart", POST_START_TIMEOUT_SECONDS),
        ("preStop", grace_seconds.max(1)),
    ] {
        let check = container
            .get_mut("lifecycle")
            .and_then(|lifecycle| lifecycle.get_mut(hook))
            .filter(|check| check["httpGet"].is_object());
        let Some(check) = check else { continue };
        match action(check, &named_ports) {
            Ok(Some(action)) => replace(check, action, timeout, probes),
            Ok(None) => {}
            Err(port) => warnings.push(unresolved(&name, hook, &port)),
        }
    }
    warnings
}

fn unresolved(container: &str, kind: &str, port: &str) -> String {
    format!(
        "container {container:?}: {kind} names port {port:?}, which the container does not declare; left as it is"
    )
}

/// Puts the request to the admin port in the place of the original handler, keeping periods and thresholds.
fn replace(check: &mut Value, action: ProbeAction, timeout_seconds: u32, probes: &mut Vec<Probe>) {
    let Some(fields) = check.as_object_mut() else {
        return;
    };
    for handler in ["httpGet", "tcpSocket", "grpc"] {
        fields.remove(handler);
    }
    fields.insert(
        "httpGet".to_owned(),
        json!({ "path": format!("/probe/{}", probes.len()), "port": ports::ADMIN, "scheme": "HTTP" }),
    );
    probes.push(Probe {
        action,
        timeout_seconds,
    });
}

/// The handler as the proxy must perform it; `None` when it stays with the kubelet, an error with the port's text when
/// that port cannot be resolved.
fn action(check: &Value, named_ports: &Value) -> Result<Option<ProbeAction>, String> {
    let handler = ["httpGet", "tcpSocket", "grpc"]
        .iter()
        .find_map(|kind| Some((*kind, check.get(kind).filter(|h| h.is_object())?)));
    let Some((kind, handler)) = handler else {
        return Ok(None);
    };
    if handler["host"]
        .as_str()
        .is_some_and(|host| !host.is_empty())
    {
        return Ok(None);
    }
    let port = resolve(&handler["port"], named_ports)?;
    if [ports::ADMIN, ports::INBOUND, ports::OUTBOUND].contains(&port) {
        return Ok(None);
    }
    Ok(Some(match kind {
        "httpGet" => http(handler, port),
        "tcpSocket" => ProbeAction::Tcp { port, host: None },
        _ => ProbeAction::Grpc {
            port,
            service: handler["service"].as_str().unwrap_or_default().to_owned(),
        },
    }))
}

fn http(handler: &Value, port: u16) -> ProbeAction {
    let path = handler["path"].as_str().unwrap_or_default();
    let path = match path.starts_with('/') {
        true => path.to_owned(),
        false => format!("/{path}"),
    };
    let headers = handler["httpHeaders"].as_array();
    let headers = headers
        .into_iter()
        .flatten()
        .filter_map(|header| {
            Some((
                header["name"].as_str()?.to_owned(),
                header["value"].as_str().unwrap_or_default().to_owned(),
            ))
        })
        .collect();
    ProbeAction::Http {
        port,
        path,
        host: None,
        https: handler["scheme"] == "HTTPS",
        headers,
    }
}

/// A port number, or the number of the container port of that name, as the kubelet resolves it.
fn resolve(port: &Value, named_ports: &Value) -> Result<u16, String> {
    let number = |value: &Value| {
        value
            .as_u64()
            .and_then(|n| u16::try_from(n).ok())
            .filter(|n| *n != 0)
    };
    let Some(name) = port.as_str() else {
        return number(port).ok_or_else(|| port.to_string());
    };
    named_ports
        .as_array()
        .into_iter()
        .flatten()
        .find(|declared| declared["name"] == name)
        .and_then(|declared| number(&declared["containerPort"]))
        .or_else(|| name.parse().ok().filter(|n| *n != 0))
        .ok_or_else(|| name.to_owned())
}

fn seconds(value: &Value) -> Option<u32> {
    value
        .as_u64()
        .and_then(|n| u32::try_from(n).ok())
        .filter(|n| *n > 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rewritten(mut container: Value) -> (Value, Vec<Probe>, Vec<String>) {
        let mut probes = Vec::new();
        let warnings = rewrite(&mut container, 30, &mut probes);
        (container, probes, warnings)
    }

    #[test]
    fn thresholds_stay_and_the_handler_goes_to_the_admin_port() {
        let (container, probes, warnings) = rewritten(json!({
            "name": "app",
            "ports": [{"name": "web", "containerPort": 8080}],
            "readinessProbe": {
                "httpGet": {"path": "/ok?deep=1", "port": "web", "scheme": "HTTPS",
                            "httpHeaders": [{"name": "X-A", "value": "1"}, {"name": "Host", "value": "shop"}]},
                "periodSeconds": 7, "failureThreshold": 4, "timeoutSeconds": 3,
            },
        }));
        assert!(warnings.is_empty());
        assert_eq!(
            container["readinessProbe"],
            json!({"httpGet": {"path": "/probe/0", "port": 4191, "scheme": "HTTP"},
                   "periodSeconds": 7, "failureThreshold": 4, "timeoutSeconds": 3})
        );
        let want = ProbeAction::Http {
            port: 8080,
            path: "/ok?deep=1".to_owned(),
            host: None,
            https: true,
            headers: vec![
                ("X-A".to_owned(), "1".to_owned()),
                ("Host".to_owned(), "shop".to_owned()),
            ],
        };
        assert_eq!(
            probes,
            vec![Probe {
                action: want,
                timeout_seconds: 3
            }]
        );
    }

    #[test]
    fn tcp_and_grpc_become_requests_too() {
        let (container, probes, _) = rewritten(json!({
            "name": "app",
            "startupProbe": {"tcpSocket": {"port": 5432}},
            "livenessProbe": {"grpc": {"port": 9000, "service": "health"}},
        }));
        assert_eq!(
            container["startupProbe"],
            json!({"httpGet": {"path": "/probe/0", "port": 4191, "scheme": "HTTP"}})
        );
        assert_eq!(
            container["livenessProbe"],
            json!({"httpGet": {"path": "/probe/1", "port": 4191, "scheme": "HTTP"}})
        );
        assert_eq!(
            probes[0],
            Probe {
                action: ProbeAction::Tcp {
                    port: 5432,
                    host: None
                },
                timeout_seconds: 1
            }
        );
        let grpc = ProbeAction::Grpc {
            port: 9000,
            service: "health".to_owned(),
        };
        assert_eq!(probes[1].action, grpc);
    }

    #[test]
    fn what_the_kubelet_does_not_send_to_the_application_stays() {
        let container = json!({
            "name": "app",
            "startupProbe": {"exec": {"command": ["true"]}},
            "livenessProbe": {"httpGet": {"port": 80, "host": "example.com"}},
            "readinessProbe": {"httpGet": {"port": 4191, "path": "/probe/0"}},
            "lifecycle": {"preStop": {"sleep": {"seconds": 3}}, "postStart": {"exec": {"command": ["true"]}}},
        });
        let (after, probes, warnings) = rewritten(container.clone());
        assert_eq!((after, probes, warnings), (container, vec![], vec![]));
    }

    #[test]
    fn hooks_are_bounded_as_the_kubelet_bounds_them() {
        let (container, probes, _) = rewritten(json!({
            "name": "app",
            "lifecycle": {"preStop": {"httpGet": {"port": 80, "path": "bye"}}, "postStart": {"httpGet": {"port": "81"}}},
        }));
        assert_eq!(
            container["lifecycle"]["postStart"]["httpGet"]["path"],
            "/probe/0"
        );
        assert_eq!(
            container["lifecycle"]["preStop"]["httpGet"]["path"],
            "/probe/1"
        );
        assert_eq!(
            (probes[0].timeout_seconds, probes[1].timeout_seconds),
            (3600, 30)
        );
        assert!(matches!(&probes[1].action, ProbeAction::Http { path, .. } if path == "/bye"));
    }

    #[test]
    fn a_port_name_that_means_nothing_is_left_and_told() {
        let container = json!({"name": "app", "readinessProbe": {"httpGet": {"port": "web"}}});
        let (after, probes, warnings) = rewritten(container.clone());
        assert_eq!((after, probes), (container, vec![]));
        assert_eq!(
            warnings,
            [
                "container \"app\": readinessProbe names port \"web\", which the container does not declare; left as it is"
            ]
        );
    }
}
