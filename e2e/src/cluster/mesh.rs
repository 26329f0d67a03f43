//! A Mesh of a story's own, so that others are not touched: with mutual TLS, permissions, and pods whose proxies have
//! their certificates. Used by the stories; all of it goes with the story's namespace.

use std::time::Duration;

use anyhow::{Context as _, ensure};
use k8s_openapi::api::core::v1::{Namespace, Pod, ServiceAccount};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::api::{Api, DeleteParams, PostParams};
use serde_json::{Value, json};
use weir_crds::mesh::MeshSpec;
use weir_crds::names;
use weir_crds::traffic_permission::TrafficPermissionSpec;
use weir_crds::{Dataplane, Mesh, TrafficPermission};

use super::pod::container_status;
use super::{Story, eventually};

/// How long the operator may take over anything on a busy machine.
const LIMIT: Duration = Duration::from_secs(30);

/// The name of a Mesh's one authority.
pub const BACKEND: &str = "ca-1";

impl Story {
    /// Creates a Mesh of the namespace's name with mutual TLS in that mode (`PERMISSIVE`, `STRICT`), whose certificates
    /// live so long, and waits until it is in force. Pods join it by [`super::Workload::mesh`].
    pub async fn mesh(&self, mode: &str, life: &str) -> anyhow::Result<()> {
        let backend = json!({
            "name": BACKEND, "type": "builtin", "mode": mode,
            "dpCert": {"rotation": {"expiration": life}},
        });
        let mut spec = MeshSpec::initial().0;
        // Stories read the metrics from outside of the Mesh.
        spec["metrics"]["backends"][0]["conf"]["tls"] = json!({"mode": "disabled"});
        spec["mtls"] = json!({"enabledBackend": BACKEND, "backends": [backend]});
        let mut mesh = Mesh::new(&self.namespace, MeshSpec(spec));
        mesh.metadata.owner_references = Some(vec![self.owner().await?]);
        let meshes = Api::<Mesh>::all(self.cluster.client.clone());
        meshes.create(&PostParams::default(), &mesh).await?;
        eventually("the Mesh is ready", LIMIT, async || {
            let mesh = meshes.get(&self.namespace).await?;
            let conditions = mesh.status.unwrap_or_default().conditions;
            let holds = |type_: &str| {
                let mut conditions = conditions.iter();
                conditions.any(|one| one.type_ == type_ && one.status == "True")
            };
            ensure!(
                holds("Ready") && holds("InitialPolicies"),
                "its conditions are {conditions:?}"
            );
            Ok(())
        })
        .await
    }

    /// Creates a TrafficPermission in the story's Mesh and gives its whole name: permissions have no namespace.
    pub async fn permit(&self, name: &str, from: &str, to: &str) -> anyhow::Result<String> {
        let name = format!("{}.{name}", self.namespace);
        let service = |service: &str| json!([{"match": {names::SERVICE_TAG: service}}]);
        let spec = json!({"sources": service(from), "destinations": service(to)});
        let mut permission = TrafficPermission::new(&name, TrafficPermissionSpec(spec));
        permission.mesh = Some(self.namespace.clone());
        permission.metadata.owner_references = Some(vec![self.owner().await?]);
        let permissions = Api::all(self.cluster.client.clone());
        permissions
            .create(&PostParams::default(), &permission)
            .await?;
        Ok(name)
    }

    /// Deletes a TrafficPermission by its whole name.
    pub async fn forbid(&self, permission: &str) -> anyhow::Result<()> {
        let permissions = Api::<TrafficPermission>::all(self.cluster.client.clone());
        permissions
            .delete(permission, &DeleteParams::default())
            .await?;
        Ok(())
    }

    /// Cluster-wide objects go with the namespace.
    async fn owner(&self) -> anyhow::Result<OwnerReference> {
        let namespaces = Api::<Namespace>::all(self.cluster.client.clone());
        let namespace = namespaces.get(&self.namespace).await?;
        Ok(OwnerReference {
            api_version: "v1".to_owned(),
            kind: "Namespace".to_owned(),
            name: self.namespace.clone(),
            uid: namespace.metadata.uid.context("it has no uid")?,
            ..OwnerReference::default()
        })
    }

    /// Creates a ServiceAccount.
    pub async fn account(&self, name: &str) -> anyhow::Result<()> {
        let account = json!({"metadata": {"name": name}});
        let account: ServiceAccount = serde_json::from_value(account)?;
        self.create(&account).await?;
        Ok(())
    }

    /// The name in the certificates of a ServiceAccount's pods.
    pub fn identity(&self, account: &str) -> String {
        let (namespace, system) = (&self.namespace, names::SYSTEM_NAMESPACE);
        format!("{account}.{namespace}.serviceaccount.identity.{system}.cluster.local")
    }

    /// Waits until the proxies of these pods have certificates.
    pub async fn certified(&self, pods: &[&str]) -> anyhow::Result<()> {
        for pod in pods {
            eventually(&format!("a certificate of {pod}"), LIMIT, async || {
                let taken = self.renewals(pod).await?;
                ensure!(taken >= 1.0, "{taken} were taken");
                Ok(())
            })
            .await?;
        }
        Ok(())
    }

    /// How many certificates the proxy of a pod has taken.
    pub async fn renewals(&self, pod: &str) -> anyhow::Result<f64> {
        Ok(self
            .scrape(pod)
            .await?
            .sum("identity_cert_refresh_count", &[]))
    }

    /// The tag `kuma.io/service` of a pod, once the operator has written its Dataplane.
    pub async fn service_of(&self, pod: &str) -> anyhow::Result<String> {
        let dataplanes = self.api::<Dataplane>();
        eventually(&format!("the Dataplane of {pod}"), LIMIT, async || {
            let dataplane = dataplanes.get(pod).await?;
            let tags = &dataplane.spec.0["networking"]["inbound"][0]["tags"];
            let service: &Value = &tags[names::SERVICE_TAG];
            let service = service.as_str().context("it has no service")?;
            Ok(service.to_owned())
        })
        .await
    }

    /// Runs `weir-app` in a pod's container `app` and gives what it prints; an error when it fails.
    pub async fn run_in(&self, pod: &str, args: &[&str]) -> anyhow::Result<String> {
        let exec = ["--namespace", &self.namespace, "exec", pod];
        let app = ["--container", "app", "--", "/weir-app"];
        let command = [exec.as_slice(), &app, args].concat();
        self.cluster.kubectl(&command, "").await
    }

    /// Runs a command of the node in the network of a pod.
    pub async fn in_network_of(&self, pod: &str, command: &[&str]) -> anyhow::Result<String> {
        let found = self.api::<Pod>().get(pod).await?;
        let status = container_status(&found, "app").context("it has no container app")?;
        let id = status.container_id.as_deref().context("it does not run")?;
        let id = id.trim_start_matches("containerd://");
        let list = ["ctr", "--namespace", "k8s.io", "tasks", "list"];
        let tasks = self.cluster.node(&list).await?;
        let task = tasks.lines().find(|line| line.starts_with(id));
        let process = task.and_then(|line| line.split_whitespace().nth(1));
        let process = process.with_context(|| format!("no task of {pod} in {tasks}"))?;
        let enter = ["nsenter", "--net", "--target", process];
        let command = [enter.as_slice(), command].concat();
        self.cluster.node(&command).await
    }
}
