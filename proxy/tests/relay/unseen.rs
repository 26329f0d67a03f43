//! A request that no application has seen, because that of the endpoint is gone and its proxy is not yet: another endpoint
//! gets it, and its client sees nothing of that. Two proxies in a row, as between two pods.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::AsyncWriteExt;
use weir_proxy::accept::Aim;
use weir_proxy::endpoints::Listed;
use weir_proxy::http1::reply::Reply;
use weir_proxy::telemetry::Dst;
use weir_proxy::worker;

use super::proxy::{Proxy, application, nobody, read_all, soon};
use super::talk::{Talk, echo, echoing, get, post};

/// A service whose endpoint with the fewest connections is the best, each a pod; one that is set aside is for so long.
fn serve(endpoints: &[(&str, SocketAddr)], rest: Duration) -> Proxy {
    let mut config = worker::Config::default();
    config.endpoints.assumed = Duration::from_secs(60);
    config.endpoints.floor = Duration::from_secs(60);
    (config.endpoints.rest_min, config.endpoints.rest_max) = (rest, rest);
    let listed = endpoints.iter();
    let listed = listed.map(|(pod, addr)| Listed::plain(*addr, Dst::new([("pod", *pod)])));
    let aim = Aim::Service {
        name: "web".to_owned(),
        endpoints: listed.collect(),
    };
    Proxy::start_with(aim, config)
}

async fn connect(proxy: &Proxy) -> Talk {
    Talk::new(proxy.connect().await)
}

/// A client that keeps a connection to the endpoint that answers: the next one is for the other.
async fn keeping(proxy: &Proxy) -> Talk {
    let mut client = connect(proxy).await;
    client.ask(&get("/keep")).await;
    client
}

/// What a client is told of an endpoint whose application is gone.
fn refusal(of: &Proxy) -> String {
    let text = "HTTP/1.1 502 Bad Gateway\r\nproxy-status: weir; error=connection_refused; next-hop=\"ADDR\"\r\n\
                content-length: 0\r\nconnection: close\r\n\r\n";
    text.replace("ADDR", &of.addr.to_string())
}

/// Everything that a client is told that asks once.
async fn told(proxy: &Proxy, request: &[u8]) -> String {
    let mut client = connect(proxy).await;
    client.say(request).await;
    String::from_utf8(read_all(&mut client.stream).await).expect("text")
}

/// Requests that the proxy of an application that is gone has answered.
async fn answered(dead: &Proxy, n: f64) {
    let row = [
        "direction=\"inbound\"",
        "status_code=\"502\"",
        "error=\"connect\"",
    ];
    dead.counts("response_total", &row, n).await;
    assert_eq!(dead.sum("request_total", &[]), n);
}

#[tokio::test]
async fn a_request_of_any_method_comes_once_to_an_application_that_is_there() {
    let (app, heard) = echoing("good", |_| 200).await;
    let (dead, good) = (Proxy::inbound(nobody()), Proxy::inbound(app));
    let proxy = serve(&[("dead", dead.addr), ("good", good.addr)], Duration::ZERO);
    let _kept = keeping(&proxy).await;
    let before = dead.sum("request_total", &[]);
    let requests = [get("/"), post("/", b"body"), post("/", &vec![7; 60_000])];
    for request in &requests {
        let mut client = connect(&proxy).await;
        for _ in 0..2 {
            // The second one goes where the first one went.
            assert!(client.ask(request).await == echo("good", 200, request));
        }
    }
    answered(&dead, before + 3.0).await;
    let all = heard.lock().expect("nobody has panicked").split_off(1);
    let twice = requests.iter().flat_map(|one| [one.clone(), one.clone()]);
    assert!(all == twice.collect::<Vec<_>>(), "{} were heard", all.len());
    let out = "direction=\"outbound\"";
    for (family, labels, n) in [
        ("request_total", &[out][..], 7.0),
        (
            "response_total",
            &[out, "status_code=\"200\"", "error=\"\""],
            7.0,
        ),
        ("response_total", &[out], 7.0),
        ("response_latency_ms_count", &[out], 7.0),
        ("outbound_http_errors_total", &[], 0.0),
        ("outbound_tcp_errors_total", &[], 0.0),
        (
            "tcp_open_total",
            &["peer=\"dst\"", "dst_pod=\"dead\""],
            before + 3.0,
        ),
        ("tcp_open_total", &["peer=\"dst\"", "dst_pod=\"good\""], 4.0),
    ] {
        proxy.counts(family, labels, n).await;
    }
    let failed = ["classification=\"failure\""];
    assert_eq!(proxy.sum("tcp_close_total", &failed), 0.0);
}

#[tokio::test]
async fn who_has_no_application_is_set_aside_as_if_it_took_no_connection() {
    let (app, _) = echoing("good", |_| 200).await;
    let (dead, good) = (Proxy::inbound(nobody()), Proxy::inbound(app));
    let long = Duration::from_secs(600);
    let proxy = serve(&[("dead", dead.addr), ("good", good.addr)], long);
    let mut kept = Vec::new();
    for _ in 0..10 {
        kept.push(keeping(&proxy).await);
    }
    answered(&dead, 1.0).await;
    let dialed = ["peer=\"dst\"", "dst_pod=\"dead\""];
    assert_eq!(proxy.sum("tcp_open_total", &dialed), 1.0);
    proxy.counts("tcp_open_connections", &dialed, 0.0).await;
}

