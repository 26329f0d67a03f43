//! The two containers that a pod gets: kuma-init, which redirects its traffic, and kuma-sidecar, the proxy.
//! Called by `inject`. It builds JSON from plain values and knows nothing of reviews or decisions.

use serde_json::{Value, json};
use weir_crds::{
    env, names, ports,
    probe::{self, Probe},
};

use super::{
    config::Config,
    exclusions::Exclusions,
    operator::{self, Operator},
};

/// Where the image of the proxy has its program.
const PROGRAM: &str = "/weir-proxy";
/// The flag of its commands by which nothing of the pod waits for what fails.
const BEST_EFFORT: &str = "--best-effort";
/// Seconds between two readiness probes of a proxy that traffic depends on: a pod is not held up by it for longer.
const READINESS_PERIOD_SECONDS: u32 = 2;
/// Seconds between two liveness probes. With the failures and the patience below a proxy that is stuck is started
/// again after some 15 s: before the application's own probes, which go through it, fail by Kubernetes' defaults.
const LIVENESS_PERIOD_SECONDS: u32 = 5;
const LIVENESS_FAILURES: u32 = 3;
const LIVENESS_TIMEOUT_SECONDS: u32 = 2;
/// Seconds that a stuck proxy is given to end: it drains nothing.
const STUCK_GRACE_SECONDS: u32 = 1;

/// What the environment of the proxy holds beside the pod's own facts.
#[derive(Debug)]
pub(super) struct Documents<'a> {
    /// Name of the pod's Mesh.
    pub(super) mesh: &'a str,
    /// The settings document.
    pub(super) settings: String,
    /// The ports that the application declares, as in `80,443`.
    pub(super) ports: String,
    /// The original probes.
    pub(super) probes: &'a [Probe],
    /// How long the proxy stays at least once it is told to end, where it is told together with the application.
    pub(super) stay: Option<String>,
    /// The pod has a budget of its own, so that our containers have none.
    pub(super) shares: bool,
    /// Nothing may pass the proxy unsecured.
    pub(super) strict: bool,
    /// Where the operator is.
    pub(super) operator: Option<Operator<'a>>,
}

/// The arguments of `weir-proxy init`. `strict` keeps the redirection up when the proxy is not: nothing passes it
/// unsecured.
pub(super) fn init_arguments(exclusions: &Exclusions, strict: bool) -> Vec<String> {
    let mut arguments = vec![
        format!("--proxy-uid={}", names::PROXY_UID),
        if strict { "--strict" } else { BEST_EFFORT }.to_owned(),
    ];
    for (flag, list) in [
        (names::EXCLUDE_INBOUND_FLAG, &exclusions.inbound),
        ("--exclude-outbound-ports", &exclusions.outbound),
    ] {
        if !list.is_empty() {
            arguments.push(format!("{flag}={list}"));
        }
    }
    arguments
}

/// What the init container runs.
pub(super) fn init_command(arguments: &[String]) -> Value {
    let arguments = arguments.iter().map(String::as_str);
    std::iter::once("init").chain(arguments).collect()
}

/// The init container. It needs root and NET_ADMIN for nftables in the pod's own network, and nothing else.
pub(super) fn init(config: &Config, documents: &Documents<'_>, arguments: &[String]) -> Value {
    json!({
        "name": names::INIT,
        "image": config.proxy_image,
        "imagePullPolicy": config.proxy_pull_policy.as_str(),
        "args": init_command(arguments),
        "resources": resources(config, documents.shares),
        "securityContext": {
            "runAsUser": 0,
            "runAsGroup": 0,
            "runAsNonRoot": false,
            "privileged": false,
            "allowPrivilegeEscalation": false,
            "readOnlyRootFilesystem": true,
            "capabilities": {"add": ["NET_ADMIN"], "drop": ["ALL"]},
        },
        "terminationMessagePolicy": "FallbackToLogsOnError",
    })
}

