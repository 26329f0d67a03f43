//! Clients that idle, dawdle, block or crowd: how long each is borne. The clock is paused where time matters: it
//! leaps to the next timer whenever everything waits.

use super::*;
use tokio::time::Instant;

/// Reads until the server closes; gives what came and how long it took.
async fn until_closed(stream: &mut TcpStream) -> (Vec<u8>, Duration) {
    let begin = Instant::now();
    let mut all = Vec::new();
    // A reset is a close too.
    let _ = stream.read_to_end(&mut all).await;
    (all, begin.elapsed())
}

fn about(elapsed: Duration, seconds: u64) -> bool {
    let expected = Duration::from_secs(seconds);
    elapsed >= expected && elapsed < expected + Duration::from_secs(1)
}

#[tokio::test(start_paused = true)]
async fn an_idle_connection_outlives_two_scrape_intervals() {
    let server = start_plain();
    let mut stream = TcpStream::connect(server.addr).await.unwrap();
    for _ in 0..2 {
        send(&mut stream, "GET", "/live", "").await;
        assert_eq!(read_answer(&mut stream, "GET").await.status, 200);
        tokio::time::sleep(Duration::from_secs(121)).await;
    }
    send(&mut stream, "GET", "/live", "").await;
    assert_eq!(read_answer(&mut stream, "GET").await.status, 200);
    let (rest, elapsed) = until_closed(&mut stream).await;
    assert!(rest.is_empty() && about(elapsed, 130), "{elapsed:?}");
}

#[tokio::test(start_paused = true)]
async fn a_head_that_does_not_end_is_cut_off() {
    let server = start_plain();
    let mut stream = TcpStream::connect(server.addr).await.unwrap();
    stream.write_all(b"GET /live HTTP/1.1\r\nHo").await.unwrap();
    let (_, elapsed) = until_closed(&mut stream).await;
    assert!(about(elapsed, 10), "{elapsed:?}");
}

#[tokio::test(start_paused = true)]
async fn a_silent_client_is_cut_off() {
    let server = start_plain();
    let mut stream = TcpStream::connect(server.addr).await.unwrap();
    let (_, elapsed) = until_closed(&mut stream).await;
    assert!(about(elapsed, 130), "{elapsed:?}");
}

#[tokio::test]
async fn a_head_that_is_too_large_is_refused() {
    let server = start_plain();
    let mut stream = TcpStream::connect(server.addr).await.unwrap();
    let large = format!("X: {}\r\n", "x".repeat(40 * 1024));
    send(&mut stream, "GET", "/live", &large).await;
    assert_eq!(read_answer(&mut stream, "GET").await.status, 431);
}

/// An endless exposition that tells when it has ended.
fn endless() -> (Arc<dyn Exposition>, mpsc::UnboundedReceiver<io::ErrorKind>) {
    let (ended, ends) = mpsc::unbounded_channel();
    let exposition = Fake(move |_: &Selection, out: &mut dyn Write| {
        loop {
            if let Err(error) = out.write_all(&[b'x'; 1000]) {
                ended.send(error.kind()).unwrap();
                return Err(error);
            }
        }
    });
    (Arc::new(exposition), ends)
}

async fn end_of(ends: &mut mpsc::UnboundedReceiver<io::ErrorKind>) -> io::ErrorKind {
    tokio::time::timeout(DEADLINE, ends.recv())
        .await
        .expect("the exposition ends")
        .unwrap()
}

#[tokio::test]
async fn a_scraper_that_stops_reading_is_dropped() {
    let (exposition, mut ends) = endless();
    let mut config = config();
    config.limits.write_timeout = Duration::from_millis(50);
    let server = start(config, exposition, settings_without_metrics());
    let mut stalled = TcpStream::connect(server.addr).await.unwrap();
    send(&mut stalled, "GET", "/metrics", "").await;
    assert_eq!(end_of(&mut ends).await, io::ErrorKind::BrokenPipe);
}

