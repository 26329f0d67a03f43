//! What to do about the Dataplane of an injected pod, and what its status says. Pure: called by the
//! writer in `apply` with what the index knows; it knows no client.

mod spec;

use std::fmt::Display;

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use serde_json::{Value, json};
use weir_crds::kubernetes::{MetricsEndpoint, Status};
use weir_crds::merge;
use weir_crds::names::{CLOSED_ROUTES, METRICS_PORT};
use weir_crds::settings::{MetricsSettings, MetricsTls};

pub use self::spec::{ConversionError, dataplane};
use super::{LONGEST_NOTE, Note};
use crate::index::{
    Container, Dataplane, Ingredients, Injected, MANAGED_BY, MANAGER, Pod, READY, content, status,
};

/// Reason of the event about a pod that has no Dataplane (Kuma's).
const FAILED: &str = "FailedToGenerateKumaDataplane";

/// What to do about the Dataplane of one pod.
#[derive(Clone, Debug, PartialEq)]
pub enum DataplaneChange {
    /// It is as it should be, or it is none of ours.
    Nothing,
    /// Apply this object.
    Apply(Value),
    /// Apply this status, and publish what moved.
    Status(Status, Option<Note>),
    /// The pod is done.
    Delete,
    /// The pod cannot be converted: tell it.
    Tell(Note),
}

/// Decides about the Dataplane of one pod. `zone` is the value of the tag `kuma.io/zone`.
#[must_use]
pub fn dataplane_change(
    ingredients: &Ingredients,
    zone: Option<&str>,
    now: Timestamp,
) -> DataplaneChange {
    let known = ingredients.known.as_ref();
    let is_users = known.is_some_and(|known| known.owner.is_none());
    // Without a pod the API server collects what it owned.
    let Some(pod) = ingredients.pod.as_ref() else {
        return DataplaneChange::Nothing;
    };
    let Some(injected) = pod.injected.as_ref().filter(|_| !pod.addresses.is_empty()) else {
        return match known.filter(|_| !is_users) {
            Some(_) => DataplaneChange::Delete,
            None => DataplaneChange::Nothing,
        };
    };
    if is_users {
        return DataplaneChange::Tell(taken(pod));
    }
    // Its namespace may be ending with it, and admit no new one.
    if pod.terminating && known.is_none() {
        return DataplaneChange::Nothing;
    }
    let spec = match dataplane(ingredients, zone) {
        Ok(spec) => spec,
        Err(error) => return DataplaneChange::Tell(failed(error)),
    };
    let mesh = pod.workload.mesh.as_deref();
    match known.filter(|known| {
        is_current(
            known,
            injected,
            content(mesh, &spec, injected.closed_routes),
        )
    }) {
        None => DataplaneChange::Apply(object(pod, injected, spec)),
        Some(known) => status_change(ingredients, pod, known, now),
    }
}

fn is_current(known: &Dataplane, injected: &Injected, wanted: u64) -> bool {
    known.content == wanted && known.owner.as_ref() == Some(&injected.uid)
}

fn failed(why: impl Display) -> Note {
    Note {
        is_warning: true,
        reason: FAILED,
        text: super::shorten(
            format!("Failed to generate Kuma Dataplane: {why}"),
            LONGEST_NOTE,
        ),
    }
}

/// Its name is taken by what somebody else wrote, from which nothing for the pod follows.
fn taken(pod: &Pod) -> Note {
    failed(format_args!(
        "Dataplane {} is somebody else's and left alone: delete it, and the pod gets its own, with settings and a certificate",
        pod.workload.pod.name
    ))
}

fn object(pod: &Pod, injected: &Injected, spec: Value) -> Value {
    let key = &pod.workload.pod;
    let mut object = json!({
        "apiVersion": "kuma.io/v1alpha1",
        "kind": "Dataplane",
        "metadata": {
            "name": *key.name,
            "namespace": *key.namespace,
            "labels": {MANAGED_BY: MANAGER},
            "ownerReferences": [{
                "apiVersion": "v1", "kind": "Pod", "name": *key.name, "uid": *injected.uid,
                "controller": true,
            }],
        },
        "mesh": pod.workload.mesh.as_deref(),
        "spec": spec,
    });
    if injected.closed_routes {
        object["metadata"]["annotations"] = json!({CLOSED_ROUTES: "true"});
    }
    object
}

