//! Request smuggling: what two recipients could read differently never reaches the application, the rest reaches it
//! unchanged, and nothing is split otherwise than the application splits it.

mod corpus;
mod differential;
mod generate;
mod ours;
mod theirs;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::mpsc;

use super::proxy::{DEADLINE, Proxy, application, read_all};

/// Takes everything until its client has closed; declines each offer to switch protocols.
async fn take(mut stream: TcpStream, taken: mpsc::UnboundedSender<Vec<u8>>) {
    let mut bytes = Vec::new();
    let mut has_declined = false;
    while stream.read_buf(&mut bytes).await.is_ok_and(|n| n > 0) {
        let text = String::from_utf8_lossy(&bytes);
        let offers = text.starts_with("CONNECT") || text.contains("Upgrade");
        if offers && !std::mem::replace(&mut has_declined, true) {
            let declined = b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n";
            stream.write_all(declined).await.expect("written");
        }
    }
    // A slow client's application is dialed before the client has spoken.
    if !bytes.is_empty() {
        let _the_test_has_ended = taken.send(bytes);
    }
}

/// Sends an entry and closes; answers what the client got.
async fn send(proxy: &Proxy, bytes: &[u8]) -> String {
    let mut client = proxy.connect().await;
    client.write_all(bytes).await.expect("the proxy reads");
    client.shutdown().await.expect("a half-close");
    String::from_utf8_lossy(&read_all(&mut client).await).into_owned()
}

#[tokio::test]
async fn what_is_ambiguous_never_reaches_the_application_and_the_rest_does_unchanged() {
    let (taken, mut applications) = mpsc::unbounded_channel();
    let serve = move |stream: TcpStream| take(stream, taken.clone());
    let proxy = Proxy::inbound(application(serve).await);
    let (mut unparsed, mut sent) = (0.0, 0.0);
    let mut received = async |name| {
        let received = tokio::time::timeout(DEADLINE, applications.recv()).await;
        received
            .unwrap_or_else(|_| panic!("{name}: nothing in time"))
            .expect("it serves")
    };
    for entry in corpus::requests() {
        let answer = send(&proxy, &entry.bytes).await;
        let name = entry.name;
        match entry.verdict {
            // What was good before it may have gone on, itself never.
            "400" | "431" => {
                proxy.counts("tcp_open_connections", &[], 0.0).await;
                let went = proxy.sum("tcp_write_bytes_total", &["peer=\"dst\""]) - sent;
                assert!(
                    went == 0.0 || entry.messages > 0,
                    "{name}: {went} bytes went on"
                );
                let refused = format!("HTTP/1.1 {} ", entry.verdict);
                assert!(
                    went > 0.0 || answer.starts_with(&refused),
                    "{name}: {answer:?}"
                );
                if went > 0.0 {
                    let got = received(name).await;
                    sent += went;
                    let is_part = entry.bytes.starts_with(&got) && got.len() < entry.bytes.len();
                    assert!(is_part, "{name}: {:?}", String::from_utf8_lossy(&got));
                }
            }
            _ => {
                let got = received(name).await;
                sent += got.len() as f64;
                assert!(
                    got == entry.bytes,
                    "{name}: {:?}",
                    String::from_utf8_lossy(&got)
                );
            }
        }
        unparsed += f64::from(u8::from(entry.verdict == "unparsed"));
        proxy
            .counts("weir_http_unparsed_total", &[], unparsed)
            .await;
    }
    proxy.counts("tcp_open_connections", &[], 0.0).await;
}
