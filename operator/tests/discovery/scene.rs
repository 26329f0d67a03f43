//! A cluster on paper: objects as the API server writes them, and an index that is told of them.

#![allow(clippy::unwrap_used, reason = "what fails here fails the test")]

use serde_json::{Value, json};
use weir_operator::index::{Caller, Discovery, Endpoint, Indexed, ObjectKey, Profile, ServiceView};

pub(crate) const NAMESPACE: &str = "shop";

/// An index and the means to tell it of objects.
#[derive(Clone, Default)]
pub(crate) struct Scene {
    pub(crate) index: Discovery,
}

pub(crate) fn key(name: &str) -> ObjectKey {
    ObjectKey {
        namespace: NAMESPACE.into(),
        name: name.into(),
    }
}

/// Lays `over` on `base`, object by object; what is null then is as if it were absent.
pub(crate) fn with(mut base: Value, over: Value) -> Value {
    lay(&mut base, over);
    base
}

fn lay(base: &mut Value, over: Value) {
    let Value::Object(fields) = over else {
        *base = over;
        return;
    };
    if !base.is_object() {
        *base = json!({});
    }
    for (field, value) in fields {
        lay(&mut base[&field], value);
    }
}

/// A running pod on `node-a`.
pub(crate) fn pod(name: &str, ip: &str) -> Value {
    json!({
        "metadata": {
            "name": name, "namespace": NAMESPACE, "uid": format!("uid-{name}"),
            "creationTimestamp": "2026-11-01T00:00:00Z",
            "managedFields": [{"manager": "kubelet", "operation": "Update"}],
        },
        "spec": {
            "nodeName": "node-a", "serviceAccountName": "web",
            "containers": [{"name": "app", "ports": [{"name": "http", "containerPort": 8080}]}],
        },
        "status": {"phase": "Running", "podIP": ip, "podIPs": [{"ip": ip}]},
    })
}

/// What the webhook makes of a pod, as far as the operator looks at it.
pub(crate) fn injected(pod: Value, mesh: &str) -> Value {
    with(
        pod,
        json!({
            "metadata": {
                "labels": {"linkerd.io/control-plane-ns": "kuma-system"},
                "annotations": {"kuma.io/sidecar-injected": "true", "kuma.io/mesh": mesh},
            },
            "spec": {"initContainers": [
                {"name": "kuma-init", "args": ["init", "--exclude-inbound-ports=7000-7010"]},
                {"name": "kuma-sidecar", "restartPolicy": "Always", "env": [{"name": "WEIR_SETTINGS", "value": "{}"}]},
            ]},
        }),
    )
}

/// A Service `name` with port `http`, 80 to 8080.
pub(crate) fn service(name: &str, ip: &str) -> Value {
    json!({
        "metadata": {"name": name, "namespace": NAMESPACE},
        "spec": {
            "clusterIP": ip, "clusterIPs": [ip], "ipFamilies": ["IPv4"], "type": "ClusterIP",
            "selector": {"app": name},
            "ports": [{"name": "http", "port": 80, "targetPort": 8080, "protocol": "TCP"}],
        },
    })
}

/// A slice of a Service with port `http`, 8080.
pub(crate) fn slice(name: &str, service: &str, endpoints: Vec<Value>) -> Value {
    json!({
        "metadata": {
            "name": name, "namespace": NAMESPACE,
            "labels": {"kubernetes.io/service-name": service},
        },
        "addressType": "IPv4",
        "ports": [{"name": "http", "port": 8080, "protocol": "TCP"}],
        "endpoints": endpoints,
    })
}

/// A ready endpoint that is a pod on `node-a` in zone `east`.
pub(crate) fn endpoint(pod: &str, ip: &str) -> Value {
    json!({
        "addresses": [ip], "nodeName": "node-a", "zone": "east",
        "conditions": {"ready": true, "serving": true, "terminating": false},
        "targetRef": {"kind": "Pod", "name": pod, "namespace": NAMESPACE},
    })
}

/// A Mesh whose proxies have identities.
pub(crate) fn secure_mesh(name: &str) -> Value {
    json!({
        "metadata": {"name": name},
        "spec": {"mtls": {
            "enabledBackend": "ca", "backends": [{"name": "ca", "type": "builtin", "mode": "STRICT"}],
        }},
    })
}

