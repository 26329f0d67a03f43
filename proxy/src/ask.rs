//! One request to the admin port of the proxy in this pod, over loopback: what `wait` and `shutdown` are made of.
//! They know what to ask and what to make of the answer; this knows only how it is sent and read.

use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream};
use std::time::Duration;

/// Most that is read of an answer, in bytes.
const MAX_ANSWER: u64 = 64 * 1024;

/// What the admin port said.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Answer {
    /// The first line, such as `HTTP/1.0 200 OK`.
    pub(crate) status: String,
    /// The body, without the white space at its end.
    pub(crate) body: String,
}

impl Answer {
    /// Whether it was done.
    pub(crate) fn is_ok(&self) -> bool {
        self.status.split(' ').nth(1) == Some("200")
    }
}

/// Sends a request without a body, such as `GET /live`. Connecting, sending and receiving may each take `patience`.
///
/// # Errors
/// When nobody listens, or says anything in time.
pub(crate) fn ask(addr: SocketAddr, request: &str, patience: Duration) -> io::Result<Answer> {
    let addr = reachable(addr);
    let mut stream = TcpStream::connect_timeout(&addr, patience)?;
    stream.set_write_timeout(Some(patience))?;
    stream.set_read_timeout(Some(patience))?;
    // HTTP/1.0, so that the answer ends with the connection.
    let head = format!("{request} HTTP/1.0\r\nHost: {addr}\r\nContent-Length: 0\r\n\r\n");
    stream.write_all(head.as_bytes())?;
    let mut answer = Vec::new();
    stream.take(MAX_ANSWER).read_to_end(&mut answer)?;
    if answer.is_empty() {
        return Err(io::Error::new(
            io::ErrorKind::UnexpectedEof,
            "it closed the connection without an answer",
        ));
    }
    let answer = String::from_utf8_lossy(&answer);
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
    Ok(Answer {
        status: head.lines().next().unwrap_or_default().to_owned(),
        body: body.trim_end().to_owned(),
    })
}

/// A listener on any address is reached by loopback: by IPv4, because `[::]` means that too, and not every pod has
/// IPv6.
fn reachable(addr: SocketAddr) -> SocketAddr {
    let ip = match addr.ip() {
        ip if ip.is_unspecified() => IpAddr::from(Ipv4Addr::LOCALHOST),
        ip => ip,
    };
    SocketAddr::new(ip, addr.port())
}

#[cfg(test)]
pub(crate) mod tests {
    use std::net::TcpListener;
    use std::thread::JoinHandle;

    use super::*;

    const PATIENCE: Duration = Duration::from_secs(10);

    /// Gives these answers, one to a connection, and ends with the requests.
    pub(crate) fn answering(
        answers: &'static [&'static str],
    ) -> (SocketAddr, JoinHandle<Vec<String>>) {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let addr = listener.local_addr().unwrap();
        let asked = std::thread::spawn(move || {
            let one = |answer: &&str| {
                let (mut stream, _) = listener.accept().unwrap();
                let mut request = [0; 1024];
                let n = stream.read(&mut request).unwrap();
                stream.write_all(answer.as_bytes()).unwrap();
                String::from_utf8_lossy(&request[..n]).into_owned()
            };
            answers.iter().map(one).collect()
        });
        (addr, asked)
    }

    #[test]
    fn what_is_answered_is_told() {
        let (addr, asked) = answering(&["HTTP/1.0 200 OK\r\nA: b\r\n\r\nlive\n"]);
        let answer = ask(addr, "GET /live", PATIENCE).unwrap();
        assert!(answer.is_ok());
        assert_eq!(answer.body, "live");
        let asked = asked.join().unwrap();
        assert!(
            asked[0].starts_with("GET /live HTTP/1.0\r\nHost: "),
            "{asked:?}"
        );
        let (addr, _asked) = answering(&["HTTP/1.1 404 Not Found\r\n\r\nnot found\n"]);
        assert!(!ask(addr, "GET /live", PATIENCE).unwrap().is_ok());
    }

    #[test]
    fn no_answer_is_an_error() {
        let (addr, _asked) = answering(&[""]);
        let error = ask(addr, "GET /live", PATIENCE).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
        assert!(ask(crate::ports::free(), "GET /live", PATIENCE).is_err());
    }

    #[test]
    fn loopback_stands_for_any_address() {
        for (given, used) in [
            ("0.0.0.0:1", "127.0.0.1:1"),
            ("[::]:1", "127.0.0.1:1"),
            ("[::1]:1", "[::1]:1"),
            ("10.0.0.1:1", "10.0.0.1:1"),
        ] {
            assert_eq!(reachable(given.parse().unwrap()).to_string(), used);
        }
    }
}
