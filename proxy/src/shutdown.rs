//! `weir-proxy shutdown`: asks the proxy of this pod to drain and end, from a container that has neither a shell nor
//! curl. Called by `main`; it speaks to the admin port over loopback and knows nothing of the process there.

use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::time::Duration;

use weir_crds::ports;

/// How long each of connecting, sending and receiving may take.
pub const TIMEOUT: Duration = Duration::from_secs(5);
/// Most that is read of the answer, in bytes.
const MAX_ANSWER: u64 = 64 * 1024;

/// The flags of `weir-proxy shutdown`.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// Where the proxy serves its admin port; loopback stands for `[::]` and `0.0.0.0`
    #[arg(
        long,
        value_name = "IP:PORT",
        env = "WEIR_ADMIN_ADDR",
        default_value_t = SocketAddr::from((Ipv4Addr::LOCALHOST, ports::ADMIN))
    )]
    pub admin_addr: SocketAddr,
}

/// Why the proxy may go on as before.
#[derive(Debug, thiserror::Error)]
pub enum ShutdownError {
    #[error("cannot reach the proxy's admin port at {addr} (--admin-addr): {error}")]
    Unreachable { addr: SocketAddr, error: io::Error },
    #[error("no answer from the admin port at {addr}: {error}")]
    NoAnswer { addr: SocketAddr, error: io::Error },
    #[error("refused by {addr}: {answer}")]
    Refused { addr: SocketAddr, answer: String },
}

/// Asks, and prints what was answered.
///
/// # Errors
/// When nobody answers, or something else than 200.
pub fn run(args: &Args) -> Result<(), ShutdownError> {
    println!("{}", request(args)?);
    Ok(())
}

fn request(args: &Args) -> Result<String, ShutdownError> {
    let addr = SocketAddr::new(reachable(args.admin_addr.ip()), args.admin_addr.port());
    let stream = TcpStream::connect_timeout(&addr, TIMEOUT)
        .map_err(|error| ShutdownError::Unreachable { addr, error })?;
    let answer = ask(stream, addr).map_err(|error| ShutdownError::NoAnswer { addr, error })?;
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
    let status = head.lines().next().unwrap_or_default();
    if status.split(' ').nth(1) == Some("200") {
        return Ok(body.trim_end().to_owned());
    }
    Err(ShutdownError::Refused {
        addr,
        answer: format!("{status}: {}", body.trim_end()),
    })
}

/// A listener on any address is reached by loopback.
fn reachable(ip: IpAddr) -> IpAddr {
    match ip {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        // IPv4, because `[::]` means that too, and not every pod has IPv6.
        IpAddr::V6(ip) if ip == Ipv6Addr::UNSPECIFIED => Ipv4Addr::LOCALHOST.into(),
        ip => ip,
    }
}

/// HTTP/1.0, so that the answer ends with the connection.
fn ask(mut stream: TcpStream, addr: SocketAddr) -> io::Result<String> {
    stream.set_write_timeout(Some(TIMEOUT))?;
    stream.set_read_timeout(Some(TIMEOUT))?;
    let request = format!("POST /shutdown HTTP/1.0\r\nHost: {addr}\r\nContent-Length: 0\r\n\r\n");
    stream.write_all(request.as_bytes())?;
    let mut answer = Vec::new();
    stream.take(MAX_ANSWER).read_to_end(&mut answer)?;
    if answer.is_empty() {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok(String::from_utf8_lossy(&answer).into_owned())
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    fn answered(answer: &'static str) -> (Result<String, ShutdownError>, String) {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let admin_addr = listener.local_addr().unwrap();
        let asked = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut request = [0; 1024];
            let n = stream.read(&mut request).unwrap();
            stream.write_all(answer.as_bytes()).unwrap();
            String::from_utf8_lossy(&request[..n]).into_owned()
        });
        (request(&Args { admin_addr }), asked.join().unwrap())
    }

    #[test]
    fn what_is_answered_is_told() {
        let (told, asked) = answered("HTTP/1.0 200 OK\r\n\r\ndraining\n");
        assert_eq!(told.unwrap(), "draining");
        assert!(asked.starts_with("POST /shutdown HTTP/1.0\r\n"), "{asked}");
        let (told, _) = answered("HTTP/1.1 404 Not Found\r\n\r\nnot found\n");
        let error = told.unwrap_err().to_string();
        assert!(
            error.ends_with("HTTP/1.1 404 Not Found: not found"),
            "{error}"
        );
        let (told, _) = answered("");
        assert!(matches!(told, Err(ShutdownError::NoAnswer { .. })));
    }

    #[test]
    fn nobody_there_is_a_clear_error() {
        let free = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let admin_addr = free.local_addr().unwrap();
        drop(free);
        let error = run(&Args { admin_addr }).unwrap_err().to_string();
        assert!(
            error.contains("--admin-addr") && error.contains(&admin_addr.to_string()),
            "{error}"
        );
    }

    #[test]
    fn loopback_stands_for_any_address() {
        for (given, used) in [
            ("0.0.0.0", "127.0.0.1"),
            ("::", "127.0.0.1"),
            ("::1", "::1"),
            ("10.0.0.1", "10.0.0.1"),
        ] {
            assert_eq!(
                reachable(given.parse().unwrap()),
                used.parse::<IpAddr>().unwrap()
            );
        }
    }
}
