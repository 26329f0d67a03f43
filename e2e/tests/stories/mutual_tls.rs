//! Mutual TLS between two proxies: both sides name each other, nothing of the application is on the wire in the clear,
//! a server that speaks first is not mistaken over a long way, and who may not connect reaches no application.

use std::time::Duration;

use anyhow::{Context as _, ensure};
use weir_e2e::app::{Report, Sight};
use weir_e2e::cluster::pod::{ip, name};
use weir_e2e::cluster::{Story, Workload, eventually};
use weir_e2e::exposition::Scrape;

use crate::beside_others;

/// Requests, and connections, of the story about names.
const FEW: usize = 30;
/// Connections over the long way.
const MANY: usize = 1000;
/// How long the way is, and how many packets' queue it is.
const WAY: Duration = Duration::from_millis(20);
const QUEUE: &str = "7";
/// What is said with mutual TLS and without.
const SECRET: &str = "weir-secret";
const OPEN: &str = "weir-open";
const COUNTED: Duration = Duration::from_secs(10);

#[tokio::test]
async fn both_sides_name_each_other() -> anyhow::Result<()> {
    beside_others("mutual-tls", async |story| {
        story.mesh("PERMISSIVE", "24h").await?;
        let member = |workload: Workload, account| workload.mesh(&story.namespace).account(account);
        for account in ["web", "greeter", "client"] {
            story.account(account).await?;
        }
        let web = member(Workload::web("web"), "web");
        let greeter = member(Workload::new("greeter", &["server-first"]), "greeter");
        let client = member(Workload::new("client", &["sleep", "600"]), "client");
        story.create(&web.service(8080)).await?;
        story.create(&greeter.service(9001)).await?;
        // Of no Service: it is called by its address, at a port that no resource describes.
        let lonely = member(Workload::web("lonely"), "web");
        let (web, greeter, client) = (web.pod(), greeter.pod(), client.pod());
        let lonely = lonely.pod();
        let (_, _, _, lonely) = tokio::try_join!(
            story.start(&web),
            story.start(&greeter),
            story.start(&client),
            story.start(&lonely)
        )?;
        let pods = ["web", "greeter", "client", "lonely"];
        story.certified(&pods).await?;

        let count = FEW.to_string();
        let bot = ["bot", "http://web/ok", "--requests", &count];
        succeeds(&story.run_in("client", &bot).await?, FEW)?;
        let greeted = ["greeted", "greeter:80", "--count", &count];
        succeeds(&story.run_in("client", &greeted).await?, FEW)?;
        let url = format!("http://{}:8080/ok", ip(&lonely));
        let bot = ["bot", &url, "--requests", &count];
        succeeds(&story.run_in("client", &bot).await?, FEW)?;

        let seen = story.scrape("client").await?;
        let (web, greeter) = (story.identity("web"), story.identity("greeter"));
        let http = [("direction", "outbound"), ("authority", "web")];
        are_all(&seen, "request_total", &http, ("server_id", &web))?;
        let tcp = [
            ("direction", "outbound"),
            ("peer", "dst"),
            ("dst_service", "greeter"),
        ];
        are_all(&seen, "tcp_open_total", &tcp, ("server_id", &greeter))?;
        let client = story.identity("client");
        let http = [("direction", "inbound")];
        for pod in ["web", "lonely"] {
            let seen = story.scrape(pod).await?;
            are_all(&seen, "request_total", &http, ("client_id", &client))?;
        }
        let tcp = [("direction", "inbound"), ("peer", "src")];
        let seen = story.scrape("greeter").await?;
        are_all(&seen, "tcp_open_total", &tcp, ("client_id", &client))?;
        dataplanes_are_shown(story, &pods).await
    })
    .await
}

/// The report in what a client printed tells of so many successes and nothing else.
fn succeeds(printed: &str, count: usize) -> anyhow::Result<()> {
    let report = Report::parse(printed).with_context(|| format!("no report in {printed}"))?;
    ensure!(
        (report.sent, report.succeeded) == (count, count),
        "{report:?}"
    );
    Ok(())
}

