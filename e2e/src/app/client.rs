//! One HTTP request at a time, each over a connection of its own or one that is handed in. Used by
//! `app`, `bot` and `identity`.

use std::time::Duration;

use anyhow::{Context as _, bail};
use http_body_util::{BodyExt as _, Empty};
use hyper::body::Bytes;
use hyper::client::conn::http1;
use hyper::{Request, StatusCode, Uri};
use hyper_util::rt::TokioIo;
use tokio::time::timeout;

use super::tcp;

/// Where an `http://host[:port]/path` points: `host:port` to dial, and the value of `Host`.
pub(super) fn target(url: &str) -> anyhow::Result<(String, String, Uri)> {
    let uri: Uri = url.parse().with_context(|| format!("'{url}' is no URL"))?;
    let authority = uri
        .authority()
        .with_context(|| format!("'{url}' has no host: write http://host:port/path"))?;
    let address = format!(
        "{}:{}",
        authority.host(),
        authority.port_u16().unwrap_or(80)
    );
    let host = authority.as_str().to_owned();
    let path = uri.path_and_query().map_or("/", |path| path.as_str());
    Ok((address, host, path.parse()?))
}

/// GETs over a new connection, all within the limit: the status and the body.
pub(super) async fn fetch(url: &str, limit: Duration) -> anyhow::Result<(StatusCode, Bytes)> {
    timeout(limit, fetch_unlimited(url, limit))
        .await
        .with_context(|| format!("{url}: no whole answer within {limit:?}"))?
}

async fn fetch_unlimited(url: &str, limit: Duration) -> anyhow::Result<(StatusCode, Bytes)> {
    let (address, host, path) = target(url)?;
    let stream = tcp::dial(&address, limit).await?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    let request = Request::get(path)
        .header("host", host)
        .body(Empty::<Bytes>::new())?;
    let exchange = async {
        let response = sender.send_request(request).await?;
        let status = response.status();
        let body = response.into_body().collect().await?.to_bytes();
        anyhow::Ok((status, body))
    };
    tokio::pin!(connection);
    tokio::pin!(exchange);
    tokio::select! {
        result = &mut exchange => result,
        ended = &mut connection => {
            ended.with_context(|| format!("{url}: the connection broke"))?;
            exchange.await
        }
    }
}

/// Prints status and body; fails unless the status is a success.
pub(super) async fn get(url: &str, limit: Duration) -> anyhow::Result<()> {
    let (status, body) = fetch(url, limit).await?;
    println!(
        "{} {}",
        status.as_u16(),
        String::from_utf8_lossy(&body).trim_end()
    );
    if !status.is_success() {
        bail!("{url} answers {status}");
    }
    Ok(())
}