/// The proxy's container; `native` makes it a native sidecar for `initContainers`.
pub(super) fn sidecar(config: &Config, documents: &Documents<'_>, native: bool) -> Value {
    let mut container = json!({
        "name": names::SIDECAR,
        "image": config.proxy_image,
        "imagePullPolicy": config.proxy_pull_policy.as_str(),
        "args": run(documents.strict),
        "env": environment(config, documents),
        "ports": [
            {"name": ports::LINKERD_ADMIN, "containerPort": ports::ADMIN, "protocol": "TCP"},
            {"name": ports::LINKERD_PROXY, "containerPort": ports::INBOUND, "protocol": "TCP"},
        ],
        "lifecycle": {"postStart": {"exec": {"command": wait(config, documents.strict)}}},
        "livenessProbe": {
            "httpGet": asks("/live"),
            "periodSeconds": LIVENESS_PERIOD_SECONDS,
            "failureThreshold": LIVENESS_FAILURES,
            "timeoutSeconds": LIVENESS_TIMEOUT_SECONDS,
            "terminationGracePeriodSeconds": STUCK_GRACE_SECONDS,
        },
        "resources": resources(config, documents.shares),
        "securityContext": {
            "runAsUser": names::PROXY_UID,
            "runAsGroup": names::PROXY_UID,
            "runAsNonRoot": true,
            "privileged": false,
            "allowPrivilegeEscalation": false,
            "readOnlyRootFilesystem": true,
            "capabilities": {"drop": ["ALL"]},
        },
        "terminationMessagePolicy": "FallbackToLogsOnError",
    });
    if documents.strict {
        container["readinessProbe"] = readiness();
    }
    if documents.operator.is_some() {
        container["volumeMounts"] = json!([operator::mount()]);
    }
    if native {
        container["restartPolicy"] = json!("Always");
    }
    container
}

/// What the Pod Security level `restricted` asks for beside what every proxy has.
pub(super) fn restrict(sidecar: &mut Value) {
    sidecar["securityContext"]["seccompProfile"] = json!({"type": "RuntimeDefault"});
}

/// Of a proxy that nothing may pass. Else traffic passes one that is not there, and the pod is as ready as its application.
fn readiness() -> Value {
    json!({"httpGet": asks("/ready"), "periodSeconds": READINESS_PERIOD_SECONDS})
}

fn asks(path: &str) -> Value {
    json!({"path": path, "port": ports::ADMIN, "scheme": "HTTP"})
}

/// A proxy that nothing may pass has to be right; any other does its best.
fn run(strict: bool) -> Vec<&'static str> {
    match strict {
        true => vec!["run"],
        false => vec!["run", BEST_EFFORT],
    }
}

/// What the kubelet runs in the proxy's container before it starts the next one. A startup probe would say
/// the same up to a second later: the kubelet asks it no more often.
fn wait(config: &Config, strict: bool) -> Vec<String> {
    let mut command = vec![
        PROGRAM.to_owned(),
        "wait".to_owned(),
        format!("--timeout={}", config.proxy_start_timeout),
    ];
    if !strict {
        command.push(BEST_EFFORT.to_owned());
    }
    command
}

fn environment(config: &Config, documents: &Documents<'_>) -> Value {
    let field = |name: &str, path: &str| json!({"name": name, "valueFrom": {"fieldRef": {"fieldPath": path}}});
    let value = |name: &str, value: &str| json!({"name": name, "value": value});
    let mut variables = vec![
        field(env::POD_NAME, "metadata.name"),
        field(env::POD_NAMESPACE, "metadata.namespace"),
        field(env::INSTANCE_IP, "status.podIP"),
        field(env::POD_IPS, "status.podIPs"),
        field(env::NODE_NAME, "spec.nodeName"),
        value(env::MESH, documents.mesh),
        value(
            env::NAME,
            &format!("$({}).$({})", env::POD_NAME, env::POD_NAMESPACE),
        ),
        value(env::DRAIN_TIME, &config.proxy_drain_time),
        value(env::LOG, &config.proxy_log),
        value(env::SETTINGS, &literal(&documents.settings)),
        value(env::PROBES, &literal(&probe::to_json(documents.probes))),
        value(env::APPLICATION_PORTS, &documents.ports),
    ];
    if let Some(stay) = &documents.stay {
        variables.push(value(env::DRAIN_TIME_MIN, stay));
    }
    let operator = documents.operator.iter().flat_map(operator::variables);
    variables.extend(operator.map(|(name, text)| value(name, &literal(&text))));
    Value::Array(variables)
}