/// All that the selected series count is [`FEW`], with mutual TLS and that peer.
fn are_all(
    scrape: &Scrape,
    family: &str,
    selected: &[(&str, &str)],
    peer: (&str, &str),
) -> anyhow::Result<()> {
    // Servers that the settings describe are there at 0 before anybody has come.
    let series: Vec<_> = scrape
        .select(family, selected)
        .filter(|one| one.value > 0.0)
        .collect();
    let total: f64 = series.iter().map(|one| one.value).sum();
    let secured = series.iter().all(|one| one.has(&[("tls", "true"), peer]));
    ensure!(
        total == FEW as f64 && secured,
        "{family}: {series:?} instead of {FEW} of {peer:?}"
    );
    Ok(())
}

/// `kubectl get dataplanes` has a line for each pod, with its Mesh and where its metrics are.
pub(crate) async fn dataplanes_are_shown(story: &Story, pods: &[&str]) -> anyhow::Result<()> {
    let get = ["--namespace", &story.namespace, "get", "dataplanes"];
    for pod in pods {
        let address = format!("{}:5670", ip(&story.ready(pod).await?));
        eventually("the Dataplane is shown", COUNTED, async || {
            let shown = story.cluster.kubectl(&get, "").await?;
            let line = shown
                .lines()
                .map(|line| line.split_whitespace().collect::<Vec<_>>())
                .find(|columns| columns.first() == Some(pod));
            let line = line.with_context(|| format!("{pod} is not in {shown}"))?;
            ensure!(
                line.contains(&story.namespace.as_str()) && line.contains(&address.as_str()),
                "{line:?} is without {address}"
            );
            Ok(())
        })
        .await?;
    }
    Ok(())
}

#[tokio::test]
async fn a_server_that_speaks_first_is_secured_over_a_long_way() -> anyhow::Result<()> {
    beside_others("mutual-tls-wire", async |story| {
        story.mesh("PERMISSIVE", "24h").await?;
        start_all(story).await?;
        story.certified(&["greeter", "client", "stranger"]).await?;
        lengthen(story).await?;

        let before = accepted(story).await?;
        let report = speak(story, ("client", "greeter"), SECRET, MANY).await?;
        println!("with mutual TLS: {report:?}");
        ensure!(report.succeeded == MANY, "{report:?}");
        let (secured, all) = accepted(story).await?;
        ensure!(
            secured - before.0 == MANY as f64 && secured == all,
            "{secured} of {all} were secured, {before:?} of them before"
        );

        // The same look at the same number of connections in the clear: it sees every one.
        let report = speak(story, ("plain", "plain-greeter"), OPEN, MANY).await?;
        ensure!(report.succeeded == MANY, "{report:?}");
        let sight = eventually("all that is open is seen", COUNTED, async || {
            let sight = Sight::parse(&story.log("capture", "sight").await?).context("none")?;
            ensure!(sight.seen.get(OPEN) == Some(&MANY), "{sight:?}");
            Ok(sight)
        })
        .await?;
        println!("on the wire: {sight:?}");
        ensure!(sight.seen.get(SECRET) == Some(&0), "{sight:?}");
        denied_before_the_application(story).await
    })
    .await
}

async fn start_all(story: &Story) -> anyhow::Result<()> {
    for account in ["greeter", "client", "stranger"] {
        story.account(account).await?;
    }
    let member = |workload: Workload, account| workload.mesh(&story.namespace).account(account);
    let server = |name| Workload::new(name, &["server-first"]);
    let idle = |name| Workload::new(name, &["sleep", "600"]);
    let greeter = member(server("greeter"), "greeter");
    let plain_greeter = server("plain-greeter").without_proxy();
    let milliseconds = WAY.as_millis().to_string();
    let hold = ["delay", "--queue", QUEUE, "--milliseconds", &milliseconds];
    let client = member(idle("client"), "client").companion("way", &hold, &["NET_ADMIN"]);
    let look = ["capture", "--marker", SECRET, "--marker", OPEN];
    let capture = idle("capture").on_the_host();
    let capture = capture.companion("sight", &look, &["NET_RAW", "NET_ADMIN"]);
    story.create(&greeter.service(9001)).await?;
    story.create(&plain_greeter.service(9001)).await?;
    let pods = [
        greeter.pod(),
        client.pod(),
        member(idle("stranger"), "stranger").pod(),
        plain_greeter.pod(),
        idle("plain").without_proxy().pod(),
        capture.pod(),
    ];
    for pod in &pods {
        story.create(pod).await?;
    }
    for pod in &pods {
        story.ready(name(pod)).await?;
    }
    Ok(())
}

