//! `weir-proxy wait`: ends once the proxy of this pod serves. Called by `main`; the webhook makes it the
//! proxy's postStart hook, so that the kubelet starts what comes after the proxy only then. Asks over
//! loopback as any client would, and knows nothing of the proxy's insides.

use std::io::{self, BufRead, BufReader, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::thread::sleep;
use std::time::{Duration, Instant};

use weir_crds::{duration, ports};

/// How often the proxy is asked; it binds its listeners within some tens of milliseconds.
const INTERVAL: Duration = Duration::from_millis(10);

/// How long one answer may take.
const PATIENCE: Duration = Duration::from_secs(1);

/// The flags of `weir-proxy wait`.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// The proxy's admin server
    #[arg(long, value_name = "IP:PORT", default_value_t = SocketAddr::from((Ipv4Addr::LOCALHOST, ports::ADMIN)))]
    pub admin_addr: SocketAddr,

    /// How long to wait
    #[arg(long, value_name = "DURATION", default_value = "30s", value_parser = duration::parse)]
    pub timeout: Duration,

    /// Succeed at the timeout, too: the pod goes on, unmeasured until the proxy serves
    #[arg(long)]
    pub best_effort: bool,
}

/// Why the proxy was not there in time.
#[derive(Debug, thiserror::Error)]
#[error(
    "the proxy does not answer at http://{addr}/live after {timeout:?}: {last}; its log says why"
)]
pub struct NotLive {
    addr: SocketAddr,
    timeout: Duration,
    last: io::Error,
}

/// Waits until `/live` answers 200: every listener is bound.
pub fn run(args: &Args) -> Result<(), NotLive> {
    let deadline = Instant::now() + args.timeout;
    loop {
        let Err(last) = ask(args.admin_addr) else {
            return Ok(());
        };
        if Instant::now() + INTERVAL < deadline {
            sleep(INTERVAL);
            continue;
        }
        let late = NotLive {
            addr: args.admin_addr,
            timeout: args.timeout,
            last,
        };
        if !args.best_effort {
            return Err(late);
        }
        eprintln!("weir-proxy: {late}");
        return Ok(());
    }
}

fn ask(addr: SocketAddr) -> io::Result<()> {
    let mut stream = TcpStream::connect_timeout(&addr, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    stream.write_all(b"GET /live HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")?;
    let mut status = String::new();
    BufReader::new(stream).read_line(&mut status)?;
    match status.split(' ').nth(1) {
        Some("200") => Ok(()),
        _ => Err(io::Error::other(format!("it says {:?}", status.trim_end()))),
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::{Ipv4Addr, SocketAddr, TcpListener};
    use std::thread::JoinHandle;
    use std::time::Duration;

    use super::{Args, run};

    fn args(admin_addr: SocketAddr, timeout: Duration) -> Args {
        Args {
            admin_addr,
            timeout,
            best_effort: false,
        }
    }

    fn answers(listener: TcpListener, statuses: &'static [&'static str]) -> JoinHandle<()> {
        std::thread::spawn(move || {
            for status in statuses {
                let (mut stream, _) = listener.accept().unwrap();
                let _request = stream.read(&mut [0; 256]).unwrap();
                write!(stream, "HTTP/1.1 {status}\r\ncontent-length: 0\r\n\r\n").unwrap();
            }
        })
    }

    fn listener() -> (TcpListener, SocketAddr) {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let addr = listener.local_addr().unwrap();
        (listener, addr)
    }

    #[test]
    fn a_proxy_that_becomes_live_is_waited_for() {
        let (listener, addr) = listener();
        let server = answers(listener, &["503 Service Unavailable", "200 OK"]);
        run(&args(addr, Duration::from_secs(30))).unwrap();
        server.join().unwrap();
    }

    #[test]
    fn a_proxy_that_is_not_there_fails_and_best_effort_does_not() {
        let (listener, addr) = listener();
        drop(listener);
        let mut args = args(addr, Duration::from_millis(40));
        let error = run(&args).unwrap_err().to_string();
        assert!(error.contains(&format!("http://{addr}/live")), "{error}");
        args.best_effort = true;
        run(&args).unwrap();
    }
}
