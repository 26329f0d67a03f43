//! The rows of the transport table that connections show that are not HTTP.

use std::time::Duration;

use socket2::SockRef;
use tokio::io::AsyncReadExt;

use super::bench::{Bench, Way, listener};
use super::rows::{Act, Row, broken, play, well};

/// The first byte says that this is not HTTP.
const HELLO: &str = "\x01hello";
pub(crate) const OPENED: &str = "inbound_tcp_authz_allow_total{{OPENED}} 1";

const ROWS: &[Row] = &[
    Row {
        what: "both ends close",
        client: &[Act::Send(HELLO), Act::Read("world!")],
        application: &[Act::Read(HELLO), Act::Send("world!"), Act::End],
        series: &[OPENED],
        src: well(6, 6),
        dst: Some(well(6, 6)),
    },
    Row {
        what: "a half-close, and an answer to it",
        client: &[Act::Send(HELLO), Act::Shut, Act::End],
        application: &[Act::End, Act::Send("world!")],
        series: &[OPENED],
        src: well(6, 6),
        dst: Some(well(6, 6)),
    },
    Row {
        what: "the server speaks first and closes first",
        client: &[Act::Read("220 ready\r\n"), Act::Send("QUIT"), Act::End],
        application: &[Act::Send("220 ready\r\n"), Act::Read("QUIT")],
        series: &[OPENED],
        src: well(4, 11),
        dst: Some(well(11, 4)),
    },
    Row {
        what: "nobody says anything",
        client: &[Act::Meet],
        application: &[Act::Meet, Act::End],
        series: &[OPENED],
        src: well(0, 0),
        dst: Some(well(0, 0)),
    },
    Row {
        what: "the client is silent, and resets",
        client: &[Act::Meet, Act::Reset],
        application: &[Act::Meet, Act::End],
        series: &[OPENED],
        src: broken(0, 0, "ECONNRESET"),
        dst: Some(broken(0, 0, "ECONNRESET")),
    },
    Row {
        what: "the client resets",
        client: &[Act::Send(HELLO), Act::Meet, Act::Reset],
        application: &[Act::Read(HELLO), Act::Meet, Act::End],
        series: &[OPENED],
        src: broken(6, 0, "ECONNRESET"),
        dst: Some(broken(0, 6, "ECONNRESET")),
    },
    Row {
        what: "the server resets",
        client: &[Act::Send(HELLO), Act::Meet, Act::End],
        application: &[Act::Read(HELLO), Act::Meet, Act::Reset],
        series: &[OPENED],
        src: broken(6, 0, "ECONNRESET"),
        dst: Some(broken(0, 6, "ECONNRESET")),
    },
];

#[tokio::test]
async fn connections_are_counted_as_they_ended() {
    play(ROWS).await;
}

/// No row, because the connection has to be open, which neither peer can see: a reset before that refuses it.
#[tokio::test]
async fn a_server_may_reset_while_its_client_is_silent() {
    let broken = broken(0, 0, "ECONNRESET");
    for way in Way::BOTH {
        let listener = listener().await;
        let application = listener.local_addr().expect("an address");
        let bench = Bench::start(way, application).await;
        let mut client = bench.connect().await;
        let (server, _) = listener.accept().await.expect("a connection");
        let labels = [("direction", way.name()), ("peer", "dst")];
        bench.counts("tcp_open_connections", &labels, 1.0).await;
        let reset = SockRef::from(&server).set_linger(Some(Duration::ZERO));
        reset.expect("a socket option");
        drop(server);
        let told = client.read(&mut [0; 1]).await;
        assert!(told.is_err(), "{}: {told:?}", way.name());
        let mut expected = [broken.series("{SRC}"), broken.series("{DST}")].concat();
        expected.push(OPENED.to_owned());
        bench.shows("a reset in silence", &expected).await;
    }
}
