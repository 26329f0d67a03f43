//! `weir-proxy wait`: ends once the proxy of this pod serves. Called by `main`; the webhook makes it the
//! proxy's postStart hook, so that the kubelet starts what comes after the proxy only then. Asks over
//! loopback as any client would, and knows nothing of the proxy's insides.

use std::net::{Ipv4Addr, SocketAddr};
use std::thread::sleep;
use std::time::{Duration, Instant};

use weir_crds::{duration, ports};

use crate::ask::ask;

/// How often the proxy is asked; it binds its listeners within some tens of milliseconds.
const INTERVAL: Duration = Duration::from_millis(10);

/// How long one answer may take.
const PATIENCE: Duration = Duration::from_secs(1);

/// The flags of `weir-proxy wait`.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// The proxy's admin server; loopback stands for `[::]` and `0.0.0.0`
    #[arg(
        long,
        env = "WEIR_ADMIN_ADDR",
        value_name = "IP:PORT",
        default_value_t = SocketAddr::from((Ipv4Addr::LOCALHOST, ports::ADMIN))
    )]
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
    last: String,
}

/// Waits until `/live` answers 200: every listener is bound.
pub fn run(args: &Args) -> Result<(), NotLive> {
    let deadline = Instant::now() + args.timeout;
    loop {
        let last = match ask(args.admin_addr, "GET /live", PATIENCE) {
            Ok(answer) if answer.is_ok() => return Ok(()),
            Ok(answer) => format!("{}: {}", answer.status, answer.body),
            Err(error) => error.to_string(),
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

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;
    use std::time::Duration;

    use super::{Args, run};
    use crate::ask::tests::answering;
    use crate::ports::free;

    fn args(admin_addr: SocketAddr, timeout: Duration) -> Args {
        Args {
            admin_addr,
            timeout,
            best_effort: false,
        }
    }

    #[test]
    fn a_proxy_that_becomes_live_is_waited_for() {
        let (addr, asked) = answering(&[
            "HTTP/1.0 503 Service Unavailable\r\n\r\n",
            "HTTP/1.0 200 OK\r\n\r\n",
        ]);
        run(&args(addr, Duration::from_secs(30))).unwrap();
        asked.join().unwrap();
    }

    #[test]
    fn a_proxy_that_is_not_there_fails_and_best_effort_does_not() {
        let addr = free();
        let mut args = args(addr, Duration::from_millis(40));
        let error = run(&args).unwrap_err().to_string();
        assert!(error.contains(&format!("http://{addr}/live")), "{error}");
        args.best_effort = true;
        run(&args).unwrap();
    }
}
