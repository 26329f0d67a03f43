//! Sends every shape of traffic through the servers of the stories and compares each byte that comes
//! back. Called by `app`, and by a test beside it without any proxy; prints a line a shape.

mod http;
mod pattern;

use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::time::timeout;

use super::tcp;
use super::web::byte_at;

/// How long one shape may take; 64 MiB through two proxies on a busy machine is the longest.
const LIMIT: Duration = Duration::from_secs(60);

/// Body sizes around the buffers that proxies use, up to 64 MiB.
const SIZES: [usize; 7] = [0, 1, 4095, 16 * 1024, 65_537, 1 << 20, 64 << 20];

/// Checks all shapes; fails at the first that is not what was sent, naming it.
pub(super) async fn check(web: &str, echo: &str, greeter: &str) -> anyhow::Result<()> {
    for size in SIZES {
        named(
            &format!("body of {size} bytes"),
            http::sized_body(web, size),
        )
        .await?;
    }
    named("chunked body with trailers", http::chunked_body(web)).await?;
    named("100-continue", expect_continue(web)).await?;
    named("requests on one connection", http::keep_alive(web)).await?;
    named("answers without a body", http::bodiless(web)).await?;
    named("upgrade", upgrade(web)).await?;
    named("HTTP/2", http::http2(web)).await?;
    named("gRPC", http::grpc(web)).await?;
    named("half-closed TCP", half_closed(echo)).await?;
    named("server speaks first", server_first(greeter)).await
}

async fn named(shape: &str, check: impl Future<Output = anyhow::Result<()>>) -> anyhow::Result<()> {
    let started = Instant::now();
    timeout(LIMIT, check)
        .await
        .with_context(|| format!("{shape}: not done within {LIMIT:?}"))?
        .with_context(|| format!("{shape}: changed"))?;
    println!("{shape}: identical, {} ms", started.elapsed().as_millis());
    Ok(())
}

/// The body follows only after the server asked for it.
async fn expect_continue(web: &str) -> anyhow::Result<()> {
    let mut stream = tcp::dial(web, LIMIT).await?;
    let head = format!(
        "POST /echo HTTP/1.1\r\nHost: {web}\r\nExpect: 100-continue\r\nContent-Length: 5\r\nConnection: close\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).await?;
    let asked = read_head(&mut stream).await?;
    ensure!(asked.starts_with("HTTP/1.1 100 "), "first came {asked:?}");
    stream.write_all(b"hello").await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    ensure!(
        answer.starts_with("HTTP/1.1 200 ") && answer.ends_with("\r\n\r\nhello"),
        "then came {answer:?}"
    );
    Ok(())
}

/// After 101 the connection is the application's own, both ways, with what was sent along at once.
async fn upgrade(web: &str) -> anyhow::Result<()> {
    let mut stream = tcp::dial(web, LIMIT).await?;
    let head = format!(
        "GET /upgrade HTTP/1.1\r\nHost: {web}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).await?;
    let answer = read_head(&mut stream).await?;
    ensure!(
        answer.starts_with("HTTP/1.1 101 "),
        "the answer is {answer:?}"
    );
    for text in [b"\x81\x05first".as_slice(), b"HTTP/1.1 200 OK\r\n\r\n"] {
        stream.write_all(text).await?;
        let mut back = vec![0; text.len()];
        stream.read_exact(&mut back).await?;
        ensure!(back == text, "{back:?} instead of {text:?}");
    }
    stream.shutdown().await?;
    ensure!(stream.read(&mut [0]).await? == 0, "bytes behind the end");
    Ok(())
}

/// The client closes its half long before the server has sent all of its own.
async fn half_closed(echo: &str) -> anyhow::Result<()> {
    const LENGTH: usize = 8 << 20;
    let (mut read, mut write) = tcp::dial(echo, LIMIT).await?.into_split();
    let sent: Vec<u8> = (0..LENGTH).map(byte_at).collect();
    let expected = sent.clone();
    let sender = tokio::spawn(async move {
        write.write_all(&sent).await?;
        write.shutdown().await?;
        anyhow::Ok(write) // kept, so that only its half is closed
    });
    let mut back = Vec::with_capacity(LENGTH);
    read.read_to_end(&mut back).await?;
    drop(sender.await??);
    ensure!(
        back == expected,
        "{} bytes came back of {LENGTH}",
        back.len()
    );
    Ok(())
}

async fn server_first(greeter: &str) -> anyhow::Result<()> {
    let mut stream = tcp::dial(greeter, LIMIT).await?;
    let mut heard = vec![0; tcp::GREETING.len()];
    stream.read_exact(&mut heard).await?;
    ensure!(heard == tcp::GREETING, "the greeting is {heard:?}");
    stream.write_all(b"EHLO\r\n").await?;
    let mut back = [0; 6];
    stream.read_exact(&mut back).await?;
    ensure!(&back == b"EHLO\r\n", "the answer is {back:?}");
    Ok(())
}

/// The bytes up to and with the empty line.
async fn read_head(stream: &mut tokio::net::TcpStream) -> anyhow::Result<String> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(
            stream
                .read_u8()
                .await
                .context("the connection ended in a head")?,
        );
    }
    Ok(String::from_utf8(head)?)
}

#[cfg(test)]
mod tests {
    use super::super::{tcp as servers, web};
    use tokio::net::TcpListener;

    #[tokio::test]
    async fn without_a_proxy_every_shape_is_identical() {
        let mut addresses = Vec::new();
        let mut listeners = Vec::new();
        for _ in 0..3 {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            addresses.push(listener.local_addr().unwrap().to_string());
            listeners.push(listener);
        }
        let [web, echo, greeter] = listeners.try_into().unwrap();
        tokio::spawn(web::serve(web));
        tokio::spawn(servers::echo(echo, b""));
        tokio::spawn(servers::echo(greeter, servers::GREETING));
        super::check(&addresses[0], &addresses[1], &addresses[2])
            .await
            .unwrap();
    }
}
