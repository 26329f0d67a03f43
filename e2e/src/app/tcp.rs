//! Plain TCP for the stories: a server that echoes (greeting first or not), and clients that print
//! what they saw. Called by `app` and, for the clients' parts, by `identity`.

use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;

/// What `server-first` says before its client speaks.
pub(super) const GREETING: &[u8] = b"220 weir ready\r\n";

/// Greets (or not) and sends back what comes, until the client closes its half; then closes its own.
pub(super) async fn echo(listener: TcpListener, greeting: &'static [u8]) -> anyhow::Result<()> {
    loop {
        let (mut stream, peer) = listener.accept().await.context("cannot accept")?;
        println!("connection from {peer}"); // so that a story can tell what never arrived
        tokio::spawn(async move {
            let (mut read, mut write) = stream.split();
            let result = async {
                write.write_all(greeting).await?;
                tokio::io::copy(&mut read, &mut write).await?;
                write.shutdown().await
            };
            if let Err(error) = result.await {
                eprintln!("connection: {error}");
            }
        });
    }
}

/// A connection within the limit, its error naming the address.
pub(super) async fn dial(address: &str, limit: Duration) -> anyhow::Result<TcpStream> {
    let stream = timeout(limit, TcpStream::connect(address))
        .await
        .with_context(|| format!("{address}: no connection within {limit:?}"))?
        .with_context(|| format!("{address}: cannot connect"))?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// Connects and prints what happened: `closed`, `reset`, `spoke`, `silent`, or why it could not connect.
pub(super) async fn connect(address: &str, limit: Duration) {
    let mut stream = match dial(address, limit).await {
        Ok(stream) => stream,
        Err(error) => return println!("{error:#}"),
    };
    let mut byte = [0];
    let outcome = match timeout(limit, stream.read(&mut byte)).await {
        Err(_) => "silent",
        Ok(Ok(0)) => "closed",
        Ok(Ok(_)) => "spoke",
        Ok(Err(_)) => "reset",
    };
    println!("{outcome}");
}

/// Sends the bytes and prints all of the answer, up to the server's end.
pub(super) async fn raw(
    address: &str,
    bytes: &str,
    half_close: bool,
    limit: Duration,
) -> anyhow::Result<()> {
    let bytes = bytes
        .replace("\\r", "\r")
        .replace("\\n", "\n")
        .replace("\\\\", "\\");
    let mut stream = dial(address, limit).await?;
    stream.write_all(bytes.as_bytes()).await?;
    if half_close {
        stream.shutdown().await?;
    }
    let mut answer = Vec::new();
    match timeout(limit, stream.read_to_end(&mut answer)).await {
        Ok(Ok(_)) => {}
        Ok(Err(error)) => println!("[{error}]"),
        Err(_) => println!("[still open after {limit:?}]"),
    }
    println!("{}", String::from_utf8_lossy(&answer));
    Ok(())
}

/// Prints the median time until the first byte of a server that speaks first, in microseconds.
pub(super) async fn first_byte(address: &str, count: usize) -> anyhow::Result<()> {
    let limit = Duration::from_secs(5);
    let mut times = Vec::with_capacity(count);
    for _ in 0..count {
        let started = Instant::now();
        let mut stream = dial(address, limit).await?;
        let mut heard = vec![0; GREETING.len()];
        timeout(limit, stream.read_exact(&mut heard)).await??;
        times.push(started.elapsed());
        if heard != GREETING {
            bail!("{address} greets with {}", String::from_utf8_lossy(&heard));
        }
    }
    times.sort_unstable();
    let median = times.get(count / 2).context("--count must be 1 or more")?;
    println!("{}", median.as_micros());
    Ok(())
}
