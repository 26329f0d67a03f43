//! A proxy that cannot start as it should holds up nothing of its pod.

use std::time::Duration;

use anyhow::ensure;
use k8s_openapi::api::core::v1::Container;
use weir_crds::{env, names};
use weir_e2e::cluster::Workload;
use weir_e2e::cluster::pod::{ip, name};

use crate::altered::injected_with;
use crate::beside_others;

/// As when a webhook of another release has written what this proxy does not understand.
#[tokio::test]
async fn a_proxy_with_wrong_settings_measures_with_its_defaults() -> anyhow::Result<()> {
    beside_others("wrong-settings", async |story| {
        let pod = Workload::web("web").pod();
        let pod = injected_with(story, &pod, |spec, mut sidecar| {
            let settings = sidecar.env.iter_mut().flatten();
            for variable in settings.filter(|variable| variable.name == env::SETTINGS) {
                variable.value = Some("{".to_owned());
            }
            spec.init_containers.get_or_insert_default().push(sidecar);
        });
        let web = story.start(&pod.await?).await?;
        let log = story.log(name(&web), names::SIDECAR).await?;
        ensure!(
            log.contains("WEIR_SETTINGS: "),
            "it does not say why: {log}"
        );
        let url = format!("http://{}:8080/ok", ip(&web));
        let get = Workload::new("get", &["get", &url]).task();
        let output = story.output_of(&get, Duration::from_secs(30)).await?;
        ensure!(output.trim() == "200 ok", "it printed '{output}'");
        let requests = story.scrape(name(&web)).await?.sum("request_total", &[]);
        ensure!(requests == 1.0, "{requests} requests were measured");
        Ok(())
    })
    .await
}

/// As when another sidecar has taken the port. The application's probe goes by way of the proxy's admin port.
#[tokio::test]
async fn a_proxy_that_cannot_listen_holds_up_nothing() -> anyhow::Result<()> {
    beside_others("cannot-listen", async |story| {
        let pod = Workload::web("web").pod();
        let pod = injected_with(story, &pod, |spec, mut sidecar| {
            // An address of nobody (RFC 5737).
            let args = sidecar.args.get_or_insert_default();
            args.push("--inbound-addr=192.0.2.1:4143".to_owned());
            for word in hook(&mut sidecar).filter(|word| word.starts_with("--timeout=")) {
                *word = "--timeout=1s".to_owned();
            }
            spec.init_containers.get_or_insert_default().push(sidecar);
        });
        let web = story.start(&pod.await?).await?;
        let url = format!("http://{}:8080/ok", ip(&web));
        let get = Workload::new("get", &["get", &url]).task();
        let output = story.output_of(&get, Duration::from_secs(30)).await?;
        ensure!(output.trim() == "200 ok", "it printed '{output}'");
        let log = story.log(name(&web), names::SIDECAR).await?;
        ensure!(
            log.contains("192.0.2.1:4143") && log.contains("traffic goes direct"),
            "it does not say why: {log}"
        );
        Ok(())
    })
    .await
}

/// The words of the command that holds up what starts after a container.
fn hook(container: &mut Container) -> impl Iterator<Item = &mut String> {
    let lifecycle = container.lifecycle.iter_mut();
    let hooks = lifecycle.filter_map(|lifecycle| lifecycle.post_start.as_mut());
    hooks
        .filter_map(|hook| hook.exec.as_mut()?.command.as_mut())
        .flatten()
}
