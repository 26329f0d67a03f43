//! Pods as the webhook makes them, with their proxy changed: for stories of a pod that no webhook of ours makes.

use anyhow::Context as _;
use k8s_openapi::api::core::v1::{Container, Pod, PodSpec};
use weir_crds::names;
use weir_e2e::cluster::Story;

/// What injection makes of the pod, with the proxy taken out and given to `change`; to be created as it is.
pub(crate) async fn injected_with(
    story: &Story,
    pod: &Pod,
    change: impl FnOnce(&mut PodSpec, Container),
) -> anyhow::Result<Pod> {
    let injected = story.would_create(pod).await?;
    let mut spec = injected.spec.context("the API server gave no spec")?;
    let init = spec.init_containers.get_or_insert_default();
    let position = init
        .iter()
        .position(|container| container.name == names::SIDECAR);
    let sidecar = init.remove(position.context("the pod was not injected")?);
    change(&mut spec, sidecar);
    let mut pod = pod.clone();
    pod.spec = Some(spec);
    let labels = pod.metadata.labels.get_or_insert_default();
    labels.insert(names::INJECTION.to_owned(), "disabled".to_owned());
    Ok(pod)
}