/// Brings a sidecar that is there already up to date, its documents and whether anything may pass it, and leaves the rest
/// of it as others made it.
pub(super) fn refresh(sidecar: &mut Value, documents: &Documents<'_>) {
    let strict = documents.strict;
    for command in ["/args", "/lifecycle/postStart/exec/command"] {
        if let Some(words) = sidecar.pointer_mut(command).and_then(Value::as_array_mut) {
            set_best_effort(words, !strict);
        }
    }
    let probe = &sidecar["readinessProbe"];
    let (is_ours, is_absent) = (*probe == readiness(), probe.is_null());
    if strict && is_absent {
        sidecar["readinessProbe"] = readiness();
    } else if !strict
        && is_ours
        && let Some(fields) = sidecar.as_object_mut()
    {
        fields.remove("readinessProbe");
    }
    refresh_documents(sidecar, documents);
}

/// Puts the flag into a command, or takes it out.
fn set_best_effort(words: &mut Vec<Value>, is_set: bool) {
    match is_set {
        true if words.iter().any(|word| word == BEST_EFFORT) => {}
        true => words.push(json!(BEST_EFFORT)),
        false => words.retain(|word| word != BEST_EFFORT),
    }
}

fn refresh_documents(sidecar: &mut Value, documents: &Documents<'_>) {
    let Some(variables) = sidecar["env"].as_array_mut() else {
        return;
    };
    let probes = probe::to_json(documents.probes);
    let stay = documents.stay.as_deref();
    let stay = stay.map(|stay| (env::DRAIN_TIME_MIN, stay));
    let texts = [
        (env::MESH, documents.mesh),
        (env::SETTINGS, &documents.settings),
        (env::PROBES, &probes),
        (env::APPLICATION_PORTS, &documents.ports),
    ];
    for (name, text) in texts.into_iter().chain(stay) {
        let wanted = json!({"name": name, "value": literal(text)});
        match variables
            .iter_mut()
            .find(|variable| variable["name"] == name)
        {
            Some(variable) => *variable = wanted,
            None => variables.push(wanted),
        }
    }
}

/// The original probes that a sidecar carries already.
pub(super) fn carried_probes(sidecar: &Value) -> Vec<Probe> {
    let variables = sidecar["env"].as_array();
    variables
        .into_iter()
        .flatten()
        .find(|variable| variable["name"] == env::PROBES)
        .and_then(|variable| probe::parse(&variable["value"].as_str()?.replace("$$", "$")).ok())
        .unwrap_or_default()
}

/// Text that the kubelet hands on as it is: it would take `$(NAME)` for a reference to another variable.
fn literal(text: &str) -> String {
    text.replace('$', "$$")
}

fn resources(config: &Config, shares: bool) -> Value {
    let mut resources = json!({});
    if shares {
        return resources;
    }
    for (kind, name, value) in [
        ("requests", "cpu", &config.proxy_cpu_request),
        ("requests", "memory", &config.proxy_memory_request),
        ("limits", "cpu", &config.proxy_cpu_limit),
        ("limits", "memory", &config.proxy_memory_limit),
    ] {
        if !value.is_empty() {
            resources[kind][name] = json!(value);
        }
    }
    resources
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dollars_survive_the_kubelet() {
        let probes = vec![Probe {
            action: weir_crds::probe::ProbeAction::Http {
                port: 80,
                path: "/$(HOME)/$$".to_owned(),
                host: None,
                https: false,
                headers: vec![],
            },
            timeout_seconds: 1,
        }];
        let mut sidecar = json!({"env": []});
        let documents = Documents {
            mesh: "default",
            settings: "{\"filter\":\"a$\"}".to_owned(),
            probes: &probes,
            ports: String::new(),
            shares: false,
            stay: None,
            strict: false,
            operator: None,
        };
        refresh(&mut sidecar, &documents);
        assert_eq!(carried_probes(&sidecar), probes);
        assert!(
            sidecar["env"]
                .as_array()
                .unwrap()
                .iter()
                .any(|v| v["value"] == "{\"filter\":\"a$$\"}")
        );
    }
}