pub(crate) fn node(name: &str, zone: &str) -> Value {
    json!({"metadata": {"name": name, "labels": {
        "topology.kubernetes.io/zone": zone, "topology.kubernetes.io/region": "north",
    }}})
}

/// Without the fields that are null: the API server writes none.
fn pruned(object: Value) -> Value {
    match object {
        Value::Object(fields) => {
            let said = fields.into_iter().filter(|(_, value)| !value.is_null());
            said.map(|(key, value)| (key, pruned(value))).collect()
        }
        other => other,
    }
}

fn read<T: serde::de::DeserializeOwned>(object: Value) -> T {
    serde_json::from_value(pruned(object)).unwrap()
}

impl Scene {
    pub(crate) fn pod(&mut self, object: Value) {
        let kept = self.index.keep_pod(read(object));
        self.index.apply(kept);
    }

    pub(crate) fn delete_pod(&mut self, object: Value) {
        let kept = self.index.keep_pod(read(object));
        self.index.delete(&kept);
    }

    pub(crate) fn service(&mut self, object: Value) {
        let kept = self.index.keep_service(read(object));
        self.index.apply(kept);
    }

    pub(crate) fn delete_service(&mut self, object: Value) {
        let kept = self.index.keep_service(read(object));
        self.index.delete(&kept);
    }

    pub(crate) fn slice(&mut self, object: Value) {
        let kept = self.index.keep_slice(read(object));
        self.index.apply(kept);
    }

    pub(crate) fn delete_slice(&mut self, object: Value) {
        let kept = self.index.keep_slice(read(object));
        self.index.delete(&kept);
    }

    pub(crate) fn profile(&mut self, object: Value) {
        let kept = self.index.keep_profile(&read(object));
        self.index.apply(kept);
    }

    pub(crate) fn delete_profile(&mut self, object: Value) {
        let kept = self.index.keep_profile(&read(object));
        self.index.delete(&kept);
    }

    pub(crate) fn route(&mut self, object: Value) {
        let kept = self.index.keep_route(&read(object));
        self.index.apply(kept);
    }

    pub(crate) fn delete_route(&mut self, object: Value) {
        let kept = self.index.keep_route(&read(object));
        self.index.delete(&kept);
    }

    pub(crate) fn node(&mut self, object: Value) {
        let kept = self.index.keep_node(&read(object));
        self.index.apply(kept);
    }

    pub(crate) fn mesh(&mut self, object: Value) {
        self.index.apply(read::<weir_crds::Mesh>(object));
    }

    /// Every kind listed, nothing there: the index answers.
    pub(crate) fn list_nothing(&mut self) {
        use weir_operator::index::{HttpRoute, Node, Pod, Service, ServiceProfile, Slice};
        self.index.reset(Vec::<ServiceProfile>::new());
        self.index.reset(Vec::<HttpRoute>::new());
        self.index.reset(Vec::<Pod>::new());
        self.index.reset(Vec::<Service>::new());
        self.index.reset(Vec::<Slice>::new());
        self.index.reset(Vec::<Node>::new());
        self.index.reset(Vec::<weir_crds::Mesh>::new());
    }

    /// The view of a Service's port.
    pub(crate) fn view(&self, service: &str, port: u16) -> ServiceView {
        (*self.index.service(key(service), port).latest()).clone()
    }

    /// What stands behind `ip:port`.
    pub(crate) fn behind(&self, address: &str) -> Profile {
        let address: std::net::SocketAddr = address.parse().unwrap();
        (*self.index.address(address.ip(), address.port()).latest()).clone()
    }

    /// The one pod behind `ip:port`.
    pub(crate) fn pod_behind(&self, address: &str) -> Endpoint {
        match self.behind(address) {
            Profile::Endpoint(endpoint) => *endpoint,
            other => panic!("{address} is {other:?}"),
        }
    }
}

/// The addresses that a client is given.
pub(crate) fn given(view: &ServiceView, client: &Caller) -> Vec<String> {
    let endpoints = view.endpoints_for(client, None);
    endpoints
        .iter()
        .map(|one| one.address.to_string())
        .collect()
}

/// The addresses of a client that says nothing of itself.
pub(crate) fn anyones(view: &ServiceView) -> Vec<String> {
    given(view, &Caller::default())
}