#[tokio::test]
async fn a_scrape_that_never_ends_is_cut_off_and_leaves_its_place() {
    let (exposition, mut ends) = endless();
    let mut config = config();
    config.limits.expositions = 1;
    config.limits.exposition_timeout = Duration::from_millis(50);
    let server = start(config, exposition, settings_without_metrics());
    for _ in 0..2 {
        // Connected but not reading.
        let mut stalled = TcpStream::connect(server.addr).await.unwrap();
        send(&mut stalled, "GET", "/metrics", "").await;
        assert_eq!(end_of(&mut ends).await, io::ErrorKind::TimedOut);
    }
}

#[tokio::test]
async fn a_scraper_that_leaves_ends_its_exposition() {
    let (exposition, mut ends) = endless();
    let server = start(config(), exposition, settings_without_metrics());
    let mut stream = TcpStream::connect(server.addr).await.unwrap();
    send(&mut stream, "GET", "/metrics", "").await;
    stream.read_exact(&mut [0; 100]).await.unwrap();
    drop(stream);
    assert_eq!(end_of(&mut ends).await, io::ErrorKind::BrokenPipe);
}

#[tokio::test]
async fn too_many_scrapes_at_once_are_refused() {
    let (exposition, _ends) = endless();
    let mut config = config();
    config.limits.expositions = 1;
    config.limits.exposition_wait = Duration::from_millis(20);
    let server = start(config, exposition, settings_without_metrics());
    let mut first = TcpStream::connect(server.addr).await.unwrap();
    send(&mut first, "GET", "/metrics", "").await;
    first.read_exact(&mut [0; 100]).await.unwrap();
    let refused = get(server.addr, "/metrics").await;
    assert_eq!(refused.status, 503);
    assert!(refused.body.contains("at most 1"), "{}", refused.body);
    assert_eq!(get(server.addr, "/live").await.status, 200);
}

/// A server with places for three, and three connections that were served and were kept, the oldest first.
async fn crowded() -> (Running, Vec<TcpStream>) {
    let mut config = config();
    config.limits.connections = 3;
    let server = start(config, echo(), settings_without_metrics());
    let mut crowd = Vec::new();
    for _ in 0..3 {
        let mut stream = TcpStream::connect(server.addr).await.unwrap();
        send(&mut stream, "GET", "/live", "").await;
        read_answer(&mut stream, "GET").await;
        crowd.push(stream);
    }
    (server, crowd)
}

#[tokio::test]
async fn a_crowd_of_idle_connections_makes_room() {
    let (server, crowd) = crowded().await;
    assert_eq!(get(server.addr, "/live").await.status, 200);
    // The one that had been idle longest had to go, the others stay.
    let mut crowd = crowd.into_iter();
    let mut oldest = crowd.next().unwrap();
    assert_eq!(oldest.read(&mut [0; 1]).await.unwrap(), 0);
    let mut youngest = crowd.next_back().unwrap();
    send(&mut youngest, "GET", "/live", "").await;
    assert_eq!(read_answer(&mut youngest, "GET").await.status, 200);
}

/// Who sends half a head and goes on so keeps nobody else from being served.
#[tokio::test]
async fn a_crowd_that_dawdles_makes_room() {
    let (server, mut crowd) = crowded().await;
    for stream in &mut crowd {
        stream.write_all(b"GET /live HTTP/1.1\r\nHo").await.unwrap();
    }
    for _ in 0..2 {
        assert_eq!(get(server.addr, "/live").await.status, 200);
    }
    let mut crowd = crowd.into_iter();
    let mut oldest = crowd.next().unwrap();
    assert_eq!(oldest.read(&mut [0; 1]).await.unwrap(), 0);
    let mut youngest = crowd.next_back().unwrap();
    youngest.write_all(b"st: x\r\n\r\n").await.unwrap();
    assert_eq!(read_answer(&mut youngest, "GET").await.status, 200);
}

#[tokio::test]
async fn a_crowd_at_work_refuses_the_next() {
    let (exposition, _ends) = endless();
    let mut config = config();
    config.limits.connections = 1;
    let server = start(config, exposition, settings_without_metrics());
    let mut first = TcpStream::connect(server.addr).await.unwrap();
    send(&mut first, "GET", "/metrics", "").await;
    first.read_exact(&mut [0; 100]).await.unwrap();
    let mut second = TcpStream::connect(server.addr).await.unwrap();
    let (answer, _) = tokio::time::timeout(DEADLINE, until_closed(&mut second))
        .await
        .unwrap();
    assert!(answer.is_empty());
}