/// Makes the way from the client to the greeter a long one, and shows that it is.
async fn lengthen(story: &Story) -> anyhow::Result<()> {
    let to = ip(&story.ready("greeter").await?).to_owned();
    let chain = [
        "iptables",
        "-t",
        "mangle",
        "-A",
        "POSTROUTING",
        "-o",
        "eth0",
    ];
    let queue = ["-d", &to, "-j", "NFQUEUE", "--queue-num", QUEUE];
    let rule = [chain.as_slice(), &queue].concat();
    story.in_network_of("client", &rule).await?;
    let args = ["first-byte", "greeter:80", "--count", "5"];
    let median = story.run_in("client", &args).await?;
    let median: u64 = median.trim().parse().context(median)?;
    println!("the first byte comes after {median} us");
    // The way is there in the connection's own handshake, and in that of TLS.
    let least = 2 * WAY.as_micros();
    ensure!(u128::from(median) >= least, "{median} us are not {least}");
    Ok(())
}

/// The connections that the greeter's proxy has accepted: of the client with mutual TLS, and all.
async fn accepted(story: &Story) -> anyhow::Result<(f64, f64)> {
    let (scrape, client) = (story.scrape("greeter").await?, story.identity("client"));
    let all = [("direction", "inbound"), ("peer", "src")];
    let secured = [("tls", "true"), ("client_id", client.as_str())];
    let secured = [all.as_slice(), &secured].concat();
    let count = |labels: &[_]| scrape.sum("tcp_open_total", labels);
    Ok((count(&secured), count(&all)))
}

async fn speak(
    story: &Story,
    (from, to): (&str, &str),
    marker: &str,
    count: usize,
) -> anyhow::Result<Report> {
    let (address, count) = (format!("{to}:80"), count.to_string());
    let args = ["greeted", &address, "--count", &count, "--marker", marker];
    let printed = story.run_in(from, &args).await?;
    Report::parse(&printed).with_context(|| format!("no report in {printed}"))
}

/// Once only the client may connect, nothing of the stranger comes to the application.
async fn denied_before_the_application(story: &Story) -> anyhow::Result<()> {
    let client = story.service_of("client").await?;
    let greeter = story.service_of("greeter").await?;
    speak(story, ("stranger", "greeter"), "stranger", 1).await?;
    story.permit("client-only", &client, &greeter).await?;
    eventually("the stranger is refused", COUNTED, async || {
        let report = speak(story, ("stranger", "greeter"), "stranger", 1).await?;
        ensure!(report.failed == 1, "it is not: {report:?}");
        Ok(())
    })
    .await?;
    let opened = opened(story).await?;
    let report = speak(story, ("stranger", "greeter"), "stranger", FEW).await?;
    ensure!(report.failed == FEW, "{report:?}");
    let now = self::opened(story).await?;
    ensure!(now == opened, "{opened} became {now}");
    let report = speak(story, ("client", "greeter"), SECRET, FEW).await?;
    ensure!(report.succeeded == FEW, "{report:?}");
    let (now, expected) = (self::opened(story).await?, opened + FEW);
    ensure!(now == expected, "{now} instead of {expected}");
    Ok(())
}

/// How many connections the greeter has accepted, by its own count.
async fn opened(story: &Story) -> anyhow::Result<usize> {
    let log = story.log("greeter", "app").await?;
    let accepted = log
        .lines()
        .filter(|line| line.starts_with("connection from"));
    Ok(accepted.count())
}
