//! A web server that is opened and closed from outside, for stories about applications that do not
//! listen (yet). Called by `app`; what is served once it is open is `web`'s affair.

use std::convert::Infallible;
use std::sync::{Arc, Mutex};

use anyhow::Context as _;
use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;
use tokio::task::AbortHandle;

/// The server behind the gate while it is open.
#[derive(Default)]
struct Gate(Mutex<Option<AbortHandle>>);

impl Gate {
    async fn open(&self, port: u16) -> anyhow::Result<()> {
        let listener = super::listen(port).await?;
        let server = tokio::spawn(async move {
            if let Err(error) = super::web::serve(listener).await {
                eprintln!("behind the gate: {error:#}");
            }
        });
        self.replace(Some(server.abort_handle()));
        Ok(())
    }

    /// Stops listening; connections that are open stay.
    fn replace(&self, server: Option<AbortHandle>) {
        let before = std::mem::replace(
            &mut *self.0.lock().expect("no holder of the lock can panic"),
            server,
        );
        if let Some(before) = before {
            before.abort();
        }
    }
}

/// Answers `/open` and `/close` on `control` for ever; the gate of `port` is closed at first.
pub(super) async fn serve(control: TcpListener, port: u16) -> anyhow::Result<()> {
    let gate = Arc::new(Gate::default());
    loop {
        let (stream, _) = control.accept().await.context("cannot accept")?;
        let gate = Arc::clone(&gate);
        tokio::spawn(async move {
            let service = service_fn(|request| order(Arc::clone(&gate), port, request));
            if let Err(error) = http1::Builder::new()
                .serve_connection(TokioIo::new(stream), service)
                .await
            {
                eprintln!("control: {error}");
            }
        });
    }
}

async fn order(
    gate: Arc<Gate>,
    port: u16,
    request: Request<Incoming>,
) -> Result<Response<Full<Bytes>>, Infallible> {
    let (status, text) = match request.uri().path() {
        "/open" => match gate.open(port).await {
            Ok(()) => (200, "open\n".to_owned()),
            Err(error) => (500, format!("{error:#}\n")),
        },
        "/close" => {
            gate.replace(None);
            (200, "closed\n".to_owned())
        }
        _ => (404, "/open or /close\n".to_owned()),
    };
    let mut response = Response::new(Full::new(Bytes::from(text)));
    *response.status_mut() = hyper::StatusCode::from_u16(status).expect("the three are statuses");
    Ok(response)
}