#[tokio::test]
async fn what_is_still_on_its_way_follows() {
    let (app, _) = echoing("good", |_| 200).await;
    let (dead, good) = (Proxy::inbound(nobody()), Proxy::inbound(app));
    let proxy = serve(&[("dead", dead.addr), ("good", good.addr)], Duration::ZERO);
    let _kept = keeping(&proxy).await;
    let before = dead.sum("request_total", &[]);
    let request = post("/", &vec![7; 300_000]);
    let mut client = connect(&proxy).await;
    client.say(&request[..1000]).await;
    answered(&dead, before + 1.0).await;
    let at_good = ["peer=\"dst\"", "dst_pod=\"good\""];
    proxy.counts("tcp_open_total", &at_good, 2.0).await;
    client.say(&request[1000..]).await;
    let answer = soon(client.hear()).await.expect("an answer");
    assert!(answer == echo("good", 200, &request));
}

/// A proxy that has nobody to give requests to, and says so once it has heard all of one.
async fn hearing_out() -> SocketAddr {
    application(|stream| async move {
        let hop = stream.local_addr().ok();
        let mut talk = Talk::new(stream);
        if talk.hear().await.is_some() {
            talk.say(&Reply::Connect.bytes_at(hop)).await;
            let _ended = talk.stream.shutdown().await;
            talk.hear().await;
        }
    })
    .await
}

#[tokio::test]
async fn what_is_too_large_to_be_kept_is_answered_and_the_next_goes_elsewhere() {
    let (good, _) = echoing("good", |_| 200).await;
    let dead = hearing_out().await;
    let long = Duration::from_secs(600);
    let proxy = serve(&[("dead", dead), ("good", good)], long);
    let mut answers = Vec::new();
    let mut kept = Vec::new();
    // The first of all may find the good one.
    for _ in 0..2 {
        let mut client = connect(&proxy).await;
        let answer = client.ask(&post("/", &vec![7; 100_000])).await;
        answers.push(String::from_utf8_lossy(&answer[..12]).into_owned());
        kept.push(client);
        if answer == *Reply::Connect.bytes_at(Some(dead)) {
            break;
        }
    }
    assert!(
        answers.ends_with(&["HTTP/1.1 502".to_owned()]),
        "{answers:?}"
    );
    for _ in 0..5 {
        kept.push(keeping(&proxy).await);
    }
    let dialed = ["peer=\"dst\"", "dst_pod=\"dead\""];
    assert_eq!(proxy.sum("tcp_open_total", &dialed), 1.0);
}

#[tokio::test]
async fn where_all_are_gone_the_last_ones_answer_is_shown() {
    let (a, b) = (Proxy::inbound(nobody()), Proxy::inbound(nobody()));
    let proxy = serve(&[("a", a.addr), ("b", b.addr)], Duration::ZERO);
    for n in 1..=3 {
        let said = told(&proxy, &get("/")).await;
        assert!(said == refusal(&a) || said == refusal(&b), "{said}");
        answered(&a, f64::from(n)).await;
        answered(&b, f64::from(n)).await;
    }
    let row = [
        "direction=\"outbound\"",
        "status_code=\"502\"",
        "error=\"\"",
    ];
    proxy.counts("response_total", &row, 3.0).await;
    proxy.counts("request_total", &[], 3.0).await;
}

#[tokio::test]
async fn where_there_is_one_endpoint_its_answer_is_passed_on() {
    let dead = Proxy::inbound(nobody());
    let proxy = serve(&[("dead", dead.addr)], Duration::ZERO);
    assert_eq!(told(&proxy, &post("/", b"body")).await, refusal(&dead));
    answered(&dead, 1.0).await;
}

/// An application that says the same to each, whatever it is asked.
async fn saying(text: String) -> SocketAddr {
    application(move |stream| {
        let text = text.clone();
        async move {
            let mut talk = Talk::new(stream);
            if talk.hear().await.is_some() {
                talk.say(text.as_bytes()).await;
                let _ended = talk.stream.shutdown().await;
                talk.hear().await;
            }
        }
    })
    .await
}

#[tokio::test]
async fn what_an_application_passes_on_from_behind_it_is_passed_on_to_the_byte() {
    let behind = Reply::Connect.bytes_at(Some(([10, 0, 0, 7], 8080).into()));
    let behind = String::from_utf8(behind.into_owned()).expect("text");
    for text in [behind.clone(), behind.replace("10.0.0.7:8080", "web:8080")] {
        let (a, b) = (saying(text.clone()).await, saying(text.clone()).await);
        let proxy = serve(&[("a", a), ("b", b)], Duration::ZERO);
        assert_eq!(told(&proxy, &get("/")).await, text);
        assert_eq!(proxy.sum("tcp_open_total", &["peer=\"dst\""]), 1.0);
        // Also past a proxy in front of it.
        let (a, b) = (Proxy::inbound(a), Proxy::inbound(b));
        let proxy = serve(&[("a", a.addr), ("b", b.addr)], Duration::ZERO);
        assert_eq!(told(&proxy, &get("/")).await, text);
        assert_eq!(proxy.sum("tcp_open_total", &["peer=\"dst\""]), 1.0);
    }
}
