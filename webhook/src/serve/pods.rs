//! The review of a pod: decide, inject, and the difference as a JSON Patch.
//! Called by `serve` for `/inject`. It looks the surroundings up and leaves the rules to `decide` and `inject`.

use serde_json::Value;
use tracing::info;
use weir_crds::names;

use super::Service;
use crate::{
    cluster::LookupError,
    decide::{Decision, Defaults, Skip, decide, is_ours},
    inject::{self, Context, Operator},
    namespace::Namespace,
    pod::Pod,
    refusal::Refusal,
    review::{Answer, Request},
};

/// A pod as it should be and what its author should hear, or why it is refused.
type Changed = Result<(Value, Vec<String>), Refusal>;

/// Answers a review of a pod's creation; everything else is admitted as it is.
pub(super) async fn inject(service: &Service, request: &Request) -> Result<Answer, LookupError> {
    let is_pod = request.kind.group.is_empty() && request.kind.kind == "Pod";
    let part = request.sub_resource.as_deref().unwrap_or_default();
    if !is_pod || !part.is_empty() || request.operation != "CREATE" {
        return Ok(Answer::unchanged());
    }
    let namespace = request.namespace.as_deref().unwrap_or("default");
    let namespace = service.cluster.namespace(namespace).await?;
    let changed = match Pod::parse(request.object.clone()) {
        Err(error) => Err(Refusal::NotAPod(error.to_string())),
        Ok(pod) => change(service, pod, &namespace).await?,
    };
    Ok(match changed {
        Ok((pod, warnings)) => {
            let patch = json_patch::diff(&request.object, &pod);
            let warnings = warnings
                .iter()
                .map(|warning| format!("weir: {warning}"))
                .collect();
            Answer::Allowed { patch, warnings }
        }
        Err(refusal) => {
            service.metrics.decided("refused", refusal.class());
            Answer::Denied(refusal.violations())
        }
    })
}

async fn change(
    service: &Service,
    pod: Pod,
    namespace: &Namespace,
) -> Result<Changed, LookupError> {
    let defaults = Defaults {
        native_sidecars: service.cluster.native_sidecars()?,
        redirection: service.config.redirection,
        pod_security: service.config.pod_security_default,
    };
    match decide(&pod, namespace, &defaults) {
        Err(refusal) => Ok(Err(refusal)),
        Ok(Decision::Leave) => {
            service.metrics.decided("left", "not_asked");
            Ok(Ok((unredirected(pod).into_value(), Vec::new())))
        }
        Ok(Decision::Skip(skip)) => {
            service.metrics.decided("skipped", skip.class());
            info!(namespace = namespace.name, pod = pod.name(), reason = %skip, "skipped");
            Ok(Ok(skipped(pod, &skip)))
        }
        Ok(Decision::Inject(by)) => {
            injected(service, pod, (namespace, &by), defaults.native_sidecars).await
        }
    }
}

/// A pod without the annotation by which the CNI plugin would redirect it to a proxy that it does not have, as a copy of
/// an injected pod may carry.
fn unredirected(mut pod: Pod) -> Pod {
    if !pod.find_container(names::SIDECAR).is_some_and(is_ours) {
        pod.remove_annotation(names::INIT_ARGUMENTS);
    }
    pod
}

fn skipped(pod: Pod, skip: &Skip) -> (Value, Vec<String>) {
    let mut pod = unredirected(pod);
    pod.set_annotation(names::DECISION, &format!("skipped: {skip}"));
    let warning = skip
        .is_a_surprise()
        .then(|| format!("not injected: {skip}"));
    (pod.into_value(), warning.into_iter().collect())
}

async fn injected(
    service: &Service,
    pod: Pod,
    (namespace, asked_by): (&Namespace, &str),
    native_sidecars: bool,
) -> Result<Changed, LookupError> {
    let (mesh, field) = inject::mesh_of(&pod, namespace);
    let Some(spec) = service.cluster.mesh(&mesh).await? else {
        return Ok(Err(Refusal::UnknownMesh { field, name: mesh }));
    };
    let authority = service.cluster.operator_ca();
    let operator = authority.as_deref().map(|authority| Operator {
        url: &service.config.control_plane_url,
        authority,
    });
    let context = Context {
        namespace,
        asked_by,
        mesh: &mesh,
        spec: &spec,
        native_sidecars,
        config: &service.config,
        operator,
    };
    Ok(inject::inject(pod, &context).map(|injected| {
        service.metrics.decided("injected", "asked");
        info!(
            namespace = namespace.name,
            pod = injected.pod.name(),
            mesh,
            "injected"
        );
        (injected.pod.into_value(), injected.warnings)
    }))
}
