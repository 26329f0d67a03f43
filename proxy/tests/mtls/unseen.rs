//! A request that no application has seen goes to another endpoint where servers are secured, too: it is their proxy that
//! says so, inside of TLS.

use std::time::Duration;

use weir_crds::settings::MtlsMode;
use weir_proxy::accept::Aim;
use weir_proxy::worker;

use crate::authority::Authority;
use crate::mesh::{CLIENT, LIFE, Party, SERVER, identity, listed, settings};
use crate::proxy::nobody;
use crate::talk::{Talk, echo, echoing, post};

#[tokio::test]
async fn it_comes_once_to_an_application_that_is_there() {
    let authority = Authority::new("mesh");
    let of = |name| {
        let identity = identity(&authority, name, LIFE);
        (settings(MtlsMode::Strict), Some(identity))
    };
    let (app, heard) = echoing("good", |_| 200).await;
    let (dead, good) = (
        Party::server(of(SERVER), nobody()),
        Party::server(of(SERVER), app),
    );
    let endpoints = [&dead, &good].map(|party| listed(party.proxy.addr, Some(SERVER)));
    let aim = Aim::Service {
        name: "web".to_owned(),
        endpoints: endpoints.to_vec(),
    };
    let mut config = worker::Config::default();
    // The one with the fewest connections is the best, and nobody rests.
    config.endpoints.assumed = Duration::from_secs(60);
    config.endpoints.floor = Duration::from_secs(60);
    (config.endpoints.rest_min, config.endpoints.rest_max) = (Duration::ZERO, Duration::ZERO);
    let client = Party::start(of(CLIENT), aim, config);
    let mut clients = Vec::new();
    for n in 0..4u8 {
        let mut talk = Talk::new(client.proxy.connect().await);
        let request = post("/", &vec![n; 20_000]);
        assert!(talk.ask(&request).await == echo("good", 200, &request));
        clients.push(talk);
        let heard = heard.lock().expect("nobody has panicked").len();
        assert_eq!(heard, clients.len());
    }
    // But for the first, which may have found the good one, each was there.
    let refused = dead.proxy.sum("request_total", &["client_id"]);
    assert!(refused >= 3.0, "{refused} were refused");
    let ok = ["status_code=\"200\"", "tls=\"true\""];
    client.proxy.counts("response_total", &ok, 4.0).await;
    client.proxy.counts("response_total", &[], 4.0).await;
}
