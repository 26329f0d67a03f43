//! Pods of the stories, described by what matters to a story and made into a Pod, a Deployment, a Job
//! or a Service. Used by the stories; every container is `weir-app:dev`.

use std::collections::BTreeMap;

use k8s_openapi::api::apps::v1::{DaemonSet, Deployment, ReplicaSet, StatefulSet};
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::{Pod, ReplicationController, Service};
use serde::de::DeserializeOwned;
use serde_json::{Map, Value, json};
use weir_crds::names;

/// The image of every role of `weir-app`.
const IMAGE: &str = "weir-app:dev";

/// What a pod of a story is.
#[derive(Clone, Debug)]
pub struct Workload {
    name: String,
    labels: BTreeMap<String, String>,
    annotations: BTreeMap<String, String>,
    args: Vec<String>,
    probes: Map<String, Value>,
    init: Vec<Value>,
    companions: Vec<Value>,
    spec: Map<String, Value>,
}

fn container(name: &str, args: &[String]) -> Value {
    json!({
        "name": name, "image": IMAGE, "imagePullPolicy": "Never", "args": args,
        "securityContext": {"allowPrivilegeEscalation": false, "capabilities": {"drop": ["ALL"]}},
        "env": [{"name": "POD_IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}}],
    })
}

fn typed<T: DeserializeOwned>(document: Value) -> T {
    serde_json::from_value(document).expect("the document has the shape of its kind")
}

fn owned(args: &[&str]) -> Vec<String> {
    args.iter().map(|&argument| argument.to_owned()).collect()
}

impl Workload {
    /// A pod with the label `app` whose one container, `app`, runs `weir-app` with these arguments, in
    /// which `$(POD_IP)` is the pod's address.
    pub fn new(name: &str, args: &[&str]) -> Self {
        Self {
            name: name.to_owned(),
            labels: BTreeMap::from([("app".to_owned(), name.to_owned())]),
            annotations: BTreeMap::new(),
            args: owned(args),
            probes: Map::new(),
            init: Vec::new(),
            companions: Vec::new(),
            spec: Map::new(),
        }
    }

    /// A web server on 8080 that is ready once it answers.
    pub fn web(name: &str) -> Self {
        Self::new(name, &["web"]).probe(
            "readinessProbe",
            json!({"httpGet": {"path": "/ok", "port": 8080}, "periodSeconds": 1}),
        )
    }

    pub fn label(mut self, key: &str, value: &str) -> Self {
        self.labels.insert(key.to_owned(), value.to_owned());
        self
    }

    pub fn annotation(mut self, key: &str, value: &str) -> Self {
        self.annotations.insert(key.to_owned(), value.to_owned());
        self
    }

    /// Takes the pod into a Mesh.
    pub fn mesh(self, mesh: &str) -> Self {
        self.annotation(names::MESH, mesh)
    }

    /// Gives the pod a ServiceAccount of its own.
    pub fn account(mut self, name: &str) -> Self {
        self.spec.insert("serviceAccountName".into(), json!(name));
        self
    }

    /// Leaves the pod without a proxy.
    pub fn without_proxy(self) -> Self {
        self.label(names::INJECTION, "disabled")
    }

    /// Puts the pod on the node's network.
    pub fn on_the_host(mut self) -> Self {
        self.spec.insert("hostNetwork".into(), json!(true));
        self
    }

    /// Is what the Pod Security level `restricted` allows.
    pub fn restricted(mut self) -> Self {
        let context = json!({"runAsNonRoot": true, "seccompProfile": {"type": "RuntimeDefault"}});
        self.spec.insert("securityContext".into(), context);
        self
    }

    /// Stays for so many seconds once the pod is to end, until nobody sends it anything more.
    pub fn ending_slowly(self, seconds: u8) -> Self {
        self.probe(
            "lifecycle",
            json!({"preStop": {"sleep": {"seconds": seconds}}}),
        )
    }

    /// Adds a container that runs as root with these capabilities.
    pub fn companion(mut self, name: &str, args: &[&str], capabilities: &[&str]) -> Self {
        let mut companion = container(name, &owned(args));
        companion["securityContext"] =
            json!({"runAsUser": 0, "capabilities": {"add": capabilities}});
        self.companions.push(companion);
        self
    }

    /// Adds a probe of the container `app`, by the name of its field.
    pub fn probe(mut self, field: &str, probe: Value) -> Self {
        self.probes.insert(field.to_owned(), probe);
        self
    }

    /// Adds an init container of the user's.
    pub fn init(mut self, name: &str, args: &[&str]) -> Self {
        self.init.push(container(name, &owned(args)));
        self
    }

    /// Adds what injection adds, doing nothing: an init container that ends at once, and a native sidecar
    /// that ends when it is told to. What the kubelet takes for those is not Weir's doing.
    pub fn idle_companions(mut self) -> Self {
        self = self.init("idle-init", &["sleep", "0"]);
        let mut sidecar = container("idle-sidecar", &owned(&["sleep", "3600"]));
        sidecar["restartPolicy"] = json!("Always");
        self.init.push(sidecar);
        self
    }

    fn template(&self, restart: &str) -> Value {
        let mut app = container("app", &self.args);
        if let Some(fields) = app.as_object_mut() {
            fields.extend(self.probes.clone());
        }
        let mut containers = vec![app];
        containers.extend(self.companions.clone());
        let mut template = json!({
            "metadata": {"labels": self.labels, "annotations": self.annotations},
            "spec": {
                "containers": containers,
                "initContainers": self.init,
                "restartPolicy": restart,
                "terminationGracePeriodSeconds": 3,
            },
        });
        if let Some(fields) = template["spec"].as_object_mut() {
            fields.extend(self.spec.clone());
        }
        template
    }

    fn bare(&self, restart: &str) -> Pod {
        let mut document = self.template(restart);
        document["metadata"]["name"] = json!(self.name);
        typed(document)
    }

    /// A pod of this name that runs until it is deleted.
    pub fn pod(&self) -> Pod {
        self.bare("Always")
    }

    /// A pod of this name that runs once.
    pub fn task(&self) -> Pod {
        self.bare("Never")
    }

    pub fn deployment(&self) -> Deployment {
        typed(self.controller(json!({"replicas": 1})))
    }

    /// A Deployment of so many pods.
    pub fn scaled(&self, replicas: u16) -> Deployment {
        typed(self.controller(json!({"replicas": replicas})))
    }

    pub fn replica_set(&self) -> ReplicaSet {
        typed(self.controller(json!({"replicas": 1})))
    }

    /// Its governing Service has its name.
    pub fn stateful_set(&self) -> StatefulSet {
        typed(self.controller(json!({"replicas": 1, "serviceName": self.name})))
    }

    pub fn daemon_set(&self) -> DaemonSet {
        typed(self.controller(json!({})))
    }

    pub fn replication_controller(&self) -> ReplicationController {
        let mut document = self.controller(json!({"replicas": 1}));
        document["spec"]["selector"] = json!({"app": self.name});
        typed(document)
    }

    /// What all kinds that keep pods have in common, with what this kind has beside it.
    fn controller(&self, mut spec: Value) -> Value {
        spec["selector"] = json!({"matchLabels": {"app": self.name}});
        spec["template"] = self.template("Always");
        json!({"metadata": {"name": self.name}, "spec": spec})
    }

    pub fn job(&self) -> Job {
        typed(json!({
            "metadata": {"name": self.name},
            "spec": {"backoffLimit": 0, "template": self.template("Never")},
        }))
    }

    /// A Service of this name on port 80 that leads to the container's port.
    pub fn service(&self, target: u16) -> Service {
        typed(json!({
            "metadata": {"name": self.name},
            "spec": {
                "selector": {"app": self.name},
                "ports": [{"port": 80, "targetPort": target}],
            },
        }))
    }
}
