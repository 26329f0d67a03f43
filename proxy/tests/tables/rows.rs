//! A row of a table: what two peers do, and what the proxy publishes of it. `http1` and `tcp` hold the rows.

use std::sync::Arc;
use std::time::Duration;

use socket2::SockRef;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Barrier;

use super::bench::{Bench, CLIENTS, DEADLINE, Way, listener};
use super::frames;
use super::told::Told;

/// One step of a scripted peer.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Act {
    Send(&'static str),
    /// Reads until these are the last bytes.
    Read(&'static str),
    /// Sends frames, by their names in `frames`.
    Say(&'static str),
    /// Reads until frames of these kinds have come, as `frames::hear` does.
    Hear(&'static str),
    /// Reads until the other side has closed or reset.
    End,
    /// Closes its sending half.
    Shut,
    /// Resets the connection.
    Reset,
    /// Waits until the other peer is here, too.
    Meet,
}

/// How one connection of the proxy ends, and what passed it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Closed {
    /// Bytes that the proxy read from it, and wrote to it.
    pub(crate) read: usize,
    pub(crate) written: usize,
    /// The symbol of the error that ended it; success without one.
    pub(crate) errno: &'static str,
}

/// One row.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Row {
    pub(crate) what: &'static str,
    pub(crate) client: &'static [Act],
    pub(crate) application: &'static [Act],
    /// The series beside those of the connections, as `Bench::shows` takes them.
    pub(crate) series: &'static [&'static str],
    pub(crate) src: Closed,
    /// None where the application is never dialed.
    pub(crate) dst: Option<Closed>,
}

pub(crate) const fn well(read: usize, written: usize) -> Closed {
    Closed {
        read,
        written,
        errno: "",
    }
}

pub(crate) const fn broken(read: usize, written: usize, errno: &'static str) -> Closed {
    Closed {
        read,
        written,
        errno,
    }
}

impl Closed {
    /// The transport series of one connection; `labels` is `{SRC}` or `{DST}`.
    pub(crate) fn series(self, labels: &str) -> Vec<String> {
        let Self {
            read,
            written,
            errno,
        } = self;
        let class = if errno.is_empty() {
            "success"
        } else {
            "failure"
        };
        let peer = labels.trim_matches(['{', '}']).to_ascii_lowercase();
        vec![
            format!("tcp_open_total{{{labels}}} 1"),
            format!("tcp_open_connections{{{labels}}} 0"),
            format!("tcp_read_bytes_total{{{labels}}} {read}"),
            format!("tcp_write_bytes_total{{{labels}}} {written}"),
            format!("tcp_close_total{{{labels},classification=\"{class}\",errno=\"{errno}\"}} 1"),
            format!(
                "tcp_connection_duration_ms_count{{direction=\"{{DIR}}\",peer=\"{peer}\",tls=\"no_identity\",\
                 classification=\"{class}\"}} 1"
            ),
        ]
    }
}

/// Plays every row in both directions.
pub(crate) async fn play(rows: &[Row]) {
    for row in rows {
        for way in Way::BOTH {
            play_row(row, way).await;
        }
    }
}

/// Plays every row before a service of two endpoints, one of which is down. Of the connections only the client's is looked
/// at: the others are shared, and kept.
pub(crate) async fn play_balanced(rows: &[Row]) {
    for row in rows {
        play_row(row, Way::Balanced).await;
    }
}

/// Where a row is played whose proxy is told something of requests.
pub(crate) struct Scene {
    pub(crate) way: Way,
    pub(crate) told: Told,
    /// As `Bench` has it.
    pub(crate) counts_connections: bool,
}

/// Plays a row there, and looks for `series` besides. Nothing is dialed before there is a head.
pub(crate) async fn play_told(row: &Row, scene: &Scene, mut series: Vec<String>) {
    let listener = listener().await;
    let application = listener.local_addr().expect("an address");
    let bench = Bench::start_told(scene.way, application, &scene.told, |config| {
        config.worker.detect.silence = DEADLINE;
    });
    let mut bench = bench.await;
    bench.counts_connections &= scene.counts_connections;
    series.extend(series_of(row, bench.counts_connections));
    play_on(row, (&bench, listener), &series).await;
}

async fn play_row(row: &Row, way: Way) {
    let listener = listener().await;
    let application = listener.local_addr().expect("an address");
    let bench = Bench::start(way, application).await;
    let series = series_of(row, bench.counts_connections);
    play_on(row, (&bench, listener), &series).await;
}

/// The series that a row says, those of its connections included as far as they are looked at.
fn series_of(row: &Row, counts_connections: bool) -> Vec<String> {
    let mut all: Vec<String> = row.series.iter().map(|s| (*s).to_owned()).collect();
    let src = row.src.series("{SRC}");
    if !counts_connections {
        let is_of_clients = |line: &String| CLIENTS.iter().any(|f| line.starts_with(f));
        all.extend(src.into_iter().filter(is_of_clients));
    } else {
        all.extend(src);
        all.extend(row.dst.map(|dst| dst.series("{DST}")).unwrap_or_default());
    }
    all
}

async fn play_on(row: &Row, (bench, listener): (&Bench, TcpListener), series: &[String]) {
    let meeting = Arc::new(Barrier::new(2));
    let (acts, met) = (row.application, Arc::clone(&meeting));
    let served = tokio::spawn(async move {
        let (stream, _) = listener.accept().await.expect("a connection");
        act(stream, acts, &met).await;
    });
    let client = bench.connect().await;
    let played = tokio::time::timeout(DEADLINE, act(client, row.client, &meeting)).await;
    let way = bench.way.name();
    played.unwrap_or_else(|_| panic!("{}, {way}: the client waits for ever", row.what));
    bench.shows(row.what, series).await;
    served.abort();
}

async fn act(mut stream: TcpStream, acts: &[Act], meeting: &Barrier) {
    for act in acts {
        match act {
            Act::Send(text) => stream.write_all(text.as_bytes()).await.expect("written"),
            Act::Read(end) => read_until(&mut stream, end.as_bytes()).await,
            Act::Say(names) => {
                let said = stream.write_all(&frames::bytes(names)).await;
                said.expect("written");
            }
            Act::Hear(names) => frames::hear(&mut stream, names).await,
            Act::End => {
                let _closed_or_reset = stream.read_to_end(&mut Vec::new()).await;
            }
            Act::Shut => stream.shutdown().await.expect("a half-close"),
            Act::Reset => SockRef::from(&stream)
                .set_linger(Some(Duration::ZERO))
                .expect("a socket option"),
            Act::Meet => {
                meeting.wait().await;
            }
        }
    }
}

pub(crate) async fn read_until(stream: &mut TcpStream, end: &[u8]) {
    let mut bytes = Vec::new();
    while !bytes.ends_with(end) {
        let read = stream.read_buf(&mut bytes).await;
        assert!(
            read.is_ok_and(|n| n > 0),
            "{:?} and no more",
            bytes.escape_ascii().to_string()
        );
    }
}
