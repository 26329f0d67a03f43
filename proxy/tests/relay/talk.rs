//! Peers that say whole messages of HTTP/1 with a length: an application that gives back what it was asked, and a client
//! that asks.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::proxy::{application, soon};

/// Reads whole messages; what was read beyond one stays for the next.
pub(crate) struct Talk {
    pub(crate) stream: TcpStream,
    rest: Vec<u8>,
}

impl Talk {
    pub(crate) fn new(stream: TcpStream) -> Self {
        let rest = Vec::new();
        Self { stream, rest }
    }

    /// The next message; none at the end.
    pub(crate) async fn hear(&mut self) -> Option<Vec<u8>> {
        loop {
            if let Some(len) = length(&self.rest).filter(|len| *len <= self.rest.len()) {
                let rest = self.rest.split_off(len);
                return Some(std::mem::replace(&mut self.rest, rest));
            }
            match self.stream.read_buf(&mut self.rest).await {
                Ok(0) | Err(_) => return None,
                Ok(_) => {}
            }
        }
    }

    pub(crate) async fn say(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).await.expect("written");
    }

    /// Asks, and hears the whole answer.
    pub(crate) async fn ask(&mut self, request: &[u8]) -> Vec<u8> {
        self.say(request).await;
        soon(self.hear()).await.expect("an answer")
    }
}

/// Of the message that these bytes begin with, once its head is there.
fn length(bytes: &[u8]) -> Option<usize> {
    let end = bytes.windows(4).position(|four| four == b"\r\n\r\n")? + 4;
    let head = std::str::from_utf8(&bytes[..end]).expect("text");
    let mut fields = head.split("\r\n");
    let body = fields.find_map(|field| field.strip_prefix("content-length: "));
    Some(end + body.map_or(0, |n| n.parse::<usize>().expect("a number")))
}

pub(crate) fn get(path: &str) -> Vec<u8> {
    format!("GET {path} HTTP/1.1\r\nHost: web\r\nX-Odd:  kept \r\n\r\n").into_bytes()
}

pub(crate) fn post(path: &str, body: &[u8]) -> Vec<u8> {
    let n = body.len();
    let head = format!("POST {path} HTTP/1.1\r\nhost: web\r\ncontent-length: {n}\r\n\r\n");
    [head.as_bytes(), body].concat()
}

/// What an application of this name answers: the request.
pub(crate) fn echo(name: &str, status: u16, request: &[u8]) -> Vec<u8> {
    let n = request.len();
    let head = format!("HTTP/1.1 {status} X\r\nx-pod: {name}\r\ncontent-length: {n}\r\n\r\n");
    [head.as_bytes(), request].concat()
}

/// Every request that an application has heard.
pub(crate) type Heard = Arc<Mutex<Vec<Vec<u8>>>>;

/// An application that answers its requests with [`echo`], the n-th (from 0) with this status. With 0 it resets the
/// connection instead, and with 1 it says nothing.
pub(crate) async fn echoing(
    name: &'static str,
    status: impl Fn(usize) -> u16 + Clone + Send + 'static,
) -> (SocketAddr, Heard) {
    let heard = Heard::default();
    let hears = Arc::clone(&heard);
    let addr = application(move |stream| {
        let (heard, status) = (Arc::clone(&hears), status.clone());
        async move {
            let mut talk = Talk::new(stream);
            while let Some(request) = talk.hear().await {
                let n = {
                    let mut heard = heard.lock().expect("nobody has panicked");
                    heard.push(request.clone());
                    heard.len() - 1
                };
                match status(n) {
                    0 => {
                        let socket = socket2::SockRef::from(&talk.stream);
                        let lingers = socket.set_linger(Some(std::time::Duration::ZERO));
                        return lingers.expect("a socket option");
                    }
                    1 => std::future::pending().await,
                    status => talk.say(&echo(name, status, &request)).await,
                }
            }
        }
    });
    (addr.await, heard)
}