fn status_change(
    ingredients: &Ingredients,
    pod: &Pod,
    known: &Dataplane,
    now: Timestamp,
) -> DataplaneChange {
    let verdict = verdict(ingredients, pod);
    let since = known.ready.filter(|(ready, _)| *ready == verdict.ready);
    let since = since.and_then(|(_, since)| Timestamp::from_second(since).ok());
    let wanted = Status {
        conditions: vec![Condition {
            last_transition_time: Time(since.unwrap_or(super::whole_seconds(now))),
            message: verdict.message.clone(),
            observed_generation: None,
            reason: verdict.reason.to_owned(),
            status: if verdict.ready { "True" } else { "False" }.to_owned(),
            type_: READY.to_owned(),
        }],
        metrics: verdict.metrics,
    };
    if status(&wanted) == known.status {
        return DataplaneChange::Nothing;
    }
    let note = (!verdict.ready).then(|| Note {
        is_warning: true,
        reason: verdict.reason,
        text: super::shorten(verdict.message, LONGEST_NOTE),
    });
    DataplaneChange::Status(wanted, note)
}

/// What a Dataplane's status says.
struct Verdict {
    ready: bool,
    reason: &'static str,
    message: String,
    metrics: Option<MetricsEndpoint>,
}

impl Verdict {
    fn new(ready: bool, reason: &'static str, message: String) -> Self {
        Self {
            ready,
            reason,
            message,
            metrics: None,
        }
    }
}

fn verdict(ingredients: &Ingredients, pod: &Pod) -> Verdict {
    let mesh = pod.workload.mesh.as_deref().unwrap_or_default();
    let Some(injected) = &pod.injected else {
        return Verdict::new(false, "NotInjected", "the pod has no proxy".to_owned());
    };
    let Some(spec) = ingredients.mesh.as_ref().map(|mesh| &mesh.spec) else {
        let message =
            format!("Mesh {mesh} does not exist: create it, or name another in kuma.io/mesh");
        return Verdict::new(false, "MeshNotFound", message);
    };
    let over = spec::metrics_override(injected).ok();
    let Some(metrics) = merge::settings(mesh, spec, over.as_ref()).metrics else {
        return Verdict::new(true, "NoMetrics", format!("Mesh {mesh} exposes no metrics"));
    };
    if metrics.tls == MetricsTls::ProvidedTls {
        let message = "tls mode providedTLS of the metrics is not served by this version: choose activeMTLSBackend or disabled";
        return Verdict::new(false, "ProvidedTLSNotServed", message.to_owned());
    }
    if let Some(message) = clash(injected, &metrics) {
        return Verdict::new(false, "MetricsPortClash", message);
    }
    let address = pod.addresses.first().map(|ip| (*ip, metrics.port).into());
    let address = address.map(|address: std::net::SocketAddr| address.to_string());
    let endpoint = MetricsEndpoint {
        address: address.unwrap_or_default(),
        path: metrics.path,
    };
    let message = format!(
        "metrics are exposed at {}{}",
        endpoint.address, endpoint.path
    );
    Verdict {
        metrics: Some(endpoint),
        ..Verdict::new(true, "InForce", message)
    }
}

/// An application that has the metrics port: it keeps it, and the endpoint stays closed.
fn clash(injected: &Injected, metrics: &MetricsSettings) -> Option<String> {
    let has = |container: &&Container| {
        container
            .ports
            .iter()
            .any(|(_, port)| *port == metrics.port)
    };
    let container = injected.containers.iter().find(has)?;
    Some(format!(
        "metrics port {} is container {}'s: choose another with the annotation {METRICS_PORT}",
        metrics.port, container.name
    ))
}
